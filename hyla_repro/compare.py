"""Verdicts: what the paper states, what our runs show, and what the rules say of the two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from hyla_repro import rules, rules_sraven
from hyla_repro.presets import PRESETS
from hyla_repro.results import Store
from hyla_repro.rules import MISSING, Outcome
from hyla_repro.summary import FUZZY_LOGIC, NAMES, SRAVEN, Results, mean_and_error, paper_values

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


def scales(store: Store | None = None) -> list[Results]:
    """Return the results of the presets that can decide claims, the largest first."""
    return [Results(preset, store) for preset in ("paper", "laptop")]


def best_verdict(claim: Claim, results: Sequence[Results]) -> tuple[str, str, str]:
    """Return (verdict, ours, preset) from the first of these results that can decide the claim."""
    found = []
    if claim.figure in LIVE:
        return *verdict(claim, results[0]), "any"
    for scale in results:
        decided, ours = verdict(claim, scale)
        found.append((decided, ours, scale.preset))
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
              _published(store, FUZZY_LOGIC), f"HYLA's mean {percent} leads each, seed by seed, by "
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
    return fixed + _sraven_claims(store) + _levels(store)


def _sraven_claims(store: Store | None) -> list[Claim]:
    trend = rules_sraven.trend
    codes = "each method, seed by seed by more than two standard errors"
    return [
        Claim("4a-data", "fig4", "Accuracy on held-out tasks grows with the number of training problems.",
              "read off the plot", "mean held-out accuracy at the largest number above that at the smallest, each "
              "method", trend("fig4", "steps", rises=True)),
        Claim("4a-width", "fig4", "It grows with the width of the model.", "read off the plot",
              "mean held-out accuracy of the widest model above that of the narrowest, each method",
              trend("fig4", "d_model", rises=True)),
        Claim("4b-depth", "fig4", "It grows with the number of layers.", "read off the plot",
              "mean held-out accuracy of the deepest model above that of the shallowest, each method",
              trend("fig4", "n_layers", rises=True)),
        Claim("4-hyla-small", "fig4", "HYLA leads where data and models are small.", "read off the plot",
              "fewest problems and narrowest model: HYLA's mean held-out accuracy leads softmax and linear attention "
              "each, seed by seed, by more than two standard errors", rules_sraven.hyla_leads_when_small),
        Claim("a4-loss", "fig4", "The training loss falls with data, width and depth.", "read off the plot",
              "mean training loss at the end, largest against smallest, each method and each of the three",
              rules_sraven.loss_falls),
        Claim("a5-heldout", "figa5", "Accuracy falls with the fraction of tasks held out.", "read off the plot",
              "mean held-out accuracy at the largest fraction below that at the smallest, each method",
              trend("figa5", "heldout_fraction", rises=False)),
        Claim("5a-clusters", "fig5a", "In the final layer, latent codes cluster by rule.", "t-SNE picture",
              "the 10 nearest codes are of the same rule more often than before training and than by chance, "
              f"{codes}, and more often than in the first layer", rules_sraven.clusters_by_rule),
        Claim("5c-one-head", "fig5c", "With a single head, models generalise clearly worse.", "read off the plot",
              "held-out accuracy with the main comparison's heads above that with one head, each method, seed by seed "
              "by more than two standard errors", rules_sraven.one_head_is_worse),
        Claim("5d-features", "fig5c", "SRAVEN is harder with more features.", "read off the plot",
              "mean held-out accuracy with the most features below that with the fewest, each method",
              trend("fig5c", "n_features", rises=False)),
        Claim("5e-addition", "fig5e", "The mean codes of addition and difference are close.", "read off the plot",
              "last layer, cosine similarity of the two above the mean over all other pairs of rules, and by more than "
              "before training, " + codes,
              rules_sraven.addition_near_difference),
        Claim("5f-decoding", "fig5f", "Rules can be decoded from the latent code, also on held-out tasks.",
              "read off the plot", "last layer, held-out accuracy above that of the best constant answer and that "
              f"before training, {codes}", rules_sraven.rule_decodable),
        Claim("5f-late", "fig5f", "They are decoded best in late layers.", "read off the plot",
              "the layer with the highest mean accuracy is in the second half, each method",
              rules_sraven.best_in_late_layers),
        Claim("a1-sraven-main", "tablea1", "HYLA generalises to held-out SRAVEN tasks better than softmax and linear "
              "attention.", _published(store, SRAVEN), "HYLA's mean held-out accuracy leads each, "
              "seed by seed, by more than two standard errors", partial(rules.hyla_leads, task=SRAVEN)),
        Claim("a1-sraven-order", "tablea1", "Table A1, SRAVEN: the order of its rows.", "HYLA first, HYLA with softmax "
              "last", f"rank correlation of the 13 rows above {rules_sraven.RANK_CORRELATION} (5 %, one-sided)",
              rules_sraven.ablations_in_order),
    ]  # fmt: skip


def _published(store: Store | None, task: str) -> str:
    table = paper_values(store)
    rows = table[table["task"] == task].set_index("variant")
    hyla, softmax, linear = (
        mean_and_error(rows.loc[method, "value"], rows.loc[method, "standard_error"])
        for method in ("hyla", "softmax", "linear")
    )
    return f"{hyla}, above {softmax} and {linear}"


def _levels(store: Store | None) -> list[Claim]:
    """Return a claim for every number of Table A1."""
    names = {FUZZY_LOGIC: ("a1", "fuzzy logic"), SRAVEN: ("a1-sraven", "SRAVEN")}
    return [
        Claim(f"{names[row.task][0]}-{row.variant.replace('_', '-')}", "tablea1",
              f"{NAMES[row.variant]}, {names[row.task][1]}", mean_and_error(row.value, row.standard_error),
              "difference at most 2 joint standard errors, paper preset only",
              rules.level(row.variant, row.value, row.standard_error, row.task), level=True)
        for row in paper_values(store).itertuples()
    ]  # fmt: skip


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
