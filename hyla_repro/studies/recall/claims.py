"""What the chapter on recall claims, and the rules that decide it."""

from collections.abc import Callable

import pandas as pd

from hyla_repro.results.claims import OURS, Claim, Outcome, missing
from hyla_repro.results.effects import MIN_SEEDS, Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.recall.runs import METHODS, SIZES, TASK

FIGURE = "mqar"
# Softmax attention is called perfect above this accuracy, in percent.
PERFECT = 99


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""

    def claim(name: str, statement: str, rule: str, effects: "_Rule", published: str = OURS) -> Claim:
        return Claim(f"recall-{name}", FIGURE, "neighbours", statement, published, rule, _decide(effects))

    return [
        claim("softmax", "Softmax attention recalls every value, whatever the number of pairs.",
              f"accuracy minus {PERFECT}, at each number of pairs", perfect, "curves, no table"),
        claim("linear", "Linear attention falls behind softmax attention, and more so with more pairs.",
              "accuracy: softmax minus linear attention at the most pairs, and this less the same at the fewest",
              falls_behind),
        claim("hyla", "HYLA, which has no softmax either, recalls more than linear attention.",
              "accuracy at the most pairs: HYLA minus linear attention, and minus guessing one of the values shown",
              above_linear),
        claim("hyla-softmax", "HYLA recalls less than softmax attention.",
              "accuracy at the most pairs: softmax attention minus HYLA", below_softmax),
        claim("aaren", "An attention whose query no token changes does not learn to look up.",
              "twice the accuracy of guessing one of the values shown, minus that of Aaren, which has learned to guess "
              "so: and Aaren minus that accuracy, both at each number of pairs",
              guesses),
    ]  # fmt: skip


def accuracies(results: Results) -> pd.DataFrame:
    """Return accuracies in percent by number of pairs and seed (rows) and method (columns); empty without runs."""
    best = results.best(FIGURE, TASK)
    return 100 * best.pivot(index=["n_pairs", "seed"], columns="variant", values="test") if len(best) else best


_Rule = Callable[[pd.DataFrame], tuple[Effect, ...]]


def _decide(effects: _Rule) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = accuracies(results).reindex(columns=METHODS).dropna()
        counts = table.groupby("n_pairs").size() if len(table) else table
        if set(counts.index) != set(SIZES[results.preset].pairs) or counts.min() < MIN_SEEDS:
            return missing()
        means = table.groupby("n_pairs").mean()
        fewest, most = means.index.min(), means.index.max()
        text = ", ".join(f"{NAMES[m]} {means.loc[fewest, m]:.1f} → {means.loc[most, m]:.1f}" for m in METHODS)
        return Outcome(f"{fewest} → {most} pairs: {text}", effects(table))

    return decide


def perfect(table: pd.DataFrame) -> tuple[Effect, ...]:
    """Return by how much softmax attention is above what is called perfect."""
    return tuple(paired(f"{n} pairs", part["softmax"] - PERFECT, digits=2) for n, part in table.groupby("n_pairs"))


def falls_behind(table: pd.DataFrame) -> tuple[Effect, ...]:
    """Return how far linear attention is behind at the most pairs, and how much farther than at the fewest."""
    behind = (table["softmax"] - table["linear"]).unstack("n_pairs")
    fewest, most = behind.columns.min(), behind.columns.max()
    return paired("behind", behind[most]), paired("more than at the fewest", behind[most] - behind[fewest])


def above_linear(table: pd.DataFrame) -> tuple[Effect, ...]:
    """Return HYLA's lead at the most pairs over linear attention, and over guessing one of the values shown."""
    most = table.index.get_level_values("n_pairs").max()
    return _lead(table, "hyla", "linear"), paired("above a guess", table["hyla"].xs(most, level="n_pairs") - 100 / most)


def below_softmax(table: pd.DataFrame) -> tuple[Effect, ...]:
    """Return softmax attention's lead over HYLA at the most pairs."""
    return (_lead(table, "softmax", "hyla"),)


def guesses(table: pd.DataFrame) -> tuple[Effect, ...]:
    """Return how far Aaren is below twice what guessing one of the values shown gives, and above it once."""
    accuracy = table["aaren"].unstack("n_pairs")
    below = [paired(f"{n} pairs", 200 / n - accuracy[n]) for n in accuracy]
    return *below, *(paired(f"{n} pairs, above a guess", accuracy[n] - 100 / n) for n in accuracy)


def _lead(table: pd.DataFrame, one: str, other: str) -> Effect:
    most = table.xs(table.index.get_level_values("n_pairs").max(), level="n_pairs")
    return paired(f"{NAMES[one]} minus {NAMES[other]}", most[one] - most[other])
