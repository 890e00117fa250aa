"""Controls that the report shows: settings of the optimiser, and longer training."""

import pandas as pd

from hyla_repro.results.markdown import table
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error, summarize
from hyla_repro.studies.sraven import runs

_SCORES = ["training tasks (%)", "held-out (%)", "seeds"]


def _scores(row: pd.Series) -> list[str]:
    training, heldout = (mean_and_error(row[split], row[split + "_se"]) for split in ("test", "heldout"))
    return [training, heldout, str(row["n"])]


def tuning(store: Store) -> str:
    """Show what other settings of the optimiser are worth (Deviation D16): scores by learning rate and warm-up."""
    wanted = runs.tuning("laptop")
    finished = store.runs(wanted)
    # A summary keeps the best setting alone: so one summary for each.
    parts = [summarize(part) for _, part in finished.groupby(["learning_rate", "warmup_steps"], sort=False)]
    rows = [
        [NAMES[row["variant"]], f"{row['learning_rate']:g}", str(row["warmup_steps"]), *_scores(row)]
        for scores in parts for _, row in scores.iterrows()
    ]  # fmt: skip
    return "\n\n".join([
        "## Learning rate and warm-up",
        "SRAVEN's main comparison, preset laptop, at other settings of the optimiser; a warm-up of 160 steps is a "
        "fiftieth of the training, the longest share that the paper has at 20 million problems. "
        f"[D16](deviations.md) says why this is measured. {len(finished)} of {len(wanted)} runs are finished.",
        table(["method", "learning rate", "steps of warm-up", *_SCORES], rows),
    ])  # fmt: skip


def long(store: Store) -> str:
    """Show what six times the steps are worth."""
    wanted = runs.long("laptop")
    finished = store.runs(wanted)
    rows = [[NAMES[row["variant"]], str(row["steps"]), *_scores(row)] for _, row in summarize(finished).iterrows()]
    head = f"## Longer training\n\nSRAVEN's main comparison, preset laptop, for {wanted[0].steps} steps instead of "
    head += f"{runs.SIZES['laptop'].steps}. {len(finished)} of {len(wanted)} runs are finished."
    return "\n\n".join([head, table(["method", "steps", *_SCORES], rows)] if rows else [head])
