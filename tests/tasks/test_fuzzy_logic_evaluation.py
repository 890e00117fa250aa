"""Fixed evaluation sets of fuzzy logic are what runs are scored on, and the score is the runs' own."""

import numpy as np
import pytest
import torch

from hyla_repro.tasks import FuzzyLogic
from hyla_repro.tasks.evaluation import CHUNK
from hyla_repro.tasks.fuzzy_logic import EvaluationSet, evaluation_set, score
from hyla_repro.training import stack


@pytest.fixture(scope="module")
def small() -> EvaluationSet:
    return evaluation_set(problems=7)


def test_the_sequences_are_those_that_runs_are_scored_on() -> None:
    drawn = evaluation_set(FuzzyLogic(seed=3), ("heldout",), 503).problems["heldout"]
    assert CHUNK == stack.CHUNK
    for step, size in enumerate((500, 3)):
        for whole, part in zip(drawn, FuzzyLogic(seed=3).batch("heldout", step, size), strict=True):
            assert torch.equal(whole[500 * step : 500 * step + size], part)


def test_the_set_never_changes(small: EvaluationSet) -> None:
    """Scores of other people's models refer to these sequences."""
    assert list(small.problems) == ["test", "heldout", "unknown_terms"]
    assert small.digest == evaluation_set(problems=7).digest != evaluation_set(problems=8).digest
    assert small.digest == "803b4f4d203cdd4d6c59b84d58a581d115e57ffee78bab6794e6bc237ffb7343"


def test_score_is_the_mean_of_the_tasks_own(small: EvaluationSet) -> None:
    right = {split: batch.targets for split, batch in small.problems.items()}
    assert score(right, small) == pytest.approx(dict.fromkeys(right, 1.0))
    guess = np.full(7, 0.5)
    batch = small.problems["heldout"]
    expected = small.task.score(torch.full((7, 1, 1), 0.5), batch).mean().item()
    assert score({"heldout": guess}, small)["heldout"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([0.5], r"predictions of type list hold no split: give a mapping from test or heldout"),
        ({}, r"hold no split"),
        ({"held_out": [0.5] * 7}, r"unknown split 'held_out': did you mean 'heldout'"),
        ({"test": [0.5] * 6}, r"predictions\['test'\] has shape \(6,\): this evaluation set needs \(7,\)"),
        ({"test": [0.5] * 6 + [float("nan")]}, r"is not finite at sequence 6 \(1 are not\)"),
        ({"test": ["a"] * 7}, r"is no array of numbers"),
    ],
)
def test_predictions_that_cannot_be_are_refused(small: EvaluationSet, predictions: object, message: str) -> None:
    # The tests' own checks of annotations refuse what is no mapping.
    with pytest.raises((ValueError, TypeError), match=f"{message}|Type-check error"):
        score(predictions, small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": ("train",)}, r"split='train' is what models are trained on"),
        ({"splits": ()}, r"is no list of splits"),
        ({"splits": "test"}, r"splits='test' is no list"),
        ({"problems": 0}, r"problems=0 is no number of problems"),
    ],
)
def test_sets_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation_set(**arguments)
