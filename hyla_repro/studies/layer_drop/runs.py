"""The models whose layers are dropped, and what is computed of their weights."""

from functools import lru_cache

from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.methods import METHODS
from hyla_repro.studies.language import runs as language
from hyla_repro.studies.sraven.runs import DEPTH, SEEDS, deep, sraven
from hyla_repro.studies.study import PRESETS, once

# Parts of training after which deep models keep their weights. Models of equal score are found among them.
KEPT = (0.025, 0.1, 0.3, 0.5, 0.75)

SCORES = Analysis("drop_scores.csv", later("hyla_repro.studies.layer_drop.codes", "score_table"), along=True)
CURVES = Analysis("drop_curves.csv", later("hyla_repro.studies.layer_drop.codes", "curve_table"), along=True)


def flat(preset: str) -> list[Experiment]:
    """Return SRAVEN's main comparison, whose subsets of modules can all be tried."""
    return [sraven(preset, method, seed) for seed in SEEDS[preset] for method in METHODS]


def characters(preset: str) -> list[Experiment]:
    """Return the language model of each method whose weights are committed."""
    return [run for run in language.shown(preset) if run.method in METHODS]


def deep_characters(preset: str) -> list[Experiment]:
    """Return the same with more layers, at the rates chosen for fewer; they keep their weights along training."""
    sizes = language.SIZES[preset]._replace(n_layers=DEPTH[preset])
    return [language.language(preset, run.method, run.seed, sizes=sizes) for run in characters(preset)]


def all_runs(preset: str) -> list[Experiment]:
    """Return everything that the chapter shows."""
    return once([*flat(preset), *deep(preset), *characters(preset), *deep_characters(preset)])


@lru_cache(maxsize=1)
def _deep() -> frozenset[str]:
    return frozenset(run.id for preset in PRESETS for run in (*deep(preset), *deep_characters(preset)))


def along(run: Experiment) -> tuple[int, ...]:
    """Return the steps whose weights a run keeps: those of KEPT for deep models, none for others."""
    return tuple(round(part * run.steps) for part in KEPT) if run.id in _deep() else ()
