"""Verdicts: what the paper states, what our runs show, and the rule that decides between them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from hyla_repro.codes import neighbour_agreement
from hyla_repro.presets import ABLATIONS, METHODS, PRESETS, experiments
from hyla_repro.results import DECODING, EMBEDDING, PAPER, Store

REPRODUCED, NOT_REPRODUCED, NOT_TESTED = "reproduced", "not reproduced", "not tested at this scale"
MIN_SEEDS = 3
# A method of a claim counts as better only by more than its uncertainty: this many standard errors.
ERRORS_APART = 2.0
NAMES = {
    "softmax": "softmax attention", "linear": "linear attention", "hyla": "HYLA",
    "linear_rms_head": "linear + RMSHead", "linear_rms_head_relu_values": "linear + RMSHead + nonlinear value",
    "hyla_no_rms_head": "HYLA − RMSHead", "hyla_no_relu": "HYLA − nonlinearity",
    "hyla_no_relu_no_rms_head": "HYLA − nonlinearity − RMSHead", "hyla_softmax": "HYLA − RMSHead + softmax",
    "hyla_deep": "HYLA + deep value network",
}  # fmt: skip


class Outcome(NamedTuple):
    """What our runs say about a claim: in words, whether it holds, or None where they cannot tell."""

    ours: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and the rule that decides it.

    Args:
        rule: the decision in words, as the report prints it.
        decide: the decision in code, from the results of one preset.
        level: whether the claim is about a number, which only the paper's own settings can decide.
    """

    id: str
    figure: str
    statement: str
    published: str
    rule: str
    decide: Callable[["Results"], Outcome]
    level: bool = False


class Results:
    """The finished runs of one preset, as claims read them."""

    def __init__(self, preset: str, store: Store | None = None) -> None:
        self.preset, self.store = preset, store or Store()

    def scores(self, figure: str) -> pd.DataFrame:
        """Return mean, standard error and number of seeds of every score, per variant and grid point.

        Where several learning rates and decays were run, the best held-out mean stands, as in the paper.
        """
        return summarize(self.store.runs(experiments(figure, self.preset)))

    def main(self) -> pd.DataFrame:
        """Return the summary of N=32 with 70 % held out, by variant."""
        scores = self.scores("tablea1")
        return scores.set_index("variant") if len(scores) else scores


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Average runs over seeds, and keep the best (learning rate, decay) of each variant and grid point.

    Returns: columns `heldout`, `heldout_se`, ... for each split, `n` seeds; scores are R2 in percent.
    """
    if runs.empty:
        return runs
    point = ["variant", "n_examples", "heldout_fraction", "attention_dropout"]
    splits = ["test", "heldout", "unknown_terms"]
    point = [*point, "steps"]
    groups = (runs.assign(**{s: 100 * runs[s] for s in splits})).groupby([*point, "learning_rate", "weight_decay"])
    table = groups[splits].mean().join(groups[splits].sem().add_suffix("_se")).join(groups.size().rename("n"))
    best = table.sort_values("heldout", ascending=False).groupby(level=point, sort=False).head(1).reset_index()
    order = {name: place for place, name in enumerate(ABLATIONS)}
    return best.sort_values([*point[1:], "variant"], key=lambda c: c.map(order) if c.name == "variant" else c,
                            ignore_index=True)  # fmt: skip


def paper_values(store: Store | None = None) -> pd.DataFrame:
    """Return the published numbers: figure, task, variant, value and standard error in percent, source."""
    return (store or Store()).table(PAPER)


def verdict(claim: Claim, results: Results) -> tuple[str, str]:
    """Return (verdict, our result in words) of a claim at the results' preset."""
    outcome = claim.decide(results)
    if outcome.holds is None or (claim.level and results.preset != "paper") or results.preset == "smoke":
        return NOT_TESTED, outcome.ours
    return (REPRODUCED if outcome.holds else NOT_REPRODUCED), outcome.ours


