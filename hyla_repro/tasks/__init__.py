"""Task generators: a batch is a pure function of (task, split, seed, step)."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hyla_repro.tasks.fuzzy_logic import FuzzyLogic, FuzzyLogicBatch
from hyla_repro.tasks.sraven import SRaven, SRavenBatch


@runtime_checkable
class Batch(Protocol):
    """What every batch has; tasks add the labels that describe its problems (terms, rules)."""

    @property
    def inputs(self) -> Float[Tensor, "b t n_inputs"]: ...

    @property
    def targets(self) -> Tensor: ...


@runtime_checkable
class Task(Protocol):
    """What training and evaluation ask of a task; tasks know no models."""

    @property
    def seed(self) -> int: ...

    @property
    def n_tokens(self) -> int: ...

    @property
    def n_inputs(self) -> int: ...

    @property
    def n_outputs(self) -> int: ...

    @property
    def n_read(self) -> int:
        """How many last tokens are read out."""

    @property
    def evaluation_splits(self) -> tuple[str, ...]: ...

    @property
    def stackable(self) -> tuple[str, ...]:
        """The settings, besides the seed, that runs of one stack may differ in."""

    def tables(self, split: str, device: Any = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of the seed and the split, in equal shapes for every run of a stack."""

    def draw(self, split: str, tables: Mapping[str, Tensor], step: Any, size: int) -> Any:
        """Return the batch of a step from `tables`, by tensor operations alone."""

    def batch(self, split: str, step: int, size: int, device: Any = "cpu") -> Batch: ...

    def loss(self, outputs: Tensor, batch: Any) -> Float[Tensor, ""]: ...

    def score(self, outputs: Tensor, batch: Any) -> Float[Tensor, " b"]:
        """Return the task's metric for each sequence; its mean over a split is what figures show."""


TASKS: dict[str, type[FuzzyLogic] | type[SRaven]] = {"fuzzy_logic": FuzzyLogic, "sraven": SRaven}

__all__ = ["TASKS", "Batch", "FuzzyLogic", "FuzzyLogicBatch", "SRaven", "SRavenBatch", "Task"]
