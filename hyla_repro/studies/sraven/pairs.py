"""How close the mean codes of addition and difference are, among all pairs of rules (Figure 5E)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.summary import mean_and_error
from hyla_repro.studies.sraven.codes import similarity
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

# The pair that the claim on mean codes is about.
PAIR = ("addition", "difference")


def leads_of_the_pair(means: pd.DataFrame, rules: Sequence[str] = SRAVEN_RULES, in_units: bool = False) -> pd.Series:
    """Return the cosine of addition and difference minus the mean over other pairs, by model, variant and seed.

    Args:
        means: rows of `mean_code_table` with variant and seed; their last layer counts.
        rules: those whose pairs are compared.
        in_units: divide by the standard deviation over the other pairs.
    """
    pairs = [pair for pair in combinations(rules, 2) if pair != PAIR]

    def lead(part: pd.DataFrame) -> float:
        matrix = similarity(part)
        others = [matrix.loc[pair] for pair in pairs]
        spread = np.nanstd(others, ddof=1) if in_units else 1.0
        return float((matrix.loc[PAIR] - np.nanmean(others)) / spread) if spread else np.nan

    last = means[means["layer"] == means["layer"].max()]
    return last.groupby(["model", "variant", "seed"])[list(last.columns)].apply(lead)


def table_of_leads(means: pd.DataFrame, without: str = "constant") -> pd.DataFrame:
    """Return `leads_of_the_pair` by method: over all pairs, over those without one rule, and in units of the spread.

    Returns: for each, the means after and before training, and by how much they differ, seed by seed.
    """
    others = [rule for rule in SRAVEN_RULES if rule != without]
    kinds = {
        "all pairs": (leads_of_the_pair(means), 3),
        f"without {without}": (leads_of_the_pair(means, others), 3),
        "all pairs, in units of the spread": (leads_of_the_pair(means, in_units=True), 2),
    }
    tables = {}
    for name, (by_model, digits) in kinds.items():
        leads = by_model.unstack("model")
        gains = (leads["trained"] - leads["untrained"]).groupby(level="variant").agg(["mean", "sem"])
        words = [mean_and_error(row["mean"], row["sem"], digits) for _, row in gains.iterrows()]
        averages = leads.groupby(level="variant").mean()[["trained", "untrained"]].map(f"{{:.{digits}f}}".format)
        tables[name] = averages.assign(difference=words)
    return pd.concat(tables, axis="columns").reindex(METHODS).rename(index=NAMES).rename_axis(None)


def table_of_ranks(means: pd.DataFrame) -> pd.DataFrame:
    """Return the place of addition and difference among all pairs of rules by similarity, 1 the most similar.

    Args:
        means: rows of `mean_code_table` with variant and seed; their last layer counts.

    Returns: by method and model, for every seed and for cosines averaged over seeds.
    """
    last, pairs = means[means["layer"] == means["layer"].max()], list(combinations(SRAVEN_RULES, 2))
    cosines = {
        key: pd.Series([similarity(part).loc[pair] for pair in pairs], pd.MultiIndex.from_tuples(pairs))
        for key, part in last.groupby(["variant", "model", "seed"])
    }
    table = pd.DataFrame(cosines).T.rename_axis(["variant", "model", "seed"])
    averaged = table.groupby(level=["variant", "model"]).mean()
    ours, average = (cosine.rank(axis=1, ascending=False, method="min")[PAIR] for cosine in (table, averaged))
    ranks = ours.unstack("seed").rename(columns="seed {}".format).assign(average=average).rename_axis(columns=None)
    order = pd.MultiIndex.from_product([METHODS, ["untrained", "trained"]], names=ranks.index.names)
    return ranks.reindex(order).astype("Int64").rename(index=NAMES)
