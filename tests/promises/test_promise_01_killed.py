"""Promise 1: a run that is killed at any moment and continued ends bit-identical to one that never was."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyla_repro.experiment import Experiment
from hyla_repro.runs import CURVE, MODEL, Ledger

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]

# Trains, kills itself at the n-th moment of a kind, or else prints how many there were; saves at every third step.
TRAINEE = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from hyla_repro import runs, training
from hyla_repro.experiment import Experiment
from hyla_repro.stack import Stack
root, settings, stacked, moment, number = Path(sys.argv[1]), json.loads(sys.argv[2]), *map(json.loads, sys.argv[3:6])
seen = dict.fromkeys(("step", "evaluation", "write", "rename", "clean-up"), 0)

def watch(kind, owner, name, after=False):
    function = getattr(owner, name)
    def call(*arguments, **named):
        result = function(*arguments, **named) if after else None
        seen[kind] += 1
        if (kind, seen[kind]) == (moment, number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else function(*arguments, **named)
    setattr(owner, name, call)

watch("step", Stack, "advance", after=True)
watch("evaluation", Stack, "evaluate")
watch("write", os, "fsync")
watch("rename", Path, "replace")
watch("clean-up", Path, "unlink", after=True)

class Clock:
    now = 0.0
    @classmethod
    def monotonic(cls):
        cls.now += training._CHECKPOINT_SECONDS / 3
        return cls.now

training.time = Clock
if stacked:
    training._stack_size = lambda members, device: len(members)
members = [Experiment.model_validate(member) for member in settings]
assert training.train(members, runs.Ledger(root), progress=False) == []
print(json.dumps(seen))
"""


def train(root: Path, members: list[Experiment], stacked: bool, moment: str, number: int) -> tuple[int, str]:
    settings = json.dumps([run.model_dump(mode="json") for run in members])
    command = [sys.executable, "-c", TRAINEE, str(root), settings, json.dumps(stacked), json.dumps(moment), str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


def outcome(root: Path, members: list[Experiment]) -> list[object]:
    ledger, found = Ledger(root), []
    for run in members:
        result = ledger.result(run)
        found.append([ledger.read(run, MODEL), ledger.read(run, CURVE), result["scores"], result["train_loss"]])
        found.append(sorted(path.name for path in ledger.folder(run).iterdir()))
    return found


@pytest.mark.parametrize("stacked", [False, True], ids=["single", "stacked"])
@pytest.mark.parametrize(
    ("variant", "kills"),
    [("hyla", 5), *(pytest.param(v, 25, marks=pytest.mark.promises) for v in ("hyla", "softmax", "hyla_deep"))],
)
def test_promise_01_killed_and_continued_is_bit_identical(
    variant: str, kills: int, stacked: bool, make_run: Make, tmp_path: Path, count: Callable[[bool], None]
) -> None:
    members = [make_run(variant, seed=seed) for seed in range(2 if stacked else 1)]
    _, moments = train(tmp_path / "straight", members, stacked, "", 0)
    total, expected = json.loads(moments), outcome(tmp_path / "straight", members)
    choose = random.Random(f"{variant} {stacked}")
    for trial in range(kills):
        moment, root = list(total)[trial % len(total)], tmp_path / f"trial {trial}"
        code, _ = train(root, members, stacked, moment, choose.randint(1, total[moment]))
        assert code == -signal.SIGKILL
        train(root, members, stacked, "", 0)
        count(outcome(root, members) == expected)
