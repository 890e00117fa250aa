"""The study of attention paths: its tables, its rules, heads of trained models, and linear HYLA."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations_with_replacement, product
from pathlib import Path

import matplotlib.pyplot
import pandas as pd
import pytest
import safetensors.torch
import torch

from hyla_repro.book.verdicts import results_of
from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.results.claims import Claim
from hyla_repro.results.effects import CONTRADICTED, NOT_TESTED, REPRODUCED
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.studies.attention_paths import analysis, bridge, chains, figures
from hyla_repro.studies.attention_paths.claims import claims
from hyla_repro.studies.attention_paths.runs import HEADS, POINTS
from hyla_repro.studies.attention_paths.runs import bridge as bridged

CLAIMS = {claim.id: claim for claim in claims(None)}
CHAINS = ["narrow", "falls", "correlated", "adversarial", "aligned", "exact", "error", "pruning", "descent"]


def values(point: chains.Point, good: bool) -> list[tuple[object, ...]]:
    """Made-up results of a point, as the paper has them or the other way round, a little different in every draw."""
    names = chains.path_names(*chains.head_names(point.heads))
    sign, more, much_more = (1 if good else -1), 0.1 * point.draw, 0.01 * point.draw**2
    other = names[2] if len(names) == 4 else names[-1]
    weights = dict.fromkeys(combinations_with_replacement(names, 2), 0.0)
    weights |= {(name, name): 0.5 if good else 5.0 for name in names} | {(names[0], names[0]): 10.0}
    weights[names[0], other] = -sign * (1 + more)
    entries = [("order parameter", *pair, weight) for pair, weight in weights.items()]
    overlap = 0.3 + more / 10 if point.width == 0 else 0.5 + 0.4 * sign + much_more
    overlaps = [("overlap", str(rank), overlap) for rank in range(1, 31)]
    if point.method == "infinite":
        scores = {"all": 80, "good": 85, "good and denoising": 80 + 12 * sign + much_more}
        return [*(("accuracy", name, value + more) for name, value in scores.items()), *overlaps]
    if point.method == "theory":
        return [("accuracy", 80 + sign * 160 / point.width + 2 * more), *entries, *overlaps]
    if point.method == "chain":
        return [("accuracy", 90.0), ("accuracy of the theory", 91.0 - sign), ("correlation with the theory", 0.999)]
    if point.method == "importance":
        return [("relative error", 1 / point.width if good else 0.2)]
    if point.method == "descent":
        cosine = 0.8 + more / 100
        return [("cosine", cosine), ("cosine before training", cosine - sign * (0.2 + much_more))]
    found: list[tuple[object, ...]] = [("accuracy", 95.0)]
    for layer, heads in enumerate(chains.head_names(point.heads), start=1):
        for head in heads:
            counts = head.startswith("random") != good
            found.append(("score", f"layer {layer}", head, 0.9 - more / 10 if counts else 0.2 + much_more / 10))
            found.append(("accuracy without", f"layer {layer}", head, 55.0 + more if counts else 94.5 - much_more))
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Store]:
    """Two stores with made-up results of every point: as the paper has them, and the other way round."""
    found = {}
    for good in (True, False):
        frames = []
        with pytest.MonkeyPatch.context() as patch:
            for method in chains.METHODS:
                patch.setitem(chains.METHODS, method, lambda point, good=good: values(point, good))
            for key, point in POINTS.wanted().items():
                frames.append(chains.table(point).assign(id=key, **asdict(point)))
        found[good] = Store(tmp_path_factory.mktemp("data"))
        found[good].write({POINTS.table: pd.concat(frames).to_csv(index=False).encode()})
    return found


@pytest.fixture
def trained() -> pd.DataFrame:
    """Made-up heads of trained models, whose cost goes with their scores and whose probe goes against them."""
    rows = [
        {"variant": method, "seed": seed, "surrogate": surrogate, "layer": layer, "head": head, "score": (head + 1) / 8,
         "drop": head + seed * (head % 2), "drop_rescaled": head, "probe": 8 - head + seed * (head % 2),
         "accuracy": 70.0, "infinite": 60.0, "participation": 0.5}
        for method, seed, surrogate, layer, head in product(
            ("softmax", "linear", "hyla"), range(3), ("one layer", "all layers"), (1, 2), range(8)
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_correlations_of_heads(trained: pd.DataFrame) -> None:
    assert analysis.head_correlations(trained, "drop_rescaled").tolist() == pytest.approx([1.0] * 3)
    assert analysis.head_correlations(trained, "probe").max() < 0
    # A layer whose column is constant says nothing.
    constant = trained.assign(probe=trained["probe"].where(trained["layer"] == 2, 0.0))
    pd.testing.assert_series_equal(
        analysis.head_correlations(constant, "probe"), analysis.head_correlations(trained, "probe")
    )


def test_rules_on_trained_models(trained: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    drop, code = CLAIMS["paths-trained-drop"], CLAIMS["paths-trained-code"]
    store, heads = Store(tmp_path), trained.assign(id=trained["variant"] + trained["seed"].astype(str))
    store.write({"paper_values.csv": b"figure\n"})
    assert {verdict(claim, store) for claim in (drop, code)} == {NOT_TESTED}
    results = results_of("laptop", store)
    store.write({HEADS.table: heads.drop(columns=["variant", "seed"]).to_csv(index=False).encode()})
    monkeypatch.setattr(results, "runs", lambda figure, task: heads[["id", "variant", "seed"]].drop_duplicates())
    assert drop.decide(results).answer == REPRODUCED
    assert code.decide(results).answer == CONTRADICTED


def test_tables_and_pictures(stores: dict[bool, Store], trained: pd.DataFrame) -> None:
    points = stores[True].computed(POINTS)
    assert list(analysis.width_table(points).columns[-2:]) == ["N=500", "N=1000"]
    trained = trained.assign(drop_rescaled=trained["drop"])
    assert len(analysis.head_summary(trained)) == 6
    first, second = figures.paths(points), figures.heads(points, trained)
    assert [len(first.axes), len(second.axes)] == [5, 4]
    assert "order parameter, N=10" in [ax.get_title() for ax in first.axes]
    matplotlib.pyplot.close("all")


def test_every_method_whose_heads_are_scored_is_drawn(stores: dict[bool, Store], trained: pd.DataFrame) -> None:
    methods = dict.fromkeys(run.method for run in bridged("laptop"))
    of_each = pd.concat([trained[trained["variant"] == "hyla"].assign(variant=method) for method in methods])
    titles = [ax.get_title() for ax in figures.heads(stores[True].computed(POINTS), of_each).axes]
    assert {NAMES[method] for method in methods} <= set(titles)
    matplotlib.pyplot.close("all")


def verdict(claim: Claim, store: Store) -> str:
    return claim.decide(results_of("laptop", store)).answer


@pytest.mark.parametrize("name", CHAINS)
def test_rules_follow_the_results(name: str, stores: dict[bool, Store]) -> None:
    claim = CLAIMS[f"paths-{name}"]
    assert verdict(claim, stores[True]) == REPRODUCED
    assert verdict(claim, stores[False]) == CONTRADICTED


@pytest.mark.parametrize("claim", [CLAIMS[f"paths-{name}"] for name in CHAINS], ids=lambda claim: claim.id)
def test_nothing_is_decided_before_it_is_computed(claim: Claim, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"paper_values.csv": b"figure\n"})
    assert verdict(claim, store) == NOT_TESTED


def test_linear_hyla_is_decided_by_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = CLAIMS["paths-hyla"]
    assert claim.decide(results_of("laptop")).answer == REPRODUCED
    monkeypatch.setattr(analysis, "hyla_path_error", lambda: 1e-3)
    assert claim.decide(results_of("laptop")).answer == CONTRADICTED


@pytest.mark.parametrize("n_heads", [1, 2, 5])
def test_linear_hyla_has_a_path_for_every_pair_of_heads(n_heads: int) -> None:
    assert analysis.hyla_path_error(seed=3, n_heads=n_heads) < 1e-12


def test_points_have_identities_of_their_own() -> None:
    points = chains.points()
    assert len(POINTS.wanted()) == len(points)
    assert {point.method for point in points} == set(chains.METHODS)


def test_random_heads_are_counted() -> None:
    assert chains.head_names("good+random+random,uniform") == [["good", "random", "random 2"], ["uniform"]]


@pytest.mark.slow
def test_methods_return_what_the_chapter_shows() -> None:
    small = {"examples": 10, "width": 6, "draw": 8}
    for method, quantity in (("infinite", "accuracy"), ("theory", "order parameter"), ("importance", "relative error"),
                             ("chain", "correlation with the theory"), ("descent", "cosine")):  # fmt: skip
        table = chains.table(chains.Point(*chains.FOUR, method=method, steps=20, **small))
        assert quantity in set(table["quantity"]), method
    table = chains.table(chains.Point(*chains.TWO, method="silenced", **small))
    assert (table["quantity"] == "accuracy solved without").sum() == 3


@pytest.mark.parametrize("variant", ["softmax", "hyla", "hyla_no_relu"])
def test_heads_of_trained_models(
    variant: str, make_run: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_EXAMPLES", 8), ("_TESTS", 9), ("_SEQUENCES", 7), ("_PROBED", 60)):
        monkeypatch.setattr(bridge, name, value)
    run = make_run(variant)
    weights = safetensors.torch.save(Transformer(run.model).initialize(0).state_dict())
    table = bridge.head_table([run], [weights])
    surrogates = {"one layer"} if variant != "softmax" else {"one layer", "all layers"}
    assert set(table["surrogate"]) == surrogates
    assert len(table) == len(surrogates) * run.model.n_layers * run.model.n_heads
    assert table["score"].between(0, 1).all()
    assert table.groupby("surrogate")["score"].max().tolist() == [1.0] * len(surrogates)
    assert table["drop"].abs().max() > 0
    assert table["participation"].between(0, 1).all()


def test_a_silenced_head_is_one_whose_weights_are_zero(make_run: Callable[..., Experiment]) -> None:
    run = make_run("hyla")
    model, batch = Transformer(run.model).initialize(0), run.build_task().batch("heldout", 0, 5)
    attention, head, width = model.blocks[0].attention, 1, run.model.v_dim // run.model.n_heads
    with torch.no_grad():
        with bridge._code_scaled(attention, bridge._without(head, run.model.n_heads, 1.0)):
            silenced = model(batch.inputs)
        whole = model(batch.inputs)
        rows = slice(head * width, (head + 1) * width)
        attention._in_weights()[2][rows] = 0
        attention.out_proj.weight[:, rows] = 0
        removed = model(batch.inputs)
    assert torch.allclose(silenced, removed, atol=1e-6)
    assert not torch.allclose(silenced, whole, atol=1e-3)
