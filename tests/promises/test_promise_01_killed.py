"""Promise 1: a run that is killed at any moment and continued ends bit-identical to one that never was."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from hyla_repro import training
from hyla_repro.experiment import Experiment
from hyla_repro.runs import CURVE, MODEL, Ledger
from hyla_repro.stack import Stack

Make = Callable[..., Experiment]

# Every try is a process of its own, forked off one that has imported torch and done nothing with it.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["hyla_repro.training"])


class Clock:
    """Time goes on by a third of what separates two checkpoints whenever it is looked at."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        cls.now += training._CHECKPOINT_SECONDS / 3
        return cls.now


def trainee(root: Path, members: list[Experiment], stacked: bool, moment: str, number: int, said: Connection) -> None:
    """Train, be killed at the n-th moment of a kind, or else say how many there were."""
    seen = dict.fromkeys(("step", "evaluation", "write", "rename", "clean-up"), 0)

    def watch(kind: str, owner: Any, name: str, after: bool = False) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
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
    training.torch.set_num_threads(1)
    training.time = Clock
    if stacked:
        training._stack_size = lambda members, device: len(members)
    assert training.train(members, Ledger(root), progress=False) == []
    said.send(seen)


def train(
    root: Path, members: list[Experiment], stacked: bool, moment: str = "", number: int = 0
) -> tuple[int | None, dict[str, int] | None]:
    """Return the exit code of a trainee, negative for a signal, and what it said."""
    receiving, sending = processes.Pipe(duplex=False)
    process = processes.Process(target=trainee, args=(root, members, stacked, moment, number, sending))
    process.start()
    sending.close()
    process.join()
    return process.exitcode, receiving.recv() if process.exitcode == 0 else None


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
    _, total = train(tmp_path / "straight", members, stacked)
    expected = outcome(tmp_path / "straight", members)
    choose = random.Random(f"{variant} {stacked}")
    for trial in range(kills):
        moment, root = list(total)[trial % len(total)], tmp_path / f"trial {trial}"
        code, _ = train(root, members, stacked, moment, choose.randint(1, total[moment]))
        assert code == -signal.SIGKILL
        train(root, members, stacked)
        count(outcome(root, members) == expected)
