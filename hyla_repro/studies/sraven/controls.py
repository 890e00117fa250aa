"""A control that the report shows: the steps of warm-up."""

from hyla_repro.results.markdown import table
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error, summarize
from hyla_repro.studies.sraven import runs


def warmup(store: Store) -> str:
    """Show what a shorter warm-up is worth (Deviation D16): scores by method and steps of warm-up."""
    # Warm-up is a setting of the optimiser, of which a summary keeps the best alone: so one summary for each.
    tables = [summarize(part) for _, part in store.runs(runs.warmup("laptop")).groupby("warmup_steps", sort=False)]
    rows = [
        [NAMES[row.variant], str(row.warmup_steps), mean_and_error(row.test, row.test_se),
         mean_and_error(row.heldout, row.heldout_se), str(row.n)]
        for scores in tables for row in scores.itertuples()
    ]  # fmt: skip
    return "\n\n".join([
        "## Warm-up",
        "SRAVEN's main comparison, preset laptop, and with a warm-up of a fiftieth of the training, the longest that "
        "the paper has at 20 million problems; [D16](deviations.md) says why this is measured.",
        table(["method", "steps of warm-up", "training tasks (%)", "held-out (%)", "seeds"], rows),
    ])  # fmt: skip
