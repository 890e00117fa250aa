"""A control that the report shows: attention dropout."""

from hyla_repro.results.markdown import table
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error, summarize
from hyla_repro.studies.ablations import runs
from hyla_repro.studies.fuzzy_logic.runs import TASK as FUZZY_LOGIC
from hyla_repro.studies.sraven.runs import TASK as SRAVEN


def dropout(store: Store) -> str:
    """Show what Deviation D1 is worth: scores on held-out and on training tasks with and without attention dropout."""
    names = {FUZZY_LOGIC: "fuzzy logic, R²", SRAVEN: "SRAVEN, accuracy"}
    wanted = runs.dropout("laptop")
    rows = [
        [names[task], NAMES[row.variant], f"{row.attention_dropout:g}",
         mean_and_error(row.test, row.test_se), mean_and_error(row.heldout, row.heldout_se), str(row.n)]
        for task in names
        for row in summarize(store.runs(run for run in wanted if run.task_name == task)).itertuples()
    ]  # fmt: skip
    header = ["task", "method", "attention dropout", "training tasks (%)", "held-out (%)", "seeds"]
    return "\n\n".join([
        "## Attention dropout",
        "The main comparison of each task, preset laptop; [D1](deviations.md) says why this is measured.",
        table(header, rows),
    ])  # fmt: skip
