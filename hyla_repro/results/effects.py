"""Effects with intervals over seeds, and the verdict that follows from them."""

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

MIN_SEEDS = 3
LEVEL = 0.95
REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NOT_TESTED = "not tested at this scale"


class Effect(NamedTuple):
    """A difference that a claim says is above zero.

    Args:
        name: of what minus what.
        value: its mean over seeds.
        low, high: ends of its 95 % interval; NaN with fewer than two seeds.
        p: two-sided, of a difference of zero.
        n: of how many it is a mean or correlation.
        digits: to show.
        unit: what `n` counts.
    """

    name: str
    value: float
    low: float
    high: float
    p: float
    n: int
    digits: int = 1
    unit: str = "seeds"

    def __str__(self) -> str:
        # Adding zero takes the sign from what is rounded to it.
        rounded = (round(number, self.digits) + 0.0 for number in (self.value, self.low, self.high))
        value, low, high = (f"{number:.{self.digits}f}" for number in rounded)
        name = f"{self.name}: " if self.name else ""
        interval = (f"{low} to {high}" if self.n > 1 else "no interval").replace(" ", "\N{NO-BREAK SPACE}")
        numbers = f"{value} ({interval})".replace("-", "−")
        return f"{name}{numbers}"


def paired(name: str, differences: pd.Series, digits: int = 1) -> Effect:
    """Return the effect of differences that are paired by seed (Student's t)."""
    values = differences.dropna().to_numpy(dtype=float)
    if len(values) < 2:
        return Effect(
            name, float(np.mean(values)) if len(values) else np.nan, np.nan, np.nan, np.nan, len(values), digits
        )
    with warnings.catch_warnings():
        # Scores that agree in every seed are no fault.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_1samp(values, 0.0)
    low, high = map(float, test.confidence_interval(LEVEL))
    return Effect(name, float(values.mean()), low, high, float(test.pvalue), len(values), digits)


def unpaired(name: str, first: pd.Series, second: pd.Series, digits: int = 1) -> Effect:
    """Return the effect of first minus second where seeds share nothing but their number (Welch's t)."""
    test = stats.ttest_ind(first, second, equal_var=False)
    low, high = map(float, test.confidence_interval(LEVEL))
    count = min(len(first), len(second))
    return Effect(name, float(first.mean() - second.mean()), low, high, float(test.pvalue), count, digits)


class Published(NamedTuple):
    """A mean with its standard error over n seeds, of which no more is known."""

    mean: float
    error: float
    n: int = 3


def published(name: str, first: Published, second: Published) -> Effect:
    """Return the effect of first minus second (Welch's t).

    Seeds of a paper may share their splits; then this interval is too wide.
    """
    spreads = [side.error * side.n**0.5 for side in (first, second)]
    test = stats.ttest_ind_from_stats(
        first.mean, spreads[0], first.n, second.mean, spreads[1], second.n, equal_var=False
    )
    joint = float(np.hypot(first.error, second.error))
    freedom = joint**4 / sum(side.error**4 / (side.n - 1) for side in (first, second))
    low, high = stats.t.interval(LEVEL, freedom, first.mean - second.mean, joint)
    return Effect(name, first.mean - second.mean, float(low), float(high), float(test.pvalue), min(first.n, second.n))


def rank_correlation(name: str, first: Sequence[float] | pd.Series, second: Sequence[float] | pd.Series) -> Effect:
    """Return Spearman's correlation, with the interval of Fisher's z and Bonett and Wright's standard error (2000)."""
    rho, p = (float(number) for number in stats.spearmanr(first, second))
    reach = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + rho**2 / 2) / (len(first) - 3))
    # Of two equal orders z is infinite, and the interval a point.
    with np.errstate(divide="ignore"):
        low, high = np.tanh(np.arctanh(rho) + np.array([-reach, reach]))
    return Effect(name, rho, float(low), float(high), p, len(first), digits=2, unit="rows")


def decide(effects: Iterable[Effect]) -> str:
    """Return the verdict on a claim that needs every one of these effects.

    Reproduced: every interval lies above zero; the chance of that, if one of them is zero, is at most 2.5 %.
    Contradicted: an effect is below zero, clearly so even as one of many (Bonferroni).
    Undecided: anything else. Not tested: too few seeds for an interval.
    """
    found = list(effects)
    if not found or any(effect.n < MIN_SEEDS for effect in found):
        return NOT_TESTED
    if all(effect.low > 0 for effect in found):
        return REPRODUCED
    if any(effect.value < 0 and effect.p * len(found) < 1 - LEVEL for effect in found):
        return CONTRADICTED
    return UNDECIDED


def holm(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted for being several (Holm, 1979), in the order given."""
    order = p_values.sort_values()
    steps = order * np.arange(len(order), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p_values.index)
