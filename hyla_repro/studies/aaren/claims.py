"""What the chapter on Aaren claims, and the rules that decide it."""

from collections.abc import Callable

from hyla_repro.results.claims import OURS, Claim, Outcome, at_an_end, exact, missing
from hyla_repro.results.effects import CONTRADICTED, REPRODUCED, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error
from hyla_repro.studies.aaren.runs import CODES, shown
from hyla_repro.studies.beside import complete, loses_most_held_out, scores
from hyla_repro.studies.neighbours import SERIES, TASKS

FIGURE = "aaren"
# Two attentions are called comparable on time series where the one is at most this many points below the other.
MARGIN = 1.5
_ON = {"fuzzy_logic": "R²", "sraven": "accuracy"}


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [
        Claim("aaren-exact", FIGURE, "neighbours", "With one query, softmax attention is a recurrent network: at once, "
              "in blocks and step by step it gives the same outputs.", "exact identity", "largest difference of the "
              "scan, its blocks and the steps from masked softmax < 1e-12 in float64", agreement, chance="none",
              live=True),
        Claim("aaren-parameters", FIGURE, "neighbours", "A learned query adds one token per layer: 3,152,896 "
              "parameters instead of 3,152,384.", "3,152,896 and 3,152,384", "both counts, of a layer of width 512 "
              "with 8 heads and a feed-forward of 2048", parameters, chance="none", live=True),
        Claim("aaren-memory", FIGURE, "neighbours", "Streaming takes memory that does not grow with the tokens, where "
              "a key and value cache grows with each.", "constant and linear; curves, no table", "bytes of the state "
              "after 10 and after 1000 tokens: equal for Aaren, a hundred times for the cache", memory, chance="none",
              live=True),
        Claim("aaren-separable", FIGURE, "neighbours", "Aaren's code is a term of the key times a term of the "
              "query, that of causal softmax attention is not.", OURS, "root mean square of the double differences of "
              "log codes in trained models, in nats: causal softmax minus 0.1, and 0.001 minus Aaren", separable),
        Claim("aaren-series", FIGURE, "neighbours", "Aaren does as well as the transformer it replaces, on time series "
              "(JapaneseVowels, one of the paper's ten).", "average over ten data sets, not at hand", "accuracy: Aaren "
              f"minus causal softmax attention, plus {MARGIN} points, where both have more than half right",
              comparable),
        *(_question(task) for task in TASKS),
        *(_hyla(task) for task in TASKS),
    ]  # fmt: skip


def agreement(results: Results) -> Outcome:
    """Decide whether all ways to compute Aaren agree."""
    from hyla_repro.studies.aaren.analysis import errors

    return exact(errors().max(), 1e-12)


def parameters(results: Results) -> Outcome:
    """Decide whether the layers have as many parameters as the paper says."""
    from hyla_repro.studies.aaren.analysis import parameter_counts

    counts = parameter_counts()
    same = counts == {"transformer": 3_152_384, "aaren": 3_152_896}
    ours = f"{counts['aaren']:,} and {counts['transformer']:,}"
    return Outcome(ours, verdict=REPRODUCED if same else CONTRADICTED)


def memory(results: Results) -> Outcome:
    """Decide whether the state stays as it is while a cache grows."""
    from hyla_repro.studies.aaren.analysis import bytes_after

    short, long = bytes_after(10), bytes_after(1000)
    growth = {name: long[name] / short[name] for name in short}
    holds = growth == {"aaren": 1.0, "cache": 100.0}
    text = f"from 10 to 1000 tokens: Aaren × {growth['aaren']:g}, cache × {growth['cache']:g}"
    return Outcome(text, verdict=REPRODUCED if holds else CONTRADICTED)


def separable(results: Results) -> Outcome:
    """Decide whether the logarithm of the code is a sum of two terms, in Aaren alone."""
    table = results.store.analysis(CODES, shown(results.preset))
    table = table[table["model"] == "trained"] if len(table) else table
    residual = table.groupby(["seed", "variant"])["residual"].mean().unstack("variant") if len(table) else table
    if not complete(residual, ("softmax_causal", "aaren")):
        return missing()
    aaren, softmax = residual["aaren"], residual["softmax_causal"]
    text = f"causal softmax {softmax.mean():.2f} nats, Aaren {aaren.mean():.2f}"
    effect = paired("causal softmax minus 0.1", softmax - 0.1, digits=3)
    # Aaren's are zero but for rounding, and have no spread to make an interval of.
    return Outcome(text, (effect,), verdict=None if aaren.max() < 0.001 else CONTRADICTED)


def comparable(results: Results) -> Outcome:
    """Decide whether Aaren is not far below causal softmax attention on time series."""
    wanted = ("softmax_causal", "aaren")
    table = scores(results, FIGURE, SERIES, "test")
    if not complete(table, wanted):
        return missing()
    text = ", ".join(f"{NAMES[m]} {mean_and_error(table[m].mean(), table[m].sem())}" for m in ("softmax", *wanted)
                     if m in table)  # fmt: skip
    if table[list(wanted)].mean().min() <= 50:
        return missing(f"{text}; not learned")
    difference = table["aaren"] - table["softmax_causal"]
    return Outcome(text, (paired(f"difference plus {MARGIN}", difference + MARGIN, digits=2),),
                   weak=at_an_end(table[list(wanted)].mean().tolist(), "accuracies"))  # fmt: skip


def _question(task: str) -> Claim:
    return Claim(f"aaren-query-{task.replace('_', '-')}", FIGURE, "neighbours", "A query that cannot depend on the "
                 f"question costs most on held-out combinations, on {TASKS[task]}.", OURS, f"{_ON[task]} on held-out "
                 "tasks: causal softmax minus Aaren; and this less the same on training tasks",
                 loses_most_held_out(FIGURE, task, "softmax_causal", "aaren"))  # fmt: skip


def _hyla(task: str) -> Claim:
    return Claim(f"aaren-hyla-{task.replace('_', '-')}", FIGURE, "neighbours", "HYLA loses more by a learned query "
                 f"than softmax attention does, on {TASKS[task]}.", OURS, f"{_ON[task]} on held-out tasks: HYLA minus "
                 "HYLA with a learned query, less causal softmax minus Aaren", _loses_more(task))  # fmt: skip


def _loses_more(task: str) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        table = scores(results, FIGURE, task, "heldout")
        wanted = ("hyla", "hyla_learned_query", "softmax_causal", "aaren")
        if not complete(table, wanted):
            return missing()
        text = ", ".join(f"{NAMES[m]} {mean_and_error(table[m].mean(), table[m].sem())}" for m in wanted)
        lost = (table["hyla"] - table["hyla_learned_query"]) - (table["softmax_causal"] - table["aaren"])
        return Outcome(text, (paired("HYLA loses more by", lost),))

    return decide
