"""Language modelling: windows of a text, each token asked for the next (section 6 of the paper)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.counter_rng import CounterRNG, step_and_size
from hyla_repro.errors import choose, expect_shape
from hyla_repro.tasks.language import texts
from hyla_repro.tasks.language.settings import LanguageSettings


class LanguageBatch(NamedTuple):
    """Windows of a text: token numbers, and for each the one that follows it."""

    inputs: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]

    def to(self, device: torch.device | str) -> "LanguageBatch":
        """Return the batch on a device."""
        return LanguageBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class Language(LanguageSettings):
    """The task generator of `LanguageSettings`, which says what its arguments are.

    Windows start anywhere in a split, also within a word and before the end of a play; each is drawn on its own, so
    that a token may be seen again while others were not seen yet. Splits: `train`, and those that the text has of
    `validation`, `test` and `heldout`, which is another writer.
    """

    def tables(self, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of this split.

        Returns: seed (); tokens (n,), the numbers' bits as int16. A split that is mapped into memory stays so on a CPU
            and is copied to a GPU as a whole.
        Raises: ValueError for an unknown split, or one that is shorter than a window.
        """
        choose("split", split, ("train", *self.evaluation_splits))
        numbers = texts.tokens(self.text, self.tokenizer, split)
        if len(numbers) <= self.context:
            raise ValueError(
                f"context={self.context} is longer than the {split} split of {self.text!r}, which has {len(numbers)} "
                f"tokens: use {len(numbers) - 1} or less"
            )
        return {"seed": torch.tensor(self.seed, device=device), "tokens": _on_device(numbers, str(device))}

    def draw(self, split: str, tables: Mapping[str, Tensor], step: int | Tensor, size: int) -> LanguageBatch:
        """Return the batch of a step from `tables`: tensor operations alone, for vmap, the compiler and CUDA graphs."""
        numbers = tables["tokens"]
        stream = CounterRNG(tables["seed"], f"language/{split}/windows")
        first = stream.large_integers(step, (size, 1), numbers.shape[-1] - self.context, numbers.device)
        window = numbers[first + torch.arange(self.context + 1, device=numbers.device)]
        # int16 holds the bits of uint16, for which torch has few operations.
        drawn = window.to(torch.int64) & 0xFFFF
        return LanguageBatch(drawn[:, :-1], drawn[:, 1:])

    def batch(self, split: str, step: int, size: int, device: torch.device | str = "cpu") -> LanguageBatch:
        """Return the batch of this split and step; a larger size only appends windows.

        Raises: ValueError for an unknown split, or a step or size that is not whole or out of range.
        """
        step, size = step_and_size(step, size)
        return self.draw(split, self.tables(split, device), step, size)

    def loss(self, outputs: Float[Tensor, "b t v"], batch: LanguageBatch) -> Float[Tensor, ""]:
        """Return the mean cross-entropy, in nats per token.

        Raises: ValueError for outputs of another shape than (b, t, v).
        """
        self._check(outputs, batch)
        return F.cross_entropy(rearrange(outputs, "b t v -> (b t) v"), rearrange(batch.targets, "b t -> (b t)"))

    def score(self, outputs: Float[Tensor, "b t v"], batch: LanguageBatch) -> Float[Tensor, " b"]:
        """Return the mean cross-entropy of each window, in nats per token: lower is better.

        Raises: ValueError for outputs of another shape than (b, t, v).
        """
        self._check(outputs, batch)
        losses = F.cross_entropy(rearrange(outputs, "b t v -> b v t"), batch.targets, reduction="none")
        return losses.mean(-1)

    def bits_per_character(self, nats_per_token: float, split: str) -> float:
        """Return a loss in a unit that does not depend on the tokenizer.

        Args:
            nats_per_token: the loss, as `score` and `loss` have it.
            split: where it was measured, which says how many characters a token has on average.
        """
        return nats_per_token / math.log(2) / texts.characters_per_token(self.text, self.tokenizer, split)

    def encode(self, text: str) -> Int[Tensor, " t"]:
        """Return the tokens of a text, such as a prompt.

        Raises: ValueError naming characters that the alphabet lacks.
        """
        return torch.from_numpy(texts.codec(self.text, self.tokenizer).encode(text).astype("int64"))

    def decode(self, tokens: Int[Tensor, " t"]) -> str:
        """Return the text of tokens."""
        return texts.codec(self.text, self.tokenizer).decode(tokens.tolist())

    def _check(self, outputs: Tensor, batch: LanguageBatch) -> None:
        expect_shape("outputs", outputs.shape, (*batch.targets.shape, self.vocab_size), "(window, token, vocabulary)")


# One tensor for all runs of a process, which a stack then need not copy for each of its runs. The numbers are kept with
# it, since another array could get the address of one that is gone.
_TENSORS: dict[tuple[int, str], tuple[np.ndarray, Tensor]] = {}


def _on_device(numbers: np.ndarray, device: str) -> Int[Tensor, " n"]:
    key = (id(numbers), device)
    if key not in _TENSORS:
        _TENSORS[key] = (numbers, torch.from_numpy(numbers.view("int16")).to(device))
    return _TENSORS[key][1]
