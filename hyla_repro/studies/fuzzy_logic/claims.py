"""What the chapters on fuzzy logic claim, and the rules that decide it."""

import pandas as pd

from hyla_repro.results.claims import MISSING, Claim, Outcome
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.fuzzy_logic.codes import neighbour_agreement
from hyla_repro.studies.fuzzy_logic.runs import DECODING, EMBEDDING, TASK
from hyla_repro.studies.rules import (
    ERRORS_APART,
    apart,
    cut,
    enough,
    enough_seeds,
    hyla_leads,
    listed,
    means,
    published,
    trend,
)


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    percent = "held-out R² (%), N = 32, 70 % held out"
    return [
        Claim("2c-main", "fig2c", "HYLA generalises to held-out combinations better than softmax and linear attention.",
              published(store, TASK), f"HYLA's mean {percent} leads each, seed by seed, by "
              "more than two standard errors (D12)", hyla_leads("tablea1", TASK)),
        Claim("2c-examples", "fig2c", "All methods improve with the number of examples in context.",
              "read off the plot", "mean held-out R² at the largest N above that at the smallest, each method",
              trend("fig2c", TASK, "n_examples", rises=True)),
        Claim("2c-heldout", "fig2c", "All methods fall with the fraction held out, HYLA least.", "read off the plot",
              "mean held-out R² falls from the smallest to the largest fraction, least for HYLA",
              falls_with_heldout),
        Claim("a3-unknown", "figa3", "No method solves functions of unknown terms.", "read off the plot",
              "mean R² on unknown terms below 50 %, N = 32, 70 % held out, each method", nobody_solves_unknown),
        Claim("2b-decoding", "fig2b", "Terms can be decoded from the latent code, also on held-out functions.",
              "read off the plot", "mean F1 in the last layer at least 0.2 above always answering yes, each method",
              decodable),
        Claim("2d-clusters", "fig2d", "Latent codes cluster by the terms of the function.", "t-SNE picture",
              "the 10 nearest neighbours in the t-SNE plane show the same function more than 3 times as often as "
              "chance, and by more than two standard errors more often than their targets explain, each method",
              clusters),
    ]  # fmt: skip


def falls_with_heldout(results: Results) -> Outcome:
    """Decide whether every method falls with the fraction held out, HYLA least."""
    table = cut(results, "fig2c", TASK, "heldout_fraction")
    if table is None:
        return Outcome(MISSING, None)
    first, last = table.columns[0], table.columns[-1]
    averages = means(table)
    drop = averages[first] - averages[last]
    text = ", ".join(f"{NAMES[m]} {drop[m]:.1f}" for m in METHODS)
    drops = (table[first] - table[last]).unstack("variant")
    less = {other: apart(drops[other] - drops["hyla"])[0] for other in ("softmax", "linear")}
    text += "; seed by seed, HYLA loses less than " + ", ".join(f"{NAMES[m]} by {words}" for m, words in less.items())
    return Outcome(f"points lost from {first:.0%} to {last:.0%} held out: {text}",
                   bool((drop > 0).all() and drop["hyla"] == drop.min()))  # fmt: skip


def nobody_solves_unknown(results: Results) -> Outcome:
    """Decide whether functions of unknown terms are solved by nobody."""
    table = results.by_method("tablea1", TASK)
    if not enough(table, METHODS):
        return Outcome(listed(table, METHODS, "unknown_terms"), None)
    best = table.loc[list(METHODS), "unknown_terms"].max()
    return Outcome(listed(table, METHODS, "unknown_terms"), bool(best < 50))


def decodable(results: Results) -> Outcome:
    """Decide whether terms can be decoded from the last layer's codes on held-out functions."""
    table = results.store.analysis(DECODING, results.wanted("fig2b", TASK))
    if not enough_seeds(table):
        return Outcome(MISSING, None)
    last = table[table["layer"] == table["layer"].max()].groupby("variant")[["f1", "auc", "chance"]].mean()
    f1, auc = (", ".join(f"{NAMES[m]} {last.loc[m, score]:.2f}" for m in METHODS) for score in ("f1", "auc"))
    return Outcome(f"last layer, F1: {f1}, always yes {last['chance'].mean():.2f}; AUC: {auc}, chance 0.50",
                   bool((last["f1"] > last["chance"] + 0.2).all()))  # fmt: skip


def clusters(results: Results) -> Outcome:
    """Decide whether codes cluster by function, more than by target."""
    table = results.store.analysis(EMBEDDING, results.wanted("fig2d", TASK))
    if not enough_seeds(table):
        return Outcome(MISSING, None)
    rows = [{"variant": v, **neighbour_agreement(part)._asdict()} for (v, _), part in table.groupby(["variant", "id"])]
    shares = pd.DataFrame(rows)
    shares["lead"] = shares["share"] - shares["by_target"]
    by_method = shares.groupby("variant")
    averages, errors = by_method.mean(), by_method["lead"].sem()
    text = ", ".join(f"{NAMES[m]} {averages.loc[m, 'share']:.0%} ({averages.loc[m, 'by_target']:.0%})" for m in METHODS)
    clear = (averages["share"] > 3 * averages["chance"]) & (averages["lead"] > ERRORS_APART * errors)
    return Outcome(f"neighbours with the same function (explained by the target): {text}; "
                   f"chance {averages['chance'].mean():.0%}", bool(clear.all()))  # fmt: skip
