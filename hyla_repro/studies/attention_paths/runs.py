"""The trained models whose heads the theory is asked about, and the tables of the chapter."""

from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.results.analysis import Analysis, Computed
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic

FIGURE = "paths"
# Methods whose layers are layers of the theory, given their codes; HYLA is, too, but for its nonlinearity.
SURROGATES = ("softmax", "linear", "hyla")

POINTS = Computed(
    "attention_paths.csv",
    later("hyla_repro.studies.attention_paths.chains", "points"),
    later("hyla_repro.studies.attention_paths.chains", "table"),
)
HEADS = Analysis("attention_paths_heads.csv", later("hyla_repro.studies.attention_paths.bridge", "head_table"))


def bridge(preset: str) -> list[Experiment]:
    """Return the fuzzy-logic models whose heads are scored: those whose codes are probed, and linear HYLA.

    Linear HYLA is trained for Table A1 alone, with 70 % of the combinations held out.
    """
    return [*fuzzy_logic.latent(preset), *fuzzy_logic.grid(preset, ("hyla_no_relu",), [(32, 0.7)])]
