"""What Table A1 claims, on both tasks and in the paper's own numbers, and the rules that decide it."""

from collections.abc import Callable

import pandas as pd

from hyla_repro.results.claims import Claim, Outcome, missing
from hyla_repro.results.effects import (
    CONTRADICTED,
    MIN_SEEDS,
    REPRODUCED,
    Effect,
    Published,
    decide,
    paired,
    published,
    rank_correlation,
)
from hyla_repro.results.methods import ABLATIONS, METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error, paper_values
from hyla_repro.studies import rules
from hyla_repro.studies.ablations.analysis import probes_and_scores
from hyla_repro.studies.fuzzy_logic.runs import TASK as FUZZY_LOGIC
from hyla_repro.studies.rules import enough, hyla_leads, leads, listed, show
from hyla_repro.studies.sraven.runs import TASK as SRAVEN

FIGURE = "tablea1"
TWICE = ("hyla", "hyla_no_rms_head", "hyla_no_relu", "hyla_no_relu_no_rms_head", "hyla_deep")
ONCE = ("softmax", "linear", "linear_rms_head", "linear_rms_head_relu_values")
_TASKS = {FUZZY_LOGIC: ("a1", "fuzzy logic"), SRAVEN: ("a1-sraven", "SRAVEN")}


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study, one for every number of the table at the end."""
    return [
        Claim("a1-code-twice", FIGURE, "advantage", "Table A1, fuzzy logic: what helps is to apply the code twice.",
              "lowest of five 79.4, highest of four 68.9", "every linear-score variant that applies the code twice "
              "minus every one that applies it once", code_twice_wins),
        Claim("a1-code-twice-mean", FIGURE, "advantage", "The same on average: the five variants that apply the code "
              "twice lead the four that apply it once.", "82.8 against 62.3", "mean of the five minus mean of the four",
              code_twice_wins_on_average),
        Claim("a1-softmax-between", FIGURE, "advantage",
              "Table A1, fuzzy logic: HYLA with softmax lies between softmax attention and HYLA.",
              "63.3 < 71.0 < 81.1", "HYLA with softmax minus softmax attention, and HYLA minus HYLA with softmax",
              softmax_between),
        Claim("a1-sraven-main", FIGURE, "advantage", "HYLA generalises to held-out SRAVEN tasks better than softmax "
              "and linear attention.", rules.published(store, SRAVEN), "held-out accuracy: HYLA minus each",
              hyla_leads("headline", SRAVEN)),
        Claim("a1-sraven-order", FIGURE, "advantage", "Table A1, SRAVEN: the order of its rows.", "HYLA first, HYLA "
              "with softmax last", "Spearman's correlation of the 13 rows with the paper's (interval by Fisher's z)",
              ablations_in_order),
        *(_both_components(store, task) for task in _TASKS),
        *(_experts(store, task) for task in _TASKS),
        Claim("decodability", "decodability", "code", "Composition follows decodability: the better a model's code "
              "tells of the parts, the better the model does on held-out tasks.", "R² above 0.95 on other tasks (later "
              "work)",
              "Spearman's correlation, over runs with codes, of held-out score and probe accuracy in the last layer, "
              "on each task (interval by Fisher's z)", composition_follows),
        *_levels(store),
    ]  # fmt: skip


def _compared(name: str, claim: str, task: str, store: Store | None, others: tuple[str, ...], rule: str) -> Claim:
    """Return a claim that HYLA leads some rows, which the paper's own table decides beside our runs."""
    prefix, title = _TASKS[task]
    theirs = leads_in_the_paper(store, task, others)
    return Claim(f"{prefix}-{name}", FIGURE, "advantage", f"{title[0].upper()}{title[1:]}: {claim}",
                 f"{decide(theirs)} by its own table: {'; '.join(map(str, theirs))}", rule,
                 lambda results: _leads(results, task, others))  # fmt: skip


def _both_components(store: Store | None, task: str) -> Claim:
    return _compared("both-components", "HYLA needs both RMSHead and its nonlinearity.", task, store,
                     ("hyla_no_relu", "hyla_no_rms_head"), "HYLA minus HYLA without the one, and without the other; "
                     "the paper's numbers by Welch's t from its standard errors")  # fmt: skip


def _experts(store: Store | None, task: str) -> Claim:
    return _compared("experts", "HYLA leads linear and softmax attention with a mixture of experts.", task, store,
                     ("linear_moe", "softmax_moe"), "HYLA minus linear and softmax attention with experts; the paper's "
                     "numbers by Welch's t from its standard errors")  # fmt: skip


def leads_in_the_paper(store: Store | None, task: str, others: tuple[str, ...]) -> list[Effect]:
    """Return by how much HYLA leads rows of the paper's Table A1, from its means and standard errors of 3 seeds."""
    table = paper_values(store)
    rows = table[table["task"] == task].set_index("variant")[["value", "standard_error"]]
    hyla, *rest = (Published(*rows.loc[name]) for name in ("hyla", *others))
    return [published(f"HYLA minus {NAMES[other]}", hyla, row) for other, row in zip(others, rest, strict=True)]


