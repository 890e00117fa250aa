"""Latent codes on SRAVEN: whose they are, that probes find what is there, and nothing where nothing can be."""

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.studies.codes import linear_probe
from hyla_repro.studies.sraven import codes as sraven_codes
from hyla_repro.studies.sraven.codes import (
    Answers,
    answers,
    code_plane_table,
    mean_code_table,
    mean_similarity,
    rule_decoding_table,
    similarity,
)
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES
from hyla_repro.training.stack import Stack


@pytest.fixture
def run() -> Experiment:
    return sraven("smoke", "hyla", 0)


@pytest.fixture
def weights(run: Experiment) -> bytes:
    return safetensors.torch.save(dict(Transformer(run.model).initialize(1).state_dict()))


def test_codes_are_those_of_the_answers_tokens_with_their_own_rules(run: Experiment) -> None:
    model, task = Transformer(run.model).initialize(0), run.build_task()
    ((codes, rules, symbols),) = answers(Stack([run]), "heldout", 600)
    batch = task.batch("heldout", 1, 100)
    _, layers = model(batch.inputs, return_codes=True)
    for problem, place in ((0, 0), (0, 1), (99, 1)):
        token = 2 * (500 + problem) + place
        expected = torch.stack([layer[problem, :, 16 + place, 16 + place] for layer in layers])
        np.testing.assert_allclose(codes[token], expected.detach().numpy(), rtol=1e-4, atol=2e-5)
        feature = batch.permutations[problem, 2, place]
        assert rules[token] == batch.rules[problem, feature]
        assert symbols[token] == batch.targets[problem, place]


def test_a_stack_has_the_codes_of_its_runs_alone(run: Experiment) -> None:
    runs = [run, run.model_copy(update={"seed": 1})]
    for stacked, one in zip(answers(Stack(runs), "train_aligned", 70), runs, strict=True):
        (alone,) = answers(Stack([one]), "train_aligned", 70)
        np.testing.assert_allclose(stacked.codes, alone.codes, rtol=1e-4, atol=2e-5)
        assert np.array_equal(stacked.rules, alone.rules)
        assert np.array_equal(stacked.symbols, alone.symbols)


@pytest.mark.parametrize("method", ["hyla", "linear"])
def test_without_softmax_the_first_layers_code_tells_nothing(method: str) -> None:
    """The answer's tokens carry no symbol, so the scores of one with itself are the same in every problem."""
    run = sraven("smoke", method, 0)
    weights = safetensors.torch.save(dict(Transformer(run.model).initialize(1).state_dict()))
    table = rule_decoding_table([run], [weights], problems=300).set_index(["model", "layer"])
    for model in ("trained", "untrained"):
        # A constant is decoded as one rule, which is right for all tokens of that rule and for no other.
        assert set(table.loc[(model, 1), "train_accuracy"].round(3)) <= {0.125, 0.143, 0.167}
    plane = code_plane_table([run], [weights], points=60)
    assert (plane.loc[plane["layer"] == 1, ["x", "y"]] == 0).all(axis=None)
    assert plane.loc[plane["layer"] == 2, "x"].nunique() > 10


def test_a_code_that_names_the_rule_is_decoded(
    run: Experiment, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(stack: Stack, split: str, problems: int, first_step: int = 0) -> list[Answers]:
        ((_, rules, symbols),) = answers(stack, split, problems, first_step)
        return [Answers(np.stack([np.zeros((len(rules), 8)), np.eye(8)[rules]], axis=1), rules, symbols)]

    monkeypatch.setattr(sraven_codes, "answers", told)
    table = rule_decoding_table([run], [weights], problems=200).set_index("layer")
    assert (table.loc[2, ["accuracy", "train_accuracy"]] == 1.0).all(axis=None)
    assert (table.loc[2, "neighbours"] > 0.95).all()
    assert (table.loc[1, "accuracy"] <= table.loc[1, "chance"] + 1e-9).all()
    means = mean_code_table([run], [weights], problems=200)
    last = means[(means["layer"] == 2) & (means["model"] == "trained")]
    assert similarity(last).fillna(0).to_numpy() == pytest.approx(np.diag(similarity(last).notna().any().astype(float)))


def test_rules_count_equally_however_rare() -> None:
    probe = linear_probe(class_weight="balanced").fit(np.array([[0.0], [0.1], [0.2], [5.0]]), np.array([0, 0, 0, 1]))
    codes, rules = np.array([[0.0], [0.1], [0.2], [0.0], [5.0], [0.1]]), np.array([0, 0, 0, 0, 1, 1])
    assert sraven_codes._mean_recall(probe, codes, rules) == 0.75


def test_similarity_is_the_cosine_and_missing_rules_are_missing() -> None:
    means = pd.DataFrame({"rule": ["constant", "plus_1", "difference"], "head_1": [1.0, 2.0, 0.0],
                          "head_2": [0.0, 2.0, -3.0], "head_3": np.nan})  # fmt: skip
    matrix = similarity(means)
    assert list(matrix.index) == list(matrix.columns) == list(SRAVEN_RULES)
    assert matrix.loc["constant", "plus_1"] == pytest.approx(0.5**0.5)
    assert matrix.loc["plus_1", "difference"] == pytest.approx(-(0.5**0.5))
    assert matrix.loc["addition"].isna().all()


def test_similarities_are_averaged_over_seeds_and_models_kept_apart() -> None:
    rows = [
        {"variant": method, "seed": seed, "model": model, "layer": layer, "rule": rule, "head_1": 1.0,
         "head_2": float(seed * (rule == "addition")) * (1 if model == "trained" else 9)}
        for method in ("hyla", "softmax") for seed in (0, 1) for model in ("trained", "untrained") for layer in (1, 2)
        for rule in SRAVEN_RULES
    ]  # fmt: skip
    matrices = mean_similarity(pd.DataFrame(rows))
    assert set(matrices) == {"hyla", "softmax"}
    assert matrices["hyla"].loc["addition", "constant"] == pytest.approx((1 + 0.5**0.5) / 2)


def test_the_plane_shows_the_first_seed_and_the_last_layers_codes(run: Experiment, weights: bytes) -> None:
    table = code_plane_table([run], [weights], points=50)
    assert len(table) == 2 * 50
    assert set(table["rule"]) <= set(SRAVEN_RULES)
    assert table[["x", "y"]].abs().max(axis=None) == 100
    assert table.loc[table["layer"] == 2, "head_4"].notna().all()
    assert table.loc[table["layer"] == 1, "head_4"].isna().all()
    assert code_plane_table([run.model_copy(update={"seed": 1})], [weights]).empty
