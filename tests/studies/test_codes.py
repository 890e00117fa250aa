"""Latent codes: what is collected, that probes find what is there and nothing where nothing can be."""

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.studies.codes import own_codes, trained
from hyla_repro.studies.fuzzy_logic.codes import (
    agreements,
    chance_f1,
    decoding_table,
    embedding_table,
    neighbour_agreement,
    shares_table,
)
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.training.stack import Stack


@pytest.fixture
def run() -> Experiment:
    return fuzzy_logic("smoke", "hyla", 0, n_examples=7, heldout_fraction=0.5)


@pytest.fixture
def weights(run: Experiment) -> bytes:
    return safetensors.torch.save(dict(Transformer(run.model).initialize(0).state_dict()))


def test_codes_are_those_of_the_response_token(run: Experiment) -> None:
    model, task = Transformer(run.model).initialize(0), run.build_task()
    codes, shown = own_codes(Stack([run]), "heldout", 600)
    batch = task.batch("heldout", 1, 100)
    _, layers = model(batch.inputs, return_codes=True)
    expected = torch.stack([layer[:, :, 6, 6] for layer in layers], dim=1)
    torch.testing.assert_close(codes[0, 500:, 0], expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(shown, batch, strict=True):
        assert torch.equal(ours[0, 500:], theirs)


def test_a_stack_has_the_codes_of_its_runs_alone(run: Experiment) -> None:
    runs = [run, run.model_copy(update={"seed": 1})]
    weights = [safetensors.torch.save(dict(Transformer(run.model).initialize(seed).state_dict())) for seed in (3, 4)]
    codes, batch = own_codes(trained(runs, weights), "heldout_fixed_query", 60)
    for index, (one, content) in enumerate(zip(runs, weights, strict=True)):
        alone, its_batch = own_codes(trained([one], [content]), "heldout_fixed_query", 60)
        torch.testing.assert_close(codes[index], alone[0], rtol=1e-4, atol=1e-5)
        assert torch.equal(batch.terms[index], its_batch.terms[0])
    together = embedding_table(runs, weights, sequences=60)
    assert together["id"].tolist() == 2 * ([run.id] * 60 + [runs[1].id] * 60)
    assert together["model"].tolist() == ["trained"] * 120 + ["untrained"] * 120
    decoded = decoding_table(runs, weights, sequences=600).groupby("id", sort=False)
    alone = decoding_table(runs[1:], weights[1:], sequences=600)
    np.testing.assert_allclose(decoded.get_group(runs[1].id)["auc"], alone["auc"], atol=0.02)


def test_first_layer_code_of_a_fixed_query_is_constant(run: Experiment) -> None:
    codes, _ = own_codes(Stack([run]), "heldout_fixed_query", 50)
    codes = codes[0, :, 0]
    assert (codes[:, 0] - codes[:1, 0]).abs().max() < 1e-5
    assert (codes[:, 1] - codes[:1, 1]).abs().max() > 1e-3


def test_nothing_is_decoded_from_a_constant_code(run: Experiment, weights: bytes) -> None:
    table = decoding_table([run], [weights], sequences=600)
    assert set(table["layer"]) == {1, 2}
    first, last = (table[table["layer"] == layer] for layer in (1, 2))
    assert (first[["f1", "train_f1"]] == 0).all(axis=None)
    assert (first[["auc", "train_auc"]] == 0.5).all(axis=None)
    assert (last[["auc", "train_auc"]] != 0.5).all(axis=None)
    assert table["chance"].between(0.1, 0.6).all()


def test_terms_written_into_the_code_are_decoded_on_unseen_sequences(
    run: Experiment, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(stack: Stack, split: str, sequences: int, first_step: int = 0) -> tuple:
        seen.append((split, first_step))
        _, batch = own_codes(stack, split, sequences, first_step)
        one_hot = torch.nn.functional.one_hot(batch.terms, 16).sum(2).float()
        return torch.stack([one_hot, torch.zeros_like(one_hot)], dim=2).unsqueeze(2), batch

    seen: list[tuple[str, int]] = []
    monkeypatch.setattr("hyla_repro.studies.fuzzy_logic.codes.own_codes", told)
    table = decoding_table([run], [weights], sequences=1200)
    # Once for the trained model, once for its control.
    assert seen == 2 * [("train_fixed_query", 0), ("train_fixed_query", 3), ("heldout_fixed_query", 0)]
    assert set(table["model"]) == {"trained", "untrained"}
    scores = table.groupby("layer")[["f1", "auc", "train_f1", "train_auc"]].agg(["min", "max"])
    assert scores.loc[1].to_numpy() == pytest.approx(1)
    assert set(scores.loc[2]) == {0.0, 0.5}


def test_value_of_a_term_is_that_of_the_function_made_of_it(run: Experiment, weights: bytes) -> None:
    task = run.build_task()
    table = decoding_table([run], [weights], sequences=600).drop_duplicates("term").set_index("term")
    values = torch.full((16,), torch.nan)
    values[torch.tensor(table.index)] = torch.tensor(table["term_value"].to_numpy(), dtype=torch.float32)
    batch = task.batch("heldout_fixed_query", 0, 100)
    torch.testing.assert_close(values[batch.terms].amax(-1), batch.targets[:, 0])


def test_chance_is_the_f1_of_always_yes() -> None:
    from sklearn.metrics import f1_score

    labels = np.array([True, False, False, False, True, False])
    assert chance_f1(1 / 3) == pytest.approx(f1_score(labels, np.ones(6, bool)))


def test_embedding_has_a_row_per_sequence(run: Experiment, weights: bytes) -> None:
    table = embedding_table([run], [weights], sequences=120)
    assert table["model"].tolist() == ["trained"] * 120 + ["untrained"] * 120
    assert (table.groupby("model")[["x", "y"]].agg(lambda column: column.abs().max()).max(axis=1) == 100).all()
    pd.testing.assert_frame_equal(table, embedding_table([run], [weights], sequences=120))


def test_neighbours_of_separate_clusters_agree_and_mixed_ones_do_not() -> None:
    place = np.repeat(np.arange(5), 40)
    jitter = np.random.default_rng(0).normal(size=(200, 2))
    labels = {"function": place.astype(str), "target": place / 10}
    apart = pd.DataFrame({"x": 100.0 * place + jitter[:, 0], "y": jitter[:, 1], **labels})
    mixed = apart.assign(x=jitter[:, 0])
    assert neighbour_agreement(apart) == (1.0, pytest.approx(39 / 199), 1.0)
    assert neighbour_agreement(mixed).share < 0.3
    assert neighbour_agreement(apart.assign(x=0.0, y=0.0)).chance == pytest.approx(39 / 199)


def test_what_the_target_explains_is_told_from_what_the_function_adds() -> None:
    """Four functions share a target: where only targets lie apart, all agreement is the targets'."""
    random = np.random.default_rng(1)
    function = random.permutation(np.repeat(np.arange(8), 50))
    target, jitter = function // 4, random.normal(size=(400, 2))
    labels = {"function": function.astype(str), "target": target}
    by_target = neighbour_agreement(pd.DataFrame({"x": 100.0 * target, "y": jitter[:, 1], **labels}))
    assert by_target.by_target == pytest.approx(49 / 199)
    assert by_target.share == pytest.approx(49 / 199, abs=0.03)
    by_function = neighbour_agreement(pd.DataFrame({"x": 100.0 * function, "y": jitter[:, 1], **labels}))
    assert (by_function.share, by_function.by_target) == (1.0, pytest.approx(49 / 199))


def test_the_control_is_the_run_before_its_first_step(run: Experiment, weights: bytes) -> None:
    """Weights that are the initial ones make both models the same; others change the trained one alone."""
    other = safetensors.torch.save(dict(Transformer(run.model).initialize(5).state_dict()))
    for make, sequences in ((decoding_table, 600), (embedding_table, 120)):
        same, apart = (make([run], [content], sequences=sequences).set_index("model") for content in (weights, other))
        pd.testing.assert_frame_equal(same.loc["trained"].reset_index(drop=True),
                                      same.loc["untrained"].reset_index(drop=True))  # fmt: skip
        pd.testing.assert_frame_equal(apart.loc["untrained"], same.loc["untrained"])
        assert not apart.loc["trained"].reset_index(drop=True).equals(same.loc["trained"].reset_index(drop=True))


def test_shares_by_method_and_seed_with_their_controls() -> None:
    """Trained codes show the function, untrained ones its target alone."""
    function = np.repeat(np.arange(8), 20)
    tables = []
    for seed in range(3):
        for method in ("hyla", "softmax", "linear"):
            for model, place in (("trained", function), ("untrained", function // 2)):
                x, y = np.random.default_rng(seed).random((2, 160))
                tables.append(pd.DataFrame({"model": model, "variant": method, "seed": seed, "x": 100 * place + x,
                                            "y": y, "function": function.astype(str),
                                            "target": function // 2}))  # fmt: skip
    shares = agreements(pd.concat(tables))
    assert shares.index.names == ["model", "variant", "seed"]
    assert len(shares) == 18
    assert (shares.loc["trained", "share"] == 1.0).all()
    assert shares["by_target"].to_numpy() == pytest.approx(19 / 39)
    assert shares.loc["untrained", "share"].to_numpy() == pytest.approx(19 / 39, abs=0.05)
    table = shares_table(shares)
    assert table.index.tolist() == ["softmax attention", "linear attention", "HYLA"]
    row = table.loc["HYLA"]
    assert row[["seed 0", "seed 1", "seed 2"]].tolist() == ["100%"] * 3
    assert row[["target alone", "target alone, before training", "chance"]].tolist() == ["49%", "49%", "12%"]
    assert row["before training"] in {f"{percent}%" for percent in range(44, 54)}
