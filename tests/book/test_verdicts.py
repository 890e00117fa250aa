"""Verdicts: each rule says reproduced, not reproduced or not tested exactly when it should."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyla_repro.book.verdicts import (
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    best_verdict,
    claims,
    results_of,
    scales,
    verdict,
)
from hyla_repro.book.verdicts import table as comparison
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import RUNS
from hyla_repro.results.methods import ABLATIONS, METHODS
from hyla_repro.results.store import PAPER, Store
from hyla_repro.results.summary import by_seed, paper_values, summarize
from hyla_repro.studies import experiments
from hyla_repro.studies.fuzzy_logic.runs import DECODING, EMBEDDING, fuzzy_logic

Score = Callable[[Experiment], float]
PUBLISHED = Store().read(PAPER)
VALUES = pd.read_csv(BytesIO(PUBLISHED)).query("task == 'fuzzy_logic'").set_index("variant")["value"].to_dict()
WITHOUT_RUNS = ("identity", "3-ambiguity")


def make_store(folder: Path, score: Score, preset: str = "laptop", seeds: int = 3, unknown: float = -0.1) -> Store:
    """Write a store in which every fuzzy-logic run of the preset has the held-out R2 that `score` gives it."""
    rows = [
        {**run.row(), "test": 0.99, "heldout": score(run), "unknown_terms": unknown, "minutes": 1.0}
        for run in experiments("all", preset) if run.seed < seeds and run.task_name == "fuzzy_logic"
    ]  # fmt: skip
    store = Store(folder, committed_only=True)
    store.write({RUNS: pd.DataFrame(rows).to_csv(index=False).encode(), PAPER: PUBLISHED})
    return store


def like_the_paper(run: Experiment) -> float:
    """Follow every ordering that the paper reports, with a little spread between seeds."""
    value = VALUES[run.method]
    slope = {"hyla": 0.5}.get(run.method, 1.0)
    change = 0.1 * (run.task["n_examples"] - 32) - 40 * slope * (run.task["heldout_fraction"] - 0.7)
    return (value + change + 0.1 * run.seed) / 100


def verdicts(store: Store, preset: str = "laptop") -> dict[str, str]:
    results = results_of(preset, store)
    return {claim.id: verdict(claim, results)[0] for claim in claims(store)}


def test_results_like_the_papers_are_reproduced(tmp_path: Path) -> None:
    found = verdicts(make_store(tmp_path, like_the_paper))
    orderings = (
        "identity",
        "2c-main",
        "2c-examples",
        "2c-heldout",
        "a3-unknown",
        "a1-code-twice",
        "a1-softmax-between",
    )
    assert {name: found[name] for name in orderings} == dict.fromkeys(orderings, REPRODUCED)


def test_levels_are_decided_at_the_paper_preset_only(tmp_path: Path) -> None:
    assert verdicts(make_store(tmp_path / "laptop", like_the_paper))["a1-hyla"] == NOT_TESTED
    found = verdicts(make_store(tmp_path / "paper", like_the_paper, "paper"), "paper")
    assert {found[f"a1-{name.replace('_', '-')}"] for name in ABLATIONS} == {REPRODUCED}
    far = verdicts(make_store(tmp_path / "far", lambda run: like_the_paper(run) - 0.4, "paper"), "paper")
    assert far["a1-hyla"] == NOT_REPRODUCED


def test_equal_methods_reproduce_no_lead(tmp_path: Path) -> None:
    found = verdicts(make_store(tmp_path, lambda run: 0.6 + 0.05 * run.seed))
    assert found["2c-main"] == found["2c-examples"] == found["2c-heldout"] == NOT_REPRODUCED
    assert found["a1-code-twice"] == found["a1-softmax-between"] == NOT_REPRODUCED


def test_a_lead_within_its_uncertainty_is_no_lead(tmp_path: Path) -> None:
    def noisy(run: Experiment) -> float:
        spread = 0.2 * (run.seed - 1)
        return 0.6 + (0.1 + spread if run.method == "hyla" else -spread)

    assert verdicts(make_store(tmp_path, noisy))["2c-main"] == NOT_REPRODUCED


def test_a_lead_at_every_seed_stands_however_much_seeds_differ(tmp_path: Path) -> None:
    def shared(run: Experiment) -> float:
        return 0.6 + (0.1 + 0.01 * run.seed) * (run.method == "hyla") + 0.2 * (run.seed - 1)

    assert verdicts(make_store(tmp_path, shared))["2c-main"] == REPRODUCED


def test_solving_unknown_terms_contradicts_the_paper(tmp_path: Path) -> None:
    assert verdicts(make_store(tmp_path, like_the_paper, unknown=0.9))["a3-unknown"] == NOT_REPRODUCED


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_decide_nothing(tmp_path: Path, seeds: int) -> None:
    found = verdicts(make_store(tmp_path, like_the_paper, seeds=seeds))
    assert {value for name, value in found.items() if name not in WITHOUT_RUNS} == {NOT_TESTED}


def test_smoke_decides_nothing(tmp_path: Path) -> None:
    assert set(verdicts(make_store(tmp_path, like_the_paper, "smoke"), "smoke").values()) == {NOT_TESTED}


def test_an_empty_store_decides_only_what_needs_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path, committed_only=True)
    store.write({PAPER: PUBLISHED})
    found = verdicts(store)
    assert [found.pop(name) for name in WITHOUT_RUNS] == [REPRODUCED] * 2
    assert set(found.values()) == {NOT_TESTED}
    assert best_verdict(next(c for c in claims(store) if c.id == "2c-main"), scales(store))[0] == NOT_TESTED


def test_the_larger_preset_decides_where_it_can(tmp_path: Path) -> None:
    store = make_store(tmp_path, like_the_paper, "paper")
    claim = next(claim for claim in claims(store) if claim.id == "2c-main")
    assert best_verdict(claim, scales(store))[::2] == (REPRODUCED, "paper")


def decoding(f1: float, variants: tuple[str, ...] = METHODS) -> bytes:
    wanted = [run for run in experiments("fig2b", "laptop") if run.model.variant in variants]
    rows = [{"id": run.id, "layer": layer, "term": 0, "f1": f1 * (layer - 1), "auc": 0.7, "chance": 0.3}
            for run in wanted for layer in (1, 2)]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False).encode()


@pytest.mark.parametrize(("f1", "expected"), [(0.9, REPRODUCED), (0.51, REPRODUCED), (0.49, NOT_REPRODUCED)])
def test_decoding_must_beat_always_yes_clearly(tmp_path: Path, f1: float, expected: str) -> None:
    store = make_store(tmp_path, like_the_paper)
    store.write({DECODING.table: decoding(f1)})
    assert verdicts(store)["2b-decoding"] == expected


def test_decoding_needs_every_method(tmp_path: Path) -> None:
    store = make_store(tmp_path, like_the_paper)
    store.write({DECODING.table: decoding(0.9, ("hyla", "linear"))})
    assert verdicts(store)["2b-decoding"] == NOT_TESTED


@pytest.mark.parametrize(("spread", "expected"), [(0.01, REPRODUCED), (1000.0, NOT_REPRODUCED)])
def test_clusters_are_counted(tmp_path: Path, spread: float, expected: str) -> None:
    rows = []
    for run in experiments("fig2d", "laptop"):
        for point in range(120):
            function, jitter = point % 6, spread * ((37 * point) % 101) / 101
            rows.append(
                {"id": run.id, "x": 10 * function + jitter, "y": jitter, "target": 0.5, "function": f"0+{function}"}
            )
    store = make_store(tmp_path, like_the_paper)
    store.write({EMBEDDING.table: pd.DataFrame(rows).to_csv(index=False).encode()})
    assert verdicts(store)["2d-clusters"] == expected


def test_clusters_must_show_more_than_the_target(tmp_path: Path) -> None:
    """Twelve targets of two functions each: ten times chance, and still nothing but the target."""
    rows, random = [], np.random.default_rng(0)
    for run in experiments("fig2d", "laptop"):
        for function in np.repeat(np.arange(24), 10):
            place = {"x": 100.0 * (function // 2) + random.random(), "y": random.random()}
            rows.append({"id": run.id, **place, "target": function // 2 / 12, "function": f"0+{function}"})
    store = make_store(tmp_path, like_the_paper)
    store.write({EMBEDDING.table: pd.DataFrame(rows).to_csv(index=False).encode()})
    assert verdicts(store)["2d-clusters"] == NOT_REPRODUCED


def test_summary_keeps_the_best_setting_and_counts_seeds() -> None:
    runs = [run for run in experiments("fig2c", "paper") if run.kind == fuzzy_logic("paper", "hyla", 0).kind]
    score = {(1e-3, 0.1): 0.5, (3e-3, 0.1): 0.7, (1e-3, 0.03): 0.6, (3e-3, 0.03): 0.4}
    rows = [{**run.row(), "test": 1.0, "unknown_terms": 0.0,
             "heldout": score[run.learning_rate, run.weight_decay] + 0.1 * (run.seed - 1)} for run in runs]  # fmt: skip
    (row,) = summarize(pd.DataFrame(rows)).to_dict("records")
    assert row["learning_rate"] == 3e-3
    assert row["n"] == 3
    assert row["heldout"] == pytest.approx(70.0)
    assert row["heldout_se"] == pytest.approx(10 / 3**0.5)


def test_scores_by_seed_stand_in_the_order_of_the_table() -> None:
    runs = [
        run
        for run in experiments("tablea1", "laptop")
        if run.task_name == "fuzzy_logic" and run.method in ("hyla", "softmax")
    ]
    rows = [{**run.row(), "test": 0.9, "unknown_terms": 0.0, "heldout": 0.1 * run.seed + (run.method == "hyla")}
            for run in runs]  # fmt: skip
    frame = pd.DataFrame(rows)
    table = by_seed(frame, summarize(frame))
    assert list(table.index) == ["softmax attention", "HYLA"]
    assert list(table.columns) == ["seed 0", "seed 1", "seed 2", "training tasks"]
    assert table.loc["HYLA"].tolist() == pytest.approx([100.0, 110.0, 120.0, 90.0])
    assert table.loc["softmax attention"].tolist() == pytest.approx([0.0, 10.0, 20.0, 90.0])


def test_claims_have_one_id_each_and_published_numbers_of_the_table() -> None:
    every = claims()
    assert len({claim.id for claim in every}) == len(every)
    levels = {claim.id: claim.published for claim in every if claim.level}
    assert levels["a1-hyla"] == "81.1\xa0±\xa07.8"
    assert levels["a1-sraven-linear-moe"] == "64.3\xa0±\xa04.3"
    assert len(levels) == 2 * len(ABLATIONS) == 26


def test_published_values_are_the_papers() -> None:
    values = paper_values().set_index(["task", "variant"])
    assert len(values) == 26
    assert values.loc[("fuzzy_logic", "softmax"), "value"] == 63.28
    assert values.loc[("fuzzy_logic", "hyla_deep"), "standard_error"] == 4.54
    assert values.loc[("sraven", "linear_moe"), "value"] == 64.34


def test_comparison_table_of_a_figure(tmp_path: Path) -> None:
    table = comparison("fig2c", "laptop", make_store(tmp_path, like_the_paper))
    assert table["verdict"].tolist() == [REPRODUCED] * 3
    assert "HYLA 81.2" in table["here"].iloc[0]
    with pytest.raises(ValueError, match=r"unknown preset 'lap': did you mean 'laptop'\? allowed are smoke, laptop"):
        comparison("fig2c", "lap")
