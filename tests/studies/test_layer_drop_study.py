"""The study of dropped layers: its runs, the tables made of weights, and the rules on made-up tables."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from einops import rearrange
from safetensors.torch import save

from hyla_repro.attention import NORMALIZERS
from hyla_repro.results.effects import CONTRADICTED, NOT_TESTED, REPRODUCED, UNDECIDED
from hyla_repro.results.store import Store
from hyla_repro.studies import kept_steps
from hyla_repro.studies.layer_drop import analysis, claims, codes, dropped, figures, runs
from hyla_repro.studies.layer_drop.published import PUBLISHED
from hyla_repro.training.stack import Stack

METHODS = ("softmax", "linear", "hyla")
RUNS = {run.method: run for run in runs.flat("smoke")}


def weights(method: str) -> bytes:
    return save(Stack([RUNS[method]]).state_dict(0))


# --- runs ---------------------------------------------------------------------------------------------------


def test_deep_models_keep_weights_and_no_others() -> None:
    for run in runs.deep("laptop"):
        assert sorted(kept_steps(run)) == [200, 800, 2400, 4000, 6000]
    for run in runs.deep_characters("laptop"):
        assert sorted(kept_steps(run)) == [150, 600, 1800, 3000, 4500]
    others = [*runs.flat("laptop"), *runs.characters("laptop")]
    assert not any(kept_steps(run) for run in others)
    assert {run.model.n_layers for run in (*runs.deep("laptop"), *runs.deep_characters("laptop"))} == {8}


def test_weights_along_training_of_one_model_per_method_are_committed() -> None:
    held = Store(committed_only=True)
    for run in runs.deep("laptop"):
        assert list(held.along(run)) == ([200, 800, 2400, 4000, 6000] if run.seed == 0 else [])


def test_models_that_are_committed_already_are_used() -> None:
    held = Store(committed_only=True)
    assert all(held.model(run) for run in [*runs.flat("laptop"), *runs.characters("laptop")])


@pytest.mark.parametrize("method", METHODS)
def test_committed_weights_along_training_give_the_committed_rows(method: str) -> None:
    held = Store(committed_only=True)
    (run,) = [run for run in runs.deep("laptop") if run.method == method and run.seed == 0]
    curves = held.table(runs.CURVES.table)
    # Half of a thousand problems: a mean of as many is within 5 % of the whole, whatever the machine.
    for step, weights in list(held.along(run).items())[2::2]:
        own = curves[(curves["id"] == run.id) & (curves["step"] == step) & (curves["n"] == 0)]
        found = codes.Subject(run, weights, sequences=500).evaluate()
        assert found.test == pytest.approx(own["test"].iloc[0], abs=0.05)
        assert found.loss == pytest.approx(own["loss"].iloc[0], rel=0.05)


# --- tables -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    some, content = list(RUNS.values()), [weights(method) for method in RUNS]
    along = [{2: bytes_, 60: bytes_} for bytes_ in content]
    return {
        "scores": codes.score_table(some, along, sequences=20),
        "curves": codes.curve_table(some, along, sequences=20),
    }


def test_scores_have_a_row_for_every_module_and_step(tables: dict[str, pd.DataFrame]) -> None:
    scores = tables["scores"]
    assert set(scores["step"]) == {0, 2, 60}
    assert len(scores) == 3 * 2 * 3 * 3
    assert scores["score"].between(0, 2).all()
    early, late = (scores[scores["step"] == step].drop(columns=["step", "zero", "uniform"]) for step in (2, 60))
    pd.testing.assert_frame_equal(early.reset_index(drop=True), late.reset_index(drop=True))
    assert scores["bare"].isna().equals(scores["kind"] == "block")
    assert scores["zero"].notna().equals((scores["kind"] == "attn") & (scores["step"] == 60))


def test_curves_agree_with_one_another(tables: dict[str, pd.DataFrame]) -> None:
    curves = tables["curves"]
    assert set(curves.loc[curves["step"] == 2, "order"]) == {"score"}
    for _, own in curves.groupby(["id", "step"]):
        # The same modules give the same accuracy, whatever order they stand in.
        sets = own.assign(sets=[frozenset(names.split()) for names in own["dropped"]]).groupby("sets")
        assert (sets[["test", "heldout", "loss"]].nunique() == 1).all(axis=None)
    last = curves[(curves["step"] == 60) & (curves["target"] == "joint")]
    table = last[last["n"] <= 2].pivot_table("test", index="n", columns=["id", "order"])
    for run in RUNS.values():
        assert (table[run.id].rsub(table[run.id, "oracle"], axis=0) >= 0).all(axis=None)
    assert curves["chance"].unique() == pytest.approx([1 / 64], abs=1e-5)


def test_orders_of_the_table_are_those_of_the_scores(tables: dict[str, pd.DataFrame]) -> None:
    scores, curves = tables["scores"], tables["curves"]
    for run, kind in product(RUNS.values(), ("attn", "mlp", "block")):
        own = scores[(scores["id"] == run.id) & (scores["kind"] == kind) & (scores["step"] == 60)]
        layers = own.sort_values("score")["layer"].tolist()
        curve = curves[(curves["id"] == run.id) & (curves["target"] == kind) & (curves["order"] == "score")]
        assert curve.loc[(curve["n"] == 2) & (curve["step"] == 60), "dropped"].item() == " ".join(
            f"{kind}{layer}" for layer in layers
        )


def test_language_is_scored_by_characters() -> None:
    (run,) = [run for run in runs.characters("smoke") if run.method == "softmax"]
    subject = codes.Subject(run, save(Stack([run]).state_dict(0)), sequences=4)
    found = subject.evaluate()
    assert 0 <= found.test <= 1
    assert found.loss > 1
    assert 0.1 < codes.chance(run) < 0.3


# --- codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_code_of_zero_is_a_dropped_layer_without_biases(method: str) -> None:
    subject = codes.Subject(RUNS[method], weights(method), sequences=10)
    x, known = subject.calibration[0], set(NORMALIZERS)
    whole = subject.model(x)
    with dropped(subject.model, [("attn", 1)]):
        expected = subject.model(x)
    with codes.replaced_code(subject.model, 1, "zero"):
        torch.testing.assert_close(subject.model(x), expected, rtol=0, atol=1e-6)
    assert torch.equal(subject.model(x), whole)
    assert set(NORMALIZERS) == known
    with pytest.raises(ValueError, match="unknown code 'one'"), codes.replaced_code(subject.model, 1, "one"):
        pass


@pytest.mark.parametrize("method", METHODS)
def test_a_uniform_code_depends_on_no_token(method: str) -> None:
    subject = codes.Subject(RUNS[method], weights(method), sequences=10)
    x = subject.calibration[0]
    with codes.replaced_code(subject.model, 0, "uniform"):
        _, (code, *_) = subject.model(x, return_codes=True)
        assert torch.equal(code, code[:1, :, :, :1].expand_as(code))
    _, (own, *_) = subject.model(x, return_codes=True)
    if method == "softmax":
        torch.testing.assert_close(code, torch.full_like(code, 1 / code.shape[-1]))
    torch.testing.assert_close(code.mean((0, 3)), own.mean((0, 3)), rtol=0, atol=1e-5)


def test_a_uniform_code_of_a_causal_model_sees_no_later_token() -> None:
    (run,) = [run for run in runs.characters("smoke") if run.method == "softmax"]
    subject = codes.Subject(run, save(Stack([run]).state_dict(0)), sequences=4)
    with codes.replaced_code(subject.model, 0, "uniform"):
        _, (code, *_) = subject.model(subject.calibration[0], return_codes=True)
    expected = torch.ones(code.shape[-2:]).tril()
    torch.testing.assert_close(code, (expected / expected.sum(-1, keepdim=True)).expand_as(code))


def test_dimension_and_variation_of_codes() -> None:
    noise = torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0))
    line = rearrange(noise[:, 0], "n -> n 1") * torch.arange(1.0, 6.0)
    assert codes.code_dimension(noise) == pytest.approx(5, abs=0.1)
    assert codes.code_dimension(line) == pytest.approx(1, abs=1e-6)
    assert codes.code_dimension(torch.full((100, 5), 0.3)) == 0
    assert codes.code_variation(noise) == pytest.approx(1, abs=1e-3)
    assert codes.code_variation(noise + 10) == pytest.approx(1 / 101, abs=1e-3)
    assert codes.code_variation(torch.zeros(10, 5)) == 0


# --- rules --------------------------------------------------------------------------------------------------

# What each module costs of accuracy: attention little with softmax, MLPs little with HYLA.
PRICE = {"softmax": {"attn": 1, "mlp": 5}, "linear": {"attn": 3, "mlp": 3}, "hyla": {"attn": 5, "mlp": 1}}
STEPS = (2400, 8000)


def made_up(price: dict[str, dict[str, int]] = PRICE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return tables of three seeds in which dropping costs a price per module, and S is the price."""
    noise = np.random.default_rng(0)
    scores, curves = [], []
    for method, seed, step in product(METHODS, range(3), STEPS):
        facts = {"id": f"{method}{seed}", "variant": method, "seed": seed, "step": step, "steps": 8000,
                 "task": "sraven", "n_layers": 8}  # fmt: skip
        # Softmax attention learns twice as fast.
        whole = {"softmax": {2400: 0.3, 8000: 0.6}}.get(method, {2400: 0.15, 8000: 0.3})[step]
        costs = price[method] | {"block": sum(price[method].values()), "joint": 0.8 * min(price[method].values())}
        for target, cost in costs.items():
            orders = {"score": 1.0, "bare": 2.0, "random 0": 1.5, "random 1": 1.7}
            for (order, factor), n in product(orders.items() if step == 8000 else [("score", 1.0)], range(9)):
                left = max(0.0, 1 - factor * cost * n / 50) * (1 + noise.normal(0, 0.002) * (n > 0))
                curves.append(facts | {"target": target, "order": order, "n": n, "dropped": "", "chance": 0.0,
                                       "test": whole * left, "heldout": whole * left, "loss": 0.0})  # fmt: skip
            for layer in range(8 * (target != "joint")):
                score = 0.01 * cost * (1 + 9 * (layer == 0) + 0.1 * layer) * noise.normal(1, 0.01)
                scores.append(facts | {"kind": target, "layer": layer, "score": score})
                if step == 8000:
                    curves.append(facts | {"target": target, "order": "single", "n": 1, "dropped": f"{target}{layer}",
                                           "chance": 0.0, "test": 0.0, "heldout": 0.0,
                                           "loss": score * noise.lognormal(0, 0.08)})  # fmt: skip
    # Before training the first layer leads half as far.
    last = pd.DataFrame(scores).query("step == 8000")
    before = last.assign(step=0, score=last["score"].where(last["layer"] > 0, 0.5 * last["score"]))
    return pd.concat([before, pd.DataFrame(scores)], ignore_index=True), pd.DataFrame(curves)


