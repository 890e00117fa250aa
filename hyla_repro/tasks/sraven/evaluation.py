"""Fixed evaluation sets of SRAVEN: the same problems for everybody's models, as files with digests, and their score."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from torch import Tensor

from hyla_repro.errors import DataError, choose
from hyla_repro.files import sha256, write_atomically
from hyla_repro.tasks.evaluation import PROBLEMS, first_problems
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES
from hyla_repro.tasks.sraven.task import SPLITS, SRaven, SRavenBatch

FILE = "sraven.safetensors"


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Problems by split; a larger set only appends to a smaller one. Sets are the same if their digests are.

    Args:
        task: the settings that the problems are drawn with.
        problems: split to batch. Scores of a run are means over the same problems.
    """

    task: SRaven
    problems: dict[str, SRavenBatch]

    @property
    def digest(self) -> str:
        """The SHA-256 of all tokens and answers, the same however they are stored."""
        content = hashlib.sha256()
        for split in sorted(self.problems):
            grid = self.task.panels(self.problems[split]).to(torch.uint8)
            content.update(split.encode() + grid.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()


def evaluation_set(
    task: SRaven | None = None, splits: Sequence[str] = SRaven.evaluation_splits, problems: int = PROBLEMS
) -> EvaluationSet:
    """Return the first problems of the evaluation streams of a task, `SRaven()` if None.

    Raises: ValueError for an unknown split, the split that is trained on, none at all, or fewer than one problem.
    """
    task = task or SRaven()
    return EvaluationSet(task, first_problems(task, splits, problems, SPLITS))


def score(
    predictions: Mapping[str, Any], evaluation: EvaluationSet | None = None, by: str = "problem"
) -> dict[str, float]:
    """Return the accuracy of predictions for each split: a problem counts when all its symbols are right.

    Args:
        predictions: split to whole numbers (problems, k), tensors or arrays; any of the splits of the set.
        evaluation: the problems, in the order of the predictions; `evaluation_set()` if None.
        by: "problem", or "symbol" for the share of single symbols that are right.

    Raises: ValueError for predictions that are no mapping, of an unknown split, or of a wrong shape, kind or value.
    """
    choose("by", by, ("problem", "symbol"))
    evaluation = evaluation or evaluation_set()
    if not isinstance(predictions, Mapping) or not predictions:
        raise ValueError(
            f"predictions of type {type(predictions).__name__} hold no split: "
            f"give a mapping from {' or '.join(evaluation.problems)} to whole numbers (problems, k)"
        )
    accuracy = {}
    for split, given in predictions.items():
        targets = evaluation.problems[choose("split", split, evaluation.problems)].targets
        right = _checked(given, split, targets, evaluation.task.n_values) == targets
        accuracy[split] = (right.all(-1) if by == "problem" else right).double().mean().item()
    return accuracy


def _checked(given: Any, split: str, targets: Int[Tensor, "n k"], n_values: int) -> Int[Tensor, "n k"]:
    name = f"predictions[{split!r}]"
    try:
        values = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given)).detach().cpu()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of whole numbers: {error}") from error
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(
            f"{name} has dtype {values.dtype}: give whole numbers from 0 to {n_values - 1}; of logits, the argmax"
        )
    if values.shape != targets.shape:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}: this evaluation set needs {tuple(targets.shape)}, "
            "one row per problem and one column per symbol of the last panel"
        )
    values = values.to(torch.int64)
    wrong = ((values < 0) | (values >= n_values)).nonzero().tolist()
    if wrong:
        row, column = wrong[0]
        raise ValueError(
            f"{name} holds {values[row, column].item()} at problem {row}, symbol {column}: "
            f"use 0 to {n_values - 1} ({len(wrong)} are out of range)"
        )
    return values


# --- files ---------------------------------------------------------------------------------------------------


def export(
    folder: Path,
    task: SRaven | None = None,
    splits: Sequence[str] = SRaven.evaluation_splits,
    problems: int = PROBLEMS,
) -> str:
    """Write an evaluation set into a folder, and return the SHA-256 of its file.

    sraven.safetensors holds, as unsigned bytes, SPLIT/panels (problems, row, column, k), the whole grids; SPLIT/rules
    (problems, k) and SPLIT/permutations (problems, column, k). The answer is the last panel. Its digest stands in
    sraven.safetensors.sha256, which `sha256sum --check` reads.

    Raises: ValueError as `evaluation_set` does; OSError naming the file that cannot be written.
    """
    drawn = evaluation_set(task, splits, problems)
    tensors: dict[str, Tensor] = {}
    for split, batch in drawn.problems.items():
        parts = {"panels": drawn.task.panels(batch), "rules": batch.rules, "permutations": batch.permutations}
        tensors |= {f"{split}/{name}": part.to(torch.uint8).contiguous() for name, part in parts.items()}
    # One entry only: safetensors writes several in any order.
    content = safetensors.torch.save(tensors, metadata={"task": json.dumps(asdict(drawn.task), sort_keys=True)})
    digest = sha256(content)
    write_atomically(Path(folder) / FILE, content)
    write_atomically(Path(folder) / f"{FILE}.sha256", f"{digest}  {FILE}\n".encode())
    return digest


def load(folder: Path) -> EvaluationSet:
    """Return an exported evaluation set.

    The digest of the file tells damage; that of the set, `EvaluationSet.digest`, tells whether it is the set that
    others were scored on.

    Raises: DataError naming a file that is missing, is not what its digest says, or holds something else.
    """
    path = Path(folder) / FILE
    try:
        content, digest = path.read_bytes(), path.with_name(f"{FILE}.sha256").read_text().split()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise DataError(f"{path} or its digest cannot be read ({error}): export it again") from error
    if sha256(content) != digest:
        raise DataError(f"{path} is not what {FILE}.sha256 says: export it again, or fetch both files again")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        task, tensors = SRaven(**json.loads(header["__metadata__"]["task"])), safetensors.torch.load(content)
        splits = {choose("split", name.split("/")[0], SPLITS) for name in tensors}
        problems = {split: _batch(task, tensors, split) for split in SPLITS if split in splits}
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} holds no evaluation set ({error!r}): export it again") from error
    return EvaluationSet(task, problems)


def _batch(task: SRaven, tensors: Mapping[str, Tensor], split: str) -> SRavenBatch:
    panels, rules, permutations = (tensors[f"{split}/{name}"] for name in ("panels", "rules", "permutations"))
    grid, k, n = task.grid_size, task.n_features, len(panels)
    for name, tensor, shape, end in (
        ("panels", panels, (n, grid, grid, k), task.n_values),
        ("rules", rules, (n, k), len(SRAVEN_RULES)),
        ("permutations", permutations, (n, grid, k), k),
    ):
        if tensor.dtype != torch.uint8 or tensor.shape != shape or (tensor.int() >= end).any():
            raise ValueError(f"{split}/{name} is not {shape} of unsigned bytes below {end}")
    if (permutations.sort(-1).values != torch.arange(k)).any():
        raise ValueError(f"{split}/permutations holds a row that is no permutation")
    return task.pack(panels.long(), rules.long(), permutations.long())
