"""Promise 11: every byte of data/ is listed by digest, and checked before it is used."""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyla_repro import paths
from hyla_repro.cli import main
from hyla_repro.errors import DataError
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.results.store import Store
from hyla_repro.studies import experiments

Count = Callable[[bool], None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the committed results."""
    return Path(shutil.copytree(paths.DATA, tmp_path / "data"))


def test_promise_11_any_change_of_the_committed_files_is_found(data: Path, count: Count) -> None:
    choose = random.Random(11)
    files = sorted(data / name for name in DataFolder(data).manifest())
    count(DataFolder(data).verify() == len(files))
    for path in files:
        good = path.read_bytes()
        flipped = bytearray(good)
        flipped[choose.randrange(len(good))] ^= 1 << choose.randrange(8)
        for content in (bytes(flipped), good[:-1], None):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            with pytest.raises(DataError) as caught:
                DataFolder(data).verify()
            count(str(path) in str(caught.value) and "git checkout data" in str(caught.value))
            path.write_bytes(good)
    (data / "stray.csv").write_text("")
    with pytest.raises(DataError, match=r"stray\.csv"):
        DataFolder(data).verify()
    count(True)


def test_promise_11_altered_results_are_not_drawn(
    data: Path, count: Count, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = data / "runs.csv"
    table.write_bytes(table.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(DataError, match=r"runs\.csv was altered"):
        Store(data, committed_only=True).runs(experiments("fig2c", "laptop"))
    count(True)
    monkeypatch.setattr(paths, "DATA", data)
    monkeypatch.setattr(sys, "argv", ["hyla-repro", "verify"])
    with pytest.raises(SystemExit) as caught:
        main()
    count(caught.value.code == 2 and "runs.csv was altered" in capsys.readouterr().err)
