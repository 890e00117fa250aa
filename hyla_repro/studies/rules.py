"""What rules of every study are made of: cuts along an axis, trends, leads seed by seed, and results in words."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from hyla_repro.results.claims import MISSING, Outcome, missing
from hyla_repro.results.effects import MIN_SEEDS, Effect, paired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error, paper_values
from hyla_repro.studies import study_of

LABELS: dict[str, Callable[[Any], str]] = {
    "steps": lambda steps: f"{steps * 128 / 1e6:.3g} M problems",
    "d_model": lambda width: f"width {width}",
    "n_layers": lambda layers: f"{layers} layers",
    "heldout_fraction": lambda fraction: f"{fraction:.0%} held out",
    "n_features": lambda features: f"K = {features}",
    "n_examples": lambda examples: f"N={examples}",
}


def show(row: pd.Series, split: str = "heldout") -> str:
    """Return a mean with its standard error in words, from a row of a summary."""
    return mean_and_error(row[split], row[split + "_se"])


def enough(table: pd.DataFrame, variants: Iterable[str]) -> bool:
    """Return whether a summary by method has all of these methods with enough seeds."""
    return set(variants) <= set(table.index) and bool((table.loc[list(variants), "n"] >= MIN_SEEDS).all())


def enough_seeds(table: pd.DataFrame) -> bool:
    """Return whether a table with variant and seed has enough seeds of every method."""
    seeds = table.groupby("variant")["seed"].nunique() if len(table) else pd.Series(dtype=int)
    return bool(seeds.reindex(METHODS).fillna(0).min() >= MIN_SEEDS)


def listed(table: pd.DataFrame, variants: Iterable[str], split: str = "heldout") -> str:
    """Return the scores of methods in words, from a summary by method."""
    return ", ".join(f"{NAMES[v]} {show(table.loc[v], split)}" for v in variants if v in table.index) or MISSING


def published(store: Store | None, task: str) -> str:
    """Return the paper's numbers of the main comparison of a task in words."""
    table = paper_values(store)
    rows = table[table["task"] == task].set_index("variant")
    hyla, softmax, linear = (
        mean_and_error(rows.loc[method, "value"], rows.loc[method, "standard_error"])
        for method in ("hyla", "softmax", "linear")
    )
    return f"{hyla}, above {softmax} and {linear}"


def main_point(task: str, preset: str) -> dict[str, Any]:
    """Return where the main comparison of a task stands among all points of its figures."""
    build = study_of(task).build
    assert build is not None
    return build(preset, METHODS[0], 0).point


def cut(
    results: Results,
    figure: str,
    task: str,
    axis: str,
    score: str = "heldout",
    complete: bool = True,
    at: Mapping[str, Any] | None = None,
) -> pd.DataFrame | None:
    """Return a score by method and seed (rows) and value of one axis (columns), the other axes at the main point.

    Args:
        score: a column of the runs; splits come out in percent.
        complete: require every value and method with at least three seeds, else None.
        at: axes to fix at other values than the main ones.
    """
    fixed = {**main_point(task, results.preset), **(at or {})}
    # The number of heads follows the width, where the width is varied.
    free = {axis, "n_heads"} if "d_model" in (axis, *(at or {})) else {axis}
    fixed = {name: value for name, value in fixed.items() if name not in free}
    points = [run.point for run in results.wanted(figure, task)]
    wanted = sorted({point[axis] for point in points if all(point[name] == value for name, value in fixed.items())})
    runs = results.best(figure, task)
    if runs.empty:
        return None
    for name, value in fixed.items():
        runs = runs[runs[name] == value]
    table = runs.pivot(index=["variant", "seed"], columns=axis, values=score).reindex(columns=wanted)
    counts = table.groupby(level="variant").count().reindex(METHODS).fillna(0)
    if complete and (counts < MIN_SEEDS).any(axis=None):
        return None
    return table if score == "train_loss" else 100 * table


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means over seeds of a cut, by method."""
    return table.groupby(level="variant").mean().reindex(METHODS)


def ends(table: pd.DataFrame, digits: int = 1) -> str:
    """Return the means at both ends of a cut in words."""
    averages, (first, *_, last) = means(table), table.columns
    return ", ".join(
        f"{NAMES[m]} {averages.loc[m, first]:.{digits}f} → {averages.loc[m, last]:.{digits}f}" for m in METHODS
    )


def trend(figure: str, task: str, axis: str, rises: bool, must_learn: bool = False) -> Callable[[Results], Outcome]:
    """Return the rule that every method's held-out score rises, or falls, from end to end of an axis.

    Args:
        must_learn: ask for the end that is better, too, that training tasks are learned (`have_learned`).
    """

    def decide(results: Results) -> Outcome:
        table = cut(results, figure, task, axis)
        if table is None:
            return missing()
        (first, *_, last) = table.columns
        text = f"{LABELS[axis](first)} → {LABELS[axis](last)}: {ends(table)}"
        if must_learn and not have_learned(cut(results, figure, task, axis, "test"), last if rises else first):
            return missing(f"{text}; training tasks are not learned")
        return Outcome(text, gains(table, first, last, rises))

    return decide


def gains(table: pd.DataFrame, first: Any, last: Any, rises: bool, digits: int = 1) -> tuple[Effect, ...]:
    """Return by how much each method's score rises, or falls, from one column of a cut to another."""
    change = (table[last] - table[first]) * (1 if rises else -1)
    return tuple(paired(NAMES[method], change.loc[method], digits) for method in METHODS)


def have_learned(test: pd.DataFrame | None, column: Any) -> bool:
    """Return whether every method explains more than half of its training tasks there, which random weights do not."""
    return test is not None and bool((means(test)[column] > 50).all())


def hyla_leads(figure: str, task: str) -> Callable[[Results], Outcome]:
    """Return the rule that HYLA's held-out score leads softmax and linear attention, seed by seed."""

    def decide(results: Results) -> Outcome:
        table = results.by_method(figure, task)
        if not enough(table, METHODS):
            return missing(listed(table, METHODS))
        return Outcome(listed(table, METHODS), leads(results, "hyla", ("softmax", "linear"), figure, task))

    return decide


def leads(results: Results, better: str, others: Iterable[str], figure: str, task: str) -> tuple[Effect, ...]:
    """Return by how many points a method leads others on held-out tasks, seed by seed.

    Seeds hold the same combinations out for every method, and that choice is most of the spread.
    """
    return tuple(
        paired(f"{NAMES[better]} minus {NAMES[other]}", results.leads(better, other, figure, task)) for other in others
    )
