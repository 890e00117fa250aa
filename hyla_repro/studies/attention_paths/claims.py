"""What the chapter on attention paths claims, and the rules that decide it."""

from collections.abc import Callable
from functools import wraps

import numpy as np
import pandas as pd

from hyla_repro.results.claims import NO_NUMBER, OURS, Claim, Outcome, exact, missing
from hyla_repro.results.effects import CONTRADICTED, MIN_SEEDS, REPRODUCED, Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.attention_paths import analysis
from hyla_repro.studies.attention_paths.chains import AUTHORS, DRAWS, FOUR, NINE, TWO, WIDTHS
from hyla_repro.studies.attention_paths.runs import FIGURE, HEADS, POINTS, SURROGATES
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic

_DRAWS = f"{len(DRAWS)} draws of data and random heads"
# Points of accuracy that a curve may rise by where it should fall, and by which its ends may differ.
_LEVEL = 1.5


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [*_widths(), *_checks(), *_heads()]


def _claim(name: str, statement: str, rule: str, decide: Callable[[Results], Outcome], published: str = NO_NUMBER,
           chance: str = "at most 2.5 %") -> Claim:  # fmt: skip
    return Claim(f"paths-{name}", FIGURE, "paths", statement, published, rule, decide, chance, live=True)


def _widths() -> list[Claim]:
    return [
        _claim(
            "narrow",
            "A narrow network with all paths classifies better than an infinitely wide one that has only the useful "
            "paths, and that better than an infinitely wide one with all paths.",
            "accuracy at N=10 minus that of the Gaussian process of the good and the denoising path; and that minus "
            "that "
            f"of all paths, minus 8 points; four paths, {_DRAWS}",
            narrow_is_better,
        ),
        _claim(
            "falls",
            "Its accuracy falls to that of infinite width as it gets wider.",
            f"mean accuracy over {_DRAWS} never rises by more than {_LEVEL} points from one width to the next, and at "
            f"the largest is within {_LEVEL} points of infinite width; four paths",
            falls_with_width,
            chance="none",
        ),
        _claim(
            "correlated",
            "At finite width paths are combined: the good path and the one that only denoises get opposite weights.",
            f"minus the correlation of the two in the order parameter at N=10; four and two paths, {_DRAWS}",
            opposite_weights,
        ),
        _claim(
            "adversarial",
            "Paths that only harm get hardly any weight.",
            "authors' seeds, N=10: both diagonal entries of paths through the random head of layer 2 are below 10 % of "
            "the good path's",
            harmful_paths_are_weak,
            chance="none",
        ),
        _claim(
            "aligned",
            "The combined kernel's leading eigenvectors are aligned with the task.",
            "best overlap of the 5 leading eigenvectors with the labels: N=10 minus 1.5 times infinite width; four "
            "paths, "
            f"{_DRAWS}",
            kernel_is_aligned,
        ),
    ]


def _checks() -> list[Claim]:
    return [
        _claim(
            "exact",
            "The theory agrees with the exact posterior on the task.",
            "at N=10 and N=100, both chains: correlation of mean predictors above 0.99, accuracies within "
            f"{_LEVEL} points",
            agrees_with_samples,
            chance="none",
        ),
        _claim(
            "error",
            "Its error falls as 1/N.",
            "10 examples: relative error of the order parameter at N=6 more than 4 times that at N=48",
            error_falls,
            chance="none",
        ),
        _claim(
            "pruning",
            "Scores of heads tell which can go.",
            "3 x 3 heads, N=10: least lead in score of a layer's useful head over its random ones; fall of accuracy "
            "without the less costly useful head minus 25 points; 2 points minus the fall without the most costly "
            "random "
            f"head; {_DRAWS}",
            scores_tell_heads,
        ),
        _claim(
            "descent",
            "Networks trained by gradient descent come to an order parameter like the theory's.",
            "cosine between the order parameters of a trained network and of the theory: minus 0.7, and minus that "
            f"before training; N=10, from weights of the prior, without weight decay; {_DRAWS}",
            transfers_to_descent,
        ),
        _claim(
            "hyla",
            "Linear HYLA is a network of paths, each layer with the pairs of its heads.",
            "largest difference < 1e-12 in float64 between two layers and the sum of their paths",
            linear_hyla_has_paths,
            OURS,
            chance="none",
        ),
    ]


