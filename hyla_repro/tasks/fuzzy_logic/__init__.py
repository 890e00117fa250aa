"""Fuzzy logic functions: in-context regression of compositional functions (section 4 of the paper)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.fuzzy_logic.task import (
        SPLITS,
        FuzzyLogic,
        FuzzyLogicBatch,
        evaluate,
        formula,
        function_images,
        split_matrix,
    )

__all__ = ["SPLITS", "FuzzyLogic", "FuzzyLogicBatch", "evaluate", "formula", "function_images", "split_matrix"]

__getattr__, __dir__ = exports(__name__, dict.fromkeys(__all__, "hyla_repro.tasks.fuzzy_logic.task"))
