"""The runs of both tasks together: Table A1, and the control without attention dropout."""

from collections.abc import Callable
from itertools import product

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import ABLATIONS
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven
from hyla_repro.studies.study import SEEDS


def table_a1(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks for every row of Table A1."""
    return fuzzy_logic.main(preset, ABLATIONS) + sraven.main(preset, ABLATIONS)


def dropout(preset: str) -> list[Experiment]:
    """Return runs of both tasks with and without attention dropout (Deviation D1)."""
    builds: tuple[Callable[..., Experiment], ...] = (fuzzy_logic.fuzzy_logic, sraven.sraven)
    points = product(builds, ("softmax", "hyla"), (0.1, 0.0), SEEDS[preset])
    return [build(preset, method, seed, attention_dropout=rate) for build, method, rate, seed in points]
