"""The runs of the chapter on Aaren, and what is computed of their weights."""

from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.results.analysis import Analysis
from hyla_repro.studies.neighbour_runs import OF_AAREN, beside_controls, series_runs

SERIES_METHODS = ("softmax", "softmax_causal", "aaren")
# On our two tasks, in the order of tables and pictures.
ROWS = ("softmax", "softmax_causal", "aaren", "hyla", "hyla_learned_query")

CODES = Analysis("aaren_codes.csv", later("hyla_repro.studies.aaren.codes", "code_table"))
MATRIX = Analysis("aaren_code_matrix.csv", later("hyla_repro.studies.aaren.codes", "matrix_table"))


def all_runs(preset: str) -> list[Experiment]:
    """Return everything that the chapter shows."""
    return [*series_runs(preset, SERIES_METHODS), *beside_controls(preset, OF_AAREN)]


def shown(preset: str) -> list[Experiment]:
    """Return the models whose codes are taken apart: three seeds of both causal attentions on Japanese vowels."""
    return [run for run in series_runs(preset, ("softmax_causal", "aaren")) if run.seed <= 2]
