"""Fuzzy logic functions: in-context regression of compositional functions (section 4 of the paper)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.fuzzy_logic.evaluation import EvaluationSet, evaluation_set, score
    from hyla_repro.tasks.fuzzy_logic.task import (
        SPLITS,
        FuzzyLogic,
        FuzzyLogicBatch,
        evaluate,
        formula,
        function_images,
        split_matrix,
    )

__all__ = [
    "SPLITS", "EvaluationSet", "FuzzyLogic", "FuzzyLogicBatch", "evaluate", "evaluation_set", "formula",
    "function_images", "score", "split_matrix",
]  # fmt: skip

_OF_SETS = ("EvaluationSet", "evaluation_set", "score")
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{'evaluation' if name in _OF_SETS else 'task'}" for name in __all__}
)
