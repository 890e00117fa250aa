"""Committed files: listed with their digests, checked before use, written whole; without pandas or torch."""

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hyla_repro import paths
from hyla_repro.errors import DataError
from hyla_repro.files import sha256, write_atomically

if TYPE_CHECKING:
    from hyla_repro.experiment import Experiment

MANIFEST, RUNS = "manifest.json", "runs.csv"
_STAGING, _READY = ".staging", ".ready"

# The task whose tables are older than the others and bear no task's name; every other task needs no entry here.
_UNNAMED = "fuzzy_logic"


def table_name(name: str, task: str) -> str:
    """Return the file of a table for the runs of one task, which have columns of their own."""
    return name if task == _UNNAMED else f"{task}_{name}"


def model_name(run: "Experiment") -> str:
    """Return the file of a run's weights."""
    return f"models/{run.id}.safetensors"


def step_name(run: "Experiment", step: int) -> str:
    """Return the file of the weights that a run had after a step before its last."""
    return f"models/{run.id}-{step}.safetensors"


def require_project(what: str) -> None:
    """Refuse what works on the book and all of its results where there is only an installed package.

    Raises: DataError saying how to get them.
    """
    if not paths.PROJECT:
        raise DataError(f"{what} needs the book and all of its results, which are no part of an installed package: "
                        f"`git clone {paths.REPOSITORY}`, and call it there")  # fmt: skip


class DataFolder:
    """The folder of committed results, every file of it listed with its digest in manifest.json.

    Args:
        folder: `data` in the repository if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.DATA

    def manifest(self) -> dict[str, str]:
        """Return the digest of every committed file.

        Raises: DataError if the manifest is missing or no JSON.
        """
        try:
            return json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / MANIFEST} cannot be read ({error}): {self._advice(MANIFEST)}") from error

    def read(self, name: str) -> bytes:
        """Return a committed file.

        Raises: DataError naming a file that is missing, not listed or altered, and what to do.
        """
        path, digests = self.folder / name, self.manifest()
        if name not in digests:
            raise DataError(f"{path} is not listed in {MANIFEST}, which has {', '.join(sorted(digests))}: "
                            f"{self._advice(MANIFEST)}")  # fmt: skip
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}): {self._advice(name)}") from error
        if sha256(content) != digests[name]:
            raise DataError(f"{path} was altered since it was collected (its digest differs): {self._advice(name)}")
        return content

    def _advice(self, name: str) -> str:
        """Return how to get a file back; `hyla-repro collect` only adds to files that are whole."""
        in_package = self.folder == paths.SHIPPED and not paths.CHECKOUT
        return "install hyla-repro again" if in_package else f"restore it with `git checkout data/{name}`"

    def steps_of(self, run: "Experiment") -> list[int]:
        """Return the steps before its last that a run's weights are committed of."""
        names = (Path(name).stem.partition("-") for name in self.manifest() if name.startswith("models/"))
        return sorted(int(step) for identity, _, step in names if identity == run.id and step)

    def run_ids(self) -> set[str]:
        """Return the identities of the committed runs, of every task."""
        tables = [self.read(name).decode().splitlines() for name in self.manifest() if name.endswith(RUNS)]
        return {row["id"] for table in tables for row in csv.DictReader(table)}

    def verify(self) -> int:
        """Check every file against the manifest and return how many there are.

        Raises: DataError naming the first file that is missing, altered or not listed.
        """
        digests = self.manifest()
        for name in digests:
            self.read(name)
        listed = {*digests, MANIFEST, "README.md"}
        strays = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()} - listed
        if strays:
            raise DataError(f"{self.folder} holds files that {MANIFEST} does not list: {sorted(strays)}: remove them, "
                            f"or, if it should list them, {self._advice(MANIFEST)}")  # fmt: skip
        return len(digests)

    def write(self, files: dict[str, bytes]) -> None:
        """Write files and the manifest that lists them with those already there: all of it, or nothing.

        Everything is staged first, the renaming of that folder decides, and `recover` moves the files to their places.
        """
        self.recover()
        digests = self.manifest() if (self.folder / MANIFEST).exists() else {}
        digests |= {name: sha256(content) for name, content in files.items()}
        manifest = (json.dumps(digests, indent=1, sort_keys=True) + "\n").encode()
        staging = self.folder / _STAGING
        try:
            for name, content in {**files, MANIFEST: manifest}.items():
                write_atomically(staging / name, content)
            staging.replace(self.folder / _READY)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.recover()

    def recover(self) -> None:
        """End a write that was killed: undo it, or finish it if all of it had been staged."""
        shutil.rmtree(self.folder / _STAGING, ignore_errors=True)
        ready = self.folder / _READY
        if not ready.exists():
            return
        staged = [path for path in ready.rglob("*") if path.is_file()]
        for path in sorted(staged, key=lambda path: path.name == MANIFEST):
            target = self.folder / path.relative_to(ready)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        shutil.rmtree(ready)
