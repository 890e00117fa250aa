"""A worker notes how its command went, and asks for another start exactly when work is left and nobody cancelled."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyla_repro.cluster.submission import Submission
from hyla_repro.cluster.worker import log_file, read_note

Make = Callable[..., Submission]
Put = Callable[[str, str], Path]


@pytest.fixture
def folder(make_submission: Make, tmp_path: Path) -> Path:
    return make_submission(margin=2.0).write(tmp_path / "submissions")


def start(folder: Path, command: str) -> "subprocess.Popen[bytes]":
    worker = [sys.executable, "-m", "hyla_repro.cluster.worker", str(folder), "1", "sh", "-c", command]
    with (folder.parent / "said").open("w") as said:
        return subprocess.Popen(worker, stderr=said)


@pytest.mark.parametrize(
    ("command", "code", "state"),
    [
        ("exit 0", 0, "done"),
        ("exit 74", 74, "failed"),
        ("exit 75", 75, "paused"),
        ("kill -9 $$", 75, "paused"),
        ("kill -TERM $$; exit 143", 75, "paused"),
    ],
)
def test_codes_of_commands_and_workers(folder: Path, command: str, code: int, state: str) -> None:
    assert start(folder, f"echo hello; {command}").wait(60) == code
    note = read_note(folder, "1")
    assert (note.state, note.starts) == (state, 1)
    assert log_file(folder, "1").read_text() == "hello\n"


def test_a_folder_that_is_not_seen_is_named_with_the_machine(tmp_path: Path) -> None:
    assert start(tmp_path / "elsewhere", "exit 0").wait(60) == 1
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert f"does not see {tmp_path / 'elsewhere'} (No such file or directory): put the runs where every node" in line


@pytest.fixture
def slurm(program: Put, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As part 1 of job array 7; returns what scontrol was called with."""
    for name, value in {"JOB_ID": "8", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return program("scontrol", "")


def test_work_that_is_left_is_asked_for_again(folder: Path, slurm: Path) -> None:
    for starts in (1, 2, 3, 4, 5):
        assert start(folder, "exit 75").wait(60) == 75
        note = read_note(folder, "1")
        assert (note.state, note.starts, note.killed) == ("requeued", starts, 0)
    assert slurm.read_text() == "requeue 7_1\n" * 5


def test_a_command_that_is_always_killed_is_given_up(folder: Path, slurm: Path) -> None:
    codes = [start(folder, "kill -9 $$").wait(60) for _ in range(3)]
    assert codes == [75, 75, 137]
    assert slurm.read_text() == "requeue 7_1\n" * 2
    assert read_note(folder, "1").state == "failed"


def test_without_an_answer_of_slurm_work_stays_paused(folder: Path, slurm: Path, program: Put) -> None:
    program("scontrol", "exit 1")
    assert start(folder, "exit 75").wait(60) == 75
    assert read_note(folder, "1").state == "paused"


def test_workers_on_this_machine_never_ask_slurm(make_submission: Make, slurm: Path, tmp_path: Path) -> None:
    """They may run inside a job of somebody's that is none of ours."""
    folder = make_submission(cluster="local").write(tmp_path / "submissions")
    assert start(folder, "exit 75").wait(60) == 75
    assert not slurm.exists()


@pytest.mark.parametrize(
    ("sent", "command", "code", "state"),
    [
        (signal.SIGUSR1, "trap 'exit 143' TERM; touch ready; while :; do sleep 0.1; done", 75, "requeued"),
        (signal.SIGUSR2, "trap 'exit 0' TERM; touch ready; while :; do sleep 0.1; done", 0, "done"),
        (signal.SIGUSR2, "trap '' TERM; touch ready; while :; do sleep 0.1; done", 75, "requeued"),
        (signal.SIGTERM, "trap 'exit 143' TERM; touch ready; while :; do sleep 0.1; done", 143, "stopped"),
    ],
    ids=["saves", "finishes", "hangs", "cancelled"],
)
def test_signals(
    sent: int, command: str, code: int, state: str, folder: Path, slurm: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)  # for `ready`
    worker = start(folder, command)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker.pid, sent)
    assert worker.wait(60) == code
    assert read_note(folder, "1").state == state
    assert slurm.exists() == (state == "requeued")


def test_the_command_ignores_what_slurm_sends_to_all(folder: Path, slurm: Path) -> None:
    """Only its worker answers to these signals, which would end a command that is just starting."""
    assert start(folder, "kill -USR2 $$; kill -USR1 $$; exit 0").wait(60) == 0
