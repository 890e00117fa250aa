"""Committed files: listed with their digests, checked before use, written whole; without pandas or torch."""

import csv
import json
from pathlib import Path

from hyla_repro import paths
from hyla_repro.errors import DataError
from hyla_repro.runs import sha256, write_atomically

MANIFEST, RUNS = "manifest.json", "runs.csv"
_ADVICE = "restore it with `git checkout data`, or make it again with `hyla-repro collect`"


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
            raise DataError(f"{self.folder / MANIFEST} cannot be read ({error}): {_ADVICE}") from error

    def read(self, name: str) -> bytes:
        """Return a committed file.

        Raises: DataError naming a file that is missing, not listed or altered, and what to do.
        """
        path, digests = self.folder / name, self.manifest()
        if name not in digests:
            raise DataError(f"{path} is not listed in {MANIFEST}, which has {', '.join(sorted(digests))}: {_ADVICE}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}): {_ADVICE}") from error
        if sha256(content) != digests[name]:
            raise DataError(f"{path} was altered since it was collected (its digest differs): {_ADVICE}")
        return content

    def run_ids(self) -> set[str]:
        """Return the identities of the committed runs."""
        if RUNS not in self.manifest():
            return set()
        return {row["id"] for row in csv.DictReader(self.read(RUNS).decode().splitlines())}

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
            raise DataError(f"{self.folder} holds files that {MANIFEST} does not list: {sorted(strays)}: {_ADVICE}")
        return len(digests)

    def write(self, files: dict[str, bytes]) -> None:
        """Write files, then the manifest that lists them with those already there."""
        digests = self.manifest() if (self.folder / MANIFEST).exists() else {}
        for name, content in files.items():
            write_atomically(self.folder / name, content)
            digests[name] = sha256(content)
        write_atomically(self.folder / MANIFEST, (json.dumps(digests, indent=1, sort_keys=True) + "\n").encode())
