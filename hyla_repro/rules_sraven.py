"""The rules that decide what our SRAVEN runs show of Figures 4 and 5, their appendices, and Table A1."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hyla_repro.codes_sraven import similarity
from hyla_repro.presets import ABLATIONS, METHODS, experiments, sraven
from hyla_repro.results import MEAN_CODES, RULE_DECODING
from hyla_repro.rules import ERRORS_APART, MIN_SEEDS, MISSING, Outcome
from hyla_repro.summary import NAMES, SRAVEN, Results, mean_and_error, paper_values
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

_AXES = ("steps", "n_features", "d_model", "n_layers", "n_heads", "heldout_fraction")
# Spearman's rank correlation that 13 rows reach by chance in 5 % of cases (one-sided).
RANK_CORRELATION = 0.484


def main_sizes(preset: str) -> dict[str, Any]:
    """Return what the main comparison of a preset has of what figures vary."""
    row = sraven(preset, "softmax", 0).row()
    return {axis: row[axis] for axis in _AXES}


def cut(
    results: Results, figure: str, axis: str, score: str = "heldout", complete: bool = True, **at: Any
) -> pd.DataFrame | None:
    """Return a score by method and seed (rows) and value of one axis (columns), the other axes at the main sizes.

    Args:
        score: a column of the runs; splits come out in percent.
        complete: require every value and method with at least three seeds, else None.
        at: axes to fix at other values than the main ones.
    """
    fixed = {**main_sizes(results.preset), **at}
    # The number of heads follows the width, where the width is varied.
    free = {axis, "n_heads"} if "d_model" in (axis, *at) else {axis}
    fixed = {name: value for name, value in fixed.items() if name not in free}
    rows = [run.row() for run in experiments(figure, results.preset) if run.task_name == SRAVEN]
    wanted = sorted({row[axis] for row in rows if all(row[name] == value for name, value in fixed.items())})
    runs = results.best(figure, SRAVEN)
    if runs.empty:
        return None
    for name, value in fixed.items():
        runs = runs[runs[name] == value]
    table = runs.pivot(index=["variant", "seed"], columns=axis, values=score).reindex(columns=wanted)
    counts = table.groupby(level="variant").count().reindex(METHODS).fillna(0)
    if complete and (counts < MIN_SEEDS).any(axis=None):
        return None
    return table if score == "train_loss" else 100 * table


def _means(table: pd.DataFrame) -> pd.DataFrame:
    return table.groupby(level="variant").mean().reindex(METHODS)


def _ends(table: pd.DataFrame, digits: int = 1) -> str:
    means, (first, *_, last) = _means(table), table.columns
    return ", ".join(f"{NAMES[m]} {means.loc[m, first]:.{digits}f} → {means.loc[m, last]:.{digits}f}" for m in METHODS)


def _apart(leads: pd.Series) -> tuple[str, bool]:
    """Return a difference of equal seeds in words, and whether it is clear."""
    text = mean_and_error(leads.mean(), leads.sem())
    return text, bool(len(leads) >= MIN_SEEDS and leads.mean() > ERRORS_APART * leads.sem())


_PAIR = ("addition", "difference")
_LABELS = {
    "steps": lambda steps: f"{steps * 128 / 1e6:.3g} M problems",
    "d_model": lambda width: f"width {width}",
    "n_layers": lambda layers: f"{layers} layers",
    "heldout_fraction": lambda fraction: f"{fraction:.0%} held out",
    "n_features": lambda features: f"K = {features}",
}


def trend(figure: str, axis: str, rises: bool) -> Callable[[Results], Outcome]:
    """Return the rule that every method's mean held-out accuracy rises, or falls, from end to end of an axis."""

    def decide(results: Results) -> Outcome:
        table = cut(results, figure, axis)
        if table is None:
            return Outcome(MISSING, None)
        means, (first, *_, last) = _means(table), table.columns
        gain = means[last] - means[first]
        text = f"{_LABELS[axis](first)} → {_LABELS[axis](last)}: {_ends(table)}"
        return Outcome(text, bool((gain > 0).all() if rises else (gain < 0).all()))

    return decide


