"""Verdicts: what the paper states, what our runs show, and what the rules say of the two."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from hyla_repro import rules
from hyla_repro.presets import ABLATIONS, PRESETS
from hyla_repro.results import Store
from hyla_repro.rules import MISSING, Outcome
from hyla_repro.summary import NAMES, Results, paper_values

REPRODUCED, NOT_REPRODUCED, NOT_TESTED = "reproduced", "not reproduced", "not tested at this scale"

# Figures whose claims are computed when asked for, without runs.
LIVE = ("fig1", "fig3")


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
    decide: Callable[[Results], Outcome]
    level: bool = False


def verdict(claim: Claim, results: Results) -> tuple[str, str]:
    """Return (verdict, our result in words) of a claim at the results' preset."""
    outcome = claim.decide(results)
    if outcome.holds is None or (claim.level and results.preset != "paper") or results.preset == "smoke":
        return NOT_TESTED, outcome.ours
    return (REPRODUCED if outcome.holds else NOT_REPRODUCED), outcome.ours


def best_verdict(claim: Claim, store: Store | None = None) -> tuple[str, str, str]:
    """Return (verdict, ours, preset) from the largest preset whose runs can decide the claim."""
    found = []
    if claim.figure in LIVE:
        return *verdict(claim, Results("paper", store)), "any"
    for preset in ("paper", "laptop"):
        decided, ours = verdict(claim, Results(preset, store))
        found.append((decided, ours, preset))
        if decided != NOT_TESTED:
            return found[-1]
    # Nothing decides it: show the preset that at least has numbers.
    return next((entry for entry in found if entry[1] != MISSING), found[-1])


def claims(store: Store | None = None) -> list[Claim]:
    """Return every claim of the paper that this package tests, in the order of the figures."""
    percent = "held-out R² (%), N = 32, 70 % held out"
    fixed = [
        Claim("identity", "fig1", "Multi-head attention is a linear hypernetwork, for any normalisation of the scores.",
              "exact identity", "largest difference < 1e-12 in float64, every normaliser", rules.identity),
        Claim("2c-main", "fig2c", "HYLA generalises to held-out combinations better than softmax and linear attention.",
              "81.1 ± 7.8, above 63.3 ± 2.3 and 59.9 ± 5.2", f"HYLA's mean {percent} leads each, seed by seed, by "
              "more than two standard errors (D12)", rules.hyla_leads),
        Claim("2c-examples", "fig2c", "All methods improve with the number of examples in context.",
              "read off the plot", "mean held-out R² at the largest N above that at the smallest, each method",
              rules.improves_with_examples),
        Claim("2c-heldout", "fig2c", "All methods fall with the fraction held out, HYLA least.", "read off the plot",
              "mean held-out R² falls from the smallest to the largest fraction, least for HYLA",
              rules.falls_with_heldout),
        Claim("a3-unknown", "figa3", "No method solves functions of unknown terms.", "read off the plot",
              "mean R² on unknown terms below 50 %, N = 32, 70 % held out, each method", rules.nobody_solves_unknown),
        Claim("2b-decoding", "fig2b", "Terms can be decoded from the latent code, also on held-out functions.",
              "read off the plot", "mean F1 in the last layer at least 0.2 above always answering yes, each method",
              rules.decodable),
        Claim("2d-clusters", "fig2d", "Latent codes cluster by the terms of the function.", "t-SNE picture",
              "the 10 nearest neighbours in the t-SNE plane show the same function more than 3 times as often as "
              "chance, and by more than two standard errors more often than their targets explain, each method",
              rules.clusters),
        Claim("a1-code-twice", "tablea1", "Table A1, fuzzy logic: what helps is to apply the code twice.",
              "lowest of five 79.4, highest of four 68.9", "every linear-score variant that applies the code twice has "
              "a higher mean than every one that applies it once", rules.code_twice_wins),
        Claim("a1-softmax-between", "tablea1",
              "Table A1, fuzzy logic: HYLA with softmax lies between softmax attention and HYLA.",
              "63.3 < 71.0 < 81.1", "mean held-out R²: softmax < HYLA with softmax < HYLA", rules.softmax_between),
        Claim("3-ambiguity", "fig3", "Fewer than 0.5 % of SRAVEN problems are ambiguous.", "below 0.5 %",
              "95 % interval below 0.5 % for problems with an answer that differs from the right one in every symbol, "
              "as the release counts them; 8 000 fresh problems of training tasks", rules.rarely_ambiguous),
    ]  # fmt: skip
    values = paper_values(store)
    rows = values[(values["task"] == "fuzzy_logic") & values["variant"].isin(ABLATIONS)]
    levels = [
        Claim(f"a1-{row.variant.replace('_', '-')}", "tablea1", f"{NAMES[row.variant]}",
              f"{row.value:.1f} ± {row.standard_error:.1f}", "difference at most 2 joint standard errors, "
              "paper preset only", rules.level(row.variant, row.value, row.standard_error), level=True)
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
    return pd.DataFrame(rows).set_index("claim").rename_axis(None)
