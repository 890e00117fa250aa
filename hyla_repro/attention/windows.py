"""Windows of neighbouring tokens: what pools tokens to them, and gives codes and keys of windows back to tokens."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

# Share of each token in its window; the tokens of window n are n * s to n * s + s - 1.
Weights = Float[Tensor, "*#b n s"]
Hidden = Bool[Tensor, "*#b t"] | None
DOWN = ("mean", "stride", "conv")


def window_weights(
    n_tokens: int, scale: int, hidden: Hidden = None, down: str = "mean", like: Tensor | None = None
) -> Weights:
    """Return the share that each of a window's `scale` tokens has in it; they sum to 1, or 0 if all are hidden.

    The last window is averaged over its true length. "stride" takes the first visible token instead of the mean.
    """
    if hidden is None:
        hidden = torch.zeros(n_tokens, dtype=torch.bool, device=None if like is None else like.device)
    visible = rearrange(F.pad(~hidden, (0, -n_tokens % scale)), "... (n s) -> ... n s", s=scale)
    if down == "stride":
        visible = visible & (visible.cumsum(-1) == 1)
    shares = visible.to(torch.float32 if like is None else like.dtype)
    return shares / shares.sum(-1, keepdim=True).clamp(min=1)


def pool_tokens(
    x: Float[Tensor, "*b t d"], scale: int, hidden: Hidden = None, down: str = "mean"
) -> Float[Tensor, "*b n d"]:
    """Return the mean of every `scale` tokens, or the first visible one ("stride"); 0 where all are hidden."""
    if hidden is not None:
        x = x.masked_fill(hidden.unsqueeze(-1), 0.0)
    return pool(x, window_weights(x.shape[-2], scale, hidden, down, x))


def windows_of(x: Float[Tensor, "*b t d"], scale: int) -> Float[Tensor, "*b n s d"]:
    """Return the tokens of each window, the last one filled up with zeros."""
    return rearrange(F.pad(x, (0, 0, 0, -x.shape[-2] % scale)), "... (n s) d -> ... n s d", s=scale)


def pool(x: Float[Tensor, "... t d"], weights: Float[Tensor, "... n s"]) -> Float[Tensor, "... n d"]:
    """Return the sum of each window's tokens by their shares."""
    return (windows_of(x, weights.shape[-1]) * weights.unsqueeze(-1)).sum(-2)


def spread(x: Float[Tensor, "*b n d"], scale: int, n_tokens: int) -> Float[Tensor, "*b t d"]:
    """Give each token what its window has."""
    return repeat(x, "... n d -> ... (n s) d", s=scale)[..., :n_tokens, :]


def spread_code(
    coarse: Float[Tensor, "*b q n"], scale: int, n_tokens: int, weights: Weights | None = None
) -> Float[Tensor, "*b q k"]:
    """Return the code of tokens that gives, with their own values, what the code of windows gives with pooled ones.

    Args:
        weights: as `window_weights` returns them, of all tokens visible if None.
    """
    weights = window_weights(n_tokens, scale, like=coarse) if weights is None else weights
    fine = rearrange(coarse, "... q n -> ... q n 1") * rearrange(weights, "... n s -> ... 1 n s")
    return rearrange(fine, "... q n s -> ... q (n s)")[..., :n_tokens]


def average_bias(
    bias: Float[Tensor, "b h q #k"], weights: Weights, n_tokens: int, back: bool
) -> Float[Tensor, "_ h q _"]:
    """Return numbers for pairs of tokens averaged over the windows of keys, for each window or given back to tokens."""
    whole = rearrange(bias.expand(*bias.shape[:3], n_tokens), "b h q k -> b h q k 1")
    pooled = pool(whole, rearrange(weights, "b h n s -> b h 1 n s"))
    return (spread(pooled, weights.shape[-1], n_tokens) if back else pooled)[..., 0]
