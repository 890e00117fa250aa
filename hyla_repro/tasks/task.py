"""What settings, generators and batches of a task have, whichever task it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@runtime_checkable
class TaskSettings(Protocol):
    """The settings of a task: a frozen dataclass, without torch, that refuses what cannot be."""

    @property
    def seed(self) -> int: ...

    @property
    def version(self) -> int:
        """Settings, split, step and size of one version draw one batch forever; problems that change raise it.

        `hyla_repro.tasks.digests` says what the evaluation sets of each version are.
        """

    @property
    def n_tokens(self) -> int: ...

    @property
    def model_sizes(self) -> dict[str, int]:
        """The fields of a `TransformerConfig` that follow from the task."""

    @property
    def n_read(self) -> int:
        """How many last tokens are read out."""

    @property
    def metric(self) -> str:
        """What the scores are called."""

    @property
    def short_name(self) -> str:
        """What the task is called in the names of trained models."""

    @property
    def summary(self) -> str:
        """The settings in a few words, but for the seed."""

    @property
    def names_model_size(self) -> bool:
        """Whether figures vary the size of the model, so that names and tables of runs need it."""

    @property
    def evaluation_splits(self) -> tuple[str, ...]: ...

    @property
    def selected_by(self) -> str:
        """The split by whose score the best optimiser settings of a method are chosen."""

    @property
    def lower_is_better(self) -> bool: ...

    @property
    def scale(self) -> float:
        """By what tables and figures multiply a score: 100 for shares, which they show in percent."""

    @property
    def stackable(self) -> tuple[str, ...]:
        """The settings, besides the seed, that runs of one stack may differ in."""


@runtime_checkable
class Batch(Protocol):
    """What every batch has; tasks add the labels that describe its problems (terms, rules).

    A batch with a field `padding` (b, t), True where a sequence has ended, has those tokens hidden from attention.
    """

    @property
    def inputs(self) -> "Tensor":
        """Vectors (b, t, n_inputs), or token numbers (b, t)."""

    @property
    def targets(self) -> "Tensor": ...

    def to(self, device: Any) -> "Batch":
        """Return the batch on a device."""


@runtime_checkable
class Task(TaskSettings, Protocol):
    """What training and evaluation ask of a task's generator, which is its own settings; tasks know no models."""

    def tables(self, split: str, device: Any = "cpu") -> "dict[str, Tensor]":
        """Return what `draw` must know of the seed and the split, in equal shapes for every run of a stack."""

    def draw(self, split: str, tables: "Mapping[str, Tensor]", step: Any, size: int) -> Any:
        """Return the batch of a step from `tables`, by tensor operations alone."""

    def batch(self, split: str, step: int, size: int, device: Any = "cpu") -> Batch: ...

    def loss(self, outputs: "Tensor", batch: Any) -> "Float[Tensor, '']": ...

    def score(self, outputs: "Tensor", batch: Any) -> "Float[Tensor, ' b']":
        """Return the task's metric for each sequence; its mean over a split is what figures show."""
