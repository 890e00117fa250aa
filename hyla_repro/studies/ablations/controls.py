"""What the report shows besides: the headline by seed, attention dropout, and what of a run its seed decides."""

from itertools import product
from math import nan

import pandas as pd

from hyla_repro.results.effects import paired
from hyla_repro.results.markdown import table
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error, summarize
from hyla_repro.studies.ablations import runs
from hyla_repro.studies.fuzzy_logic.runs import TASK as FUZZY_LOGIC
from hyla_repro.studies.sraven.runs import TASK as SRAVEN

_METHODS = ["softmax", "hyla"]
_TASKS = {FUZZY_LOGIC: "fuzzy logic, R²", SRAVEN: "SRAVEN, accuracy"}


def headline(store: Store) -> str:
    """Show held-out scores of the main comparison seed by seed, and HYLA's leads."""
    wanted = runs.headline("laptop")
    finished, parts = store.runs(wanted), []
    for task, title in _TASKS.items():
        of_task = finished[finished["task"] == task]
        scores = (100 * of_task.pivot(index="seed", columns="variant", values="heldout")).reindex(columns=METHODS)
        leads = {other: scores["hyla"] - scores[other] for other in METHODS if other != "hyla"}
        columns = {NAMES[method]: scores[method] for method in METHODS}
        columns |= {f"HYLA minus {NAMES[other]}": lead for other, lead in leads.items()}
        by_seed = pd.DataFrame(columns).map(lambda score: mean_and_error(score, nan))
        rows = [[str(seed), *row] for seed, row in by_seed.iterrows()]
        means = [mean_and_error(scores[method].mean(), scores[method].sem()) for method in METHODS]
        rows.append(["mean", *means, *(str(paired("", lead)).strip() for lead in leads.values())])
        parts.append(table([title, *columns], rows))
    return "\n\n".join([
        "## The headline, seed by seed",
        "Held-out scores of the main comparison in percent, preset laptop. A seed draws which tasks are held out, the "
        "same for all methods, so differences are taken seed by seed; under them stand their 95 % intervals, under "
        f"scores standard errors. {len(finished)} of {len(wanted)} runs are finished.",
        *parts,
    ])  # fmt: skip


def dropout(store: Store) -> str:
    """Show what Deviation D1 is worth: scores on held-out and on training tasks with and without attention dropout."""
    wanted = runs.dropout("laptop")
    rows = [
        [_TASKS[task], NAMES[row.variant], f"{row.attention_dropout:g}",
         mean_and_error(row.test, row.test_se), mean_and_error(row.heldout, row.heldout_se), str(row.n)]
        for task in _TASKS
        for row in summarize(store.runs(run for run in wanted if run.task_name == task)).itertuples()
    ]  # fmt: skip
    header = ["task", "method", "attention dropout", "training tasks (%)", "held-out (%)", "seeds"]
    return "\n\n".join([
        "## Attention dropout",
        "The main comparison of each task, preset laptop; [D1](deviations.md) says why this is measured.",
        table(header, rows),
    ])  # fmt: skip


def seeds(store: Store) -> str:
    """Show what the split, the first weights and the data of a run are worth, one drawn anew at a time."""
    wanted = runs.seed_parts("laptop")
    parts = {run.id: runs.part_of(run) for run in wanted}
    finished = store.runs(wanted)
    rows = []
    for task, part in product(_TASKS, runs.PARTS):
        of_task = finished[finished["task"] == task]
        drawn = of_task[[parts[run] in (part, None) for run in of_task["id"]]]
        if any(parts[run] == part for run in drawn["id"]):
            rows.append([_TASKS[task], part, *_heldout_by_method(drawn)])
    header = ["task", "drawn anew", *(NAMES[method] for method in _METHODS), "HYLA ahead by", "standard deviation"]
    return "\n\n".join([
        "## What a seed decides",
        "The main comparison of each task at seed 0, preset laptop, and with one thing at a time drawn by the seeds "
        + f"{' and '.join(map(str, runs.OTHER_SEEDS['laptop']))}: which tasks are held out, the first weights, or the "
        "data (batches, dropout masks and the problems of the evaluation). Held-out scores in percent, and the spread "
        "of HYLA's lead in points. HYLA's scores also move by rounding alone when a run is trained again "
        f"([D9](deviations.md)). {len(finished)} of {len(wanted)} runs are finished.",
        *([table(header, rows)] if rows else []),
    ])  # fmt: skip


def _heldout_by_method(runs_of_part: pd.DataFrame) -> list[str]:
    """Return held-out scores of both methods and HYLA's lead, in the order of seeds, and how far the lead spreads."""
    # The run of seed 0 comes first; a run that draws something anew has the seed of that part in its place.
    drawn = runs_of_part[["seed", *(name for name in ("split_seed", "init_seed") if name in runs_of_part)]].max(axis=1)
    scores = (100 * runs_of_part.assign(drawn=drawn).pivot(index="drawn", columns="variant", values="heldout")).dropna()
    scores = scores.reindex(columns=_METHODS)
    lead = scores["hyla"] - scores["softmax"]
    shown = (", ".join(f"{value:.1f}".replace("-", "−") for value in column) for column in (*scores.T.values, lead))
    return [*shown, f"{lead.std():.1f}" if len(lead) > 1 else "–"]
