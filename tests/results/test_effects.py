"""Effects and verdicts: intervals against values worked by hand, and what no order or unit of scores may change."""

import math

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyla_repro.results.effects import (
    CONTRADICTED,
    NOT_TESTED,
    REPRODUCED,
    UNDECIDED,
    Effect,
    Published,
    decide,
    holm,
    paired,
    published,
    rank_correlation,
    unpaired,
)

# Student's t, 97.5 % quantiles, from a printed table.
T_2, T_4, T_9 = 4.30265, 2.77645, 2.26216

differences = st.lists(st.integers(-1000, 1000).map(lambda tenth: tenth / 10), min_size=3, max_size=10)


def effect(value: float = 1.0, reach: float = 0.5, p: float = 0.01, n: int = 3) -> Effect:
    return Effect("a minus b", value, value - reach, value + reach, p, n)


def varied(values: list[float]) -> pd.Series:
    assume(max(values) - min(values) > 0.5)
    return pd.Series(values)


# --- intervals ---------------------------------------------------------------------------------------------------


def test_paired_of_three_seeds_by_hand() -> None:
    """Mean 4, standard deviation 2, so a standard error of 2 / sqrt(3)."""
    found = paired("x", pd.Series([2.0, 4.0, 6.0]))
    reach = T_2 * 2 / math.sqrt(3)
    assert (found.value, found.n) == (4.0, 3)
    assert (found.low, found.high) == pytest.approx((4 - reach, 4 + reach), abs=1e-4)
    # With two degrees of freedom the distribution is algebraic: p = 1 - t / sqrt(t^2 + 2), and t^2 = 12 here.
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)


def test_paired_of_ten_seeds_by_hand() -> None:
    """Ones and threes: mean 2, standard deviation sqrt(10 / 9)."""
    found = paired("x", pd.Series([1.0, 3.0] * 5))
    reach = T_9 * math.sqrt(10 / 9) / math.sqrt(10)
    assert (found.low, found.high) == pytest.approx((2 - reach, 2 + reach), abs=1e-4)


def test_the_headline_as_the_audit_has_it() -> None:
    found = paired("HYLA minus softmax attention", pd.Series([10.17, 13.92, 16.49]))
    assert (found.value, found.low, found.high) == pytest.approx((13.53, 5.63, 21.42), abs=0.01)
    assert found.p == pytest.approx(0.0179, abs=1e-4)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([3.0], 1), ([3.0, math.nan], 1)])
def test_one_seed_has_no_interval(values: list[float], n: int) -> None:
    found = paired("x", pd.Series(values, dtype=float))
    assert found.n == n
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert decide([found]) == NOT_TESTED


def test_missing_seeds_do_not_count() -> None:
    assert paired("x", pd.Series([2.0, math.nan, 4.0, 6.0])) == paired("x", pd.Series([2.0, 4.0, 6.0]))


def test_pairing_takes_out_what_seeds_share() -> None:
    """A lead of 9 to 11 at every seed, while seeds are 30 apart."""
    hyla, softmax = pd.Series([19.0, 50.0, 81.0]), pd.Series([10.0, 40.0, 70.0])
    together, apart = paired("x", hyla - softmax), unpaired("x", hyla, softmax)
    assert together.value == apart.value == pytest.approx(10.0)
    assert together.high - together.value == pytest.approx(T_2 / math.sqrt(3), abs=1e-4)
    assert decide([together]) == REPRODUCED
    assert decide([apart]) == UNDECIDED
    # Standard errors 31 / sqrt(3) and 30 / sqrt(3) have 4 degrees of freedom, but for a thousandth.
    assert apart.high - apart.value == pytest.approx(T_4 * math.sqrt((31**2 + 30**2) / 3), rel=1e-3)


