"""Fixed evaluation sets of fuzzy logic: the same sequences for everybody's models, and their score."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hyla_repro.errors import choose
from hyla_repro.tasks.evaluation import PROBLEMS, first_problems
from hyla_repro.tasks.fuzzy_logic.task import SPLITS, FuzzyLogic, FuzzyLogicBatch


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Sequences by split; a larger set only appends to a smaller one. Sets are the same if their digests are.

    Args:
        task: the settings that the sequences are drawn with.
        problems: split to batch. Scores of a run are means over the same sequences.
    """

    task: FuzzyLogic
    problems: dict[str, FuzzyLogicBatch]

    @property
    def digest(self) -> str:
        """The SHA-256 of all inputs and targets."""
        content = hashlib.sha256()
        for split in sorted(self.problems):
            content.update(split.encode())
            for part in (self.problems[split].inputs, self.problems[split].targets):
                content.update(part.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()


def evaluation_set(
    task: FuzzyLogic | None = None, splits: Sequence[str] = FuzzyLogic.evaluation_splits, problems: int = PROBLEMS
) -> EvaluationSet:
    """Return the first sequences of the evaluation streams of a task, `FuzzyLogic()` if None.

    Raises: ValueError for an unknown split, the split that is trained on, none at all, or fewer than one sequence.
    """
    task = task or FuzzyLogic()
    return EvaluationSet(task, first_problems(task, splits, problems, SPLITS))


def score(predictions: Mapping[str, Any], evaluation: EvaluationSet | None = None) -> dict[str, float]:
    """Return the mean R2 of predictions for each split, as `FuzzyLogic.score` has it for each sequence.

    Args:
        predictions: split to the values of the last tokens, (problems,) or (problems, 1), tensors or arrays; any of the
            splits of the set.
        evaluation: the sequences, in the order of the predictions; `evaluation_set()` if None.

    Raises: ValueError for predictions that are no mapping, of an unknown split, of a wrong shape, or not finite.
    """
    evaluation = evaluation or evaluation_set()
    if not isinstance(predictions, Mapping) or not predictions:
        raise ValueError(
            f"predictions of type {type(predictions).__name__} hold no split: "
            f"give a mapping from {' or '.join(evaluation.problems)} to numbers (problems,)"
        )
    scores = {}
    for split, given in predictions.items():
        batch = evaluation.problems[choose("split", split, evaluation.problems)]
        outputs = rearrange(_checked(given, split, len(batch.targets)), "b -> b 1 1")
        scores[split] = evaluation.task.score(outputs, batch).double().mean().item()
    return scores


def _checked(given: Any, split: str, n: int) -> Float[Tensor, " n"]:
    name = f"predictions[{split!r}]"
    try:
        values = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given)).detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from error
    if tuple(values.shape) not in ((n,), (n, 1)):
        raise ValueError(f"{name} has shape {tuple(values.shape)}: this evaluation set needs ({n},), one per sequence")
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        raise ValueError(f"{name} is not finite at sequence {wrong[0, 0].item()} ({len(wrong)} are not)")
    return values.reshape(n)
