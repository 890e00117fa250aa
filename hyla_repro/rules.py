"""The rules that decide whether our runs show what the paper states."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from hyla_repro.codes import neighbour_agreement
from hyla_repro.presets import METHODS, experiments
from hyla_repro.results import DECODING, EMBEDDING
from hyla_repro.summary import FUZZY_LOGIC, NAMES, Results, identity_errors, mean_and_error, percent_interval, wilson

MIN_SEEDS = 3
# Where a rule asks for a clear lead, it is this many standard errors of the differences at equal seeds.
ERRORS_APART = 2.0
MISSING = "not all runs yet"


class Outcome(NamedTuple):
    """What our runs say about a claim: in words, whether it holds, or None where they cannot tell."""

    ours: str
    holds: bool | None


def _show(row: pd.Series, split: str = "heldout") -> str:
    return mean_and_error(row[split], row[split + "_se"])


def _enough(table: pd.DataFrame, variants: Iterable[str]) -> bool:
    return set(variants) <= set(table.index) and bool((table.loc[list(variants), "n"] >= MIN_SEEDS).all())


def _list(table: pd.DataFrame, variants: Iterable[str], split: str = "heldout") -> str:
    return ", ".join(f"{NAMES[v]} {_show(table.loc[v], split)}" for v in variants if v in table.index) or MISSING


def identity(results: Results) -> Outcome:
    worst = identity_errors().max()
    # The digits below the bound depend on the processor, and the report must not.
    return Outcome("below 1e-12" if worst < 1e-12 else f"largest difference {worst:.0e}", bool(worst < 1e-12))


def hyla_leads(results: Results, task: str = FUZZY_LOGIC) -> Outcome:
    table = results.main(task)
    if not _enough(table, METHODS):
        return Outcome(_list(table, METHODS), None)
    # Seeds hold the same combinations out for every method, and that choice is most of the spread: compare by seed.
    leads = {other: results.leads("hyla", other, task) for other in ("softmax", "linear")}
    text = ", ".join(
        f"HYLA minus {NAMES[other]} {mean_and_error(lead.mean(), lead.sem())}" for other, lead in leads.items()
    )
    clear = [len(lead) >= MIN_SEEDS and lead.mean() > ERRORS_APART * lead.sem() for lead in leads.values()]
    return Outcome(f"{_list(table, METHODS)}; seed by seed, {text}", all(clear))


def _trend(results: Results, axis: str, fixed: str, value: int | float) -> pd.DataFrame | None:
    """Return held-out R2 by method (rows) and grid value (columns), None unless every cell has its seeds."""
    scores = results.scores("fig2c")
    if scores.empty:
        return None
    scores = scores[np.isclose(scores[fixed], value)]
    wanted = {run.task[axis] for run in experiments("fig2c", results.preset) if np.isclose(run.task[fixed], value)}
    table = scores[scores["n"] >= MIN_SEEDS].pivot(index="variant", columns=axis, values="heldout")
    complete = set(table.columns) == wanted and set(table.index) == set(METHODS)
    return table.loc[list(METHODS)] if complete and not table.isna().any(axis=None) else None


def improves_with_examples(results: Results) -> Outcome:
    table = _trend(results, "n_examples", "heldout_fraction", 0.7)
    if table is None:
        return Outcome(MISSING, None)
    first, last = table.columns[0], table.columns[-1]
    text = ", ".join(f"{NAMES[m]} {table.loc[m, first]:.1f} → {table.loc[m, last]:.1f}" for m in METHODS)
    return Outcome(f"N={first} → {last}: {text}", bool((table[last] > table[first]).all()))


def falls_with_heldout(results: Results) -> Outcome:
    table = _trend(results, "heldout_fraction", "n_examples", 32)
    if table is None:
        return Outcome(MISSING, None)
    drop = table.iloc[:, 0] - table.iloc[:, -1]
    text = ", ".join(f"{NAMES[m]} {drop[m]:.1f}" for m in METHODS)
    runs = results.best("fig2c").query("n_examples == 32")
    heldout = 100 * runs.pivot(index="seed", columns=["heldout_fraction", "variant"], values="heldout")
    drops = heldout[table.columns[0]] - heldout[table.columns[-1]]
    less = {other: drops[other] - drops["hyla"] for other in ("softmax", "linear")}
    text += "; seed by seed, HYLA loses less than " + ", ".join(
        f"{NAMES[other]} by {mean_and_error(lead.mean(), lead.sem())}" for other, lead in less.items()
    )
    return Outcome(f"points lost from {table.columns[0]:.0%} to {table.columns[-1]:.0%} held out: {text}",
                   bool((drop > 0).all() and drop["hyla"] == drop.min()))  # fmt: skip


def nobody_solves_unknown(results: Results) -> Outcome:
    table = results.main()
    if not _enough(table, METHODS):
        return Outcome(_list(table, METHODS, "unknown_terms"), None)
    best = table.loc[list(METHODS), "unknown_terms"].max()
    return Outcome(_list(table, METHODS, "unknown_terms"), bool(best < 50))


def decodable(results: Results) -> Outcome:
    table = results.store.analysis(DECODING, experiments("fig2b", results.preset))
    if table.empty or table.groupby("variant")["seed"].nunique().reindex(METHODS).fillna(0).min() < MIN_SEEDS:
        return Outcome(MISSING, None)
    last = table[table["layer"] == table["layer"].max()].groupby("variant")[["f1", "auc", "chance"]].mean()
    f1, auc = (", ".join(f"{NAMES[m]} {last.loc[m, score]:.2f}" for m in METHODS) for score in ("f1", "auc"))
    return Outcome(f"last layer, F1: {f1}, always yes {last['chance'].mean():.2f}; AUC: {auc}, chance 0.50",
                   bool((last["f1"] > last["chance"] + 0.2).all()))  # fmt: skip


def clusters(results: Results) -> Outcome:
    table = results.store.analysis(EMBEDDING, experiments("fig2d", results.preset))
    if table.empty or table.groupby("variant")["seed"].nunique().reindex(METHODS).fillna(0).min() < MIN_SEEDS:
        return Outcome(MISSING, None)
    rows = [{"variant": v, **neighbour_agreement(part)._asdict()} for (v, _), part in table.groupby(["variant", "id"])]
    shares = pd.DataFrame(rows)
    shares["lead"] = shares["share"] - shares["by_target"]
    by_method = shares.groupby("variant")
    means, errors = by_method.mean(), by_method["lead"].sem()
    text = ", ".join(f"{NAMES[m]} {means.loc[m, 'share']:.0%} ({means.loc[m, 'by_target']:.0%})" for m in METHODS)
    clear = (means["share"] > 3 * means["chance"]) & (means["lead"] > ERRORS_APART * errors)
    return Outcome(f"neighbours with the same function (explained by the target): {text}; "
                   f"chance {means['chance'].mean():.0%}", bool(clear.all()))  # fmt: skip


def code_twice_wins(results: Results) -> Outcome:
    twice = ("hyla", "hyla_no_rms_head", "hyla_no_relu", "hyla_no_relu_no_rms_head", "hyla_deep")
    once = ("softmax", "linear", "linear_rms_head", "linear_rms_head_relu_values")
    table = results.main()
    if not _enough(table, twice + once):
        return Outcome(MISSING, None)
    low, high = table.loc[list(twice), "heldout"], table.loc[list(once), "heldout"]
    lowest, highest = str(low.idxmin()), str(high.idxmax())
    lead = results.leads(lowest, highest)
    text = (
        f"lowest of the five: {NAMES[lowest]} {low.min():.1f}; highest of the four: {NAMES[highest]} {high.max():.1f}"
    )
    apart = mean_and_error(lead.mean(), lead.sem())
    return Outcome(f"{text}; seed by seed they are {apart} apart", bool(low.min() > high.max()))


def softmax_between(results: Results) -> Outcome:
    table = results.main()
    wanted = ("softmax", "hyla_softmax", "hyla")
    if not _enough(table, wanted):
        return Outcome(_list(table, wanted), None)
    values = table.loc[list(wanted), "heldout"]
    return Outcome(_list(table, wanted), bool(values.is_monotonic_increasing and values.is_unique))


def level(variant: str, value: float, error: float, task: str = FUZZY_LOGIC) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = results.main(task)
        if not _enough(table, [variant]):
            return Outcome(MISSING, None)
        row = table.loc[variant]
        return Outcome(_show(row), bool(abs(row["heldout"] - value) <= 2 * np.hypot(row["heldout_se"], error)))

    return decide


def rarely_ambiguous(results: Results) -> Outcome:
    return _ambiguity(8000)


@cache
def _ambiguity(problems: int) -> Outcome:
    from hyla_repro.tasks import SRaven
    from hyla_repro.tasks.sraven import evaluation_set, is_ambiguous, is_wholly_ambiguous

    task = SRaven()
    batch = evaluation_set(task, ["test"], problems).problems["test"]
    wholly, several = int(is_wholly_ambiguous(task, batch).sum()), int(is_ambiguous(task, batch.inputs).sum())
    text = f"{percent_interval(wholly, problems)}; with more than one answer {percent_interval(several, problems)}"
    return Outcome(text, wilson(wholly, problems)[1] < 0.005)
