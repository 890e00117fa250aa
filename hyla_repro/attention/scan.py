"""All prefixes of a sequence at once, for any associative operation, and for softmax attention of one query."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from hyla_repro.attention.masks import causal_mask

Scores = Float[Tensor, "*b t"]
Hidden = Bool[Tensor, "*#b t"] | None

# A named tuple of tensors (..., token, width); its class is made anew, field by field.
Parts = TypeVar("Parts", bound=tuple[Any, ...])


def prefix_scan(combine: Callable[[Parts, Parts], Parts], tokens: Parts) -> Parts:
    """Return, for every token t, what the tokens up to t combine to: Hillis and Steele's scan.

    It takes ceil(log2 n) rounds for n tokens and O(n log n) work. An output is made of its own tokens alone, so that
    later ones do not even change its rounding.

    Args:
        combine: associative; the first argument holds the earlier tokens.
        tokens: a named tuple of tensors with the tokens on their last axis but one.
    """
    make, reach = type(tokens), 1
    while reach < tokens[0].shape[-2]:
        joined = combine(make(*(x[..., :-reach, :] for x in tokens)), make(*(x[..., reach:, :] for x in tokens)))
        tokens = make(*(torch.cat([x[..., :reach, :], y], dim=-2) for x, y in zip(tokens, joined, strict=True)))
        reach *= 2
    return tokens


class Sums(NamedTuple):
    """What softmax attention needs to know of a set of tokens with scores s and values v, (..., t, 1) or (..., t, d).

    Args:
        top: m, the largest score; the lowest number of the dtype for a set without a visible token.
        mass: the sum of exp(s - m).
        total: the sum of exp(s - m) v.
    """

    top: Tensor
    mass: Tensor
    total: Tensor

    def mean(self) -> Float[Tensor, "*b t d"]:
        """Return the output of attention, the mean value under softmax; 0 for a set without a visible token."""
        return self.total / self.mass.masked_fill(self.mass == 0, 1.0)

    def log_mass(self) -> Float[Tensor, "*b t"]:
        """Return the logarithm of the sum of exp(s); the lowest number for a set without a visible token."""
        return (self.top + self.mass.masked_fill(self.mass == 0, 1.0).log())[..., 0]


def combine(first: Sums, second: Sums) -> Sums:
    """Return the sums over the union of two disjoint sets: associative, commutative, and stable for any scores."""
    top = torch.maximum(first.top, second.top)
    # Not of one maximum over the sequence: sums over early prefixes would underflow, and know of later tokens.
    scales = (first.top - top).exp(), (second.top - top).exp()
    return Sums(
        top, first.mass * scales[0] + second.mass * scales[1], first.total * scales[0] + second.total * scales[1]
    )


def single_tokens(scores: Scores, values: Float[Tensor, "*#b t d"], hidden: Hidden = None) -> Sums:
    """Return the sums over sets of one token each, in float32 or wider; hidden ones make empty sets."""
    wide = torch.promote_types(torch.promote_types(scores.dtype, values.dtype), torch.float32)
    scores, values = rearrange(scores.to(wide), "... t -> ... t 1"), values.to(wide)
    if hidden is not None:
        hidden = rearrange(hidden, "... t -> ... t 1")
        scores, values = scores.masked_fill(hidden, torch.finfo(wide).min), values.masked_fill(hidden, 0.0)
    # No result depends on the maximum; its gradients would only cancel.
    top = scores.detach()
    mass = (scores - top).exp()
    mass = mass if hidden is None else mass.masked_fill(hidden, 0.0)
    return Sums(top, mass, mass * values)


def prefix_attention(
    scores: Scores, values: Float[Tensor, "*#b t d"], hidden: Hidden = None, before: Sums | None = None
) -> tuple[Float[Tensor, "*b t d"], Sums]:
    """Return, for every t, the mean of values[: t + 1] under the softmax of their scores; and the sums over all tokens.

    Args:
        scores: of one query, which all prefixes share.
        hidden: True for tokens that no prefix sees; 0 is the output of a prefix that sees none.
        before: sums over earlier tokens, with t = 1, as an earlier call returned them.
    """
    sums = prefix_scan(combine, single_tokens(scores, values, hidden))
    if before is not None:
        sums = combine(before, sums)
    return sums.mean().to(values.dtype), Sums(*(x[..., -1:, :] for x in sums))


def prefix_code(
    scores: Scores, hidden: Hidden = None, log_mass: Float[Tensor, "*b"] | None = None
) -> Float[Tensor, "*b q k"]:
    """Return the code of every prefix: exp(s_k - L_q) for the keys k up to q, 0 for later ones.

    L_q is the logarithm of the prefix's mass, so that the logarithm of the code is a term of the key less a term of the
    query: new tokens shrink the codes of old ones, all by one factor.

    Args:
        log_mass: that of earlier tokens. A row then sums to less than 1: they have the rest.
    """
    before = None
    if log_mass is not None:
        top = rearrange(log_mass, "... -> ... 1 1")
        before = Sums(top, torch.ones_like(top), top[..., :0])
    sums = prefix_scan(combine, single_tokens(scores, rearrange(scores, "... t -> ... t 1")[..., :0], hidden))
    mass = (sums if before is None else combine(before, sums)).log_mass()
    removed = causal_mask(scores.shape[-1], scores.shape[-1], scores.device)[0, 0]
    if hidden is not None:
        removed = removed | rearrange(hidden, "... k -> ... 1 k")
    exponent = rearrange(scores.to(mass.dtype), "... k -> ... 1 k") - rearrange(mass, "... q -> ... q 1")
    return exponent.masked_fill(removed, -torch.inf).exp().to(scores.dtype)
