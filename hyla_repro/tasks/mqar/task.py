"""Multi-query associative recall: batches, and the share of questions that are answered right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.counter_rng import CounterRNG, step_and_size
from hyla_repro.errors import choose, expect_shape
from hyla_repro.tasks.mqar.settings import MQARSettings

NOT_ASKED = -100  # the target that torch's cross-entropy leaves out


class MQARBatch(NamedTuple):
    """Token numbers, and at each question the value that is asked for; elsewhere NOT_ASKED = -100."""

    inputs: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]

    def to(self, device: torch.device | str) -> "MQARBatch":
        """Return the batch on a device."""
        return MQARBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class MQAR(MQARSettings):
    """The task generator of `MQARSettings`, which says what its arguments are."""

    def tables(self, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of the seed.

        Returns: seed (); waits (slot,), one over each slot's weight.
        Raises: ValueError for an unknown split.
        """
        choose("split", split, ("train", *self.evaluation_splits))
        waits = torch.arange(1, self.n_tokens // 2 - self.n_pairs + 1, dtype=torch.float64) ** (1.0 - self.power)
        return {"seed": torch.tensor(self.seed, device=device), "waits": waits.to(device)}

    def draw(self, split: str, tables: Mapping[str, Tensor], step: int | Tensor, size: int) -> MQARBatch:
        """Return the batch of a step from `tables`: tensor operations alone, for vmap, the compiler and CUDA graphs."""
        n, half, device = self.n_pairs, self.vocab_size // 2, tables["seed"].device
        of_keys, of_values, of_slots = (CounterRNG(tables["seed"], f"mqar/{split}/{what}")
                                        for what in ("keys", "values", "slots"))  # fmt: skip
        keys = 1 + of_keys.permutations(step, size, half - 1, device)[:, :n]
        values = half + of_values.permutations(step, size, self.vocab_size - half, device)[:, :n]
        # Exponential waiting times: the first are a weighted draw without replacement. Their float64 settles the order.
        waits = tables["waits"]
        uniform = of_slots.uniform(step, (size, *waits.shape), device).to(torch.float64) + 2.0**-25
        slots = (-uniform.log() * waits).argsort(stable=True, dim=-1)[:, :n]
        questions = 2 * (n + slots)
        pairs = rearrange([keys, values], "two b pair -> b (pair two)")
        empty = torch.zeros(size, self.n_tokens - 2 * n, dtype=torch.int64, device=device)
        inputs = torch.cat([pairs, empty], dim=-1).scatter(-1, questions, keys)
        asked = torch.full((size, self.n_tokens), NOT_ASKED, dtype=torch.int64, device=device)
        return MQARBatch(inputs, asked.scatter(-1, questions, values))

    def batch(self, split: str, step: int, size: int, device: torch.device | str = "cpu") -> MQARBatch:
        """Return the batch of this split and step; a larger size only appends sequences.

        Raises: ValueError for an unknown split, or a step or size that is not whole or out of range.
        """
        step, size = step_and_size(step, size)
        return self.draw(split, self.tables(split, device), step, size)

    def loss(self, outputs: Float[Tensor, "b t v"], batch: MQARBatch) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the questions, in nats.

        Raises: ValueError for outputs of another shape than (b, t, v).
        """
        self._check(outputs, batch)
        return F.cross_entropy(rearrange(outputs, "b t v -> (b t) v"), rearrange(batch.targets, "b t -> (b t)"))

    def score(self, outputs: Float[Tensor, "b t v"], batch: MQARBatch) -> Float[Tensor, " b"]:
        """Return the share of each sequence's questions whose value has the largest logit.

        Raises: ValueError for outputs of another shape than (b, t, v).
        """
        self._check(outputs, batch)
        return (outputs.argmax(-1) == batch.targets).sum(-1) / self.n_pairs

    def _check(self, outputs: Tensor, batch: MQARBatch) -> None:
        expect_shape("outputs", outputs.shape, (*batch.targets.shape, self.vocab_size), "(sequence, token, vocabulary)")
