"""What must hold before workers are submitted: Slurm answers, the partition exists, nodes can share the runs."""

import shutil
import subprocess
from pathlib import Path

from hyla_repro.errors import choose

# Every machine has such folders and file systems of its own.
_OWN_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
_OWN_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs", "overlay", "squashfs")


def require_slurm(partition: str | None) -> None:
    """Refuse to submit where there is no Slurm or no such partition.

    Raises: ValueError saying what there is, and what works without.
    """
    if not shutil.which("sbatch"):
        raise ValueError("no Slurm here (sbatch is not on PATH): submit from a login node, or choose --cluster local, "
                         "or take the script of --print-sbatch elsewhere")  # fmt: skip
    try:
        command = ["sinfo", "--noheader", "--format=%R"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ValueError(f"Slurm does not answer (sinfo: {said[-1]}): try again once `sinfo` works") from error
    if partition is not None:
        choose("partition", partition, dict.fromkeys(asked.stdout.split()))


def require_shared(folder: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Refuse a folder of runs that every node has for itself; one that cannot be told is left for the workers to see.

    Raises: ValueError saying why, and what to do.
    """
    path = folder.absolute().resolve()
    own = next((parent for parent in _OWN_FOLDERS if path.is_relative_to(parent)), None)
    system = file_system(path, mounts)
    if own or system in _OWN_SYSTEMS:
        why = f"every node has a {own} of its own" if own else f"a file system of type {system} is each node's own"
        raise ValueError(f"workers cannot share {folder}: {why}. Name a folder on a shared file system in "
                         "HYLA_REPRO_RUNS, or add --shared if all workers see it anyway")  # fmt: skip


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """Return the type of the file system that a path lies on, None where the system does not tell."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    # Spaces are written as octal numbers; of two mounts at one place the later one counts.
    found = {Path(fields[1].replace("\\040", " ")): fields[2] for fields in lines if len(fields) > 2}
    inside = [place for place in found if path.is_relative_to(place)]
    return found[max(inside, key=lambda place: len(place.parts))] if inside else None