def best_verdict(claim: Claim, store: Store | None = None) -> tuple[str, str, str]:
    """Return (verdict, ours, preset) from the largest preset whose runs can decide the claim."""
    found = []
    for preset in ("paper", "laptop"):
        decided, ours = verdict(claim, Results(preset, store))
        found.append((decided, ours, preset))
        if decided != NOT_TESTED:
            return found[-1]
    # Nothing decides it: show the preset that at least has numbers.
    return next((entry for entry in found if entry[1] != _MISSING), found[-1])


# --- rules -----------------------------------------------------------------------------------------

_MISSING = "no runs yet"


def _show(row: pd.Series, split: str = "heldout") -> str:
    return f"{row[split]:.1f} ± {row[split + '_se']:.1f}"


def _enough(table: pd.DataFrame, variants: Iterable[str]) -> bool:
    return set(variants) <= set(table.index) and bool((table.loc[list(variants), "n"] >= MIN_SEEDS).all())


def _beats(table: pd.DataFrame, better: str, worse: str) -> bool:
    a, b = table.loc[better], table.loc[worse]
    return a["heldout"] - b["heldout"] > ERRORS_APART * np.hypot(a["heldout_se"], b["heldout_se"])


def _list(table: pd.DataFrame, variants: Iterable[str], split: str = "heldout") -> str:
    return ", ".join(f"{NAMES[v]} {_show(table.loc[v], split)}" for v in variants if v in table.index) or _MISSING


def _identity(results: Results) -> Outcome:
    import torch

    from hyla_repro import HypernetworkAttention
    from hyla_repro.attention import NORMALIZERS

    generator, worst = torch.Generator().manual_seed(0), 0.0
    for normalizer in NORMALIZERS:
        layer = HypernetworkAttention(12, 3, bias=False, normalizer=normalizer, value_network="linear").double()
        query, key = (torch.randn(2, n, 12, generator=generator, dtype=torch.float64) for n in (5, 7))
        (generated,) = layer.value_network_weights(query, key)
        by_pairs = torch.einsum("bqkoi,bki->bqo", generated, key)
        worst = max(worst, (by_pairs - layer(query, key, key)[0]).abs().max().item())
    return Outcome(f"largest difference below 1e{int(np.ceil(np.log10(worst)))} over {len(NORMALIZERS)} normalisers",
                   worst < 1e-12)  # fmt: skip


def _hyla_leads(results: Results) -> Outcome:
    table = results.main()
    if not _enough(table, METHODS):
        return Outcome(_list(table, METHODS), None)
    return Outcome(_list(table, METHODS), all(_beats(table, "hyla", other) for other in ("softmax", "linear")))


def _trend(results: Results, axis: str, fixed: dict[str, float]) -> pd.DataFrame | None:
    """Return held-out R2 by method (rows) and grid value (columns), None unless every cell has its seeds."""
    scores = results.scores("fig2c")
    if scores.empty:
        return None
    for column, value in fixed.items():
        scores = scores[np.isclose(scores[column], value)]
    wanted = {float(run.task[axis]) for run in experiments("fig2c", results.preset)
              if all(np.isclose(run.task[column], value) for column, value in fixed.items())}  # fmt: skip
    table = scores[scores["n"] >= MIN_SEEDS].pivot(index="variant", columns=axis, values="heldout")
    complete = set(table.columns.astype(float)) == wanted and set(table.index) == set(METHODS)
    return table.loc[list(METHODS)] if complete and not table.isna().any(axis=None) else None


def _improves_with_examples(results: Results) -> Outcome:
    table = _trend(results, "n_examples", {"heldout_fraction": 0.7})
    if table is None:
        return Outcome(_MISSING, None)
    first, last = table.columns[0], table.columns[-1]
    text = ", ".join(f"{NAMES[m]} {table.loc[m, first]:.1f} → {table.loc[m, last]:.1f}" for m in METHODS)
    return Outcome(f"N={first} → {last}: {text}", bool((table[last] > table[first]).all()))