def _heads() -> list[Claim]:
    score = "Spearman's correlation, over the heads of a layer, of the score in the one-layer surrogate with"
    methods = "mean over both layers; softmax attention, linear attention and HYLA"
    return [
        Claim(
            "paths-trained-drop",
            FIGURE,
            "paths",
            "Heads that the theory of a surrogate scores higher cost a trained model more when they are silenced.",
            OURS,
            f"{score} the fall of held-out R² (the other heads not rescaled), {methods}",
            heads_that_cost,
        ),
        Claim(
            "paths-trained-code",
            FIGURE,
            "paths",
            "They are those by which the code tells of the terms.",
            OURS,
            f"{score} the head's weight in the probe of terms, {methods}; the last layer alone where the first "
            "one's own code is constant",
            heads_that_tell,
        ),
    ]


# --- how rules are made ----------------------------------------------------------------------------------------------


def _computed_by(*methods: str) -> Callable[[Callable[[pd.DataFrame], Outcome]], Callable[[Results], Outcome]]:
    """Make a rule of a function of the computed table, once all that these methods compute is there."""

    def rule_of(decide: Callable[[pd.DataFrame], Outcome]) -> Callable[[Results], Outcome]:
        @wraps(decide)
        def rule(results: Results) -> Outcome:
            points = results.store.computed(POINTS)
            needed = {key for key, point in POINTS.wanted().items() if point.method in methods}
            return missing("not computed yet") if needed - set(points["id"]) else decide(points)

        return rule

    return rule_of


def _exact(*holds: bool | np.bool, ours: str) -> Outcome:
    """Return the outcome that all of these hold, or not."""
    return Outcome(ours, verdict=REPRODUCED if all(holds) else CONTRADICTED)


def _over_draws(*effects: tuple[str, pd.Series], digits: int = 1) -> Outcome:
    """Return the outcome that needs each of these differences, by draw, above zero."""
    return Outcome("", tuple(paired(name, series, digits)._replace(unit="draws") for name, series in effects))


# --- rules -----------------------------------------------------------------------------------------------------------


@_computed_by("infinite", "theory")
def narrow_is_better(points: pd.DataFrame) -> Outcome:
    """Decide whether narrow networks are better than wide ones with the useful paths alone."""
    table = analysis.of_net(points, FOUR)
    narrow = analysis.by_draw(table, "theory", "accuracy", width=10)
    useful, every = (
        analysis.by_draw(table, "infinite", "accuracy", first=name) for name in ("good and denoising", "all")
    )
    effects = ("width 10 minus useful paths", narrow - useful), ("useful paths minus all, minus 8", useful - every - 8)
    return _over_draws(*effects, digits=2)


@_computed_by("infinite", "theory")
def falls_with_width(points: pd.DataFrame) -> Outcome:
    """Decide whether accuracy falls to that of infinite width."""
    table = analysis.of_net(points, FOUR)
    means = [analysis.by_draw(table, "theory", "accuracy", width=width).mean() for width in WIDTHS]
    infinite = analysis.by_draw(table, "infinite", "accuracy", first="all").mean()
    ours = " → ".join(f"{mean:.1f}" for mean in (*means, infinite))
    return _exact(
        np.diff(means).max() <= _LEVEL, abs(means[-1] - infinite) <= _LEVEL,
        ours=f"N={', '.join(map(str, WIDTHS))}, infinite: {ours}",
    )  # fmt: skip


@_computed_by("theory")
def opposite_weights(points: pd.DataFrame) -> Outcome:
    """Decide whether the good and the denoising path get opposite weights."""
    found = [(name, -analysis.correlation(points, net)) for name, net in (("four paths", FOUR), ("two paths", TWO))]
    return _over_draws(*found, digits=2)


