"""Tasks as other libraries read them: a stream for torch's `DataLoader`, and a table of Hugging Face `datasets`."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from hyla_repro.counter_rng import MAX_STEP
from hyla_repro.errors import MissingPackageError, choose, whole_number
from hyla_repro.tasks.evaluation import draw_problems
from hyla_repro.tasks.registry import TASKS

if TYPE_CHECKING:
    from datasets import Dataset


class Batches(IterableDataset):
    """The batches of a split, step by step; workers share them without a word, since a batch is a function of its step.

    Worker i of n takes every n-th step from the i-th on. Read by `DataLoader(batches, batch_size=None, num_workers=n)`,
    they come in the same order and with the same content for every n.

    Args:
        task: settings that draw the batches; their seed is the stream's.
        start: the first step, from 0: what was read before, when a stream is taken up again.
        steps: how many; without end if None.

    Raises: ValueError for an unknown split, a size below 1, or a step that is out of range, once it is drawn.
    """

    def __init__(self, task: Any, split: str, batch_size: int, start: int = 0, steps: int | None = None) -> None:
        self.task, self.split = task, split
        self.batch_size = whole_number("batch_size", batch_size, 1, "a batch has at least one sequence")
        self.start = whole_number("start", start, 0, "it is the first step", MAX_STEP)
        self.steps = None if steps is None else whole_number("steps", steps, 0, "it is how many batches there are")
        task.tables(split)

    def __len__(self) -> int:
        """Return how many batches all workers have together.

        Raises: TypeError for a stream without end.
        """
        if self.steps is None:
            raise TypeError("a stream without `steps` has no length")
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        worker, tables = get_worker_info(), self.task.tables(self.split)
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in islice(count(self.start), first, self.steps, stride):
            yield self.task.draw(self.split, tables, step, self.batch_size)


def as_iterable(
    task: Any, split: str = "train", seed: int | None = None, *, batch_size: int = 128, start: int = 0,
    steps: int | None = None,
) -> Batches:  # fmt: skip
    """Return the batches of a split as torch's `IterableDataset`, the same that a run of this seed is trained on.

    Args:
        task: one such as `SRaven(n_features=2)`, or the name of one in `TASKS`, with its default settings.
        seed: instead of the task's own.

    The other arguments and the errors are those of `Batches`; ValueError for an unknown name, too.
    """
    made = TASKS[choose("task", task, TASKS)]() if isinstance(task, str) else task
    return Batches(made if seed is None else replace(made, seed=seed), split, batch_size, start, steps)


def as_dataset(task: Any, split: str, n: int) -> "Dataset":
    """Return the first n problems of a split as a table of `datasets`, with a column for every part of a batch.

    Those of the evaluation splits are what our models are scored on. A larger n only appends rows.

    Args:
        task: as `as_iterable` takes it.

    Returns: a `Dataset` whose features have the batch's names, kinds of numbers and lengths, and whose `info` has the
        settings and the version of the task.
    Raises: ValueError for an unknown task or split, or n below 1; MissingPackageError without `datasets`.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError("a table needs the package datasets: `pip install 'hyla-repro[datasets]'`") from error
    made = TASKS[choose("task", task, TASKS)]() if isinstance(task, str) else task
    n = whole_number("n", n, 1, "a table has at least one row")
    parts = draw_problems(made, split, n)._asdict()
    info = datasets.DatasetInfo(
        description=f"{made}, split {split}", version=f"{made.version}.0.0",
        features=datasets.Features({name: _feature(part) for name, part in parts.items()}),
    )  # fmt: skip
    return datasets.Dataset.from_dict({name: part.numpy() for name, part in parts.items()}, info.features, info)


def _feature(part: torch.Tensor) -> Any:
    """Return the kind of a column, given the tensor with a row of it for each problem."""
    import datasets

    kind = datasets.Value(str(part.dtype).removeprefix("torch."))
    for length in reversed(part.shape[1:]):
        kind = datasets.Sequence(kind, length=length)
    return kind
