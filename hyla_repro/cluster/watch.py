"""How submissions stand: runs, rate and time left from the ledger, workers from their notes and logs."""

import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hyla_repro.cluster.submission import Submission, read, submitted
from hyla_repro.cluster.worker import Note, log_file, note_file, read_note
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.locks import LEASE_SECONDS
from hyla_repro.ledger.runs import ENDED, Ledger, checkpoint_step
from hyla_repro.studies import trainable
from hyla_repro.training.plan import step_flop, total_flop, with_values

# States of workers that nothing more comes of.
_OVER = ("done", "paused", "stopped", "failed")
_TAIL_BYTES = 1 << 13


class Worker(NamedTuple):
    """A worker as its folder shows it; `waiting` before its first start, `lost` without a sign of life."""

    number: str
    state: str
    note: Note | None
    last_line: str


def workers(folder: Path, count: int) -> list[Worker]:
    """Return the workers of a submission."""
    return [_worker(folder, str(index)) for index in range(count)]


def _worker(folder: Path, index: str) -> Worker:
    note = read_note(folder, index)
    if note is None:
        return Worker(index, "waiting", None, "")
    silent = time.time() - note_file(folder, index).stat().st_mtime > LEASE_SECONDS
    state = "lost" if note.state == "running" and silent else note.state
    return Worker(index, state, note, last_line(log_file(folder, index)))


def last_line(path: Path) -> str:
    """Return the last line of a log that says anything; progress bars end in a carriage return."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        lines = re.split(r"[\r\n]+", file.read().decode(errors="replace"))
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def flop_done(runs: Sequence[Experiment], ledger: Ledger) -> float:
    """Return how much of the runs' training is in the ledger, in floating-point operations; checkpoints count too."""
    states = ledger.states(runs)
    return sum(_flop(run, states[run.id], ledger) for run in runs)


def _flop(run: Experiment, state: str, ledger: Ledger) -> float:
    if state in ENDED:
        return total_flop(run)
    steps = [checkpoint_step(path.name) for path in ledger.folder(run).glob("checkpoint-*.safetensors")]
    return float(max(steps, default=0) * step_flop(run))


def wanted(submission: Submission, committed: set[str]) -> list[Experiment]:
    """Return the runs of a submission, without committed ones unless it trains those again."""
    runs = with_values(trainable(submission.figure, submission.preset), submission.where)
    return [run for run in runs if submission.again or run.id not in committed]


def describe(folder: Path, committed: set[str]) -> tuple[str, bool]:
    """Return how a submission stands, and whether it is over: all of its workers, or all of its runs."""
    submission, ledger = read(folder), Ledger()
    runs, found = wanted(submission, committed), workers(folder, submission.workers)
    counts = Counter(ledger.states(runs).values())
    text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    lines = [f"{folder.name}: {counts['done']} of {len(runs)} runs finished ({text})"]
    ended, done, total = counts["done"] + counts["diverged"], flop_done(runs, ledger), sum(map(total_flop, runs))
    begun = [worker.note.since for worker in found if worker.note]
    seconds = time.time() - min(begun) if begun else 0.0
    rate = (done - submission.flop_before) / seconds if seconds > 0 else 0.0
    if rate > 0 and ended < len(runs):
        lines.append(
            f"  {rate / 1e9:.3g} GFLOP/s since the first start, about {(total - done) / rate / 3600:.1f} h left"
        )
    states = Counter(worker.state for worker in found)
    lines.append(f"  workers: {', '.join(f'{count} {state}' for state, count in states.items())}")
    for worker in found:
        if worker.state in ("failed", "lost") and worker.note:
            code = "" if worker.note.code is None else f" with code {worker.note.code}"
            lines.append(f"  worker {worker.number} {worker.state}{code} on {worker.note.host}: {worker.last_line}")
    return "\n".join(lines), ended == len(runs) or all(worker.state in _OVER for worker in found)


def shown(root: Path | None = None) -> list[Path]:
    """Return the folders of the submissions that are not over, or of the newest one.

    Raises: DataError if nothing was submitted.
    """
    folders = list(submitted(root))
    if not folders:
        raise DataError("nothing was submitted yet: start workers with `hyla-repro submit`")
    going = [path for path in folders if any(worker.state not in _OVER for worker in workers(path, read(path).workers))]
    return going or folders[-1:]
