"""One worker of many: it runs a command, notes how that goes where all can read it, and has Slurm start it again.

    python -m hyla_repro.cluster.worker FOLDER INDEX COMMAND...

The command leaves with 75 when its budget ended before its work. It is a process of its own, so that this one outlives
whatever ends it: a full memory, a compiler's crash, kill -9.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hyla_repro.cluster.submission import RECORD
from hyla_repro.files import write_atomically
from hyla_repro.ledger.locks import BEAT_SECONDS

LEFT = 75
_AGAIN = (signal.SIGUSR1, signal.SIGUSR2)  # before the time limit
_STOP = (signal.SIGTERM, signal.SIGINT)  # from whoever cancels
# Starts after being killed, such as for memory, before a worker is given up.
_MOST_KILLED = 3


@dataclass(frozen=True)
class Note:
    """How a worker stands: running, requeued, done, paused (work is left, and nobody starts it again), stopped, failed.

    Args:
        code: with which its command left, None while it runs.
        starts: how often it was started.
        killed: how often its command was killed by none of our own.
    """

    state: str
    host: str
    since: float
    starts: int = 1
    killed: int = 0
    code: int | None = None


def note_file(folder: Path, index: str) -> Path:
    """Return where a worker's note is."""
    return folder / f"worker-{index}.json"


def log_file(folder: Path, index: str) -> Path:
    """Return where what a worker said is."""
    return folder / f"worker-{index}.log"


def read_note(folder: Path, index: str) -> Note | None:
    """Return a worker's note, None before it started."""
    try:
        return Note(**json.loads(note_file(folder, index).read_text()))
    except FileNotFoundError:
        return None


def _write(folder: Path, index: str, note: Note) -> Note:
    write_atomically(note_file(folder, index), (json.dumps(asdict(note)) + "\n").encode())
    return note


def supervise(folder: Path, index: str, command: Sequence[str]) -> int:
    """Run a worker's command to its end, and return the code to leave with; see `Note` for what is written.

    Raises: SystemExit if this machine does not see the folder.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
    except OSError as error:
        raise SystemExit(f"error: {socket.gethostname()} does not see {folder} ({error.strerror}): put the runs where "
                         "every node sees them, and name that folder in HYLA_REPRO_RUNS") from None  # fmt: skip
    before = read_note(folder, index)
    note = Note("running", socket.gethostname(), time.time())
    if before:
        note = replace(note, starts=before.starts + 1, killed=before.killed)
    _write(folder, index, note)
    code, received = _run(command, folder, index, record["margin"] / 4)
    killed = code < 0 and not received
    note = replace(note, code=code, killed=note.killed + killed)
    cancelled = bool(received) and received[0] in _STOP
    cut_short = code < 0 or code == 128 + signal.SIGTERM
    again = code == LEFT or (cut_short and (bool(received) or note.killed < _MOST_KILLED))
    again = again and not cancelled
    if again and record["cluster"] != "local" and "SLURM_JOB_ID" in os.environ:
        # Before Slurm is asked, since that ends this process.
        _write(folder, index, replace(note, state="requeued"))
        if _requeue():
            return LEFT
    if code == 0:
        state = "done"
    elif again:
        state = "paused"
    else:
        state = "stopped" if cancelled else "failed"
    _write(folder, index, replace(note, state=state))
    return LEFT if again else code if code >= 0 else 128 - code


def _run(command: Sequence[str], folder: Path, index: str, grace: float) -> tuple[int, list[int]]:
    """Return how a command left, and which signals came; one that does not stop within `grace` seconds is killed."""
    received: list[int] = []
    # The command inherits that it ignores these, which Slurm may send to everything that it started.
    for number in _AGAIN:
        signal.signal(number, signal.SIG_IGN)
    environment = os.environ | {"TQDM_MININTERVAL": "60"}
    with log_file(folder, index).open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        deadline = float("inf")

        def stop(number: int, frame: object) -> None:
            nonlocal deadline
            received.append(number)
            deadline = min(deadline, time.monotonic() + grace)
            child.terminate()

        for number in (*_AGAIN, *_STOP):
            signal.signal(number, stop)
        while True:
            try:
                return child.wait(min(BEAT_SECONDS, max(deadline - time.monotonic(), 0.1))), received
            except subprocess.TimeoutExpired:
                with suppress(OSError):  # a full or absent disk is no reason to stop
                    os.utime(note_file(folder, index))
                if time.monotonic() > deadline:
                    child.kill()


def _requeue() -> bool:
    """Ask Slurm to start this job again; of an array, only this part of it."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return subprocess.run(["scontrol", "requeue", job], timeout=60).returncode == 0


def start(words: Sequence[str]) -> None:
    """Be the worker that the words FOLDER INDEX COMMAND... describe, and leave with its code.

    Raises: SystemExit unless all is done.
    """
    folder, index, *command = words
    code = supervise(Path(folder), index, command)
    if code:
        raise SystemExit(code)


def start_here(words: Sequence[str]) -> int:
    """Run this program's command line in this very process, for a debugger, and return its code."""
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        runpy.run_module("hyla_repro", run_name="__main__")
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = before
    return 0


if __name__ == "__main__":
    start(sys.argv[1:])
