"""What Table A1 claims, on both tasks, and the rules that decide it."""

from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from hyla_repro.results.claims import MISSING, Claim, Outcome
from hyla_repro.results.methods import ABLATIONS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error, paper_values
from hyla_repro.studies.fuzzy_logic.runs import TASK as FUZZY_LOGIC
from hyla_repro.studies.rules import MIN_SEEDS, apart, enough, hyla_leads, listed, published, show
from hyla_repro.studies.sraven.runs import TASK as SRAVEN

FIGURE = "tablea1"
# Spearman's rank correlation that 13 rows reach by chance in 5 % of cases (one-sided).
RANK_CORRELATION = 0.484


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study, one for every number of the table at the end."""
    return [
        Claim("a1-code-twice", FIGURE, "Table A1, fuzzy logic: what helps is to apply the code twice.",
              "lowest of five 79.4, highest of four 68.9", "every linear-score variant that applies the code twice has "
              "a higher mean than every one that applies it once", code_twice_wins),
        Claim("a1-softmax-between", FIGURE,
              "Table A1, fuzzy logic: HYLA with softmax lies between softmax attention and HYLA.",
              "63.3 < 71.0 < 81.1", "mean held-out R²: softmax < HYLA with softmax < HYLA", softmax_between),
        Claim("a1-sraven-main", FIGURE, "HYLA generalises to held-out SRAVEN tasks better than softmax and linear "
              "attention.", published(store, SRAVEN), "HYLA's mean held-out accuracy leads each, "
              "seed by seed, by more than two standard errors", hyla_leads(FIGURE, SRAVEN)),
        Claim("a1-sraven-order", FIGURE, "Table A1, SRAVEN: the order of its rows.", "HYLA first, HYLA with softmax "
              "last", f"rank correlation of the 13 rows above {RANK_CORRELATION} (5 %, one-sided)",
              ablations_in_order),
        *_levels(store),
    ]  # fmt: skip


def _levels(store: Store | None) -> list[Claim]:
    """Return a claim for every number of Table A1."""
    names = {FUZZY_LOGIC: ("a1", "fuzzy logic"), SRAVEN: ("a1-sraven", "SRAVEN")}
    return [
        Claim(f"{names[row.task][0]}-{row.variant.replace('_', '-')}", FIGURE,
              f"{NAMES[row.variant]}, {names[row.task][1]}", mean_and_error(row.value, row.standard_error),
              "difference at most 2 joint standard errors, paper preset only",
              level(row.variant, row.value, row.standard_error, row.task), level=True)
        for row in paper_values(store).itertuples()
    ]  # fmt: skip


def code_twice_wins(results: Results) -> Outcome:
    """Decide whether the variants that apply the code twice lead those that apply it once."""
    twice = ("hyla", "hyla_no_rms_head", "hyla_no_relu", "hyla_no_relu_no_rms_head", "hyla_deep")
    once = ("softmax", "linear", "linear_rms_head", "linear_rms_head_relu_values")
    table = results.by_method(FIGURE, FUZZY_LOGIC)
    if not enough(table, twice + once):
        return Outcome(MISSING, None)
    low, high = table.loc[list(twice), "heldout"], table.loc[list(once), "heldout"]
    lowest, highest = str(low.idxmin()), str(high.idxmax())
    lead = results.leads(lowest, highest, FIGURE, FUZZY_LOGIC)
    text = (
        f"lowest of the five: {NAMES[lowest]} {low.min():.1f}; highest of the four: {NAMES[highest]} {high.max():.1f}"
    )
    return Outcome(f"{text}; seed by seed they are {apart(lead)[0]} apart", bool(low.min() > high.max()))


def softmax_between(results: Results) -> Outcome:
    """Decide whether HYLA with softmax stands between softmax attention and HYLA."""
    table = results.by_method(FIGURE, FUZZY_LOGIC)
    wanted = ("softmax", "hyla_softmax", "hyla")
    if not enough(table, wanted):
        return Outcome(listed(table, wanted), None)
    values = table.loc[list(wanted), "heldout"]
    return Outcome(listed(table, wanted), bool(values.is_monotonic_increasing and values.is_unique))


def level(variant: str, value: float, error: float, task: str) -> Callable[[Results], Outcome]:
    """Return the rule that a held-out mean is within two joint standard errors of the published one."""

    def decide(results: Results) -> Outcome:
        table = results.by_method(FIGURE, task)
        if not enough(table, [variant]):
            return Outcome(MISSING, None)
        row = table.loc[variant]
        return Outcome(show(row), bool(abs(row["heldout"] - value) <= 2 * np.hypot(row["heldout_se"], error)))

    return decide


def ablations_in_order(results: Results) -> Outcome:
    """Decide whether our order of rows is the paper's."""
    table = results.by_method(FIGURE, SRAVEN)
    if table.empty:
        return Outcome(MISSING, None)
    trained = int((table["n"] >= MIN_SEEDS).sum())
    if trained < len(ABLATIONS):
        return Outcome(f"{trained} of {len(ABLATIONS)} rows trained", None)
    values = paper_values(results.store)
    published = values[values["task"] == SRAVEN].set_index("variant")["value"]
    ours = table["heldout"].reindex(published.index)
    correlation = float(spearmanr(ours, published).statistic)
    best, worst = (NAMES[str(name)] for name in (ours.idxmax(), ours.idxmin()))
    text = f"rank correlation {correlation:.2f}".replace("-", "−")
    return Outcome(f"{text}; highest {best} {ours.max():.1f}, lowest {worst} {ours.min():.1f}",
                   bool(correlation > RANK_CORRELATION))  # fmt: skip
