"""Why our SRAVEN runs disagree: conditions are named after what they change, and the chapter says what they show."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from hyla_repro.experiment import Experiment
from hyla_repro.results.store import Store
from hyla_repro.results.summary import equal_lead, paper_lead
from hyla_repro.studies.sraven import causes, runs

WANTED = runs.causes("laptop")


def made_up(wanted: list[Experiment], **scores: float) -> pd.DataFrame:
    """Rows of finished runs in which softmax attention has half of its problems right, and HYLA `hyla` of them."""
    rows = [{**run.row(), "test": 0.5, "heldout": 0.5} for run in wanted]
    for row in rows:
        if row["variant"] in scores:
            row |= {"test": scores[row["variant"]], "heldout": scores[row["variant"]] + 0.01 * row["seed"]}
    return pd.DataFrame(rows)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Straight lines from nothing to the last scores."""
    last = table[["id", "variant", "seed", "test", "heldout"]].assign(step=100)
    return pd.concat([last.assign(step=0, test=0.0, heldout=0.0), last])


def found(table: pd.DataFrame) -> dict[str, causes.Condition]:
    return {condition.name: condition for condition in causes.conditions(WANTED, table, curves(table))}


@pytest.fixture(scope="module")
def committed() -> list[causes.Condition]:
    store = Store(committed_only=True)
    table = store.runs(WANTED)
    finished = set(table["id"])
    return causes.conditions(WANTED, table, store.curves(run for run in WANTED if run.id in finished))


def test_conditions_are_named_after_all_that_they_change_and_sorted_by_cause() -> None:
    names = found(made_up(WANTED, hyla=0.3))
    assert next(iter(names)) == causes.AS_IT_IS
    assert names["16 000 steps"].cause == "time"
    assert names["width 32, 16 000 steps"].cause == "model"
    assert names["learning rate 0.003, warm-up of 160"].cause == "optimiser"
    assert names["no attention dropout"].cause == "optimiser"
    assert names["HYLA with a softmax over keys"].cause == "normaliser"
    assert len(names) == len({condition.cause + name for name, condition in names.items()})


def test_leads_are_paired_by_seed_and_equal_training_takes_out_speed() -> None:
    condition = found(made_up(WANTED, hyla=0.3))["2 layers"]
    assert condition.lead.value == pytest.approx(-19)
    assert condition.says == "softmax attention leads"
    # Both lines rise with one slope, but for HYLA's 0, 1 and 2 points more by seed; at 30 % it has all of them.
    assert condition.equal.name == "30 %"
    assert condition.equal.value == pytest.approx(1)


def test_a_lead_of_hyla_would_be_said() -> None:
    assert found(made_up(WANTED, hyla=0.8))["16 000 steps"].says == "HYLA leads"
    assert found(made_up(WANTED, hyla=0.49))["16 000 steps"].says == "open"


def test_what_has_learned_too_little_or_is_not_trained_is_said_to() -> None:
    table = made_up(WANTED, hyla=0.05)
    condition = found(table[table["steps"] != 16_000])
    assert condition["2 layers"].says == "too little learned to tell"
    assert condition["2 layers"].equal is None
    assert condition["16 000 steps"].says == "not trained yet"
    assert condition["16 000 steps"].equal is None


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_every_preset_has_the_main_comparison_first(preset: str) -> None:
    wanted = runs.causes(preset)
    assert len({run.id for run in wanted}) == len(wanted)
    assert not causes._changed(wanted[0], runs.main(preset)[0])
    table = made_up(wanted, hyla=0.3)
    names = [condition.name for condition in causes.conditions(wanted, table, curves(table))]
    assert names[0] == causes.AS_IT_IS
    assert len(names) == len(set(names))


def test_one_seed_and_half_of_the_runs_are_drawn() -> None:
    plt.switch_backend("agg")
    table = made_up([run for run in WANTED if run.seed == 0], hyla=0.3)
    conditions = causes.conditions(WANTED, table[table["n_layers"] == 4], curves(table))
    figure = causes.forest(conditions, paper_lead("sraven", "hyla", "softmax"))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["the paper, four features", *(condition.name for condition in conditions)]
    assert "not trained yet" in [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)


def test_equal_scores_are_the_highest_that_all_runs_reach() -> None:
    table = pd.DataFrame([
        {"variant": variant, "seed": seed, "step": step, "test": step * speed, "heldout": step * speed}
        for variant, speed in (("softmax", 0.4), ("hyla", 0.23)) for seed in (0, 1, 2) for step in (0, 1)
    ])  # fmt: skip
    effect = equal_lead(table, "hyla", "softmax")
    assert effect.name == "20 %"
    assert effect.value == pytest.approx(0)


# --- what the chapter says of the committed runs ---------------------------------------------------------------------


def test_the_chapter_is_right_that_softmax_attention_is_ahead_everywhere(committed: list[causes.Condition]) -> None:
    trained = [condition for condition in committed if condition.lead.n]
    assert all(condition.lead.value < 0 for condition in trained)
    by_name = {condition.name: condition.says for condition in committed}
    clear = ("the main comparison", "no attention dropout", "2 layers", "2 heads", "10 % held out", "50 % held out")
    assert {by_name[name] for name in (*clear, "16 000 steps")} == {"softmax attention leads"}
    assert by_name["warm-up of 160"] == by_name["HYLA with a softmax over keys"] == "open"
    assert by_name["3 features"] == "too little learned to tell"


def test_the_chapter_is_right_that_the_two_are_level_at_equal_training(committed: list[causes.Condition]) -> None:
    equal = [condition.equal for condition in committed if condition.equal]
    assert len(equal) > 10
    assert all(effect.low < 0 < effect.high and abs(effect.value) < 3.15 for effect in equal)


def test_the_chapter_is_right_on_what_is_left(committed: list[causes.Condition]) -> None:
    left = {condition.name for condition in committed if not condition.lead.n}
    assert left == {"48 000 steps"}


def test_the_chapter_is_right_that_it_is_no_matter_of_tuning(committed: list[causes.Condition]) -> None:
    by_name = {condition.name: condition for condition in committed}
    usual, fast = by_name["the main comparison"], by_name["learning rate 0.003"]
    same_seeds = 100 * Store(committed_only=True).runs(runs.comparison("laptop", ("hyla",)))["test"].mean()
    best = by_name["learning rate 0.003, warm-up of 160"]
    assert 1.8 < fast.scores.loc["hyla", "test"] / same_seeds < 2
    assert (fast.says, best.says) == ("open", "softmax attention leads")
    tuned = [condition for name, condition in by_name.items() if "rate" in name or "warm-up" in name] + [usual]
    assert len(tuned) == 6
    for method in ("softmax", "hyla"):
        assert max(tuned, key=lambda condition: condition.scores.loc[method, "heldout"]) is best
    assert max(c.scores["test"].max() for name, c in by_name.items() if "0.0003" in name) < 15


def test_the_chapter_is_right_that_rows_without_rms_head_are_ahead() -> None:
    table = causes.without_rms_head(WANTED, Store(committed_only=True).runs(WANTED))
    assert table.shape == (3, 2)
    assert not table.map(lambda words: words.startswith("−")).to_numpy().any()
