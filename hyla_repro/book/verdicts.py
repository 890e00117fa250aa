"""Verdicts: what the paper states, what our runs show, and what the rules say of the two."""

from collections.abc import Sequence

import pandas as pd

from hyla_repro.errors import choose
from hyla_repro.results.claims import MISSING, Claim
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies import PRESETS, STUDIES, experiments

REPRODUCED, NOT_REPRODUCED, NOT_TESTED = "reproduced", "not reproduced", "not tested at this scale"


def verdict(claim: Claim, results: Results) -> tuple[str, str]:
    """Return (verdict, our result in words) of a claim at the results' preset."""
    outcome = claim.decide(results)
    if outcome.holds is None or (claim.level and results.preset != "paper") or results.preset == "smoke":
        return NOT_TESTED, outcome.ours
    return (REPRODUCED if outcome.holds else NOT_REPRODUCED), outcome.ours


def results_of(preset: str, store: Store | None = None) -> Results:
    """Return the finished runs of one preset, of every study."""
    return Results(preset, experiments, store)


def scales(store: Store | None = None) -> list[Results]:
    """Return the results of the presets that can decide claims, the largest first."""
    return [results_of(preset, store) for preset in ("paper", "laptop")]


def best_verdict(claim: Claim, results: Sequence[Results]) -> tuple[str, str, str]:
    """Return (verdict, ours, preset) from the first of these results that can decide the claim."""
    found = []
    if claim.live:
        return *verdict(claim, results[0]), "any"
    for scale in results:
        decided, ours = verdict(claim, scale)
        found.append((decided, ours, scale.preset))
        if decided != NOT_TESTED:
            return found[-1]
    # Nothing decides it: show the preset that at least has numbers.
    return next((entry for entry in found if entry[1] != MISSING), found[-1])


def claims(store: Store | None = None) -> list[Claim]:
    """Return every claim of the paper that this package tests, study by study."""
    return [claim for study in STUDIES for claim in study.claims(store)]


def table(figure: str, preset: str, store: Store | None = None) -> pd.DataFrame:
    """Return the comparison that a chapter prints below its figure, decided at this preset.

    Raises: ValueError for an unknown preset.
    """
    choose("preset", preset, PRESETS)
    results, rows = results_of(preset, store), []
    for claim in claims(store):
        if claim.figure == figure:
            decided, ours = verdict(claim, results)
            rows.append({"claim": claim.statement, "paper": claim.published, "here": ours, "verdict": decided})
    return pd.DataFrame(rows).set_index("claim").rename_axis(None)