def _falls_with_heldout(results: Results) -> Outcome:
    table = _trend(results, "heldout_fraction", {"n_examples": 32})
    if table is None:
        return Outcome(_MISSING, None)
    drop = table.iloc[:, 0] - table.iloc[:, -1]
    text = ", ".join(f"{NAMES[m]} −{drop[m]:.1f}" for m in METHODS)
    return Outcome(f"R² lost from {table.columns[0]:.0%} to {table.columns[-1]:.0%} held out: {text}",
                   bool((drop > 0).all() and drop["hyla"] == drop.min()))  # fmt: skip


def _in_distribution(results: Results) -> Outcome:
    table = results.main()
    if not _enough(table, METHODS):
        return Outcome(_list(table, METHODS, "test"), None)
    return Outcome(_list(table, METHODS, "test"), bool((table.loc[list(METHODS), "test"] > 90).all()))


def _nobody_solves_unknown(results: Results) -> Outcome:
    table = results.main()
    if not _enough(table, METHODS):
        return Outcome(_list(table, METHODS, "unknown_terms"), None)
    best = table.loc[list(METHODS), "unknown_terms"].max()
    return Outcome(_list(table, METHODS, "unknown_terms"), bool(best < 50))


def _decodable(results: Results) -> Outcome:
    table = results.store.analysis(DECODING, experiments("fig2b", results.preset))
    if table.empty or table.groupby("variant")["seed"].nunique().reindex(METHODS).fillna(0).min() < MIN_SEEDS:
        return Outcome(_MISSING, None)
    last = table[table["layer"] == table["layer"].max()].groupby("variant")[["f1", "chance"]].mean()
    text = ", ".join(f"{NAMES[m]} {last.loc[m, 'f1']:.2f}" for m in METHODS)
    return Outcome(f"F1 in the last layer: {text}; chance {last['chance'].mean():.2f}",
                   bool((last["f1"] > last["chance"] + 0.2).all()))  # fmt: skip


def _clusters(results: Results) -> Outcome:
    table = results.store.analysis(EMBEDDING, experiments("fig2d", results.preset))
    if table.empty or table.groupby("variant")["seed"].nunique().reindex(METHODS).fillna(0).min() < MIN_SEEDS:
        return Outcome(_MISSING, None)
    shares = table.groupby(["variant", "id"]).apply(neighbour_agreement, include_groups=False)
    means = shares.apply(pd.Series).groupby(level="variant").mean()
    text = ", ".join(f"{NAMES[m]} {means.loc[m, 0]:.0%}" for m in METHODS)
    return Outcome(f"neighbours with the same function: {text}; chance {means[1].mean():.0%}",
                   bool((means[0] > 3 * means[1]).all()))  # fmt: skip


def _code_twice_wins(results: Results) -> Outcome:
    twice = ("hyla", "hyla_no_rms_head", "hyla_no_relu", "hyla_no_relu_no_rms_head", "hyla_deep")
    once = ("softmax", "linear", "linear_rms_head", "linear_rms_head_relu_values")
    table = results.main()
    if not _enough(table, twice + once):
        return Outcome(_MISSING, None)
    low, high = table.loc[list(twice), "heldout"], table.loc[list(once), "heldout"]
    text = f"lowest of the five: {NAMES[str(low.idxmin())]} {low.min():.1f}; "
    return Outcome(f"{text}highest of the four: {NAMES[str(high.idxmax())]} {high.max():.1f}", low.min() > high.max())


def _softmax_between(results: Results) -> Outcome:
    table = results.main()
    wanted = ("softmax", "hyla_softmax", "hyla")
    if not _enough(table, wanted):
        return Outcome(_list(table, wanted), None)
    values = table.loc[list(wanted), "heldout"]
    return Outcome(_list(table, wanted), bool(values.is_monotonic_increasing))


