"""The runs of both tasks together: Table A1, those with probed codes, and the control without attention dropout."""

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import ABLATIONS
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven


def table_a1(preset: str) -> list[Experiment]:
    """Return the main comparison of both tasks for every row of Table A1."""
    return fuzzy_logic.main(preset, ABLATIONS) + sraven.main(preset, ABLATIONS)


def codes(preset: str) -> list[Experiment]:
    """Return the runs of both tasks whose latent codes were probed, of the depth of the main comparison."""
    depth = sraven.SIZES[preset].n_layers
    return fuzzy_logic.latent(preset) + [run for run in sraven.codes(preset) if run.model.n_layers == depth]


def dropout(preset: str) -> list[Experiment]:
    """Return runs of both tasks with and without attention dropout (Deviation D1)."""
    return fuzzy_logic.dropout(preset) + sraven.dropout(preset)
