"""Numbers about SRAVEN that its chapter and the report show."""

import pandas as pd
import pytest
import torch
from einops import rearrange

from hyla_repro.results.effects import CONTRADICTED, REPRODUCED, UNDECIDED
from hyla_repro.results.summary import (
    best_runs,
    equal_training,
    heldout_at,
    mean_and_error,
    percent_interval,
    share_interval,
    summarize,
)
from hyla_repro.studies.sraven import claims
from hyla_repro.studies.sraven.analysis import ambiguity, sraven_counts
from hyla_repro.tasks import SRaven
from hyla_repro.tasks.sraven.rules import RULES, bounds, fillings


def test_counts_are_those_of_the_paper() -> None:
    counts = sraven_counts(SRaven())
    assert (counts["tasks"], counts["trained on"], counts["held out"]) == ("330", "248", "82")
    assert counts["hypotheses per problem"] == f"{24**2 * 8**4:,}"
    # All four constant: 8 ** 3 grids each, and 4! orders in each of three columns.
    assert counts["ways to draw a problem of the smallest task"] == f"{(8**3) ** 4 * 24**3:.1e}"


@pytest.mark.parametrize("name", RULES)
def test_fillings_are_all_different_grids_that_a_rule_makes(name: str) -> None:
    """Counted by going through every draw that the rule can be given."""
    table = bounds(5, 3)[list(RULES).index(name)]
    draws = torch.cartesian_prod(*(torch.arange(bound) for bound in table.flatten().tolist()))
    grids = RULES[name](rearrange(draws, "n (row draw) -> n row draw", row=3), 5)
    assert len(grids.flatten(1).unique(dim=0)) == fillings(name, 5, 3)


def test_intervals_are_wilsons() -> None:
    """Against values from the published formula: 0 of 10 and 5 of 10."""
    assert share_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert share_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert percent_interval(1, 4) == "25.00 % (4.56 to 69.94)"


def test_printed_numbers_round_halves_up() -> None:
    assert mean_and_error(56.91, 4.25) == "56.9\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}4.3"
    assert mean_and_error(-82.37, 6.55) == "−82.4\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}6.6"
    assert mean_and_error(float("nan"), 1.0) == ""


def test_ambiguity_by_both_definitions() -> None:
    table = ambiguity(SRaven(), 400)
    assert list(table.index) == ["test", "heldout"]
    for row in table.to_dict("records"):
        wholly, several, best = (float(cell.split(" ")[0]) for cell in row.values())
        assert wholly < 2.0
        assert 18.0 < several < 30.0
        assert 90.0 < best < 96.0


def test_both_readings_of_the_papers_statement_on_ambiguity() -> None:
    """It holds for problems whose other answer differs in every symbol, and fails for those with another answer."""
    wholly, several = claims._ambiguity(8000)
    assert (wholly, several) == (23, 1941)
    assert claims._below_half_a_percent(wholly).answer == REPRODUCED
    assert claims._below_half_a_percent(several).answer == CONTRADICTED
    assert claims._below_half_a_percent(wholly).ours == "0.29 % (0.19 to 0.43)"


@pytest.mark.parametrize(("count", "answer"), [(0, UNDECIDED), (1, UNDECIDED), (10, CONTRADICTED)])
def test_a_hundred_problems_are_too_few_for_half_a_percent(count: int, answer: str) -> None:
    assert claims._below_half_a_percent(count, 100).answer == answer


def _curves(**heldout: list[float]) -> pd.DataFrame:
    """Curves of one seed whose accuracy on training tasks is 0.1, 0.3, 0.2 and 0.5, in shuffled order."""
    table = {"step": [1, 2, 3, 4], "test": [0.1, 0.3, 0.2, 0.5], "seed": 0}
    parts = [pd.DataFrame({**table, "heldout": values, "variant": name}) for name, values in heldout.items()]
    return pd.concat(parts).sample(frac=1, random_state=0)


def test_heldout_scores_at_equal_training_scores() -> None:
    curves = _curves(softmax=[0.0, 0.2, 0.6, 0.9])
    for level, expected in ((0.05, 0.0), (0.1, 0.0), (0.2, 0.1), (0.3, 0.2), (0.4, 0.8), (0.5, 0.9)):
        assert heldout_at(curves, level)["softmax", 0] == pytest.approx(expected)
    assert heldout_at(curves, 0.6).isna().all()


def test_leads_at_equal_training_scores_are_of_equal_seeds() -> None:
    first = _curves(softmax=[0.0, 0.2, 0.2, 0.5], linear=[0.0, 0.1, 0.1, 0.3], hyla=[0.0, 0.3, 0.3, 0.4])
    second = first.assign(seed=1, heldout=first["heldout"] + 0.4)
    third = second.assign(seed=2)
    stops = third.assign(test=third["test"].where(third["variant"] != "hyla", 0.0))
    table = equal_training(pd.concat([first, second, stops]), (0.3,))
    assert table.loc["softmax attention", "at 30%"] == "46.7\xa0±\xa013.3"
    assert table.loc[["HYLA", "HYLA minus softmax attention"], "at 30%"].tolist() == ["", ""]
    table = equal_training(pd.concat([first, second, third]), (0.3, 0.5))
    assert table.loc["HYLA minus softmax attention"].tolist() == ["10.0\xa0±\xa00.0", "−10.0\xa0±\xa00.0"]
    assert table.loc["softmax attention minus linear attention"].tolist() == ["10.0\xa0±\xa00.0", "20.0\xa0±\xa00.0"]
    assert table.loc["HYLA minus linear attention"].tolist() == ["20.0\xa0±\xa00.0", "10.0\xa0±\xa00.0"]


def _language(rate: float, seed: int, validation: float) -> dict:
    return {"id": f"{rate} {seed}", "task": "language", "variant": "hyla", "text": "shakespeare", "seed": seed,
            "tokenizer": "characters", "context": 128, "learning_rate": rate, "weight_decay": 0.1, "warmup_steps": 1,
            "validation": validation, "test": 1.0, "heldout": 2.0}  # fmt: skip


def test_the_best_setting_of_language_has_the_lowest_loss_on_validation() -> None:
    table = summarize(
        pd.DataFrame([_language(rate, 0, loss) for rate, loss in ((1e-3, 1.5), (3e-3, 1.4), (6e-3, 1.6))])
    )
    assert table[["learning_rate", "validation", "heldout"]].to_numpy().tolist() == [[3e-3, 1.4, 2.0]]


def test_settings_are_compared_on_the_seeds_that_all_of_them_have() -> None:
    """The rate that was best with the only seed that both have stands, though its other seeds came out worse."""
    rows = [_language(1e-3, 0, 1.5), _language(3e-3, 0, 1.4), _language(3e-3, 1, 1.7), _language(3e-3, 2, 1.8)]
    table = summarize(pd.DataFrame(rows))
    assert table[["learning_rate", "n"]].to_numpy().tolist() == [[3e-3, 3]]
    assert table["validation"].item() == pytest.approx((1.4 + 1.7 + 1.8) / 3)
    assert sorted(best_runs(pd.DataFrame(rows))["seed"]) == [0, 1, 2]


def test_settings_without_a_common_seed_are_compared_by_what_they_have() -> None:
    table = summarize(pd.DataFrame([_language(1e-3, 0, 1.5), _language(3e-3, 1, 1.6)]))
    assert table["learning_rate"].item() == 1e-3
