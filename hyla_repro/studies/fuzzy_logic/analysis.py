"""What a split shows of each term, and what of HYLA's lead goes with how far training has come (Figures 2A and 2C)."""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from hyla_repro.results.effects import paired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.summary import heldout_at, mean_and_error
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic


class Coverage(NamedTuple):
    """What the training functions of a split show of the known terms.

    Args:
        fewest, most: in how many training functions the rarest and the most frequent known term occur.
        connected: whether the graph whose edges are the training functions' pairs of terms holds all known terms
            together.
        new_parts: how many held-out functions hold a term that no training function has: these are not new
            combinations of known parts.
        heldout: how many held-out functions there are.
    """

    fewest: int
    most: int
    connected: bool
    new_parts: int
    heldout: int


def coverage(task: FuzzyLogic) -> Coverage:
    """Return how well the training functions of a task cover its known terms."""
    from scipy.sparse.csgraph import connected_components

    train, heldout = (task.functions[pool].numpy() for pool in ("train", "heldout"))
    counts = np.bincount(train.ravel(), minlength=task.n_known_terms)
    together = np.zeros((task.n_known_terms, task.n_known_terms))
    for first, second in product(train.T, train.T):
        together[first, second] = 1
    parts, _ = connected_components(together, directed=False)
    unseen = (counts[heldout] == 0).any(axis=1)
    return Coverage(int(counts.min()), int(counts.max()), parts == 1, int(unseen.sum()), len(heldout))


def _split(seed: int, heldout_fraction: float) -> FuzzyLogic:
    return FuzzyLogic(heldout_fraction=heldout_fraction, seed=seed)


def coverage_table(seeds: Iterable[int] = (0, 1, 2), fractions: Iterable[float] = (0.3, 0.5, 0.7)) -> pd.DataFrame:
    """Return `coverage` in words, by the fraction held out and the seed that draws the split."""
    found = {point: coverage(_split(*point[::-1])) for point in product(fractions, seeds)}
    return pd.DataFrame({
        (f"{fraction:.0%}", seed): {
            "training functions with the rarest term": f"{split.fewest}", "with the most frequent": f"{split.most}",
            "all terms connected": "yes" if split.connected else "no",
            "held-out functions with a term never shown": f"{split.new_parts} of {split.heldout}",
        }
        for (fraction, seed), split in found.items()
    }).T.rename_axis(["held out", "seed"])  # fmt: skip


def share_that_misses(seeds: int = 500, heldout_fraction: float = 0.7) -> float:
    """Return in which share of splits, of seeds from 0, some known term occurs in no training function."""
    return float(np.mean([coverage(_split(seed, heldout_fraction)).fewest == 0 for seed in range(seeds)]))


def leads_without(runs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return HYLA's lead on held-out functions in points with its 95 % interval, with all seeds and without one.

    Args:
        runs: those of one grid point.
    """
    scores = 100 * runs.pivot(index="seed", columns="variant", values="heldout")
    rows = {}
    for other in ("softmax", "linear"):
        name, lead = f"HYLA minus {NAMES[other]}", scores["hyla"] - scores[other]
        parts = {"all seeds": lead, f"without seed {seed}": lead.drop(seed, errors="ignore")}
        rows[name] = {title: str(paired("", part)).strip() for title, part in parts.items()}
    return pd.DataFrame(rows).T


def best_and_last(curves: pd.DataFrame) -> pd.DataFrame:
    """Return held-out R2 in percent at the last step and at the best one, by method and seed.

    The best step is a diagnosis and never a score: it is chosen by looking at what was held out.

    Args:
        curves: rows of `Store.curves` of one grid point.
    """
    rows = {}
    for (variant, seed), curve in curves.sort_values("step").groupby(["variant", "seed"]):
        best, last = curve.loc[curve["heldout"].idxmax()], curve.iloc[-1]
        rows[variant, seed] = {
            "training functions, last step": f"{100 * last['test']:.1f}",
            "held out, last step": f"{100 * last['heldout']:.1f}",
            "held out, best step": f"{100 * best['heldout']:.1f}", "best step": f"{int(best['step']):,}",
        }  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "seed"])
    return table.reindex(list(METHODS), level=0).rename(index=NAMES, level=0)


def fall_at_equal_training(
    runs: pd.DataFrame, curves: pd.DataFrame, levels: Iterable[float] = (0.6, 0.65, 0.7, 0.75)
) -> pd.DataFrame:
    """Return how many points of held-out R2 are lost as more is held out, at equal R2 on training functions.

    Args:
        runs: those of one number of examples, at several fractions held out.
        curves: their rows of `Store.curves`.

    Returns: a column per level and one for the end of training; means and standard errors, blank where a run of the
        method never reaches the level. Rows: the methods, and by how much two of them lose more than HYLA.
    """
    (least, first), *_, (most, last) = runs.groupby("heldout_fraction")
    of_run = [curves[curves["id"].isin(part["id"])] for part in (first, last)]
    scores = {f"at {level:.0%}": [heldout_at(part, level) for part in of_run] for level in levels}
    scores["at the end"] = [part.set_index(["variant", "seed"])["heldout"] for part in (first, last)]
    columns = {title: _loss(*pair) for title, pair in scores.items()}
    return pd.DataFrame(columns).rename_axis(f"{least:.0%} to {most:.0%}")


def _loss(first: pd.Series, last: pd.Series) -> pd.Series:
    lost = (100 * (first - last)).unstack("variant").reindex(columns=METHODS)
    more = {f"{NAMES[one]} minus HYLA": lost[one] - lost["hyla"] for one in ("softmax", "linear")}
    rows = lost.rename(columns=NAMES).assign(**more)
    return rows.agg(lambda row: mean_and_error(row.mean(skipna=False), row.sem()))
