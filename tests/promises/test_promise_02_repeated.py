"""Promise 2: the same experiment gives the same bytes again, other threads the same losses, a GPU the same data."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import CURVE, MODEL, RESULT, Ledger
from hyla_repro.tasks.fuzzy_logic import SPLITS

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]
Count = Callable[[bool], None]

TRAINEE = """
import json, sys
from pathlib import Path
import torch
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.training.loop import train
torch.set_num_threads(int(sys.argv[3]))
train([Experiment.model_validate(json.loads(sys.argv[2]))], Ledger(Path(sys.argv[1])), progress=False)
"""


def result(root: Path, run: Experiment, threads: int = 1) -> dict[str, object]:
    """Train in a fresh process and return what it stored, but when it was and how long it took."""
    command = [sys.executable, "-c", TRAINEE, str(root), json.dumps(run.model_dump(mode="json")), str(threads)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "random"}, check=True)
    ledger = Ledger(root)
    facts = ledger.result(run)
    files = {name: ledger.read(run, name) for name in (MODEL, CURVE)}
    assert set(facts) == {"id", "experiment", "scores", "train_loss", "minutes", "provenance", "files"}, RESULT
    return files | {name: facts[name] for name in ("id", "experiment", "scores", "train_loss", "files")}


@pytest.mark.parametrize(
    "variants",
    [["hyla"], pytest.param(["softmax", "linear", "hyla", "hyla_deep"], marks=pytest.mark.promises)],
    ids=len,
)
def test_promise_02_the_same_run_twice_is_byte_identical(
    variants: list[str], make_run: Make, tmp_path: Path, count: Count
) -> None:
    for variant in variants:
        run = make_run(variant)
        count(result(tmp_path / f"{variant} 1", run) == result(tmp_path / f"{variant} 2", run))


def test_promise_02_two_threads_give_the_same_losses(make_run: Make, tmp_path: Path, count: Count) -> None:
    run = make_run(steps=20, batch_size=64)
    one, two = (result(tmp_path / str(threads), run, threads) for threads in (1, 2))
    count(two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5))


@pytest.mark.gpu
@pytest.mark.parametrize("split", SPLITS)
def test_promise_02_a_gpu_draws_the_same_bits(split: str, run: Experiment, count: Count) -> None:
    task = run.build_task()
    for step in (0, 7, 2**33):
        ours, theirs = task.batch(split, step, 64), task.batch(split, step, 64, "cuda")
        count(all(torch.equal(mine, other.cpu()) for mine, other in zip(ours, theirs, strict=True)))
