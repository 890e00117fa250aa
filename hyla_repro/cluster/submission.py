"""A submission: which runs, how many workers for how long, and the words that each of them is started with."""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyla_repro import paths
from hyla_repro.errors import choose, whole_number
from hyla_repro.files import write_atomically

CLUSTERS = ("slurm", "local", "debug")
RECORD = "submission.json"
# What workers must see as whoever submits them does.
_FOLDERS = {"HYLA_REPRO_RUNS": paths.runs_folder, "HYLA_REPRO_TEXTS": paths.texts_folder}


@dataclass(frozen=True)
class Submission:
    """N equal workers that share the missing runs of a figure.

    Args:
        where, again: as `hyla-repro run` has them.
        seconds: after which the scheduler ends a worker.
        margin: seconds before that at which a worker's budget ends; the scheduler's signal comes at half of it.
        gpus: of each worker, 0 or 1.
        cpus: of each worker; without a GPU it trains as many runs at a time.
        options: more options of sbatch, as KEY=VALUE.
        flop_before: of the runs' training, what was done when they were submitted.

    Raises: ValueError for a number of workers, GPUs or cores that makes no sense, a time too short, an option that is
    none.
    """

    figure: str
    preset: str
    where: tuple[str, ...]
    again: bool
    workers: int
    seconds: float
    margin: float
    gpus: int
    cpus: int
    partition: str | None
    options: tuple[str, ...]
    cluster: str
    flop_before: float = 0.0

    def __post_init__(self) -> None:
        choose("cluster", self.cluster, CLUSTERS)
        whole_number("workers", self.workers, 1, "each of them trains runs")
        whole_number("gpus", self.gpus, 0, "a worker trains on one GPU, so ask for more workers instead", high=1)
        whole_number("cpus", self.cpus, 1, "a worker needs a core")
        if self.seconds - self.margin < 1 or self.seconds < 60:
            raise ValueError(f"time of {self.seconds:g} s leaves no budget: it must be a minute at least, and longer "
                             f"than the margin of {self.margin:g} s, in which a worker saves and ends")  # fmt: skip
        for option in self.options:
            if not option.partition("=")[2] or option.startswith("-"):
                raise ValueError(f"option {option!r} is none of sbatch: write KEY=VALUE, such as account=physics")

    @property
    def budget(self) -> float:
        """Seconds that a worker trains."""
        return self.seconds - self.margin

    @property
    def signal_seconds(self) -> int:
        """Seconds before the limit at which the scheduler's signal comes."""
        return max(int(self.margin / 2), 1)

    def run_words(self) -> list[str]:
        """Return what every worker is told to run."""
        device, processes = ("cuda", 1) if self.gpus else ("cpu", self.cpus)
        words = ["run", self.figure, "--preset", self.preset, "--device", device, "--processes", str(processes)]
        words += ["--budget", f"{self.budget:g}s", "--share"]
        for condition in self.where:
            words += ["--where", condition]
        return [*words, "--again"] if self.again else words

    def command(self, program: Sequence[str]) -> list[str]:
        """Return the whole command of a worker, given how this program is called; it is the same for all."""
        found = {name: str(folder().absolute()) for name, folder in _FOLDERS.items()}
        if "HYLA_REPRO_ROOT" in os.environ:
            found["HYLA_REPRO_ROOT"] = str(paths.ROOT)
        return ["env", *(f"{name}={value}" for name, value in found.items()), *program, *self.run_words()]

    def script(self, folder: Path, program: Sequence[str]) -> str:
        """Return a batch script for `sbatch`, which needs no submitit; other schedulers take its last lines."""
        options = {
            "job-name": self.name, "array": f"0-{self.workers - 1}", "time": int(self.seconds // 60),
            "cpus-per-task": self.cpus, **({"gpus-per-node": self.gpus} if self.gpus else {}),
            **({"partition": self.partition} if self.partition else {}),
            "signal": f"B:USR1@{self.signal_seconds}", "open-mode": "append", "output": folder / "slurm-%A_%a.out",
            **self.extra(),
        }  # fmt: skip
        lines = [f"#SBATCH --{name}={shlex.quote(str(value))}" for name, value in options.items()]
        index = "$1"
        for variable in ("JOB_COMPLETION_INDEX", "LSB_JOBINDEX", "PBS_ARRAY_INDEX", "SLURM_ARRAY_TASK_ID"):
            index = f"${{{variable}:-{index}}}"
        worker = [sys.executable, "-m", "hyla_repro.cluster.worker", str(folder)]
        return "\n".join([
            "#!/bin/bash", *lines, "#SBATCH --requeue", "",
            "# The worker's number comes from Slurm, PBS, LSF or Kubernetes, or is the first argument. Slurm starts it",
            "# again by itself; elsewhere, start it again while it leaves with code 75.",
            f'index="{index}"',
            f'exec {shlex.join(worker)} "$index" {shlex.join(self.command(program))}', "",
        ])  # fmt: skip

    @property
    def name(self) -> str:
        """The job's name."""
        return f"hyla-repro-{self.figure}"

    def extra(self) -> dict[str, str]:
        """Return the further options of sbatch by name."""
        return {name.lower(): value for name, _, value in (option.partition("=") for option in self.options)}

    def write(self, root: Path | None = None) -> Path:
        """Make the folder of this submission, with its record, and return it."""
        root = root or submissions_folder()
        stem = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{self.figure}-{self.preset}"
        for name in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
            folder = root.absolute() / name
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            write_atomically(folder / RECORD, (json.dumps(asdict(self), indent=1) + "\n").encode())
            return folder
        raise FileExistsError(f"{root} holds a thousand submissions of this second")


def read(folder: Path) -> Submission:
    """Return what was submitted."""
    facts: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return Submission(**facts | {name: tuple(facts[name]) for name in ("where", "options")})


def submissions_folder() -> Path:
    """Return the folder of submissions, beside that of runs."""
    return paths.runs_folder().absolute().with_name("submissions")


def submitted(root: Path | None = None) -> Iterable[Path]:
    """Return the folders of all submissions, the oldest first."""
    return sorted(path.parent for path in (root or submissions_folder()).glob(f"*/{RECORD}"))
