"""What fixed evaluation sets of every task share: the first problems of its evaluation streams, split by split."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from hyla_repro.errors import choose

PROBLEMS = 10_000
# Evaluation of a trained run draws its sequences in steps of this size, so both see the same problems.
CHUNK = 500


def first_problems(task: Any, splits: Sequence[str], problems: int, known: Iterable[str]) -> dict[str, Any]:
    """Return a batch of each split; a larger number only appends to a smaller one.

    Raises: ValueError for an unknown split, the split that is trained on, none at all, or fewer than one problem.
    """
    names = list(known)
    if type(problems) is not int or problems < 1:
        raise ValueError(f"problems={problems!r} is no number of problems: use 1 or more")
    if not splits or isinstance(splits, str):
        raise ValueError(f"splits={splits!r} is no list of splits: use some of {', '.join(names)}")
    for split in splits:
        if choose("split", split, names) == "train":
            raise ValueError(
                "split='train' is what models are trained on: use 'test', fresh problems of the same tasks"
            )
    return {split: draw_problems(task, split, problems) for split in splits}


def draw_problems(task: Any, split: str, problems: int) -> Any:
    """Return the first problems of a split as one batch, drawn in steps of 500 as evaluation does.

    Raises: ValueError for an unknown split.
    """
    sizes = [min(CHUNK, problems - start) for start in range(0, problems, CHUNK)]
    batches = [task.batch(split, step, size) for step, size in enumerate(sizes)]
    return type(batches[0])(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def digest(task: Any, split: str, problems: int = PROBLEMS) -> str:
    """Return the SHA-256 of the first problems of a split: of all that their batch holds, by name and shape.

    Numbers are rounded to 1e-4 first, so that a processor's last digits do not count.

    Raises: ValueError for an unknown split.
    """
    content = hashlib.sha256()
    for name, part in draw_problems(task, split, problems)._asdict().items():
        content.update(f"{name} {tuple(part.shape)} ".encode())
        whole = (part.double() * 1e4).round() if part.is_floating_point() else part
        content.update(whole.numpy().astype("<i8").tobytes())
    return content.hexdigest()
