"""Promise 7: a loss that is not finite ends its run at that step, never as a result, and harms no other run."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hyla_repro.errors import DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import CURVE, DIVERGED, MODEL, Ledger
from hyla_repro.training import loop
from hyla_repro.training.loop import train
from hyla_repro.training.stack import Stack

Make = Callable[..., Experiment]
Count = Callable[[bool], None]


@pytest.mark.parametrize("look_every", [1, 50], ids=["every step looked at", "every fiftieth"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("steps", [[0, 17], pytest.param(range(37), marks=pytest.mark.promises)], ids=len)
def test_promise_07_a_diverged_run_ends_alone(
    steps: list[int], value: float, look_every: int, make_run: Make, tmp_path: Path, count: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs = [make_run(seed=seed) for seed in range(3)]
    monkeypatch.setattr(loop, "_stack_size", lambda members, device: len(members))
    monkeypatch.setattr(loop, "_look_every", lambda device: look_every)
    straight, loss = Ledger(tmp_path / "straight"), Stack._loss
    assert train(runs, straight, progress=False) == []
    for step in steps:

        def poisoned(self: Stack, weights: dict, tables: dict, step: int = step) -> Tensor:
            return torch.where((self.clock == step) & (tables["seed"] == 1), value, loss(self, weights, tables))

        ledger = Ledger(tmp_path / str(step))
        with monkeypatch.context() as patched:
            patched.setattr(Stack, "_loss", poisoned)
            with pytest.raises(DivergedError) as caught:
                train(runs, ledger, progress=False)
        facts = json.loads((ledger.folder(runs[1]) / DIVERGED).read_text())
        named = f"loss is {value} at step {step} of {runs[1].label}" in str(caught.value)
        finite = facts["last_finite_loss"]
        others = all(ledger.read(run, name) == straight.read(run, name) for run in (runs[0], runs[2])
                     for name in (MODEL, CURVE))  # fmt: skip
        count(named and facts["step"] == step and others and ledger.state(runs[1]) == "diverged")
        count((finite is None) == (step == 0) and (finite is None or math.isfinite(finite)))
