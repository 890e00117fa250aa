"""SRAVEN: problems, a solver that finds every answer, fixed evaluation sets, and problems as text."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
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
    from hyla_repro.tasks.sraven.splits import TRAIN_FRACTIONS, connected_split, rule_groups
    from hyla_repro.tasks.sraven.task import SPLITS, SRaven, SRavenBatch
    from hyla_repro.tasks.sraven.text import Prompt, parse_answer, prompt, render

__all__ = [
    "RULES", "SPLITS", "TRAIN_FRACTIONS", "EvaluationSet", "Prompt", "SRaven", "SRavenBatch", "answer_sets", "beliefs",
    "best_guess", "connected_split", "evaluation_set", "explanations", "export", "hypotheses", "is_ambiguous",
    "is_wholly_ambiguous", "load", "parse_answer", "prompt", "render", "rule_groups", "score",
]  # fmt: skip

_NAMES = {
    "evaluation": ("EvaluationSet", "evaluation_set", "export", "load", "score"),
    "ideal": ("beliefs", "best_guess"),
    "rules": ("RULES",),
    "solver": ("answer_sets", "explanations", "hypotheses", "is_ambiguous", "is_wholly_ambiguous"),
    "splits": ("TRAIN_FRACTIONS", "connected_split", "rule_groups"),
    "task": ("SPLITS", "SRaven", "SRavenBatch"),
    "text": ("Prompt", "parse_answer", "prompt", "render"),
}
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
)
