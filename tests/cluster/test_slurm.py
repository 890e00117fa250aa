"""On a real Slurm: workers that are doubled, killed, cut off or gone train every run once, to the same bits."""

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import many
import pytest
import slurm_lab
from slurm_lab import Lab, until

from hyla_repro.cluster.watch import Worker, workers
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import CURVE, MODEL, Ledger

pytestmark = pytest.mark.slurm
STUDY = Path(many.__file__)
Count = Callable[[bool], None]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if lacking := slurm_lab.missing():
        pytest.skip(f"needs {', '.join(lacking)}: `make test-slurm`, as root")
    lab = Lab(tmp_path_factory.mktemp("slurm"))
    yield lab
    lab.close()


class Shop:
    """A ledger of its own, with what workers do for it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder, self.ledger = lab, folder, Ledger(folder / "runs")
        self.trace = folder / "trace"
        self.trace.touch()
        self.environment = os.environ | lab.environment | {
            "HYLA_REPRO_RUNS": str(self.ledger.root), "MANY_TRACE": str(self.trace), "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(STUDY.parents[2]),
        }  # fmt: skip

    def command(self, figure: str, *words: str) -> list[str]:
        return [sys.executable, str(STUDY), "submit", figure, "--shared", *words]

    def submit(self, figure: str, *words: str, slowly: float = 0.0) -> Path:
        """Submit workers and return the folder of the submission."""
        before = set(self.submissions())
        environment = self.environment | {"SLOWLY": str(slowly)}
        done = subprocess.run(self.command(figure, *words), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder,) = set(self.submissions()) - before
        if "--print-sbatch" in words:
            script = re.sub(r"--budget \S+", "--budget 1h", done.stdout)  # so that Slurm ends it, and nothing else
            subprocess.run(["sbatch"], input=script, env=environment, text=True, check=True, stdout=subprocess.DEVNULL)
        return folder

    def submissions(self) -> list[Path]:
        return sorted((self.folder / "submissions").glob("*"))

    def said(self, what: str = "") -> list[tuple[int, str, str, str, int]]:
        """Return the lines of the trace: pid, host, what, run, step."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return [(int(p), host, kind, run, int(step)) for p, host, kind, run, step in lines if what in ("", kind)]

    def wait(self, folder: Path, count: int, *states: str) -> list[Worker]:
        """Wait until all workers of a submission are in one of these states, and return them."""

        def there() -> bool:
            """workers in their last states"""
            return all(worker.state in states for worker in workers(folder, count))

        until(there)
        return workers(folder, count)

    def results(self, runs: list[Experiment]) -> dict[str, int]:
        """Return how often each run's result was written."""
        return {run.id: Counter(line[3] for line in self.said("result"))[run.id] for run in runs}

    def same(self, figure: str) -> list[bool]:
        """Return for each run whether its result was written once, and is that of training without any fault."""
        runs, straight = many.of(figure), Ledger(self.folder / "straight")
        environment = self.environment | {"HYLA_REPRO_RUNS": str(straight.root), "MANY_TRACE": os.devnull}
        subprocess.run([sys.executable, str(STUDY), "run", figure, "--processes", "1"], env=environment, check=True,
                       capture_output=True)  # fmt: skip
        once = self.results(runs)
        return [
            once[run.id] == 1
            and self.ledger.state(run) == "done"
            and all(self.ledger.read(run, name) == straight.read(run, name) for name in (MODEL, CURVE))
            for run in runs
        ]


@pytest.fixture
def shop(lab: Lab, tmp_path: Path) -> Iterator[Shop]:
    yield Shop(lab, tmp_path)
    lab.call("scancel", "--user=root")
    until(lambda: not lab.call("squeue", "--noheader"), 60)


def test_slurm_two_arrays_at_once_train_every_run_once(shop: Shop, count: Count) -> None:
    """One array by submitit, one by the printed script."""
    words, runs = ("--workers", "2", "--time", "10m"), many.of("forty")
    folders = [shop.submit("forty", *words, slowly=0.02), shop.submit("forty", *words, "--print-sbatch", slowly=0.02)]
    for folder in folders:
        shop.wait(folder, 2, "done")
    steps = Counter(line[3:] for line in shop.said("step"))
    assert sum(steps.values()) == 40 * 20
    for run, same in zip(runs, shop.same("forty"), strict=True):
        count(same and all(steps[run.id, step] == 1 for step in range(1, run.steps + 1)))
    assert len({line[0] for line in shop.said()}) > 1


