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
    shape: tuple[int, int, int],
    device: torch.device,
) -> tuple[Bias, Masked]:
    """Return what is added to the scores, and which pairs get code 0; None for neither.

    Args:
        attn_mask: (q, k) or (b*h, q, k); True or -inf removes a pair, finite numbers are added.
        key_padding_mask: (b, k), of the same two kinds.
        is_causal: without an attn_mask, remove all keys to the right of a query (aligned at the last key).
        shape: numbers of heads, queries and keys.

    Raises: ValueError for a mask that covers other numbers of queries or keys, with both.
    """
    n_heads, n_queries, n_keys = shape
    if is_causal and attn_mask is None:
        attn_mask = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).triu(n_keys - n_queries + 1)
    masks = []
    if attn_mask is not None:
        if attn_mask.ndim not in (2, 3) or attn_mask.shape[-2:] != (n_queries, n_keys):
            raise ValueError(f"attn_mask has shape {tuple(attn_mask.shape)}, needs ({n_queries}, {n_keys}) or "
                             f"(batch * {n_heads}, {n_queries}, {n_keys})")  # fmt: skip
        pattern = "q k -> 1 1 q k" if attn_mask.ndim == 2 else "(b h) q k -> b h q k"
        masks.append(rearrange(attn_mask, pattern, **({"h": n_heads} if attn_mask.ndim == 3 else {})))
    if key_padding_mask is not None:
        if key_padding_mask.ndim != 2 or key_padding_mask.shape[-1] != n_keys:
            raise ValueError(f"key_padding_mask has shape {tuple(key_padding_mask.shape)}, needs (batch, {n_keys})")
        masks.append(rearrange(key_padding_mask, "b k -> b 1 1 k"))
    bias, masked = None, None
    for mask in masks:
        removed = mask if mask.dtype == torch.bool else mask == float("-inf")
        masked = removed if masked is None else masked | removed
        if mask.dtype != torch.bool:
            finite = mask.masked_fill(removed, 0.0)
            bias = finite if bias is None else bias + finite
    return bias, masked
