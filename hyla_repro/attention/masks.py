"""The attention masks of torch.nn.MultiheadAttention, split into score biases and pairs that are removed."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

Bias = Float[Tensor, "#b #h #q #k"] | None
Masked = Bool[Tensor, "#b #h #q #k"] | None


def split_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    shape: tuple[int, int, int, int],
    device: torch.device,
) -> tuple[Bias, Masked]:
    """Return what is added to the scores, and which pairs get code 0; None for neither.

    Args:
        attn_mask: (q, k) or (b*h, q, k); True or -inf removes a pair, finite numbers are added.
        key_padding_mask: (b, k), of the same two kinds.
        is_causal: without an attn_mask, remove all keys to the right of a query (aligned at the last key).
        shape: numbers of sequences, heads, queries and keys.

    Raises: ValueError for a mask of another shape, or of integers, naming both.
    """
    batch, heads, queries, keys = shape
    if is_causal and attn_mask is None:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)
    bias, masked = None, None
    by_pairs: dict[tuple[int, ...], str] = {(queries, keys): "q k -> 1 1 q k"}
    by_pairs[batch * heads, queries, keys] = "(b h) q k -> b h q k"
    by_keys: dict[tuple[int, ...], str] = {(batch, keys): "b k -> b 1 1 k"}
    for name, mask, patterns in (("attn_mask", attn_mask, by_pairs), ("key_padding_mask", key_padding_mask, by_keys)):
        if mask is None:
            continue
        if tuple(mask.shape) not in patterns:
            raise ValueError(f"{name} has shape {tuple(mask.shape)}, needs {' or '.join(map(str, patterns))}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise ValueError(f"{name} has dtype {mask.dtype}, needs bool (True removes) or floating point (added)")
        mask = rearrange(mask, patterns[tuple(mask.shape)], **({"h": heads} if mask.ndim == 3 else {}))
        removed = mask if mask.dtype == torch.bool else mask == float("-inf")
        masked = removed if masked is None else masked | removed
        if mask.dtype != torch.bool:
            finite = mask.masked_fill(removed, 0.0)
            bias = finite if bias is None else bias + finite
    return bias, masked
