"""The runs of the chapter on the primal-dual framework, and what is computed of their weights."""

from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.results.analysis import Analysis
from hyla_repro.studies.neighbour_runs import OF_PRIMAL_DUAL, beside_controls, series_runs

SERIES_METHODS = ("softmax", "softmax_bn", "softmax_sh", "softmax_bn_sh", "hyla")
# On our two tasks, in the order of tables and pictures.
ROWS = ("softmax", "softmax_bn", "softmax_sh", "softmax_bn_sh", "hyla", "hyla_bn", "hyla_sh")

DISTANCES = Analysis("head_distance.csv", later("hyla_repro.studies.primal_dual.codes", "distance_table"))


def all_runs(preset: str) -> list[Experiment]:
    """Return everything that the chapter shows."""
    return [*series_runs(preset, SERIES_METHODS), *beside_controls(preset, OF_PRIMAL_DUAL)]


def with_distances(preset: str) -> list[Experiment]:
    """Return the models whose heads are compared: every seed on Japanese vowels, with centred keys and without."""
    return series_runs(preset, ("softmax", "softmax_bn"))
