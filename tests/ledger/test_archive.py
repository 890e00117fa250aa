"""Archives: what is exported arrives whole on another machine, and nothing else gets into its ledger."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.archive import Imported, export_runs, import_runs
from hyla_repro.ledger.runs import CURVE, MODEL, RESULT, Ledger

Make = Callable[..., Experiment]


@pytest.fixture
def there(tmp_path: Path) -> Ledger:
    """The ledger of another machine."""
    return Ledger(tmp_path / "there")


def finish(ledger: Ledger, run: Experiment, size: int = 100) -> None:
    ledger.commit(run, {MODEL: bytes(size), CURVE: b"step\n"}, {"scores": {}})


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_runs_arrive_as_they_were(ledger: Ledger, there: Ledger, make_run: Make, tmp_path: Path) -> None:
    done, paused, diverged, missing = (make_run(seed=seed) for seed in range(4))
    finish(ledger, done)
    for step in (3, 20, 100):
        ledger.save_checkpoint(paused, step, f"state at {step}".encode())
    ledger.mark_diverged(diverged, {"step": 3})
    paths = export_runs([done, paused, diverged, missing], ledger, tmp_path / "out")
    assert [path.name for path in paths] == ["runs-000.tar"]
    assert import_runs(paths, there) == Imported(2, 1, 0)
    runs = [done, paused, diverged, missing]
    assert [there.state(run) for run in runs] == ["done", "paused", "diverged", "missing"]
    assert there.read(done, MODEL) == ledger.read(done, MODEL)
    assert there.load_checkpoints(paused) == ([b"state at 100"], [])
    assert import_runs(paths, there) == Imported(1, 0, 2)


def test_what_is_further_here_stays(ledger: Ledger, there: Ledger, make_run: Make, tmp_path: Path) -> None:
    ahead, finished = make_run(seed=0), make_run(seed=1)
    for run in (ahead, finished):
        ledger.save_checkpoint(run, 20, b"state at 20")
    there.save_checkpoint(ahead, 30, b"state at 30")
    finish(there, finished)
    assert import_runs(export_runs([ahead, finished], ledger, tmp_path / "out"), there) == Imported(0, 0, 2)
    assert there.load_checkpoints(ahead)[0] == [b"state at 30"]
    assert there.state(finished) == "done"


def test_parts_are_closed_at_their_size(ledger: Ledger, there: Ledger, make_run: Make, tmp_path: Path) -> None:
    runs = [make_run(seed=seed) for seed in range(5)]
    for run in runs:
        finish(ledger, run, size=40_000)
    paths = export_runs(runs, ledger, tmp_path / "out", part_bytes=60_000)
    assert len(paths) == 3
    assert import_runs(paths[:2], there).finished == 4
    assert import_runs(paths, there) == Imported(1, 0, 4)
    with pytest.raises(FileExistsError, match="holds exported runs already"):
        export_runs(runs, ledger, tmp_path / "out")


@given(st.data())
def test_any_flipped_bit_is_found_before_anything_is_written(
    ledger: Ledger, there: Ledger, run: Experiment, tmp_path: Path, data: st.DataObject
) -> None:
    if not (tmp_path / "out").exists():
        finish(ledger, run)
        export_runs([run], ledger, tmp_path / "out")
    content = bytearray((tmp_path / "out" / "runs-000.tar").read_bytes())
    with tarfile.open(tmp_path / "out" / "runs-000.tar") as archive:
        member = data.draw(st.sampled_from(archive.getmembers()))
    place = member.offset_data + data.draw(st.integers(0, member.size - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(bytes(content))
    with pytest.raises(DataError):
        import_runs([damaged], there)
    assert not there.root.exists()


@pytest.mark.parametrize("length", [0, 100, 511, 512, 700, 2000, 512 + 3072, 512 + 3072 + 1024])
def test_cut_archives_are_refused(length: int, ledger: Ledger, there: Ledger, run: Experiment, tmp_path: Path) -> None:
    finish(ledger, run, size=3000)
    (path,) = export_runs([run], ledger, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError):
        import_runs([path], there)
    assert not there.root.exists()


def named(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


FOLDER = "fuzzy_logic-hyla-0123456789ab"


@pytest.mark.parametrize(
    "member",
    [
        named("../outside"), named("/etc/passwd"), named(f"{FOLDER}/../../outside"), named(f"{FOLDER}/run.pickle"),
        named(f"{FOLDER}/a/{RESULT}"), named(RESULT), named(f"{FOLDER}/{RESULT}", tarfile.SYMTYPE, "/etc/passwd"),
        named(f"{FOLDER}/{RESULT}", tarfile.LNKTYPE, "/etc/passwd"), named(f"{FOLDER}/{RESULT}", tarfile.FIFOTYPE),
        named(FOLDER, tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type!r}",
)  # fmt: skip
def test_what_no_export_writes_is_refused(member: tarfile.TarInfo, there: Ledger, tmp_path: Path) -> None:
    path = pack(tmp_path / "hostile.tar", (member, b""))
    with pytest.raises(DataError, match="which is no file of a run"):
        import_runs([path], there)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["hostile.tar"]


def test_result_under_another_name_is_refused(ledger: Ledger, there: Ledger, run: Experiment, tmp_path: Path) -> None:
    finish(ledger, run)
    files = [(named(f"{FOLDER}/{name}"), (ledger.folder(run) / name).read_bytes()) for name in (MODEL, CURVE, RESULT)]
    with pytest.raises(DataError, match="not what its result recorded"):
        import_runs([pack(tmp_path / "renamed.tar", *files)], there)
    assert not there.root.exists()
