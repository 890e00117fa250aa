"""The runs of both tasks together: Table A1, and the control without attention dropout."""

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import ABLATIONS
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven


def table_a1(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks for every row of Table A1."""
    return fuzzy_logic.main(preset, ABLATIONS) + sraven.main(preset, ABLATIONS)


def dropout(preset: str) -> list[Experiment]:
    """Return runs of both tasks with and without attention dropout (Deviation D1)."""
    return fuzzy_logic.dropout(preset) + sraven.dropout(preset)
