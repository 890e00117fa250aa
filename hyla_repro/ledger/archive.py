"""Runs as a few tar files: carried from one machine to another, and checked before they enter its ledger."""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.files import sha256, unseal
from hyla_repro.files import write_atomically as write
from hyla_repro.ledger.runs import ALONG, CURVE, DIVERGED, MODEL, RESULT, Ledger, checkpoint_step, is_sound_checkpoint

_FOLDER = re.compile(r"[a-z0-9_]+-[a-z0-9_]+-(?P<id>[0-9a-f]{12})")
_CHECKPOINT = re.compile(r"checkpoint-\d{8,}-[0-9a-f]{32}\.safetensors")
# Files of a run are a few megabytes; a larger member is no run, and is not read into memory.
_LARGEST = 1 << 28


class Imported(NamedTuple):
    """How many runs an import added, and how many it left as they were."""

    finished: int
    checkpoints: int
    left: int


def _files(run: Experiment, ledger: Ledger) -> dict[str, bytes]:
    """Return what goes on the way: a finished run's files, result last, or the newest sound checkpoint."""
    folder, state = ledger.folder(run), ledger.state(run)
    if state == "done":
        return {name: (folder / name).read_bytes() for name in (*ledger.result(run)["files"], RESULT)}
    if state == "diverged":
        return {DIVERGED: (folder / DIVERGED).read_bytes()}
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        content = path.read_bytes()
        if is_sound_checkpoint(path.name, content):
            return {path.name: content}
    return {}


def export_runs(runs: Iterable[Experiment], ledger: Ledger, folder: Path, part_bytes: int = 15 << 20) -> list[Path]:
    """Write the runs that the ledger has as runs-000.tar, runs-001.tar, ... and return their paths.

    Args:
        part_bytes: a part is closed once it is this large, so it may exceed that by one run.

    Raises: FileExistsError if the folder holds parts already.
    """
    if list(folder.glob("runs-*.tar")):
        raise FileExistsError(f"{folder} holds exported runs already: choose another folder, or remove them")
    parts: list[dict[str, bytes]] = []
    for run in runs:
        files = {f"{ledger.folder(run).name}/{name}": content for name, content in _files(run, ledger).items()}
        if files and (not parts or sum(map(len, parts[-1].values())) >= part_bytes):
            parts.append({})
        if files:
            parts[-1] |= files
    paths = [folder / f"runs-{number:03d}.tar" for number in range(len(parts))]
    for path, files in zip(paths, parts, strict=True):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        write(path, packed.getvalue())
    return paths


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (folder, name, content) of an archive's files; nothing is ever unpacked to where a name says.

    Raises: DataError for anything that an export does not write.
    """
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.partition("/")
                known = name in (RESULT, CURVE, MODEL, ALONG, DIVERGED) or _CHECKPOINT.fullmatch(name)
                if not (member.isfile() and _FOLDER.fullmatch(folder) and known and member.size <= _LARGEST):
                    raise DataError(f"{path} holds {member.name!r}, which is no file of a run: nothing of it was used")
                file = archive.extractfile(member)
                assert file is not None
                yield folder, name, file.read()
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path} is no archive of runs ({error}): export it again") from error


def import_runs(paths: Sequence[Path], ledger: Ledger) -> Imported:
    """Add the runs of archives to the ledger; what it has finished, or taken further, stays as it is.

    Raises: DataError naming an archive that is damaged or holds something else, before anything is written.
    """
    found: dict[str, dict[str, bytes]] = {}
    for path in paths:
        for folder, name, content in _members(path):
            found.setdefault(folder, {})[name] = content
    for folder, files in found.items():
        _check(folder, files)
    finished = checkpoints = left = 0
    for folder, files in found.items():
        target, (name, *_) = ledger.root / folder, files
        if (target / RESULT).exists():
            left += 1
        elif RESULT in files or DIVERGED in files:
            for name in sorted(files, key=lambda name: name == RESULT):  # its result makes a run finished
                write(target / name, files[name])
            finished += 1
        elif any(checkpoint_step(path.name) >= checkpoint_step(name) for path in target.glob("checkpoint-*")):
            left += 1
        else:
            write(target / name, files[name])
            checkpoints += 1
    return Imported(finished, checkpoints, left)


def _check(folder: str, files: dict[str, bytes]) -> None:
    """Raise DataError unless the files are a whole finished run, a sound checkpoint or a note of divergence."""
    if RESULT in files:
        try:
            result = unseal(files[RESULT])
            whole = {name: sha256(content) for name, content in files.items() if name != RESULT} == result["files"]
            identity = Experiment.model_validate(result["experiment"]).id
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"the result of {folder} cannot be used ({error}): export it again") from error
        if not whole or not folder.endswith(identity) or result["id"] != identity:
            raise DataError(f"the files of {folder} are not what its result recorded: export it again")
    else:
        for name, content in files.items():
            if name != DIVERGED and not (_CHECKPOINT.fullmatch(name) and is_sound_checkpoint(name, content)):
                raise DataError(f"{folder}/{name} is damaged, or files are missing beside it: export it again")
