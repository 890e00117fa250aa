"""Verdicts: what the paper states, what our runs show, and what follows from the two."""

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from hyla_repro.errors import choose
from hyla_repro.results.claims import MISSING, Claim, Outcome
from hyla_repro.results.effects import CONTRADICTED, MIN_SEEDS, NOT_TESTED, REPRODUCED, UNDECIDED, holm
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies import PRESETS, STUDIES, experiments

# The sign of each answer, told apart without colour.
MARKS = {REPRODUCED: "✓", CONTRADICTED: "✗", UNDECIDED: "~", NOT_TESTED: "○"}
ANSWERS = tuple(MARKS)
# The claims whose p-values are adjusted for being several, named before seeds 3 to 9 were trained.
HEADLINES = ("2c-main", "a1-sraven-main")


class Verdict(NamedTuple):
    """A claim and what is known of it at one preset.

    Args:
        answer: one of `ANSWERS`.
        preset: whose runs say so; `any` for what is computed.
    """

    claim: Claim
    answer: str
    outcome: Outcome
    preset: str

    @property
    def label(self) -> str:
        """The answer with the preset that it is of."""
        scale = "" if self.preset == "any" or self.answer == NOT_TESTED else f" ({self.preset})"
        return self.answer + scale


def verdict(claim: Claim, results: Results) -> Verdict:
    """Return the verdict on a claim at the results' preset; `smoke` decides nothing, levels are the paper's alone."""
    outcome = claim.decide(results)
    if outcome.effects and not claim.live and (partly := results.partly(claim.figure)):
        outcome = outcome._replace(ours=f"{outcome.ours}; {partly}")
    wrong_scale = results.preset == "smoke" or (claim.level and results.preset != "paper")
    answer = NOT_TESTED if wrong_scale else outcome.answer
    return Verdict(claim, answer, outcome, "any" if claim.live else results.preset)


def results_of(preset: str, store: Store | None = None) -> Results:
    """Return the finished runs of one preset, of every study."""
    return Results(preset, experiments, store)


def scales(store: Store | None = None) -> list[Results]:
    """Return the results of the presets that can decide claims, the largest first."""
    return [results_of(preset, store) for preset in ("paper", "laptop")]


def best_verdict(claim: Claim, results: Sequence[Results]) -> Verdict:
    """Return the verdict of the first of these results that can decide the claim."""
    found: list[Verdict] = []
    for scale in results:
        found.append(verdict(claim, scale))
        if found[-1].answer != NOT_TESTED or claim.live:
            return found[-1]
    # Nothing decides it: show the preset that at least has numbers.
    return next((entry for entry in found if entry.outcome.ours != MISSING), found[-1])


def claims(store: Store | None = None) -> list[Claim]:
    """Return every claim of the paper that this package tests, study by study."""
    return [claim for study in STUDIES for claim in study.claims(store)]


class Comparison:
    """Claims beside verdicts, results and published values, as a chapter shows them; every row has its anchor."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr id="{name}"><th>{escape(row.claim)}</th><td class="answer">{row.verdict}</td><td>{_bold(row.here)}'
            f"</td><td>{escape(row.paper)}</td></tr>"
            for name, row in zip(self.table.index, self.table.itertuples(), strict=True)
        )
        head = "".join(f"<th>{title}</th>" for title in ("claim", "verdict", "here", "paper"))
        return f'<table class="dataframe comparison"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'

    def __repr__(self) -> str:
        return self.table.to_string()


def _bold(words: str) -> str:
    """Return words as HTML, in which `**weak**` is bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(words))


def table(figure: str, preset: str, store: Store | None = None) -> pd.DataFrame:
    """Return the comparison that a chapter prints below its figure, decided at this preset.

    Raises: ValueError for an unknown figure or preset.
    """
    choose("preset", preset, PRESETS)
    homes = {chapter.figure: study for study in STUDIES for chapter in study.chapters}
    results, rows = results_of(preset, store), []
    for claim in homes[choose("figure", figure, homes)].claims(store):
        if claim.figure == figure:
            found = verdict(claim, results)
            sign = f"{MARKS[found.answer]}\N{NO-BREAK SPACE}"
            rows.append({"id": claim.id, "claim": claim.statement, "verdict": sign + found.answer,
                         "here": found.outcome.words, "paper": claim.published})  # fmt: skip
    return pd.DataFrame(rows).set_index("id")


def as_one_family(verdicts: Sequence[Verdict]) -> pd.Series:
    """Return, by claim, the p-values of those that the same three seeds decide, adjusted for being several (Holm).

    A claim needs all of its effects, so its p-value is the largest of theirs.
    """
    p_values = {
        found.claim.id: max(effect.p for effect in found.outcome.effects)
        for found in verdicts if found.outcome.effects and not found.claim.level
        and all(effect.n == MIN_SEEDS and effect.unit == "seeds" for effect in found.outcome.effects)
    }  # fmt: skip
    return holm(pd.Series(p_values, dtype=float))


def headlines(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the effects of the headline claims with p-values adjusted for being several (Holm), by effect."""
    rows = [
        {"claim": found.claim.id, "difference": str(effect), "seeds": effect.n, "p": effect.p}
        for found in verdicts if found.claim.id in HEADLINES for effect in found.outcome.effects
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["claim", "difference", "seeds", "p"])
    return table.assign(adjusted=holm(table["p"])) if len(table) else table.assign(adjusted=[])
