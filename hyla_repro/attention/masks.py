"""Attention masks of torch's kinds, split into what is added to the scores and which pairs are removed."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

Bias = Float[Tensor, "#b #h #q #k"] | None
Masked = Bool[Tensor, "#b #h #q #k"] | None

# A number this low in an additive mask means "masked". Libraries write -inf, the dtype's lowest number, -1e9 or -1e4,
# and bfloat16 rounds -1e4 to -9984. Softmax turns any of them into 0; other normalisers would take them for scores.
MASKED_BELOW = -9e3


def split_mask(name: str, mask: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return what a mask adds to the scores, None for a mask of booleans, and where it removes the pair.

    Raises: ValueError for a mask of whole numbers.
    """
    if mask.dtype == torch.bool:
        return None, mask
    if not mask.is_floating_point():
        raise ValueError(f"{name} has dtype {mask.dtype}, needs bool, or floating point (added to the scores)")
    removed = mask <= MASKED_BELOW
    return mask.masked_fill(removed, 0.0), removed


def causal_mask(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "1 1 q k"]:
    """Return True for keys to the right of a query, aligned at the last key."""
    # By comparison, because triu takes no symbolic diagonal and would fix the sizes of an exported program.
    newest = torch.arange(queries, device=device) + (keys - queries)
    return rearrange(torch.arange(keys, device=device) > rearrange(newest, "q -> q 1"), "q k -> 1 1 q k")


def only_causal(attn_mask: Tensor, queries: int, keys: int) -> bool:
    """Return True for a causal attn_mask (q, k), where a module knows no other mask of pairs.

    Raises: ValueError for another one, naming what takes its place.
    """
    added, removed = split_mask("attn_mask", attn_mask)
    causal = causal_mask(queries, keys, attn_mask.device)[0, 0]
    if removed.shape != causal.shape or not torch.equal(removed, causal) or (added is not None and added.any()):
        raise ValueError(
            f"attn_mask of shape {tuple(attn_mask.shape)} is not the causal mask {(queries, keys)}, and this attention "
            "is defined for no other: give key_padding_mask for hidden tokens, score_bias for numbers to add"
        )
    return True


def _expect(name: str, mask: Tensor, *allowed: tuple[int, ...]) -> None:
    # Sizes are compared and never hashed: an exported or compiled program may have symbols for them.
    if not any(len(shape) == mask.ndim and tuple(mask.shape) == shape for shape in allowed):
        needs = " or ".join(str(tuple(int(size) for size in shape)) for shape in allowed)
        raise ValueError(f"{name} has shape {tuple(mask.shape)}, needs {needs}")


def batched(key_padding_mask: Tensor) -> Tensor:
    """Return the mask of one sequence (key,) as that of a batch of one.

    Raises: ValueError for a mask that has a batch already.
    """
    if key_padding_mask.ndim != 1:
        raise ValueError(f"key_padding_mask has shape {tuple(key_padding_mask.shape)}, needs (key,) without a batch")
    return rearrange(key_padding_mask, "k -> 1 k")


def split_masks(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    shape: tuple[int, int, int, int],
    device: torch.device,
) -> tuple[Bias, Masked]:
    """Return what is added to the scores, and which pairs get code 0; None for neither.

    Args:
        attn_mask: (q, k) or (b*h, q, k); True or a number up to MASKED_BELOW removes a pair, others are added.
        key_padding_mask: (b, k), of the same two kinds.
        is_causal: without an attn_mask, remove all keys to the right of a query (aligned at the last key).
        shape: numbers of sequences, heads, queries and keys.

    Raises: ValueError for a mask of another shape, or of integers, naming both.
    """
    batch, heads, queries, keys = shape
    bias, masked = None, causal_mask(queries, keys, device) if is_causal and attn_mask is None else None
    parts = []
    if attn_mask is not None:
        _expect("attn_mask", attn_mask, (queries, keys), (batch * heads, queries, keys))
        pattern = "q k -> 1 1 q k" if attn_mask.ndim == 2 else "(b h) q k -> b h q k"
        parts.append(("attn_mask", attn_mask, pattern, {} if attn_mask.ndim == 2 else {"h": heads}))
    if key_padding_mask is not None:
        _expect("key_padding_mask", key_padding_mask, (batch, keys))
        parts.append(("key_padding_mask", key_padding_mask, "b k -> b 1 1 k", {}))
    for name, mask, pattern, sizes in parts:
        added, removed = split_mask(name, rearrange(mask, pattern, **sizes))
        masked = removed if masked is None else masked | removed
        if added is not None:
            bias = added if bias is None else bias + added
    return bias, masked


def broadcast_mask(attn_mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return a mask of two, three or four dimensions, such as (q, k) or (b, 1, 1, k), as (#b, #h, #q, #k).

    Raises: ValueError for a mask that does not broadcast to the shape.
    """
    given = tuple(attn_mask.shape)
    whole = (1,) * (4 - len(given)) + given
    if not 2 <= len(given) <= 4 or any(have != 1 and have != need for have, need in zip(whole, shape, strict=True)):
        raise ValueError(
            f"attn_mask has shape {given}, needs one that broadcasts to (batch, head, query, key) = "
            f"{tuple(int(size) for size in shape)}, such as (query, key) or (batch, 1, 1, key)"
        )
    return attn_mask.reshape(whole)


def per_visible_key(
    visible: Int[Tensor, "#b #h #q 1"], power: float, dtype: torch.dtype
) -> Float[Tensor, "#b #h #q 1"]:
    """Return n**-power for the n keys that each query sees, 1 where it sees none."""
    return visible.clamp(min=1).float().pow(-power).to(dtype)
