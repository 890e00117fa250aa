"""Where tokens stand: relative position bias, with the buckets that the release really uses, rotary and absolute.

A relative or rotary position takes the number of tokens so far and how many of the last are queries. What it returns is
the argument of HypernetworkAttention that its `argument` names.
"""

from collections.abc import Callable

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention.projections import Heads
from hyla_repro.models.config import TransformerConfig


def relative_position_buckets(n_positions: int) -> Int[Tensor, "q k"]:
    """Return the bucket of every query-key distance n = max(q - k, 0) for a sequence of n_positions tokens.

    Distances below n_positions // 2 have a bucket each, larger ones are spaced logarithmically.

    Raises: ValueError for fewer than 2 positions, where half of them would be none.
    Source: authors' models/position.py with bidirectional=False.
    """
    if n_positions < 2:
        raise ValueError(f"n_positions={n_positions} is too short for relative positions: use at least 2")
    exact = n_positions // 2
    position = np.arange(n_positions)
    # Deviation D2: attention is bidirectional but buckets are not, so a query shares bucket 0 with its whole right.
    distance = np.maximum(position[:, None] - position[None, :], 0)
    # float32 throughout, as in the release: a different rounding moves whole distances to another bucket.
    ratio = distance.astype(np.float32) / np.float32(exact) + np.finfo(np.float32).eps
    growth = np.log(ratio) / np.log(np.float32(n_positions / exact)) * np.float32(n_positions - exact)
    spaced = np.minimum(exact + growth.astype(np.int64), n_positions - 1)
    return torch.from_numpy(np.where(distance < exact, distance, spaced))


class AbsolutePosition(nn.Module):
    """One learned vector per position, added to the embedded tokens, for attention that takes no bias for pairs."""

    def __init__(self, d_model: int, n_positions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_positions, d_model))

    def forward(self, n_tokens: int, last: int | None = None) -> Float[Tensor, "t m"]:
        """Return the vectors of the last `last` (all if None) of n_tokens positions.

        Raises: ValueError for more tokens than the table has positions.
        """
        _expect_room(n_tokens, len(self.table))
        return self.table[n_tokens - (last or n_tokens) : n_tokens]


class RelativePositionBias(nn.Module):
    """One learned score per head and bucket, added to the scores of every layer's own table (T5 style)."""

    argument = "score_bias"
    one_hot: Tensor

    def __init__(self, n_heads: int, n_positions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_heads, n_positions))
        one_hot = F.one_hot(relative_position_buckets(n_positions), n_positions).float()
        self.register_buffer("one_hot", one_hot, persistent=False)

    def forward(self, n_tokens: int, last: int | None = None) -> Float[Tensor, "1 h q k"]:
        """Return the bias of the last `last` queries (all if None) to n_tokens keys.

        Raises: ValueError for more tokens than the table has positions.
        """
        _expect_room(n_tokens, self.table.shape[1])
        chosen = self.one_hot[n_tokens - (last or n_tokens) : n_tokens, :n_tokens]
        # Exactly table[:, buckets], as a product: for the gradient of indexing, torch 2.13's compiler writes out of
        # bounds at some sizes (3 heads, 7 positions, 2 threads).
        return einsum(self.table, chosen, "h bucket, q k bucket -> h q k").unsqueeze(0)


class RotaryPosition(nn.Module):
    """Turns queries and keys by angles that grow with their position: scores then depend on distances alone.

    Channels i and i + d / 2 of a head are one complex number, which position p multiplies by
    exp(1j p 10000^(-2 i / d)). Halves rather than neighbours, because they are contiguous; which channels are paired
    only names the rows of W^query and W^key in another order.

    Args:
        d_head: width of a head's queries and keys, even.
        n_positions: how many positions there are angles for.

    Source: Su et al., RoFormer (2021), whose pairs are neighbours. The paper has rotary positions in language models
        and gives no base, the release has none.
    """

    argument = "rotate"
    turns: Tensor

    def __init__(self, d_head: int, n_positions: int) -> None:
        super().__init__()
        # In float64: in float32 an angle of thousands of radians is off by more than a number's rounding.
        angles = np.outer(np.arange(n_positions), 10_000.0 ** (-np.arange(0, d_head, 2) / d_head))
        turns = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)])).float()
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, n_tokens: int, last: int | None = None) -> Callable[[Heads], Heads]:
        """Return a function that turns heads of the last of n_tokens tokens, as many as it is given.

        Raises: ValueError for more tokens than there are positions.
        """
        _expect_room(n_tokens, self.turns.shape[1])

        def rotate(heads: Heads) -> Heads:
            cos, sin = self.turns[:, n_tokens - heads.shape[2] : n_tokens].to(heads.dtype)
            real, imaginary = heads.chunk(2, dim=-1)
            return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)

        return rotate


def _expect_room(n_tokens: int, n_positions: int) -> None:
    if n_tokens > n_positions:
        raise ValueError(f"{n_tokens} tokens exceed n_positions={n_positions} of this model")


def build_position(config: TransformerConfig) -> RelativePositionBias | RotaryPosition | None:
    """Return one layer's kind of position, None where tokens have absolute ones."""
    if config.absolute:
        return None
    if config.position == "rotary":
        return RotaryPosition(config.qk_dim // config.n_heads, config.n_positions)
    return RelativePositionBias(config.n_heads, config.n_positions)