@_computed_by("theory")
def harmful_paths_are_weak(points: pd.DataFrame) -> Outcome:
    """Decide whether the paths through the random head of layer 2 have little weight."""
    table = analysis.of_net(points, FOUR)
    matrix = analysis.order_parameter(table[table["draw"] == AUTHORS], "theory", 10)
    weights = 100 * pd.Series(np.diag(matrix), matrix.index) / matrix.loc[analysis.GOOD, analysis.GOOD]
    harmful = weights[weights.index.str.endswith("random")]
    shares = " and ".join(f"{share:.1f} %" for share in harmful)
    return _exact(harmful.max() < 10, ours=f"{shares} of the good path's")


@_computed_by("infinite", "theory")
def kernel_is_aligned(points: pd.DataFrame) -> Outcome:
    """Decide whether leading eigenvectors overlap with the labels more than at infinite width."""
    table = analysis.of_net(points, FOUR)
    narrow, wide = (analysis.best_overlap(table, method, width) for method, width in (("theory", 10), ("infinite", 0)))
    return _over_draws(("", narrow - 1.5 * wide), digits=2)


@_computed_by("chain")
def agrees_with_samples(points: pd.DataFrame) -> Outcome:
    """Decide whether theory and samples agree."""
    chains = analysis.chains(points).loc[[10, 100]]
    gap = (chains["accuracy"] - chains["accuracy of the theory"]).abs().max()
    least = chains["correlation with the theory"].min()
    ours = f"correlations from {least:.4f}, accuracies within {gap:.1f} points"
    return _exact(least > 0.99, gap <= _LEVEL, ours=ours)


@_computed_by("importance")
def error_falls(points: pd.DataFrame) -> Outcome:
    """Decide whether the theory's error falls as 1 / N."""
    errors = analysis.errors(points)
    ratio = errors[6] / errors[48]
    each = ", ".join(f"{100 * error:.1f} % at N={width}" for width, error in errors.items())
    return _exact(ratio > 4, ours=f"{each}; ratio {ratio:.1f}")


@_computed_by("silenced")
def scores_tell_heads(points: pd.DataFrame) -> Outcome:
    """Decide whether heads with high scores are the ones that count."""
    heads = analysis.silenced(analysis.of_net(points, NINE))
    # Each useful head must be the first of its layer.
    best = heads.pivot_table("score", index=["draw", "layer"], columns="random", aggfunc="max")
    lead = (best[False] - best[True]).groupby("draw").min()
    useful, harmless = (heads[heads["random"] == random].groupby("draw")["drop"] for random in (False, True))
    return _over_draws(
        ("score, useful minus random", lead),
        ("fall without a useful head minus 25", useful.min() - 25),
        ("2 minus fall without a random head", 2 - harmless.max()),
    )


@_computed_by("descent")
def transfers_to_descent(points: pd.DataFrame) -> Outcome:
    """Decide whether networks trained by gradient descent come to the theory's order parameter."""
    table = analysis.of_net(points, FOUR)
    after, before = (analysis.by_draw(table, "descent", name) for name in ("cosine", "cosine before training"))
    return _over_draws(("cosine minus 0.7", after - 0.7), ("cosine minus before training", after - before), digits=2)


def linear_hyla_has_paths(results: Results) -> Outcome:
    """Decide the identity of linear HYLA."""
    worst = analysis.hyla_path_error()
    return exact(worst, 1e-12)


def heads_that_cost(results: Results) -> Outcome:
    """Decide whether scores go with the fall of the score on held-out functions."""
    return _goes_with(results, "drop")


def heads_that_tell(results: Results) -> Outcome:
    """Decide whether scores go with the weight in the probe of terms."""
    return _goes_with(results, "probe")


def _goes_with(results: Results, column: str) -> Outcome:
    # Only what was collected: solving the surrogates anew takes minutes.
    table, runs = results.store.table(HEADS.table), results.runs(FIGURE, fuzzy_logic.TASK)
    if table.empty or runs.empty:
        return missing()
    table = table.merge(runs[["id", "variant", "seed"]])
    effects: list[Effect] = []
    for method in SURROGATES:
        correlations = analysis.head_correlations(table[table["variant"] == method], column)
        if len(correlations) < MIN_SEEDS:
            return missing()
        effects.append(paired(NAMES[method], correlations, digits=2))
    return Outcome("", tuple(effects))