def _level(variant: str, value: float, error: float) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = results.main()
        if not _enough(table, [variant]):
            return Outcome(_MISSING, None)
        row = table.loc[variant]
        return Outcome(_show(row), bool(abs(row["heldout"] - value) <= 2 * np.hypot(row["heldout_se"], error)))

    return decide


def claims(store: Store | None = None) -> list[Claim]:
    """Return every claim of the paper that this package tests, in the order of the figures."""
    percent = "held-out R² (%), N = 32, 70 % held out"
    fixed = [
        Claim("identity", "fig1", "Multi-head attention is a linear hypernetwork, for any normalisation of the scores.",
              "exact identity", "largest difference < 1e-12 in float64, every normaliser", _identity),
        Claim("2c-main", "fig2c", "HYLA generalises to held-out combinations better than softmax and linear attention.",
              "81.1 ± 7.8 vs 63.3 ± 2.3 and 59.9 ± 5.2", f"HYLA's mean {percent} leads each by more than "
              "two standard errors of the difference", _hyla_leads),
        Claim("2c-examples", "fig2c", "All methods improve with the number of examples in context.", "read off the plot",
              "mean held-out R² at the largest N above that at the smallest, each method", _improves_with_examples),
        Claim("2c-heldout", "fig2c", "All methods fall with the fraction held out, HYLA least.", "read off the plot",
              "mean held-out R² falls from the smallest to the largest fraction, least for HYLA", _falls_with_heldout),
        Claim("a3-test", "figa3", "On functions seen in training all methods succeed.", "read off the plot",
              "mean in-distribution R² above 90 % for each method", _in_distribution),
        Claim("a3-unknown", "figa3", "No method solves functions of unknown terms.", "read off the plot",
              "mean R² on unknown terms below 50 % for each method", _nobody_solves_unknown),
        Claim("2b-decoding", "fig2b", "Terms can be decoded from the latent code, also on held-out functions.",
              "read off the plot", "mean F1 in the last layer at least 0.2 above always answering yes, each method",
              _decodable),
        Claim("2d-clusters", "fig2d", "Latent codes cluster by the terms of the function.", "t-SNE picture",
              "the 10 nearest neighbours show the same function more than 3 times as often as chance, each method",
              _clusters),
        Claim("a1-code-twice", "tablea1", "On fuzzy logic, applying the code twice is what helps.",
              "lowest of five 79.4, highest of four 68.9", "every linear-score variant that applies the code twice has "
              "a higher mean than every one that applies it once", _code_twice_wins),
        Claim("a1-softmax-between", "tablea1", "Normalising HYLA by softmax loses part of the gain.", "63.3 < 71.0 < 81.1",
              "mean held-out R²: softmax < HYLA with softmax < HYLA", _softmax_between),
    ]  # fmt: skip
    values = paper_values(store)
    rows = values[(values["task"] == "fuzzy_logic") & values["variant"].isin(ABLATIONS)]
    levels = [
        Claim(f"a1-{row.variant.replace('_', '-')}", "tablea1", f"{NAMES[row.variant]}: {percent}.",
              f"{row.value:.1f} ± {row.standard_error:.1f}", "difference at most 2 joint standard errors, "
              "paper preset only", _level(row.variant, row.value, row.standard_error), level=True)
        for row in rows.itertuples()
    ]  # fmt: skip
    return fixed + levels


def table(figure: str, preset: str, store: Store | None = None) -> pd.DataFrame:
    """Return the comparison that a chapter prints below its figure, decided at this preset.

    Raises: ValueError for an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: allowed are {', '.join(PRESETS)}")
    results, rows = Results(preset, store), []
    for claim in claims(store):
        if claim.figure == figure:
            decided, ours = verdict(claim, results)
            rows.append({"claim": claim.statement, "paper": claim.published, "here": ours, "verdict": decided})
    return pd.DataFrame(rows).set_index("claim")
