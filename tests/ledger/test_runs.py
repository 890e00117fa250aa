"""The ledger: atomic files, states, verified results, checkpoints that survive damage, and locks."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.files import sha256, write_atomically
from hyla_repro.ledger.runs import CURVE, MODEL, RESULT, Ledger, RunLockedError

ROOT = Path(__file__).parents[2]
FILES = {MODEL: b"weights of the model", CURVE: b"step,loss\n1,0.5\n"}
FACTS = {"scores": {"test": 0.8125}, "train_loss": 0.015625, "minutes": 1.5}

Make = Callable[..., Experiment]


def commit(ledger: Ledger, run: Experiment) -> Path:
    ledger.commit(run, FILES, FACTS)
    return ledger.folder(run)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- atomic files -------------------------------------------------------------------------------------------


def test_write_creates_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"
    assert names(path.parent) == {"file.bin"}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failed_write_leaves_the_old_content_and_no_litter(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file.bin"}


def test_content_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed first, a power cut could leave the name with an empty file."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(number: int) -> None:
        events.append(f"fsync of {os.fstat(number).st_size} bytes")
        fsync(number)

    def note_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(tmp_path / "file.bin", b"12345")
    assert events[:2] == ["fsync of 5 bytes", "replace"]


def test_interrupted_commit_is_no_result(ledger: Ledger, run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """result.json comes last: without it the other files count for nothing, and the checkpoint is still there."""
    ledger.save_checkpoint(run, 30, b"state")

    def fail_on_result(path: Path, content: bytes) -> None:
        if path.name == RESULT:
            raise OSError("cut")
        write_atomically(path, content)

    monkeypatch.setattr("hyla_repro.ledger.runs.write_atomically", fail_on_result)
    with pytest.raises(OSError, match="cut"):
        commit(ledger, run)
    assert ledger.state(run) == "paused"
    assert ledger.load_checkpoints(run) == ([b"state"], [])


# --- states -------------------------------------------------------------------------------------------------


def test_states_of_a_run(ledger: Ledger, run: Experiment) -> None:
    assert ledger.state(run) == "missing"
    with ledger.lock(run):
        assert ledger.state(run) == "training"
        ledger.save_checkpoint(run, 30, b"state")
        assert ledger.state(run) == "training"
    assert ledger.state(run) == "paused"
    folder = commit(ledger, run)
    assert ledger.state(run) == "done"
    assert names(folder) == {MODEL, CURVE, RESULT, "lock"}
    (folder / MODEL).write_bytes(b"other weights")
    assert ledger.state(run) == "damaged"
    commit(ledger, run)
    assert ledger.state(run) == "done"


def test_asking_for_the_state_writes_nothing(ledger: Ledger, run: Experiment) -> None:
    ledger.state(run)
    assert ledger.holder(run) is None
    assert not ledger.root.exists()


def test_diverged_run_is_never_a_result(ledger: Ledger, run: Experiment) -> None:
    ledger.save_checkpoint(run, 30, b"state")
    ledger.mark_diverged(run, {"error": "loss is nan", "step": 31})
    assert ledger.state(run) == "diverged"
    assert json.loads((ledger.folder(run) / "diverged.json").read_text())["step"] == 31
    with pytest.raises(DataError):
        ledger.result(run)


def test_runs_do_not_share_folders(ledger: Ledger, make_run: Make) -> None:
    runs = [make_run(variant, seed) for variant in ("hyla", "linear") for seed in (0, 1)]
    folders = {ledger.folder(run) for run in runs}
    assert len(folders) == 4
    commit(ledger, runs[0])
    assert [ledger.state(run) for run in runs] == ["done", "missing", "missing", "missing"]
    assert ledger.folder(runs[0]).name == f"fuzzy_logic-hyla-{runs[0].id}"


def test_default_root_is_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "elsewhere"))
    assert Ledger().root == tmp_path / "elsewhere"
    monkeypatch.delenv("HYLA_REPRO_RUNS")
    assert Ledger().root == ROOT / "runs"


# --- results are what was stored, or an error ---------------------------------------------------------------


def test_result_holds_facts_experiment_and_digests(ledger: Ledger, run: Experiment) -> None:
    commit(ledger, run)
    result = ledger.result(run)
    assert {key: result[key] for key in FACTS} == FACTS
    assert Experiment.model_validate(result["experiment"]) == run
    assert result["files"] == {name: sha256(content) for name, content in FILES.items()}
    assert ledger.read(run, MODEL) == FILES[MODEL]
    assert ledger.read(run, CURVE) == FILES[CURVE]


def assert_damaged(ledger: Ledger, run: Experiment, name: str) -> None:
    assert ledger.state(run) == "damaged"
    for read in (lambda: ledger.result(run), lambda: ledger.read(run, MODEL)):
        with pytest.raises(DataError, match=rf"{name}.*delete .*{run.id} and run again, or restore the file"):
            read()


@pytest.mark.parametrize("name", [MODEL, CURVE])
@given(data=st.data())
def test_any_flipped_bit_of_a_file_is_detected(name: str, ledger: Ledger, run: Experiment, data: st.DataObject) -> None:
    path = commit(ledger, run) / name
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    assert_damaged(ledger, run, name)


@given(data=st.data())
def test_any_flipped_bit_of_the_result_is_detected(ledger: Ledger, run: Experiment, data: st.DataObject) -> None:
    """The scores stand in this file: an altered digit is an altered result."""
    path = commit(ledger, run) / RESULT
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    assert_damaged(ledger, run, RESULT)


def test_an_altered_score_is_detected(ledger: Ledger, run: Experiment) -> None:
    path = commit(ledger, run) / RESULT
    text = path.read_text()
    assert "0.8125" in text
    path.write_text(text.replace("0.8125", "0.9125"))
    assert_damaged(ledger, run, RESULT)


@pytest.mark.parametrize("name", [MODEL, CURVE, RESULT])
@pytest.mark.parametrize("damage", ["truncate", "empty", "append"])
def test_files_of_other_length_are_detected(name: str, damage: str, ledger: Ledger, run: Experiment) -> None:
    path = commit(ledger, run) / name
    content = path.read_bytes()
    path.write_bytes({"truncate": content[:-2], "empty": b"", "append": content + b"}"}[damage])
    assert_damaged(ledger, run, name)


@pytest.mark.parametrize("name", [MODEL, CURVE])
def test_a_file_that_is_gone_is_detected(name: str, ledger: Ledger, run: Experiment) -> None:
    (commit(ledger, run) / name).unlink()
    assert_damaged(ledger, run, name)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", "1", '{"files": null}', '{"files": []}', '{"files": {"a": 1}}']
)
def test_json_of_another_form_is_damage(content: str, ledger: Ledger, run: Experiment) -> None:
    (commit(ledger, run) / RESULT).write_text(content)
    assert_damaged(ledger, run, RESULT)


def test_result_of_another_run_is_detected(ledger: Ledger, make_run: Make) -> None:
    run, other = make_run(seed=0), make_run(seed=1)
    commit(ledger, run)
    commit(ledger, other)
    for name in (*FILES, RESULT):
        (ledger.folder(run) / name).write_bytes((ledger.folder(other) / name).read_bytes())
    assert ledger.state(run) == "damaged"
    assert ledger.state(other) == "done"
    with pytest.raises(DataError, match=f"belongs to run {other.id}, not {run.id}"):
        ledger.result(run)


def test_missing_result_is_named(ledger: Ledger, run: Experiment) -> None:
    with pytest.raises(DataError, match=rf"{run.id}/{RESULT} cannot be read \(.*No such file"):
        ledger.result(run)


# --- checkpoints --------------------------------------------------------------------------------------------


def test_newest_two_checkpoints_are_kept_and_come_first(ledger: Ledger, run: Experiment) -> None:
    assert ledger.load_checkpoints(run) == ([], [])
    expected: list[bytes] = []
    for step in (5, 30, 200, 10_000):
        ledger.save_checkpoint(run, step, content := f"state at {step}".encode())
        expected.insert(0, content)
        assert ledger.load_checkpoints(run) == (expected[:2], [])
    assert len(list(ledger.folder(run).glob("checkpoint-*"))) == 2
    commit(ledger, run)
    assert ledger.load_checkpoints(run) == ([], [])


@given(st.integers(0, 8 * len(b"state at 30") - 1))
def test_damaged_checkpoint_falls_back_to_the_previous(ledger: Ledger, run: Experiment, bit: int) -> None:
    ledger.save_checkpoint(run, 20, b"state at 20")
    ledger.save_checkpoint(run, 30, b"state at 30")
    newest = max(ledger.folder(run).glob("checkpoint-*"))
    content = bytearray(newest.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    newest.write_bytes(bytes(content))
    assert ledger.load_checkpoints(run) == ([b"state at 20"], [newest])
    newest.write_bytes(b"")
    assert ledger.load_checkpoints(run) == ([b"state at 20"], [newest])


def test_only_damaged_checkpoints_mean_starting_again(ledger: Ledger, run: Experiment) -> None:
    ledger.save_checkpoint(run, 20, b"state at 20")
    ledger.save_checkpoint(run, 30, b"state at 30")
    paths = sorted(ledger.folder(run).glob("checkpoint-*"), reverse=True)
    for path in paths:
        path.write_bytes(b"state of nothing")
    assert ledger.load_checkpoints(run) == ([], paths)


# --- locks --------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
with Ledger(Path(sys.argv[1])).lock(Experiment.model_validate_json(sys.argv[2])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_lock_names_its_holder_and_ends_with_it(ledger: Ledger, run: Experiment) -> None:
    command = [sys.executable, "-c", HOLD, str(ledger.root), run.model_dump_json()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            assert ledger.state(run) == "training"
            with pytest.raises(RunLockedError, match=rf"is being trained by process {holder.pid} on "):
                ledger.lock(run).__enter__()
            assert ledger.holder(run).pid == holder.pid
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert ledger.state(run) == "missing"
    assert ledger.holder(run) is None
    with ledger.lock(run):
        assert str(ledger.holder(run)).startswith(f"process {os.getpid()} on ")
    assert ledger.holder(run) is None


def test_lock_is_released_after_an_error(ledger: Ledger, run: Experiment) -> None:
    with pytest.raises(KeyError, match="in the middle"), ledger.lock(run):
        raise KeyError("in the middle")
    with ledger.lock(run):
        assert ledger.state(run) == "training"


def test_lock_within_one_process_is_exclusive(ledger: Ledger, run: Experiment, make_run: Make) -> None:
    with ledger.lock(run):
        with pytest.raises(RunLockedError, match=f"seed=0 .*{run.id}.* is being trained by process {os.getpid()}"):
            ledger.lock(run).__enter__()
        with ledger.lock(make_run(seed=1)):
            assert ledger.state(make_run(seed=1)) == "training"


def test_looking_at_a_run_never_refuses_its_lock(
    ledger: Ledger, run: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process asks for the state of all runs before it starts one: asking must not look like training."""
    with ledger.lock(run):
        pass
    outcome: list[str] = []

    def attempt() -> None:
        try:
            with ledger.lock(run):
                outcome.append("locked")
        except RunLockedError as error:
            outcome.append(str(error))

    other, flock = threading.Thread(target=attempt), fcntl.flock

    def look_slowly(file: object, operation: int) -> None:
        """Let the other one try at the worst moment, while the lock file is being looked at."""
        flock(file, operation)
        if threading.current_thread() is threading.main_thread() and other.ident is None:
            other.start()
            time.sleep(0.02)

    monkeypatch.setattr(fcntl, "flock", look_slowly)
    assert ledger.holder(run) is None
    if other.ident is None:
        other.start()
    other.join()
    assert outcome == ["locked"]
