"""What the chapters on fuzzy logic claim, and the rules that decide it."""

import pandas as pd

from hyla_repro.results.claims import NO_NUMBER, OURS, Claim, Outcome, missing
from hyla_repro.results.effects import paired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.fuzzy_logic.codes import agreements
from hyla_repro.studies.fuzzy_logic.runs import DECODING, EMBEDDING, TASK
from hyla_repro.studies.rules import (
    cut,
    enough,
    enough_seeds,
    gains,
    have_learned,
    hyla_leads,
    listed,
    published,
    trend,
)


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [
        Claim("2c-main", "fig2c", "advantage", "HYLA generalises to held-out combinations better than softmax and "
              "linear attention.", published(store, TASK), "held-out R² (%), N = 32, 70 % held out: HYLA minus each",
              hyla_leads("headline", TASK)),
        Claim("2c-examples", "fig2c", "scaling", "All methods improve with the number of examples in context.",
              NO_NUMBER, "held-out R² at the largest N minus that at the smallest, each method, where training "
              "functions are learned at the largest (mean R² above 50 %)",
              trend("fig2c", TASK, "n_examples", rises=True, must_learn=True)),
        Claim("2c-heldout", "fig2c", "advantage", "All methods fall with the fraction held out, HYLA least.",
              NO_NUMBER, "held-out R² at the smallest fraction minus that at the largest, each method; and what "
              "softmax and linear attention lose minus what HYLA loses, where training functions are learned at the "
              "smallest (mean R² above 50 %)", falls_with_heldout),
        Claim("2c-wide-heads", "fig2c", "advantage", "HYLA generalises better than softmax and linear attention with "
              "heads of usual width, too.", OURS, "preset laptop, eight heads of sixteen numbers instead of two, "
              "held-out R² (%), N = 32, 70 % held out: HYLA minus each", hyla_leads("wide-heads", TASK)),
        Claim("a3-test", "figa3", "facts", "On functions seen in training all methods succeed.", NO_NUMBER,
              "R² (%) on training functions minus 90, N = 32, 70 % held out, each method", solves_training),
        Claim("a3-unknown", "figa3", "facts", "No method solves functions of unknown terms.", NO_NUMBER,
              "50 minus R² (%) on unknown terms, and R² on training functions minus 50, N = 32, 70 % held out, each "
              "method", nobody_solves_unknown),
        Claim("2b-decoding", "fig2b", "code", "Terms can be decoded from the latent code, also on held-out functions.",
              NO_NUMBER, "AUC in the last layer on held-out functions minus 0.5, and minus that of the same model "
              "before training, each method", decodable),
        Claim("2d-clusters", "fig2d", "code", "Latent codes cluster by the terms of the function.", "t-SNE picture",
              "how often the 10 nearest neighbours in the t-SNE plane show the same function, minus what their targets "
              "explain, and this difference minus the same before training, each method", clusters),
    ]  # fmt: skip


def falls_with_heldout(results: Results) -> Outcome:
    """Decide whether every method falls with the fraction held out, HYLA least."""
    table = cut(results, "fig2c", TASK, "heldout_fraction")
    if table is None:
        return missing()
    first, last = table.columns[0], table.columns[-1]
    drop = (table[first] - table[last]).unstack("variant")
    text = ", ".join(f"{NAMES[m]} {drop[m].mean():.1f}" for m in METHODS)
    text = f"points lost from {first:.0%} to {last:.0%} held out: {text}"
    if not have_learned(cut(results, "fig2c", TASK, "heldout_fraction", "test"), first):
        return missing(f"{text}; training functions are not learned")
    less = (paired(f"loss of {NAMES[m]} minus that of HYLA", drop[m] - drop["hyla"]) for m in ("softmax", "linear"))
    return Outcome(text, (*gains(table, first, last, rises=False), *less))


def _main(results: Results, score: str) -> pd.DataFrame:
    """Return a score of the main comparison in percent, by seed (rows) and method (columns)."""
    return 100 * results.best("headline", TASK).pivot(index="seed", columns="variant", values=score)


def solves_training(results: Results) -> Outcome:
    """Decide whether training functions are solved by all."""
    table = results.by_method("headline", TASK)
    if not enough(table, METHODS):
        return missing(listed(table, METHODS, "test"))
    scores = _main(results, "test")
    return Outcome(
        listed(table, METHODS, "test"), tuple(paired(f"{NAMES[m]} minus 90", scores[m] - 90) for m in METHODS)
    )


def nobody_solves_unknown(results: Results) -> Outcome:
    """Decide whether functions of unknown terms are solved by nobody, though training functions are."""
    table = results.by_method("headline", TASK)
    if not enough(table, METHODS):
        return missing(listed(table, METHODS, "unknown_terms"))
    test, unknown = _main(results, "test"), _main(results, "unknown_terms")
    effects = [paired(f"50 minus {NAMES[m]}", 50 - unknown[m]) for m in METHODS]
    effects += [paired(f"{NAMES[m]} on training functions minus 50", test[m] - 50) for m in METHODS]
    return Outcome(listed(table, METHODS, "unknown_terms"), tuple(effects))


def decodable(results: Results) -> Outcome:
    """Decide whether terms can be decoded from the last layer's codes on held-out functions."""
    table = results.store.analysis(DECODING, results.wanted("fig2b", TASK))
    if not enough_seeds(table):
        return missing()
    last = table[table["layer"] == table["layer"].max()]
    auc = last.pivot_table("auc", index="seed", columns=["model", "variant"])
    text = ", ".join(f"{NAMES[m]} {auc['trained', m].mean():.2f} ({auc['untrained', m].mean():.2f})" for m in METHODS)
    effects = [paired(f"{NAMES[m]} minus 0.5", auc["trained", m] - 0.5, digits=3) for m in METHODS]
    effects += [
        paired(f"{NAMES[m]} minus untrained", auc["trained", m] - auc["untrained", m], digits=3) for m in METHODS
    ]
    return Outcome(f"AUC in the last layer (untrained): {text}; chance 0.50", tuple(effects))


def clusters(results: Results) -> Outcome:
    """Decide whether codes cluster by function, more than by target and more than before training."""
    table = results.store.analysis(EMBEDDING, results.wanted("fig2d", TASK))
    if not enough_seeds(table):
        return missing()
    shares = agreements(table)
    share, lead = (100 * column.unstack("seed") for column in (shares["share"], shares["share"] - shares["by_target"]))
    text = ", ".join(f"{NAMES[m]} {share.loc['trained', m].mean():.0f} % "
                     f"({100 * shares.loc['trained', m]['by_target'].mean():.0f} %)" for m in METHODS)  # fmt: skip
    effects = [paired(f"{NAMES[m]} minus by target", lead.loc["trained", m]) for m in METHODS]
    gain = lead.loc["trained"] - lead.loc["untrained"]
    effects += [paired(f"{NAMES[m]} minus untrained", gain.loc[m]) for m in METHODS]
    return Outcome(f"neighbours with the same function (explained by the target): {text}; chance "
                   f"{100 * shares['chance'].mean():.0f} %", tuple(effects))  # fmt: skip
