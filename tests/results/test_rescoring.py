"""Committed models, loaded and scored again, have the scores of their rows."""

from typing import Any

import pytest
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import step_name
from hyla_repro.results.store import Store
from hyla_repro.studies import experiments, kept_steps
from hyla_repro.studies.codes import trained
from hyla_repro.training.stack import CHUNK

# On the class of machine that trained them; and where matrix products round otherwise, since a score is a mean over
# thousands of sequences of which hardly any is near a kink of the network.
_SAME, _OTHER = 1e-6, 2e-3

STORE = Store(committed_only=True)
ROWS = STORE.committed_runs()
MODELS = [
    run for preset in ("laptop", "paper") for run in experiments("all", preset)
    if run.id in ROWS and f"models/{run.id}.safetensors" in STORE.manifest()
]  # fmt: skip
# The cheapest to score of each task.
QUICK = [
    min((run for run in MODELS if run.task_name == task and run.method == "linear"), key=lambda run: run.model.n_layers)
    for task in ("fuzzy_logic", "sraven")
]


def tolerance(row: dict[str, Any]) -> float:
    here = (torch.backends.cpu.get_cpu_capability(), torch.__version__)
    return _SAME if (row["instruction_set"], row["torch"]) == here else _OTHER


def check(run: Experiment) -> None:
    row, content = ROWS[run.id], STORE.model(run)
    assert content is not None
    (scores,) = trained([run], [content]).evaluate(run.evaluation_sequences)
    assert set(scores) == set(run.build_task().evaluation_splits)
    assert scores == pytest.approx({name: row[name] for name in scores}, abs=tolerance(row), rel=0)


def test_every_committed_model_is_one_of_a_committed_run() -> None:
    names = {f"models/{run.id}.safetensors" for run in MODELS}
    names |= {step_name(run, step) for run in MODELS for step in STORE.steps_of(run) if step in kept_steps(run)}
    assert names == {name for name in STORE.manifest() if name.startswith("models/")}


@pytest.mark.parametrize("run", QUICK, ids=lambda run: run.label)
def test_committed_models_score_as_their_rows_say(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """On held-out tasks, for the time that it takes."""
    monkeypatch.setattr(type(run.build_task()), "evaluation_splits", ("heldout",))
    check(run)


@pytest.mark.slow
@pytest.mark.parametrize("run", MODELS, ids=lambda run: run.label)
def test_every_committed_model_scores_as_its_row_says(run: Experiment) -> None:
    check(run)


def test_another_model_does_not_score_so() -> None:
    """The tolerance tells models apart: the initial weights, and those of the next seed."""
    run, other = QUICK[0], next(run for run in MODELS if run.kind == QUICK[0].kind and run.seed != QUICK[0].seed)
    content = STORE.model(other)
    assert content is not None
    (scores,) = trained([run], [content]).evaluate(CHUNK)
    assert abs(scores["heldout"] - ROWS[run.id]["heldout"]) > 10 * _OTHER
