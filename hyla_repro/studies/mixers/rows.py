"""The cells that modules are compared in, our own rows there, and how rows are ranked."""

from collections.abc import Callable
from functools import lru_cache

import pandas as pd

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.methods import ALL_METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.studies.fuzzy_logic.runs import MORE_SEEDS, SEEDS, fuzzy_logic
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


def ours(task: str, preset: str, store: Store | None = None) -> pd.DataFrame:
    """Return our finished runs of a cell with every method, as `COLUMNS`; scores are shares."""
    seeds = (*SEEDS[preset], *MORE_SEEDS.get(preset, ()))
    wanted = [cell(task, preset, seed, method) for method in ALL_METHODS for seed in seeds]
    found = (store or Store()).runs(wanted)
    if found.empty:
        return pd.DataFrame(columns=COLUMNS)
    sizes = {run.method: _n_parameters(run.model) for run in wanted if run.method in set(found["variant"])}
    facts = {"name": found["variant"].map(NAMES), "preset": preset, "n_parameters": found["variant"].map(sizes)}
    return found.assign(**facts)[COLUMNS]


def seeds_of(preset: str) -> tuple[int, ...]:
    """Return the seeds that every row has at least.

    Raises: ValueError for an unknown preset.
    """
    return SEEDS[choose("preset", preset, PRESETS)]


def beside(runs: pd.DataFrame, task: str, preset: str, store: Store | None = None) -> pd.DataFrame:
    """Return runs of others ranked among ours in one cell.

    Args:
        runs: one row per run of any cell, as `COLUMNS`; it may be empty.
    """
    there = runs.reindex(columns=COLUMNS)
    there = there[(there["task"] == task) & (there["preset"] == preset)]
    return ranked(pd.concat([part for part in (there, ours(task, preset, store)) if len(part)] or [there]))


@lru_cache
def _n_parameters(config: TransformerConfig) -> int:
    from hyla_repro.models.transformer import Transformer

    return sum(parameter.numel() for parameter in Transformer(config).parameters())


def ranked(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one line per model of a task, best on held-out tasks first.

    Args:
        runs: one row per run, as `COLUMNS`, of one task at one preset.

    Returns: rank, model, means over seeds in percent with the ends of the 95 % interval of `heldout` (Student's t,
        NaN for a single seed), number of seeds, number of parameters.
    """
    from hyla_repro.results.effects import paired

    lines = []
    for name, part in runs.groupby("name"):
        effect = paired("", 100 * part["heldout"])
        lines.append({"model": name, "heldout": effect.value, "low": effect.low, "high": effect.high,
                      "test": 100 * part["test"].mean(), "seeds": effect.n,
                      "parameters": int(part["n_parameters"].iloc[0])})  # fmt: skip
    columns = ["model", "heldout", "low", "high", "test", "seeds", "parameters"]
    table = pd.DataFrame(lines, columns=columns).sort_values("heldout", ascending=False, ignore_index=True)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return what `ranked` gives as tables print it."""
    words = [
        f"{row.heldout:.1f}" + (f" ({row.low:.1f} to {row.high:.1f})" if row.seeds > 1 else "")
        for row in table.itertuples()
    ]
    return pd.DataFrame({
        "rank": table["rank"], "model": table["model"], "held-out tasks, %": [word.replace("-", "−") for word in words],
        "training tasks, %": table["test"].map("{:.1f}".format), "seeds": table["seeds"],
        "parameters": table["parameters"].map("{:,}".format),
    })  # fmt: skip


