"""Scores of other papers' attention beside its controls: tables for the chapters, and effects for their rules."""

from collections.abc import Callable, Iterable

import pandas as pd

from hyla_repro.results.claims import Outcome, missing
from hyla_repro.results.effects import MIN_SEEDS, Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.summary import Results, mean_and_error
from hyla_repro.studies.neighbours import OF_AAREN, OF_PRIMAL_DUAL, SERIES, TASKS

# What a row is to be compared with: it differs from its control by one idea.
CONTROLS = {
    "softmax_causal": "softmax", "aaren": "softmax_causal", "hyla_learned_query": "aaren", "softmax_bn": "softmax",
    "softmax_sh": "softmax", "softmax_bn_sh": "softmax", "hyla_bn": "hyla", "hyla_sh": "hyla",
}  # fmt: skip


def scores(results: Results, figure: str, task: str, split: str) -> pd.DataFrame:
    """Return scores in percent by seed (rows) and method (columns); empty without runs."""
    best = results.best(figure, task)
    return 100 * best.pivot(index="seed", columns="variant", values=split) if len(best) else best


def complete(table: pd.DataFrame, methods: Iterable[str]) -> bool:
    """Return whether enough seeds have all of these methods."""
    wanted = list(methods)
    return set(wanted) <= set(table.columns) and len(table[wanted].dropna()) >= MIN_SEEDS


def minus(table: pd.DataFrame, one: str, other: str, digits: int = 1) -> Effect:
    """Return the effect of one method minus another, seed by seed."""
    return paired(f"{NAMES[one]} minus {NAMES[other]}", table[one] - table[other], digits)


def listed(table: pd.DataFrame, methods: Iterable[str]) -> str:
    """Return the scores of methods in words."""
    return ", ".join(f"{NAMES[m]} {mean_and_error(table[m].mean(), table[m].sem())}" for m in methods)


def loses_most_held_out(figure: str, task: str, control: str, method: str) -> Callable[[Results], Outcome]:
    """Return the rule that a method loses against its control on held-out tasks, and more than on training tasks."""

    def decide(results: Results) -> Outcome:
        heldout, training = (scores(results, figure, task, split) for split in ("heldout", "test"))
        if not complete(heldout, (control, method)):
            return missing()
        lost, lost_before = (table[control] - table[method] for table in (heldout, training))
        more = paired("less that on training tasks", lost - lost_before)
        return Outcome(listed(heldout, (control, method)), (minus(heldout, control, method), more))

    return decide


def on_series(results: Results, figure: str, methods: Iterable[str], control: str) -> pd.DataFrame:
    """Return the accuracy on test series by method, and its difference from a control, in points."""
    table = scores(results, figure, SERIES, "test")
    rows = {}
    for method in (method for method in methods if method in table):
        effect = "" if method == control or control not in table else paired("", table[method] - table[control], 2)
        rows[NAMES[method]] = {"accuracy (%)": mean_and_error(table[method].mean(), table[method].sem(), 2),
                               "seeds": table[method].count(), f"minus {NAMES[control]}": str(effect)}  # fmt: skip
    return pd.DataFrame(rows).T


def on_tasks(results: Results, figure: str, methods: Iterable[str]) -> pd.DataFrame:
    """Return scores on training and on held-out tasks by task and method, of those that have runs."""
    rows = []
    for task, title in TASKS.items():
        splits = {"training tasks (%)": "test", "held-out (%)": "heldout"}
        tables = {name: scores(results, figure, task, split) for name, split in splits.items()}
        counts = tables["held-out (%)"].count()
        for method in (method for method in methods if method in counts):
            cells = {name: mean_and_error(t[method].mean(), t[method].sem()) for name, t in tables.items()}
            rows.append({"task": title, "attention": NAMES[method], **cells, "seeds": counts[method]})
    return pd.DataFrame(rows)


def by_task(results: Results, figure: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Return scores in percent by task and split: `test` on training tasks, and `heldout`."""
    return {
        f"{title} (%)": {split: scores(results, figure, task, split) for split in ("test", "heldout")}
        for task, title in TASKS.items()
    }


def of_all(results: Results) -> pd.DataFrame:
    """Return held-out scores of all neighbours and their differences from their controls, a column per task."""
    rows: dict[str, dict[str, str]] = {}
    for task, title in TASKS.items():
        for figure, methods in (("aaren", OF_AAREN), ("primal", OF_PRIMAL_DUAL)):
            table = scores(results, figure, task, "heldout")
            for method in (method for method in methods if method in table):
                control = CONTROLS[method]
                row = rows.setdefault(method, {"row": NAMES[method], "control": NAMES[control]})
                row[f"{title}, held-out (%)"] = mean_and_error(table[method].mean(), table[method].sem())
                if control in table:
                    row[f"{title}, minus control"] = str(minus(table, method, control)._replace(name=""))
    return pd.DataFrame(rows.values()).fillna("")
