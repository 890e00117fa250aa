"""Controls that the report shows: wider heads."""

from hyla_repro.results.markdown import table
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error, summarize
from hyla_repro.studies.fuzzy_logic import runs


def wide_heads(store: Store) -> str:
    """Show the main comparison with the paper's heads of two numbers and with wider ones."""
    wanted = runs.wide_heads("laptop")
    finished = store.runs(wanted)
    narrow = runs.comparison("laptop", METHODS)
    rows = []
    for some in (narrow, wanted):
        width = some[0].model.v_dim // some[0].model.n_heads
        rows += [
            [NAMES[row.variant], str(width),
             mean_and_error(row.test, row.test_se), mean_and_error(row.heldout, row.heldout_se), str(row.n)]
            for row in summarize(store.runs(some)).itertuples()
        ]  # fmt: skip
    header = ["method", "numbers a head", "training functions (%)", "held-out (%)", "seeds"]
    return "\n\n".join([
        "## Wider heads",
        "Fuzzy logic's main comparison, preset laptop, with the paper's eight heads of two numbers and with eight of "
        "sixteen, as a standard transformer of this width has. Standard transformers on the "
        f"[leaderboard](leaderboard.md) are why this is asked. {len(finished)} of {len(wanted)} runs are finished.",
        table(header, rows),
    ])  # fmt: skip