def hyla_leads_when_small(results: Results) -> Outcome:
    width = min(run.model.d_model for run in experiments("fig4", results.preset))
    table = cut(results, "fig4", "steps", d_model=width)
    if table is None:
        return Outcome(MISSING, None)
    first = table.columns[0]
    by_seed = table[first].unstack("variant")
    leads = {other: _apart(by_seed["hyla"] - by_seed[other]) for other in ("softmax", "linear")}
    means = ", ".join(f"{NAMES[m]} {by_seed[m].mean():.1f}" for m in METHODS)
    text = ", ".join(f"HYLA minus {NAMES[other]} {words}" for other, (words, _) in leads.items())
    return Outcome(f"{_LABELS['steps'](first)}, width {width}: {means}; seed by seed, {text}",
                   all(clear for _, clear in leads.values()))  # fmt: skip


def loss_falls(results: Results) -> Outcome:
    texts, falls = [], []
    for axis in ("steps", "d_model", "n_layers"):
        table = cut(results, "fig4", axis, "train_loss")
        if table is None:
            return Outcome(MISSING, None)
        means = _means(table)
        texts.append(f"{_LABELS[axis](table.columns[-1])}: {_ends(table, 2)}")
        falls.append(bool((means[table.columns[-1]] < means[table.columns[0]]).all()))
    return Outcome("nats, smallest to " + "; to ".join(texts), all(falls))


def one_head_is_worse(results: Results) -> Outcome:
    table, main = cut(results, "fig5c", "n_heads"), main_sizes(results.preset)["n_heads"]
    if table is None:
        return Outcome(MISSING, None)
    gains = {method: _apart(table.loc[method][main] - table.loc[method][1]) for method in METHODS}
    means = _means(table)
    text = ", ".join(f"{NAMES[m]} {means.loc[m, 1]:.1f} → {means.loc[m, main]:.1f} ({gains[m][0]})" for m in METHODS)
    return Outcome(f"1 head → {main} (gain seed by seed): {text}", all(clear for _, clear in gains.values()))


def ablations_in_order(results: Results) -> Outcome:
    table = results.main(SRAVEN)
    if table.empty:
        return Outcome(MISSING, None)
    trained = int((table["n"] >= MIN_SEEDS).sum())
    if trained < len(ABLATIONS):
        return Outcome(f"{trained} of {len(ABLATIONS)} rows trained", None)
    values = paper_values(results.store)
    published = values[values["task"] == SRAVEN].set_index("variant")["value"]
    ours = table["heldout"].reindex(published.index)
    correlation = ours.rank().corr(published.rank())
    best, worst = (NAMES[str(name)] for name in (ours.idxmax(), ours.idxmin()))
    text = f"rank correlation {correlation:.2f}".replace("-", "−")
    return Outcome(f"{text}; highest {best} {ours.max():.1f}, lowest {worst} {ours.min():.1f}",
                   bool(correlation > RANK_CORRELATION))  # fmt: skip


# --- latent codes ----------------------------------------------------------------------------------------------------


def _probes(results: Results) -> pd.DataFrame | None:
    """Return the probes of the main comparison on the paper's streams, in percent; None unless all seeds are there."""
    main = main_sizes(results.preset)
    runs = [run for run in experiments("fig5f", results.preset) if run.model.n_layers == main["n_layers"]]
    table = results.store.analysis(RULE_DECODING, runs)
    if table.empty or table.groupby("variant")["seed"].nunique().reindex(METHODS).fillna(0).min() < MIN_SEEDS:
        return None
    table = table[table["stream"] == "unpermuted"].set_index(["model", "layer", "variant", "seed"])
    return 100 * table[["accuracy", "chance", "neighbours", "neighbours_chance"]]


def _beats(table: pd.DataFrame, score: str, chance: str) -> tuple[dict[str, str], bool]:
    """Return by method what the last layer's codes give, with the controls, and whether it is clearly above both."""
    last = table.index.get_level_values("layer").max()
    trained, control = (table.xs((name, last), level=("model", "layer")) for name in ("trained", "untrained"))
    words, clear = {}, True
    for method in METHODS:
        ours, untrained = trained.loc[method], control.loc[method]
        words[method] = f"{NAMES[method]} {ours[score].mean():.0f} % ({untrained[score].mean():.0f} %)"
        floor = pd.concat([untrained[score], ours[chance]], axis=1).max(axis=1)
        clear &= _apart(ours[score] - floor)[1]
    return words, clear


