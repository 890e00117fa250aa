"""Promise 4: hostile files are refused and never executed, and the sources could not execute one."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.files import sha256
from hyla_repro.ledger.archive import import_runs
from hyla_repro.ledger.data_folder import MANIFEST, RUNS, DataFolder
from hyla_repro.ledger.runs import Ledger, checkpoint_name
from hyla_repro.models.transformer import load_model
from hyla_repro.results.store import Store
from hyla_repro.training.loop import train

ROOT = Path(__file__).parents[2]
Count = Callable[[bool], None]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def payloads(bomb: Bomb) -> dict[str, bytes]:
    torch_file, zipped, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(bomb, torch_file)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
    np.savez(arrays, weights=np.array([bomb], dtype=object))
    return {
        "pickle": pickle.dumps(bomb), "torch": torch_file.getvalue(), "zip": zipped.getvalue(), "npz": arrays.getvalue()
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip", "npz"])
def test_promise_04_hostile_files_never_execute(
    kind: str, run: Experiment, ledger: Ledger, tmp_path: Path, count: Count
) -> None:
    bomb = Bomb(tmp_path / "exploded")
    content = payloads(bomb)[kind]
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the parser says, as long as it only says so
        load_model(content, run.model)
    count(not bomb.path.exists())
    # Named as a sound checkpoint, so that its digest is no obstacle.
    ledger.folder(run).mkdir(parents=True)
    (ledger.folder(run) / checkpoint_name(5, content)).write_bytes(content)
    with pytest.raises(Exception):  # noqa: B017, PT011
        train([run], ledger, progress=False)
    count(not bomb.path.exists() and ledger.state(run) != "done")
    # Listed in a manifest with its own digest.
    (tmp_path / "data").mkdir()
    for name in (f"models/{run.id}.safetensors", RUNS):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    manifest = {name: sha256(content) for name in (f"models/{run.id}.safetensors", RUNS)}
    (tmp_path / "data" / MANIFEST).write_text(str(manifest).replace("'", '"'))
    assert DataFolder(tmp_path / "data").verify() == 2
    for use in (lambda store: load_model(store.model(run), run.model), lambda store: store.runs([run])):
        with pytest.raises(Exception):  # noqa: B017, PT011
            use(Store(tmp_path / "data", committed_only=True))
        count(not bomb.path.exists())
    path = tmp_path / "runs-000.tar"
    path.write_bytes(content)
    with pytest.raises(DataError):
        import_runs([path], Ledger(tmp_path / "there"))
    count(not bomb.path.exists())


def test_promise_04_the_payloads_would_explode(tmp_path: Path, count: Count) -> None:
    """Or the test above would show nothing."""
    for kind, content in payloads(Bomb(tmp_path / "exploded")).items():
        if kind == "pickle":
            pickle.loads(content)
        elif kind == "torch":
            torch.load(io.BytesIO(content), weights_only=False)
        elif kind == "zip":
            pickle.loads(zipfile.ZipFile(io.BytesIO(content)).read("archive/data.pkl"))
        else:
            np.load(io.BytesIO(content), allow_pickle=True)["weights"]
        count((tmp_path / "exploded").exists())
        (tmp_path / "exploded").rmdir()


def test_promise_04_sources_have_no_way_to_execute_one(count: Count) -> None:
    forbidden = re.compile(
        r"weights_only\s*=\s*False|allow_pickle\s*=\s*True|\bc?[Pp]ickle\b|\bdill\b|\bjoblib\b|(?<![.])\beval\("
    )
    for path in [
        *(ROOT / "hyla_repro").rglob("*.py"),
        *(ROOT / "book").glob("*.ipynb"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        lines = [line for line in path.read_text().splitlines() if forbidden.search(line) and "no pickle" not in line]
        count(not lines)