def test_slurm_killed_workers_are_replaced(shop: Shop, count: Count) -> None:
    folder = shop.submit("four", "--workers", "2", "--time", "10m", slowly=0.3)
    until(lambda: len({line[0] for line in shop.said("step")}) == 2)
    first, second = {line[0] for line in shop.said("step")}
    job = next(pid for pid in _parents(second) if b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes())
    # Of one worker what trains, which is then started again; of the other all, which others replace.
    os.kill(first, signal.SIGKILL)
    for pid in (job, second):
        os.kill(pid, signal.SIGKILL)

    def over() -> bool:
        """one worker done, one lost"""
        return sorted(worker.state for worker in workers(folder, 2)) == ["done", "lost"]

    until(over)
    done = next(worker.note for worker in workers(folder, 2) if worker.state == "done")
    count(done.starts == 2 and done.killed == 1)
    for same in shop.same("four"):
        count(same)


def _parents(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])
        yield pid


def test_slurm_a_killed_submission_loses_and_doubles_nothing(shop: Shop, count: Count) -> None:
    words = ("--workers", "2", "--time", "10m")

    def folders() -> int:
        return len(shop.submissions())

    def pickles() -> int:
        return len(list(shop.folder.glob("submissions/*/submitit/*.pkl")))

    def queued() -> int:
        return (shop.lab.state / "slurmctld.log").read_text().count("_slurm_rpc_submit_batch_job: JobId=")

    for moment in (folders, pickles, queued):
        before, environment = moment(), shop.environment | {"SLOWLY": "1"}
        process = subprocess.Popen(shop.command("four", *words), env=environment, stderr=subprocess.DEVNULL)
        until(lambda process=process, moment=moment, before=before: process.poll() is not None or moment() > before)
        process.kill()
        count(process.wait() == -signal.SIGKILL)
    shop.wait(shop.submit("four", *words), 2, "done")
    until(lambda: all(shop.results(many.of("four")).values()))
    for same in shop.same("four"):
        count(same)


def test_slurm_a_signal_saves_and_starts_again(shop: Shop, count: Count) -> None:
    """What Slurm sends before it takes a node back, by hand."""
    choose = random.Random(0)
    folder = shop.submit("one", "--workers", "2", "--time", "10m", slowly=1)
    for trial in range(1, 3):
        at = 12 * trial + choose.randint(0, 5)
        until(lambda at=at: any(line[4] >= at for line in shop.said("step")))
        # Both workers of the array; the other one has nothing to train.
        jobs = shop.lab.call("squeue", "--noheader", "--format=%i", "--states=running").split()
        shop.lab.call("scancel", "--signal=USR2", *jobs)
        until(lambda trial=trial: max(w.note.starts for w in workers(folder, 2) if w.note) > trial)
    shop.wait(folder, 2, "done")
    steps = Counter(line[4] for line in shop.said("step"))
    count(steps == dict.fromkeys(range(1, 41), 1))
    for same in shop.same("one"):
        count(same)


@pytest.mark.parametrize(
    "words", [("--margin", "60s"), ("--margin", "60s", "--print-sbatch")], ids=["submitit", "script"]
)
def test_slurm_the_time_limit_starts_it_again(words: tuple[str, ...], shop: Shop, count: Count) -> None:
    """By the budget or by Slurm's signal, whichever comes first; the script is told of no budget."""
    folder = shop.submit("one", "--workers", "1", "--time", "3m", *words, slowly=4)
    (worker,) = shop.wait(folder, 1, "done")
    count(worker.note.starts >= 2 and worker.note.killed == 0)
    steps = Counter(line[4] for line in shop.said("step"))
    count(steps == dict.fromkeys(range(1, 41), 1))
    for same in shop.same("one"):
        count(same)


def test_slurm_a_node_vanishes_and_its_runs_are_taken_over(shop: Shop, count: Count) -> None:
    folder = shop.submit("four", "--workers", "2", "--cpus", "2", "--time", "10m", slowly=0.5)
    until(lambda: len({line[0] for line in shop.said("step")}) == 4)
    held = {line[3] for line in shop.said("step") if line[1] == "one"}
    shop.lab.vanish("one")
    shop.wait(folder, 2, "done")
    ends = {run: host for _, host, _, run, _ in shop.said("result")}
    for run in held:
        count(ends[run] == "two")
    for same in shop.same("four"):
        count(same)
    shop.lab.start("one")
    shop.lab.call("scontrol", "update", "nodename=one", "state=resume")
