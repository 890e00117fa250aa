"""Relative position bias, with the buckets that the authors' release really uses (section 3 of the paper); absolute."""

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


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

    def forward(self, n_tokens: int) -> Float[Tensor, "t m"]:
        """Return the vectors of the first n_tokens positions.

        Raises: ValueError for more tokens than the table has positions.
        """
        if n_tokens > len(self.table):
            raise ValueError(f"{n_tokens} tokens exceed n_positions={len(self.table)} of this model")
        return self.table[:n_tokens]


class RelativePositionBias(nn.Module):
    """One learned score per head and bucket, added to the scores of every layer's own table (T5 style)."""

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
        if n_tokens > self.table.shape[1]:
            raise ValueError(f"{n_tokens} tokens exceed n_positions={self.table.shape[1]} of this model")
        chosen = self.one_hot[n_tokens - (last or n_tokens) : n_tokens, :n_tokens]
        # Exactly table[:, buckets], as a product: for the gradient of indexing, torch 2.13's compiler writes out of
        # bounds at some sizes (3 heads, 7 positions, 2 threads).
        return einsum(self.table, chosen, "h bucket, q k bucket -> h q k").unsqueeze(0)