def test_unpaired_of_unequal_spreads_by_hand() -> None:
    """Welch: errors 1 and 0.1 leave (1 + 0.01)^2 / (1 / 2 + 0.0001 / 2) = 2.0400 degrees of freedom."""
    first, second = (10 + math.sqrt(3) * size * pd.Series([-1.0, 0.0, 1.0]) for size in (1, 0.1))
    found = unpaired("x", first + 5, second)
    assert (found.value, found.n) == (pytest.approx(5.0), 3)
    reach = (found.high - found.value) / math.sqrt(1.01)
    # Between the quantiles of 2 and 2.1 degrees of freedom, 4.3027 and 4.1122.
    assert 4.1122 < reach < T_2
    assert reach == pytest.approx(4.2228, abs=1e-3)


def test_published_by_hand() -> None:
    """Equal errors of 3 seeds each are an ordinary t test with 4 degrees of freedom."""
    found = published("x", Published(20.0, 3.0), Published(10.0, 3.0))
    reach = T_4 * math.sqrt(18)
    assert (found.value, found.low, found.high) == pytest.approx((10.0, 10 - reach, 10 + reach), abs=1e-3)
    assert found.n == 3
    first, second = (mean + 3 * math.sqrt(3) * pd.Series([-1.0, 0.0, 1.0]) for mean in (20, 10))
    same = unpaired("x", first, second)
    assert (found.low, found.high, found.p) == pytest.approx((same.low, same.high, same.p))


def test_published_numbers_of_table_a1() -> None:
    """HYLA over softmax attention on fuzzy logic, in the paper: 81.13 +- 7.77 against 63.28 +- 2.31."""
    found = published("x", Published(81.13, 7.77), Published(63.28, 2.31))
    assert (found.value, found.low, found.high) == pytest.approx((17.85, -12.5, 48.2), abs=0.1)
    assert found.p == pytest.approx(0.14, abs=0.01)
    assert decide([found]) == UNDECIDED


def test_rank_correlation_by_hand() -> None:
    """Two pairs of ten swapped: rho = 1 - 6 * 4 / 990, with Bonett and Wright's error sqrt((1 + rho^2 / 2) / 7)."""
    found = rank_correlation("x", pd.Series(range(10)), pd.Series([1, 0, 3, 2, 4, 5, 6, 7, 8, 9]))
    rho = 1 - 24 / 990
    reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / 7)
    expected = (rho, math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach))
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=1e-6)
    assert (found.n, found.unit, found.digits) == (10, "rows", 2)


def test_ranks_alone_count() -> None:
    found = rank_correlation("x", [1.0, 2.0, 30.0, 4.0, 5.0], [2.0, 1.0, 1000.0, 7.0, 6.0])
    assert found == rank_correlation("x", [1.0, 2.0, 5.0, 3.0, 4.0], [2.0, 1.0, 5.0, 4.0, 3.0])


@pytest.mark.parametrize(("order", "answer"), [(1, REPRODUCED), (-1, CONTRADICTED)])
def test_the_same_order_and_the_opposite_one(order: int, answer: str) -> None:
    found = rank_correlation("x", pd.Series(range(13)), order * pd.Series(range(13)))
    assert found.low == found.value == found.high == pytest.approx(order)
    assert decide([found]) == answer


# --- verdicts ----------------------------------------------------------------------------------------------------


def test_all_four_answers() -> None:
    clear, opposite, open_ = effect(), effect(-1.0), effect(0.2, p=0.5)
    assert decide([clear, clear]) == REPRODUCED
    assert decide([clear, open_]) == UNDECIDED
    assert decide([clear, opposite]) == CONTRADICTED
    assert decide([]) == NOT_TESTED
    assert decide([clear, effect(n=2)]) == NOT_TESTED
    assert decide([opposite, effect(n=2)]) == NOT_TESTED


def test_barely_below_zero_as_one_of_nine_is_undecided() -> None:
    barely = effect(-1.0, 0.9, p=0.04)
    assert barely.high < 0
    assert decide([barely]) == CONTRADICTED
    assert decide([barely] + 8 * [effect()]) == UNDECIDED
    assert decide([effect(-1.0, 0.9, p=0.005)] + 8 * [effect()]) == CONTRADICTED