RULES = {
    "attention": claims.attention_is_cheaper, "cosine": claims.cosine_beats_random,
    "residual": claims.residual_is_needed, "joint": claims.joint_is_best, "stages": claims.attention_changes_less,
    "first": claims.first_is_largest, "rank": claims.score_tells_harm,
    "flip": lambda scores, curves: claims.ordering_flips(scores, curves, "test"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_fulfilled_by_what_they_state(rule: str) -> None:
    assert RULES[rule](*made_up()).answer == REPRODUCED


@pytest.mark.parametrize("rule", ["attention", "stages", "flip"])
def test_rules_are_contradicted_by_the_opposite(rule: str) -> None:
    swapped = PRICE | {"softmax": PRICE["hyla"], "hyla": PRICE["softmax"]}
    assert RULES[rule](*made_up(swapped)).answer == CONTRADICTED


@pytest.mark.parametrize(("better", "answer"), [("attn", UNDECIDED), ("block", CONTRADICTED)])
def test_a_joint_order_that_is_that_of_one_kind_or_a_bad_one_is_not_better(better: str, answer: str) -> None:
    scores, curves = made_up()
    one = curves[curves["target"] == better].assign(target="joint")
    assert claims.joint_is_best(scores, pd.concat([curves[curves["target"] != "joint"], one])).answer == answer


def test_models_are_matched_where_they_are_equally_good() -> None:
    scores, curves = made_up()
    at = analysis.matched(curves)
    assert {(v, s) for v, s in zip(at["variant"], at["step"], strict=True)} == {
        ("softmax", 2400), ("linear", 8000), ("hyla", 8000),
    }  # fmt: skip
    assert analysis.widest_gap(at) == pytest.approx(0, abs=1e-9)
    assert not claims.ordering_flips(scores, curves, "test").weak
    ended = analysis.last_steps(curves)
    assert analysis.matched(ended).empty
    assert claims.ordering_flips(scores, ended, "test").answer == NOT_TESTED
    far = curves.assign(test=curves["test"].where(curves["variant"] != "hyla", curves["test"] * 0.6))
    assert "differ by up to" in claims.ordering_flips(scores, far, "test").weak


def test_what_is_kept_is_a_share_of_what_is_above_chance() -> None:
    _, curves = made_up()
    curves["chance"] = 0.1
    kept = analysis.retained(curves)
    half = kept[(kept["variant"] == "softmax") & (kept["target"] == "mlp") & (kept["n"] == 4) & (kept["step"] == 8000)]
    own = half[half["order"] == "score"]
    assert own["kept"].to_numpy() == pytest.approx(100 * (own["test"] - 0.1).to_numpy() / 0.5)
    assert kept.loc[kept["n"] == 0, "kept"].to_numpy() == pytest.approx(100)


def test_chapter_has_tables_and_figures(tables: dict[str, pd.DataFrame]) -> None:
    scores, curves = made_up()
    scores = scores.assign(zero=0.1, uniform=0.2, dimension=3.0, variation=0.5)
    assert set(analysis.summary(curves, scores).index.get_level_values(0)) == {"SRAVEN, 8 layers"}
    assert len(analysis.code_table(scores, curves)) == 3 * 8
    assert len(analysis.matched_table(curves)) == 3 * 2
    for figure in (figures.drop(curves), figures.heat(scores), figures.single(scores, curves), figures.kept(curves)):
        assert figure.axes
    kinds = [ax.get_ylabel() for ax in figures.heat(scores).axes]
    assert kinds == ["attention: step", "", "", "MLP: step", "", "", "block: step", "", "", "S"]


def test_characters_are_matched_and_drawn_apart_from_sraven() -> None:
    scores, curves = made_up()
    text = {"task": "language", "steps": 6000}
    later = {2400: 1800, 8000: 6000}
    both = [pd.concat([table, table[table["seed"] == 0].assign(**text, id="text " + table["id"], step=table["step"].map(
        lambda step: later.get(step, step)))]) for table in (scores, curves)]  # fmt: skip
    pd.testing.assert_frame_equal(analysis.matched(both[1]).query("task == 'sraven'").reset_index(drop=True),
                                  analysis.matched(curves), check_dtype=False)  # fmt: skip
    assert len(figures.kept(both[1]).axes) == 2 * 3
    steps = {label.get_text() for label in figures.heat(both[0], "language").axes[0].get_yticklabels()}
    assert "1800" in steps
    assert "2400" not in steps
    shallow = both[1][both[1]["task"] == "language"].assign(n_layers=4)
    assert len(figures.drop(pd.concat([both[1], shallow])).axes) == 2 * 3
    (title, *_) = [ax.get_title() for ax in figures.drop(pd.concat([both[1], shallow]), deepest=False).axes]
    assert title.endswith("characters, 4 layers")
    table = analysis.matched_table(both[1])
    assert len(table) == 2 * 2 * 3
    # One seed has a difference, and neither error nor interval.
    assert table.loc[("characters", "Milton", "HYLA"), "attention minus MLP"].endswith("(no\N{NO-BREAK SPACE}interval)")


def test_chapter_says_so_without_rows(tmp_path: object) -> None:
    empty = pd.DataFrame()
    for figure in (figures.drop(empty), figures.heat(empty), figures.single(empty, empty), figures.kept(empty)):
        assert "hyla-repro run drop" in figure.axes[0].texts[0].get_text()
    assert analysis.summary(empty, empty).empty
    assert analysis.code_table(empty, empty).empty
    assert analysis.matched_table(empty).empty
    assert "0 of 24 models: `hyla-repro run drop`" in analysis.progress(empty, runs.all_runs("laptop"))


def test_committed_weights_alone_make_no_table_while_a_page_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Store(committed_only=True)
    monkeypatch.setattr(codes, "Subject", lambda *_: pytest.fail("made a table"))
    found = analysis.rows(held, runs.CURVES, runs.all_runs("laptop"))
    assert set(found.get("id", [])) <= set(held.table(runs.CURVES.table)["id"])


def test_published_tables_are_shown_whole() -> None:
    for name, drops in PUBLISHED.items():
        table = analysis.published(name)
        assert (table != "").sum().sum() == len(drops.rows)
    assert analysis.published("Llama-2-13B").loc["attention", 4] == "68.5, 1.05×, −0.05"
