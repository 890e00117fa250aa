"""Promise 8: SIGINT, SIGTERM or a used-up budget end training with a checkpoint, a code and a way to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import CURVE, MODEL, Ledger
from hyla_repro.studies import Chapter, Study
from hyla_repro.training import loop
from hyla_repro.training.loop import train
from hyla_repro.training.stack import Stack, facts_of

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]
Count = Callable[[bool], None]
INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)

# The command line on runs of this test's own, which sends itself signals, each at the n-th moment of a kind. As one of
# several processes it sends them to the one that started it, and waits until that has passed them on.
COMMAND = """
import atexit, importlib.abc, json, os, select, signal, sys
from hyla_repro import cli
from hyla_repro.studies import STUDIES, Chapter, Study
from hyla_repro.ledger import runs
from hyla_repro.training import process
settings, faults, seconds = map(json.loads, sys.argv[1:4])
child, seen = "CHILD" in os.environ, {}

def moment(kind):
    seen[kind] = seen.get(kind, 0) + 1
    for wanted, number, sent in faults:
        if (kind, seen[kind]) == (wanted, number):
            os.kill(os.getppid() if child else os.getpid(), sent)
            assert not child or select.select([woken], [], [], 60)[0], "no signal came back"

def watch(kind, owner, name, after=False):
    function = getattr(owner, name)
    def call(*arguments, **named):
        result = function(*arguments, **named) if after else None
        moment(kind)
        return result if after else function(*arguments, **named)
    setattr(owner, name, call)

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            moment("import")

train = cli._train
def watched(*arguments):
    from hyla_repro.training import loop, stack
    watch("build", stack.Stack, "__init__")
    watch("step", stack.Stack, "advance", after=True)
    watch("evaluation", stack.Stack, "evaluate")
    loop._CHECKPOINT_SECONDS = seconds
    train(*arguments)

def siblings(command, count):
    os.environ["CHILD"] = ""
    return process.run_siblings([sys.executable, "-c", os.environ["COMMAND"], *words, "--processes", "1"], count)

def experiments(preset):
    from hyla_repro.experiment import Experiment
    return [Experiment.model_validate(run) for run in settings]

sys.meta_path.insert(0, Importing())
watch("look", runs.Ledger, "states")
watch("write", os, "fsync")
watch("rename", runs.Path, "replace")
atexit.register(moment, "exit")
if child:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
STUDIES[:] = [Study("tiny", "Tiny", (Chapter("fig2c", experiments),))]
cli.run_siblings, cli._train = siblings, watched
words = sys.argv[1:]
sys.argv[:] = ["hyla-repro", "run", "fig2c", *sys.argv[4:]]
cli.main()
"""


class Stopped:
    """A command that was run to its end, and what it left."""

    def __init__(self, root: Path, runs: list[Experiment], faults: list[tuple], *words: str, save: bool = False):
        settings = json.dumps([run.model_dump(mode="json") for run in runs])
        command = [sys.executable, "-c", COMMAND, settings, json.dumps(faults), "0" if save else "60", *words]
        environment = os.environ | {"HYLA_REPRO_RUNS": str(root), "OMP_NUM_THREADS": "1", "COMMAND": COMMAND}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A session of its own, so that what it leaves running can be found.
        process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes, start_new_session=True)
        self.said, self.errors = process.communicate(timeout=240)
        self.code, self.ledger = process.returncode, Ledger(root)
        try:
            os.killpg(process.pid, signal.SIGKILL)
            self.alone = False
        except ProcessLookupError:
            self.alone = True

    def step(self, run: Experiment) -> int:
        """Return the step of the run's newest checkpoint, -1 if there is none, and the last if it is finished."""
        if self.ledger.state(run) == "done":
            return run.steps
        sound, damaged = self.ledger.load_checkpoints(run)
        return -1 if damaged or not sound else facts_of(sound[0])["step"]

    def litter(self, run: Experiment) -> list[str]:
        return [path.name for path in self.ledger.folder(run).glob(".*")]


def outcome(ledger: Ledger, run: Experiment) -> list[object]:
    result = ledger.result(run)
    names = sorted(path.name for path in ledger.folder(run).iterdir())
    return [names, ledger.read(run, MODEL), ledger.read(run, CURVE), result["scores"], result["train_loss"]]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], list[object]]:
    """Train a run without interruption, once."""
    ledger = Ledger(tmp_path_factory.mktemp("straight"))

    def train_straight(run: Experiment) -> list[object]:
        assert train([run], ledger, progress=False) == []
        return outcome(ledger, run)

    return train_straight