def test_an_interval_that_touches_zero_is_undecided() -> None:
    assert decide([effect(0.5, 0.5)]) == UNDECIDED
    assert decide([paired("x", pd.Series([0.0, 0.0, 0.0]))]) == UNDECIDED


@given(differences, st.integers(0, 1000))
def test_more_of_a_lead_never_turns_it_around(values: list[float], more: int) -> None:
    series, answers = varied(values), (CONTRADICTED, UNDECIDED, REPRODUCED)
    before, after = (answers.index(decide([paired("x", series + add)])) for add in (0, more))
    assert after >= before


@given(st.lists(differences, min_size=1, max_size=4), st.sampled_from([0.01, 0.5, 3.0, 1000.0]))
def test_the_unit_does_not_matter(table: list[list[float]], factor: float) -> None:
    series = [varied(values) for values in table]
    assert decide(paired("x", factor * one) for one in series) == decide(paired("x", one) for one in series)


@given(st.lists(differences, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_effects_does_not_matter(table: list[list[float]], random: object) -> None:
    effects = [paired("x", varied(values)) for values in table]
    shuffled = [sorted(values, key=lambda _: random.random()) for values in table]  # type: ignore[attr-defined]
    assert decide(paired("x", pd.Series(values)) for values in reversed(shuffled)) == decide(effects)


@given(differences)
def test_one_effect_turned_around_has_the_answer_turned_around(values: list[float]) -> None:
    series = varied(values)
    turned = {REPRODUCED: CONTRADICTED, CONTRADICTED: REPRODUCED, UNDECIDED: UNDECIDED}
    assert decide([paired("x", -series)]) == turned[decide([paired("x", series)])]


@given(st.lists(differences, min_size=1, max_size=4), differences)
def test_one_more_condition_never_helps(table: list[list[float]], more: list[float]) -> None:
    effects = [paired("x", varied(values)) for values in [*table, more]]
    assert decide(effects) != REPRODUCED or decide(effects[:-1]) == REPRODUCED


@given(differences, differences)
def test_unpaired_turned_around(first: list[float], second: list[float]) -> None:
    one, other = (unpaired("x", *pair) for pair in
                  ((varied(first), varied(second)), (varied(second), varied(first))))  # fmt: skip
    assert (one.value, one.low, one.high, one.p) == pytest.approx((-other.value, -other.high, -other.low, other.p))


def test_holm_by_hand() -> None:
    """Four p-values: the smallest times 4, the next times 3, never below the one before, never above 1."""
    p_values = pd.Series([0.04, 0.01, 0.5, 0.02], index=["a", "b", "c", "d"])
    assert holm(p_values).to_dict() == pytest.approx({"a": 0.08, "b": 0.04, "c": 0.5, "d": 0.06})
    assert holm(pd.Series([0.3, 0.25, 0.6])).tolist() == pytest.approx([0.75, 0.75, 0.75])
    assert holm(pd.Series([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(pd.Series([0.03])).tolist() == [0.03]


def test_holm_of_the_headlines_as_the_audit_has_it() -> None:
    adjusted = holm(pd.Series([0.00185, 0.0052, 0.0179, 0.441]))
    assert adjusted.tolist() == pytest.approx([0.0074, 0.0156, 0.0358, 0.441], abs=1e-4)


# --- words -------------------------------------------------------------------------------------------------------


def test_numbers_are_not_broken_and_have_a_minus_sign() -> None:
    assert str(Effect("gain", -2.04, -12.5, 8.44, 0.6, 3)) == "gain: −2.0 (−12.5\xa0to\xa08.4)"
    assert str(Effect("gain", 0.0373, 0.0118, 0.0631, 0.02, 3, digits=3)) == "gain: 0.037 (0.012\xa0to\xa00.063)"
    # A hyphen in a name is no minus.
    assert str(Effect("5-gram", -1.0, -2.0, 0.0, 0.6, 3)).startswith("5-gram: −1.0")
