"""The cells that modules are compared in, our own rows there, and how rows are ranked."""

from collections.abc import Callable, Collection
from functools import lru_cache
from math import isnan

import pandas as pd

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.methods import ALL_METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.studies.fuzzy_logic.runs import SEEDS, fuzzy_logic
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.studies.study import PRESETS

# Preset, method and seed to a run of the task's main comparison: whatever enters is trained as that is.
CELLS: dict[str, Callable[[str, str, int], Experiment]] = {"fuzzy_logic": fuzzy_logic, "sraven": sraven}
COLUMNS = ["name", "task", "preset", "seed", "test", "heldout", "n_parameters"]


def cell(task: str, preset: str, seed: int, method: str = "softmax") -> Experiment:
    """Return our run of a task's main comparison whose steps, batches, optimiser and evaluation all others share.

    Raises: ValueError for an unknown task or preset, naming those there are.
    """
    return CELLS[choose("task of the benchmark", task, CELLS)](choose("preset", preset, PRESETS), method, seed)


def ours(task: str, preset: str, seeds: Collection[int], store: Store | None = None) -> pd.DataFrame:
    """Return our finished runs of a cell, as `COLUMNS`, of methods that have all these seeds; scores are shares."""
    wanted = [cell(task, preset, seed, method) for method in ALL_METHODS for seed in seeds]
    found = (store or Store()).runs(wanted)
    if found.empty:
        return pd.DataFrame(columns=COLUMNS)
    found = found.groupby("variant").filter(lambda part: len(part) == len(seeds))
    sizes = {run.method: _n_parameters(run.model) for run in wanted if run.method in set(found["variant"])}
    facts = {"name": found["variant"].map(NAMES), "preset": preset, "n_parameters": found["variant"].map(sizes)}
    return found.assign(**facts)[COLUMNS]


def seeds_of(preset: str) -> tuple[int, ...]:
    """Return the seeds that every row has at least.

    Raises: ValueError for an unknown preset.
    """
    return SEEDS[choose("preset", preset, PRESETS)]


def beside(
    runs: pd.DataFrame, task: str, preset: str, seeds: Collection[int], store: Store | None = None
) -> pd.DataFrame:
    """Return runs of others ranked among ours in one cell, all of the same seeds, and so of the same splits.

    Args:
        runs: one row per run of any cell and seed, as `COLUMNS`; it may be empty.
    """
    runs = runs.reindex(columns=COLUMNS)
    there = runs[(runs["task"] == task) & (runs["preset"] == preset) & runs["seed"].isin(seeds)]
    parts = [part for part in (there, ours(task, preset, seeds, store)) if len(part)]
    return ranked(pd.concat(parts) if parts else there)


@lru_cache
def _n_parameters(config: TransformerConfig) -> int:
    from hyla_repro.models.transformer import Transformer

    return sum(parameter.numel() for parameter in Transformer(config).parameters())


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model, best on held-out tasks first.

    Args:
        runs: one row per run, as `COLUMNS`, of one task at one preset.

    Returns: rank; model; the mean over seeds on held-out tasks in percent, with the ends of its 95 % interval
        (Student's t; NaN for a single seed); by how many points it leads softmax attention, seed by seed, with the
        same interval (NaN where there is none); the mean on training tasks; numbers of seeds and of parameters.
    """
    from hyla_repro.results.effects import paired

    softmax, lines = runs[runs["name"] == NAMES["softmax"]].set_index("seed")["heldout"], []
    for name, part in runs.groupby("name"):
        scores = part.set_index("seed")["heldout"]
        leads = 100 * (scores - softmax) if name != NAMES["softmax"] else softmax[:0]
        mean, lead = paired("", 100 * scores), paired("", leads)
        lines.append((name, mean.value, mean.low, mean.high, lead.value, lead.low, lead.high, 100 * part["test"].mean(),
                      mean.n, part["n_parameters"].iloc[0]))  # fmt: skip
    columns = ["model", "heldout", "low", "high", "lead", "lead_low", "lead_high", "test", "seeds", "parameters"]
    table = pd.DataFrame(lines, columns=columns).sort_values("heldout", ascending=False, ignore_index=True)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return what `ranked` gives as tables print it."""
    rows = table.itertuples()
    words = [(_interval(r.heldout, r.low, r.high), _interval(r.lead, r.lead_low, r.lead_high)) for r in rows]
    means, leads = zip(*words, strict=True) if words else ((), ())
    return pd.DataFrame({
        "rank": table["rank"], "model": table["model"], "held-out tasks, %": means, "minus softmax attention": leads,
        "training tasks, %": table["test"].map("{:.1f}".format), "seeds": table["seeds"],
        "parameters": table["parameters"].map("{:,}".format),
    })  # fmt: skip


def _interval(value: float, low: float, high: float) -> str:
    if isnan(value):
        return ""
    return (f"{value:.1f}" + ("" if isnan(low) else f" ({low:.1f} to {high:.1f})")).replace("-", "−")