# What is sent when, whether every step is saved, and at which step the newest checkpoint is; the run has 37.
QUICK = [
    ([("step", 5, TERM)], False, 5),
    # Again and again: while the checkpoint is written, and when everything is over.
    ([("step", 7, INT), ("write", 1, INT), ("rename", 1, TERM), ("exit", 1, TERM)], False, 7),
]
ALL = [
    ([("look", 1, TERM)], False, -1),
    ([("import", 1, TERM)], False, -1),
    ([("import", 1, INT)], False, -1),
    ([("build", 1, TERM)], False, 1),
    ([("step", 1, INT)], False, 1),
    ([("step", 36, TERM)], False, 36),
    ([("step", 37, INT)], False, 37),
    ([("evaluation", 1, TERM)], False, 30),
    ([("evaluation", 1, INT)], True, 30),
    ([("evaluation", 2, TERM)], False, 37),
    ([("evaluation", 3, INT)], True, 37),
    ([("write", 4, TERM)], True, 5),
    ([("rename", 9, INT)], True, 10),
    ([("write", 38, TERM)], True, 37),
    ([("step", 3, TERM), ("write", 4, TERM)], True, 3),
    ([("step", 3, INT), ("exit", 1, INT)], False, 3),
]


@pytest.mark.parametrize(
    ("faults", "save", "step"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.promises) for case in ALL)]
)
def test_promise_08_signals_save_and_stop_within_a_step(
    faults: list[tuple], save: bool, step: int, run: Experiment, straight: Callable, tmp_path: Path, count: Count
) -> None:
    stopped = Stopped(tmp_path / "runs", [run], faults, "--processes", "1", save=save)
    named = f"stopped; what was trained is in {tmp_path / 'runs'}. Go on with: hyla-repro run fig2c" in stopped.errors
    count(stopped.code == 128 + faults[0][2] and named and "Traceback" not in stopped.errors)
    count(stopped.step(run) == step and not stopped.litter(run) and stopped.alone)
    assert train([run], stopped.ledger, progress=False) == []
    count(outcome(stopped.ledger, run) == straight(run))


@pytest.mark.promises
@pytest.mark.parametrize("sent", [INT, TERM])
@pytest.mark.parametrize("kind", ["step", "import"])
def test_promise_08_signals_reach_every_process(
    kind: str, sent: int, make_run: Make, straight: Callable, tmp_path: Path, count: Count
) -> None:
    runs = [make_run(seed=seed) for seed in range(2)]
    # The parent imports no torch; each child that gets there stops the parent, which stops both.
    stopped = Stopped(tmp_path / "runs", runs, [(kind, 5 if kind == "step" else 1, sent)], "--processes", "2")
    count(stopped.code == 128 + sent and stopped.alone)
    count("no signal came back" not in stopped.errors and "Go on with: hyla-repro run fig2c --p" in stopped.errors)
    assert Stopped(tmp_path / "runs", runs, [], "--processes", "2").code == 0
    for run in runs:
        count(outcome(stopped.ledger, run) == straight(run))


class Clock:
    """A clock that an hour passes on at each of some steps."""

    def __init__(self) -> None:
        self.hours = 0

    def monotonic(self) -> float:
        return time.monotonic() + 3600 * self.hours


@pytest.mark.parametrize("at", [0, 5, 37, *(pytest.param(at, marks=pytest.mark.promises) for at in (1, 29, 30, 36))])
def test_promise_08_a_used_up_budget_says_what_is_left(
    at: int, make_run: Make, straight: Callable, ledger: Ledger, count: Count, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runs = [make_run(seed=seed) for seed in range(2)]
    clock, advance = Clock(), Stack.advance

    def slowly(stack: Stack) -> None:
        advance(stack)
        clock.hours += stack.step == at

    monkeypatch.setattr(Stack, "advance", slowly)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: runs),))])
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(ledger.root))
    for trained in (0, 1):
        budget = "30m" if at else "0s"
        monkeypatch.setattr(sys, "argv", ["hyla-repro", "run", "fig2c", "--processes", "1", "--budget", budget])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().out
        count(not ended.value.code)
        if at < 37:
            left = ", ".join(run.label for run in runs)
            count("0 of 2 runs of fig2c at preset smoke are finished" in said and f"left: {left}\n" in said)
            count(f"Go on with: hyla-repro run fig2c --processes 1 --budget {budget}" in said)
            sound, damaged = ledger.load_checkpoints(runs[0])
            count(not damaged and [facts_of(content)["step"] for content in sound][:1] == [at] * bool(at))
            break
        # All steps of the first run were taken, so it is finished; then those of the second.
        count(f"{trained + 1} of 2 runs of fig2c" in said and ("left: " in said) == (trained == 0))
    monkeypatch.undo()
    assert train(runs, ledger, progress=False) == []
    for run in runs:
        count(outcome(ledger, run) == straight(run))
