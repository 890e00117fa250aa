"""The runs of both tasks together: Table A1, those with probed codes, and controls of dropout and of seeds."""

from itertools import product
from typing import Any

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import ABLATIONS
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven

# What the seed of a run draws. Data are training batches, dropout masks and the problems of the evaluation.
PARTS = ("split", "first weights", "data")
OTHER_SEEDS = {"smoke": (1,), "laptop": (1, 2), "paper": (1, 2)}


def headline(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks, with all its seeds."""
    return fuzzy_logic.main(preset) + sraven.main(preset)


def table_a1(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks for every row of Table A1, all with the same seeds.

    Seeds differ in what they hold out, so rows are only comparable over seeds that all of them have.
    """
    return fuzzy_logic.comparison(preset, ABLATIONS) + sraven.comparison(preset, ABLATIONS)


def codes(preset: str) -> list[Experiment]:
    """Return the runs of both tasks whose latent codes were probed, of the depth of the main comparison."""
    depth = sraven.SIZES[preset].n_layers
    return fuzzy_logic.latent(preset) + [run for run in sraven.codes(preset) if run.model.n_layers == depth]


def dropout(preset: str) -> list[Experiment]:
    """Return runs of both tasks with and without attention dropout (Deviation D1)."""
    return fuzzy_logic.dropout(preset) + sraven.dropout(preset)


def seed_parts(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks at seed 0, and with one part of the seed drawn anew at a time."""
    methods = ("softmax", "hyla")
    first = [fuzzy_logic.fuzzy_logic(preset, method, 0) for method in methods]
    first += [sraven.sraven(preset, method, 0) for method in methods]
    return first + [_drawn_anew(run, part, seed) for seed, part, run in product(OTHER_SEEDS[preset], PARTS, first)]


def part_of(run: Experiment) -> str | None:
    """Return which part of seed 0 a run of `seed_parts` draws anew; None for one that draws none."""
    if run.seed:
        return "data"
    if "split_seed" in run.task:
        return "split"
    return None if run.init_seed is None else "first weights"


def _drawn_anew(run: Experiment, part: str, seed: int) -> Experiment:
    if part == "split":
        changes: dict[str, Any] = {"task": run.task | {"split_seed": seed}}
    elif part == "first weights":
        changes = {"init_seed": seed}
    else:
        changes = {"seed": seed, "init_seed": run.seed, "task": run.task | {"split_seed": run.seed}}
    return Experiment.model_validate(run.model_dump() | changes)