def clusters_by_rule(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    words, clear = _beats(table, "neighbours", "neighbours_chance")
    means = table.loc["trained"].groupby(level=("variant", "layer"))["neighbours"].mean().unstack()
    rises = bool((means.iloc[:, -1] > means.iloc[:, 0]).all())
    return Outcome(f"neighbours of the same rule, last layer (untrained): {', '.join(words.values())}; chance "
                   f"{table['neighbours_chance'].mean():.0f} %; first layer: "
                   f"{', '.join(f'{NAMES[m]} {means.loc[m].iloc[0]:.0f} %' for m in METHODS)}",
                   clear and rises)  # fmt: skip


def rule_decodable(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    words, clear = _beats(table, "accuracy", "chance")
    chance = f"best constant answer {table['chance'].mean():.0f} %"
    return Outcome(f"last layer (untrained): {', '.join(words.values())}; {chance}", clear)


def best_in_late_layers(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    means = table.loc["trained"].groupby(level=("variant", "layer"))["accuracy"].mean().unstack().reindex(METHODS)
    text = ", ".join(f"{NAMES[m]} {' '.join(f'{value:.0f}' for value in means.loc[m])}" for m in METHODS)
    return Outcome(f"accuracy (%) by layer: {text}", bool((means.idxmax(axis=1) > means.shape[1] / 2).all()))


def addition_near_difference(results: Results) -> Outcome:
    main = main_sizes(results.preset)
    runs = [run for run in experiments("fig5e", results.preset) if run.model.n_layers == main["n_layers"]]
    table = results.store.analysis(MEAN_CODES, runs)
    if table.empty:
        return Outcome(MISSING, None)
    leads = leads_of_the_pair(table).dropna()
    trained, control = leads.loc["trained"], leads.loc["untrained"].clip(lower=0)
    counts = trained.groupby(level="variant").size().reindex(METHODS).fillna(0)
    if counts.min() < MIN_SEEDS:
        return Outcome(MISSING, None)
    text = ", ".join(f"{NAMES[m]} {trained.loc[m].mean():.3f} ({control.loc[m].mean():.3f})" for m in METHODS)
    return Outcome(f"cosine of addition and difference minus that of other pairs (untrained): {text}".replace("-", "−"),
                   all(_apart(trained.loc[m] - control.loc[m])[1] for m in METHODS))  # fmt: skip


def leads_of_the_pair(means: pd.DataFrame, rules: Sequence[str] = SRAVEN_RULES) -> pd.Series:
    """Return the cosine of addition and difference minus the mean over other pairs, by model, variant and seed.

    Args:
        means: rows of `mean_code_table` with variant and seed; their last layer counts.
        rules: those whose pairs are compared.
    """
    pairs = [pair for pair in combinations(rules, 2) if pair != _PAIR]

    def lead(part: pd.DataFrame) -> float:
        matrix = similarity(part)
        return float(matrix.loc[_PAIR] - np.nanmean([matrix.loc[pair] for pair in pairs]))

    last = means[means["layer"] == means["layer"].max()]
    return last.groupby(["model", "variant", "seed"])[list(last.columns)].apply(lead)


def table_of_leads(means: pd.DataFrame, without: str = "constant") -> pd.DataFrame:
    """Return `leads_of_the_pair` by method, over all pairs of rules and over those without one rule.

    Returns: for both, the means after and before training, and by how much they differ, seed by seed.
    """
    others = [rule for rule in SRAVEN_RULES if rule != without]
    tables = {}
    for name, rules in (("all pairs", SRAVEN_RULES), (f"without {without}", others)):
        leads = leads_of_the_pair(means, rules).unstack("model")
        gains = (leads["trained"] - leads["untrained"]).groupby(level="variant").agg(["mean", "sem"])
        words = [mean_and_error(row["mean"], row["sem"], 3) for _, row in gains.iterrows()]
        averages = leads.groupby(level="variant").mean()[["trained", "untrained"]].map("{:.3f}".format)
        tables[name] = averages.assign(difference=words)
    return pd.concat(tables, axis="columns").reindex(METHODS).rename(index=NAMES).rename_axis(None)
