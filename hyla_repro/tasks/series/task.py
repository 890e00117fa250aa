"""Time-series classification: batches of the archive's series, and the mean read-out of the steps that they have."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.counter_rng import CounterRNG, step_and_size
from hyla_repro.errors import choose, expect_shape
from hyla_repro.tasks.series.files import Split, read
from hyla_repro.tasks.series.settings import SeriesSettings


class SeriesBatch(NamedTuple):
    """Standardised series, their classes, and True where a series has ended and is filled up with zeros."""

    inputs: Float[Tensor, "b t c"]
    targets: Int[Tensor, " b"]
    padding: Bool[Tensor, "b t"]

    def to(self, device: torch.device | str) -> "SeriesBatch":
        """Return the batch on a device."""
        return SeriesBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class Series(SeriesSettings):
    """The task generator of `SeriesSettings`, which says what its arguments are.

    Training batches are drawn from the training series with replacement; `test` is read from its first series on.
    Channels are standardised by the mean and the standard deviation of all steps of the training series.
    """

    def tables(self, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of this split.

        Returns: seed (); values (n, t, c), standardised; padding (n, t); classes (n,).
        Raises: ValueError for an unknown split, MissingPackageError without the package that has the files.
        """
        choose("split", split, ("train", *self.evaluation_splits))
        series = _standardised(self.data_set, split)
        values = torch.from_numpy(series.values.astype("float32"))
        tables = {"seed": torch.tensor(self.seed), "values": values, "padding": torch.from_numpy(series.padding),
                  "classes": torch.from_numpy(series.classes)}  # fmt: skip
        return {name: table.to(device) for name, table in tables.items()}

    def draw(self, split: str, tables: Mapping[str, Tensor], step: int | Tensor, size: int) -> SeriesBatch:
        """Return the batch of a step from `tables`: tensor operations alone, for vmap, the compiler and CUDA graphs."""
        count, device = tables["classes"].shape[-1], tables["classes"].device
        if split == "train":
            chosen = CounterRNG(tables["seed"], "series/train").integers(step, (size,), count, device)
        else:
            chosen = (torch.arange(size, device=device) + step * size) % count
        return SeriesBatch(tables["values"][chosen], tables["classes"][chosen], tables["padding"][chosen])

    def batch(self, split: str, step: int, size: int, device: torch.device | str = "cpu") -> SeriesBatch:
        """Return the batch of this split and step.

        Raises: ValueError for an unknown split, or a step or size that is not whole or out of range.
        """
        step, size = step_and_size(step, size)
        return self.draw(split, self.tables(split, device), step, size)

    def loss(self, outputs: Float[Tensor, "b t k"], batch: SeriesBatch) -> Float[Tensor, ""]:
        """Return the mean cross-entropy in nats.

        Raises: ValueError for outputs of another shape than (b, t, k).
        """
        return F.cross_entropy(self.logits(outputs, batch), batch.targets)

    def score(self, outputs: Float[Tensor, "b t k"], batch: SeriesBatch) -> Float[Tensor, " b"]:
        """Return 1 for each series whose class has the largest logit, else 0.

        Raises: ValueError for outputs of another shape than (b, t, k).
        """
        return (self.logits(outputs, batch).argmax(-1) == batch.targets).float()

    def logits(self, outputs: Float[Tensor, "b t k"], batch: SeriesBatch) -> Float[Tensor, "b k"]:
        """Return the mean output over the steps that a series has, which is the read-out of its mean token.

        Raises: ValueError for outputs of another shape than (b, t, k).
        """
        shape = (*batch.padding.shape, self.facts.n_classes)
        expect_shape("outputs", outputs.shape, shape, "(series, step, class)")
        visible = (~batch.padding).to(outputs.dtype)
        return einsum(outputs, visible / visible.sum(-1, keepdim=True), "b t k, b t -> b k")


@lru_cache(maxsize=4)
def _standardised(data_set: str, split: str) -> Split:
    train = read(data_set, "train")
    series = train if split == "train" else read(data_set, split)
    steps = train.values[~train.padding]
    values = (series.values - steps.mean(0)) / steps.std(0)
    return series._replace(values=np.where(series.padding[..., None], 0.0, values))