def _leads(results: Results, task: str, others: tuple[str, ...]) -> Outcome:
    table, wanted = results.by_method(FIGURE, task), ("hyla", *others)
    if not enough(table, wanted):
        return missing(listed(table, wanted))
    return Outcome(listed(table, wanted), leads(results, "hyla", others, FIGURE, task))


def _levels(store: Store | None) -> list[Claim]:
    """Return a claim for every number of Table A1."""
    return [
        Claim(f"{_TASKS[row.task][0]}-{row.variant.replace('_', '-')}", FIGURE, "levels",
              f"{NAMES[row.variant]}, {_TASKS[row.task][1]}", mean_and_error(row.value, row.standard_error),
              "the 95 % interval of the difference from the paper's number (Welch) holds zero, paper preset only",
              level(row.variant, row.value, row.standard_error, row.task), chance="about 95 % where both are equal")
        for row in paper_values(store).itertuples()
    ]  # fmt: skip


def level(variant: str, value: float, error: float, task: str) -> Callable[[Results], Outcome]:
    """Return the rule that a held-out mean agrees with the published one."""

    def decide_level(results: Results) -> Outcome:
        table = results.by_method(FIGURE, task)
        if not enough(table, [variant]):
            return missing()
        row = table.loc[variant]
        ours = Published(row["heldout"], row["heldout_se"], int(row["n"]))
        effect = published("minus the paper's", ours, Published(value, error))
        verdict = REPRODUCED if effect.low <= 0 <= effect.high else CONTRADICTED
        return Outcome(show(row), (effect,), verdict=verdict)

    return decide_level


def _by_seed(results: Results, task: str) -> pd.DataFrame:
    """Return held-out scores in percent by seed (rows) and method (columns)."""
    return 100 * results.best(FIGURE, task).pivot(index="seed", columns="variant", values="heldout")


def code_twice_wins(results: Results) -> Outcome:
    """Decide whether each variant that applies the code twice leads each that applies it once."""
    table = results.by_method(FIGURE, FUZZY_LOGIC)
    if not enough(table, TWICE + ONCE):
        return missing()
    low, high = table.loc[list(TWICE), "heldout"], table.loc[list(ONCE), "heldout"]
    lowest, highest = str(low.idxmin()), str(high.idxmax())
    text = (
        f"lowest of the five: {NAMES[lowest]} {low.min():.1f}; highest of the four: {NAMES[highest]} {high.max():.1f}"
    )
    every = [effect for one in TWICE for effect in leads(results, one, ONCE, FIGURE, FUZZY_LOGIC)]
    return Outcome(text, tuple(every))


def code_twice_wins_on_average(results: Results) -> Outcome:
    """Decide whether variants that apply the code twice lead on average."""
    table = results.by_method(FIGURE, FUZZY_LOGIC)
    if not enough(table, TWICE + ONCE):
        return missing()
    scores = _by_seed(results, FUZZY_LOGIC)
    twice, once = scores[list(TWICE)].mean(axis=1), scores[list(ONCE)].mean(axis=1)
    return Outcome(f"{twice.mean():.1f} against {once.mean():.1f}", (paired("difference", twice - once),))


def softmax_between(results: Results) -> Outcome:
    """Decide whether HYLA with softmax stands between softmax attention and HYLA."""
    table = results.by_method(FIGURE, FUZZY_LOGIC)
    wanted = ("softmax", "hyla_softmax", "hyla")
    if not enough(table, wanted):
        return missing(listed(table, wanted))
    effects = (
        *leads(results, "hyla_softmax", ["softmax"], FIGURE, FUZZY_LOGIC),
        *leads(results, "hyla", ["hyla_softmax"], FIGURE, FUZZY_LOGIC),
    )
    return Outcome(listed(table, wanted), effects)


def ablations_in_order(results: Results) -> Outcome:
    """Decide whether our order of rows is the paper's."""
    table = results.by_method(FIGURE, SRAVEN)
    if table.empty:
        return missing()
    trained = int((table["n"] >= MIN_SEEDS).sum())
    if trained < len(ABLATIONS):
        return missing(f"{trained} of {len(ABLATIONS)} rows trained")
    values = paper_values(results.store)
    theirs = values[values["task"] == SRAVEN].set_index("variant")["value"]
    ours = table["heldout"].reindex(theirs.index)
    best, worst = (NAMES[str(name)] for name in (ours.idxmax(), ours.idxmin()))
    effect = rank_correlation("rank correlation over rows", ours, theirs)
    text = f"over the seeds that all rows have: highest {best} {ours.max():.1f}, lowest {worst} {ours.min():.1f}"
    return Outcome(text, (effect,))


def composition_follows(results: Results) -> Outcome:
    """Decide whether runs whose codes tell more of the parts compose better."""
    table = probes_and_scores(results.store, results.preset)
    effects = []
    for task, (_, title) in _TASKS.items():
        part = table[table["task"] == task] if len(table) else table
        if len(part) < len(METHODS) * MIN_SEEDS:
            return missing()
        effect = rank_correlation(title, part["probe"], part["heldout"])
        effects.append(effect._replace(unit="runs"))
    return Outcome("rank correlations", tuple(effects))
