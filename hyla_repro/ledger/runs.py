"""The ledger: runs as folders of verified files, which exist, are missing, damaged, or being trained right now."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hyla_repro.errors import DataError
from hyla_repro.experiment import TrainingRun
from hyla_repro.files import seal, sha256, unseal, write_atomically
from hyla_repro.ledger import locks
from hyla_repro.paths import runs_folder

RESULT, CURVE, MODEL, DIVERGED = "result.json", "curve.csv", "model.safetensors", "diverged.json"
# Weights at steps before the last, of runs that are looked at along training: tensors named STEP/NAME.
ALONG = "along.safetensors"
# States of runs that nobody need train any more.
ENDED = ("done", "diverged")


def checkpoint_name(step: int, content: bytes) -> str:
    """Return the file name of a checkpoint, which carries its step and its digest."""
    return f"checkpoint-{step:08d}-{sha256(content)[:32]}.safetensors"


def checkpoint_step(name: str) -> int:
    """Return the step in a checkpoint's name."""
    return int(name.split("-")[1])


def is_sound_checkpoint(name: str, content: bytes) -> bool:
    """Return whether the content is the one that the name was given for."""
    return name == checkpoint_name(checkpoint_step(name), content)


class RunLockedError(RuntimeError):
    """Another process is training this run."""


class Ledger:
    """The folder of runs, one sub-folder per experiment, named by its variant and identity.

    A run is done when its result.json exists: that file is written last and holds the digests of the others.

    Args:
        root: the folder; HYLA_REPRO_RUNS, or `runs` in the repository, if None.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or runs_folder()

    def folder(self, run: TrainingRun) -> Path:
        return self.root / f"{run.task_name}-{run.method}-{run.id}"

    def state(self, run: TrainingRun) -> str:
        """Return one of done, damaged, diverged, training, paused, missing."""
        folder = self.folder(run)
        if (folder / RESULT).exists():
            try:
                self.result(run)
            except DataError:
                return "damaged"
            return "done"
        if (folder / DIVERGED).exists():
            return "diverged"
        if self.holder(run):
            return "training"
        return "paused" if any(folder.glob("checkpoint-*.safetensors")) else "missing"

    def states(self, runs: Iterable[TrainingRun]) -> dict[str, str]:
        """Return the state of each run by its identity, from which files there are and result.json's own digest.

        `state` also reads every other file to compare its digest, which takes minutes for ten thousand runs.
        """
        there, found = set(os.listdir(self.root)) if self.root.is_dir() else set(), {}
        for run in runs:
            folder = self.folder(run)
            identity = folder.name[-12:]
            found[identity] = self._glance(run, folder, identity) if folder.name in there else "missing"
        return found

    def _glance(self, run: TrainingRun, folder: Path, identity: str) -> str:
        files = set(os.listdir(folder))
        if RESULT not in files:
            return self.state(run)
        with suppress(ValueError, KeyError), open(folder / RESULT, "rb") as file:
            result = unseal(file.read())
            if result["id"] == identity and files.issuperset(result["files"]):
                return "done"
        return "damaged"

    def result(self, run: TrainingRun) -> dict[str, Any]:
        """Return result.json after checking it and the files it names.

        Raises: DataError naming the file that is missing or altered, and how to train the run again.
        """
        path = self.folder(run) / RESULT
        advice = f"delete {path.parent} and run again, or restore the file"
        try:
            result = unseal(path.read_bytes())
            for name, digest in result["files"].items():
                if sha256((path.parent / name).read_bytes()) != digest:
                    raise DataError(f"{path.parent / name} is not what {RESULT} recorded: {advice}")
            if result["id"] != run.id:
                raise DataError(f"{path} belongs to run {result['id']}, not {run.id}: {advice}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}): {advice}") from error
        return result

    def read(self, run: TrainingRun, name: str) -> bytes:
        """Return a file of a finished run, verified."""
        self.result(run)
        return (self.folder(run) / name).read_bytes()

    def commit(self, run: TrainingRun, files: dict[str, bytes], facts: dict[str, Any]) -> None:
        """Store a finished run: its files, then result.json with their digests, then remove the checkpoints."""
        folder = self.folder(run)
        for name, content in files.items():
            write_atomically(folder / name, content)
        digests = {name: sha256(content) for name, content in files.items()}
        result = {"id": run.id, "experiment": run.model_dump(mode="json"), **facts, "files": digests}
        write_atomically(folder / RESULT, seal(result))
        for left in self._unneeded(run):
            left.unlink()

    def _unneeded(self, run: TrainingRun) -> list[Path]:
        """Return what a finished run needs no more, also what a killed process had begun to write."""
        folder = self.folder(run)
        return [*folder.glob("checkpoint-*.safetensors"), *folder.glob(".*.tmp")]

    def tidy(self, run: TrainingRun) -> None:
        """Remove what a process left in a finished run that was killed right after its result was stored."""
        if (self.folder(run) / locks.LEASE).exists():
            with suppress(RunLockedError), self.lock(run):  # releasing the lock removes the lease
                for left in self._unneeded(run):
                    left.unlink()

    def mark_diverged(self, run: TrainingRun, facts: dict[str, Any]) -> None:
        write_atomically(self.folder(run) / DIVERGED, (json.dumps(facts, indent=1) + "\n").encode())

    def save_checkpoint(self, run: TrainingRun, step: int, content: bytes) -> None:
        """Keep this and the previous checkpoint; the name carries the digest of the content."""
        folder = self.folder(run)
        write_atomically(folder / checkpoint_name(step, content), content)
        for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-2]:
            old.unlink()

    def load_checkpoints(self, run: TrainingRun) -> tuple[list[bytes], list[Path]]:
        """Return the checkpoints that are what their names say, newest first, and the paths of damaged ones."""
        sound, damaged = [], []
        for path in sorted(self.folder(run).glob("checkpoint-*.safetensors"), reverse=True):
            content = path.read_bytes()
            if is_sound_checkpoint(path.name, content):
                sound.append(content)
            else:
                damaged.append(path)
        return sound, damaged

    @contextmanager
    def lock(self, run: TrainingRun) -> Iterator[None]:
        """Hold this run alone, as `locks.hold` does.

        Raises: RunLockedError naming who holds it.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locks.hold(self.folder(run)))
            except locks.LockedError as error:
                raise RunLockedError(f"{run.label} is being trained by {error}") from None
            yield

    def holder(self, run: TrainingRun) -> locks.Holder | None:
        """Return who is training the run, or None."""
        return locks.holder(self.folder(run))
