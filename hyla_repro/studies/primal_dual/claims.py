"""What the chapter on the primal-dual framework claims, and the rules that decide it."""

from collections.abc import Callable

from hyla_repro.results.claims import OURS, Claim, Outcome, at_an_end, exact, missing
from hyla_repro.results.effects import CONTRADICTED, REPRODUCED
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.beside import complete, listed, loses_most_held_out, minus, scores
from hyla_repro.studies.neighbours import SERIES, TASKS
from hyla_repro.studies.primal_dual.runs import DISTANCES, with_distances

FIGURE = "primal"
_ON = {"fuzzy_logic": "R²", "sraven": "accuracy"}
_AVERAGE = "averages over data sets, not at hand"


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [
        Claim("primal-svr", FIGURE, "neighbours", "Softmax attention is the support-vector expansion of a regression, "
              "and so are Attention-BN, Attention-SH and both.", "exact identity", "largest difference of "
              "scikit-learn's prediction from attention with its dual variables < 1e-8, all four", expansion,
              chance="none", live=True),
        Claim("primal-cost", FIGURE, "neighbours", "Scaled heads need less, and the less the longer the sequence.",
              "ratios against length; curves, no table", "products of a layer with windows (1, 2, 4, 8) over those of "
              "softmax attention: below 1 and falling, 64 to 4096 tokens", cheaper, chance="none", live=True),
        *(_series(method) for method in ("softmax_bn", "softmax_sh", "softmax_bn_sh")),
        Claim("primal-heads", FIGURE, "neighbours", "Outputs of the heads of Attention-BN are farther apart, which the "
              "paper calls less redundant.",
              "distances of head outputs; no table at hand", "mean distance of two heads' outputs over layers, trained "
              "on JapaneseVowels: Attention-BN minus softmax attention", _apart("distance")),
        Claim("primal-heads-unit", FIGURE, "neighbours", "They also are when every output has length 1.", OURS,
              "the same distance of outputs of length 1", _apart("unit_distance")),
        *(_centring(task) for task in TASKS),
        *(_windows(task) for task in TASKS),
    ]  # fmt: skip


def expansion(results: Results) -> Outcome:
    """Decide whether support-vector regressions are attention."""
    from hyla_repro.studies.primal_dual.analysis import regressions

    return exact(max(abs(head.predictions - head.attention).max() for head in regressions().values()), 1e-8)


def cheaper(results: Results) -> Outcome:
    """Decide whether the counted products fall against those of softmax attention with the length."""
    from hyla_repro.studies.primal_dual.analysis import counted

    ratios = counted((64, 256, 1024, 4096))["1, 2, 4, 8"]
    holds = bool((ratios < 1).all() and ratios.is_monotonic_decreasing)
    text = " → ".join(f"{ratio:.3f}" for ratio in ratios)
    return Outcome(text, verdict=REPRODUCED if holds else CONTRADICTED)


def _series(method: str) -> Claim:
    return Claim(f"{method.replace('softmax', 'primal').replace('_', '-')}-series", FIGURE, "neighbours",
                 f"{NAMES[method]} does better than softmax attention on time series (JapaneseVowels).", _AVERAGE,
                 f"accuracy: {NAMES[method]} minus softmax attention", _better(method))  # fmt: skip


def _better(method: str) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = scores(results, FIGURE, SERIES, "test")
        if not complete(table, ("softmax", method)):
            return missing()
        pair = ("softmax", method)
        return Outcome(listed(table, pair), (minus(table, method, "softmax", digits=2),),
                       weak=at_an_end(table[[*pair]].mean().tolist(), "accuracies"))  # fmt: skip

    return decide


def _apart(column: str) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = results.store.analysis(DISTANCES, with_distances(results.preset))
        table = table[table["model"] == "trained"] if len(table) else table
        means = table.groupby(["seed", "variant"])[column].mean().unstack("variant") if len(table) else table
        if not complete(means, ("softmax", "softmax_bn")):
            return missing()
        text = f"{means['softmax_bn'].mean():.3f} against {means['softmax'].mean():.3f}"
        return Outcome(text, (minus(means, "softmax_bn", "softmax", digits=3),))

    return decide


def _centring(task: str) -> Claim:
    return Claim(f"primal-bn-{task.replace('_', '-')}", FIGURE, "neighbours", "Centred keys help on held-out "
                 f"combinations, softmax attention and HYLA, on {TASKS[task]}.", OURS, f"{_ON[task]} on held-out "
                 "tasks: with BN minus without, both methods", _helps(task))  # fmt: skip


def _windows(task: str) -> Claim:
    return Claim(f"primal-sh-{task.replace('_', '-')}", FIGURE, "neighbours", "Heads that see windows of two tokens "
                 f"lose most on held-out combinations, on {TASKS[task]}.", OURS, f"{_ON[task]} on held-out tasks: "
                 "softmax minus softmax with SH, and this less the same on training tasks",
                 loses_most_held_out(FIGURE, task, "softmax", "softmax_sh"))  # fmt: skip


def _helps(task: str) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = scores(results, FIGURE, task, "heldout")
        pairs = (("softmax_bn", "softmax"), ("hyla_bn", "hyla"))
        if not complete(table, [method for pair in pairs for method in pair]):
            return missing()
        words = "; ".join(listed(table, pair) for pair in pairs)
        return Outcome(words, tuple(minus(table, *pair) for pair in pairs))

    return decide
