"""SRAVEN: problems, a solver that finds every answer, fixed evaluation sets, and problems as text."""

from hyla_repro.tasks.sraven.evaluation import EvaluationSet, evaluation_set, export, load, score
from hyla_repro.tasks.sraven.ideal import beliefs, best_guess
from hyla_repro.tasks.sraven.rules import RULES
from hyla_repro.tasks.sraven.solver import (
    answer_sets,
    explanations,
    hypotheses,
    is_ambiguous,
    is_wholly_ambiguous,
)
from hyla_repro.tasks.sraven.task import SPLITS, SRaven, SRavenBatch
from hyla_repro.tasks.sraven.text import render

__all__ = [
    "RULES", "SPLITS", "EvaluationSet", "SRaven", "SRavenBatch", "answer_sets", "beliefs", "best_guess",
    "evaluation_set", "explanations", "export", "hypotheses", "is_ambiguous", "is_wholly_ambiguous", "load", "render",
    "score",
]  # fmt: skip
