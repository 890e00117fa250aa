"""Attention on centred keys (Attention-BN): a batch norm over the tokens of each sequence, before the scores."""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hyla_repro.attention.masks import Bias, Masked
from hyla_repro.attention.neighbours import NeighbourAttention
from hyla_repro.attention.scan import prefix_scan
from hyla_repro.errors import choose

Heads = Float[Tensor, "b h t d"]
# True for keys that count nowhere.
Hidden = Bool[Tensor, "#b #h k"] | None


class Statistics(NamedTuple):
    """Of the keys of a set: (#b, #h, t, 1) or (b, h, t, d), in float32 or wider.

    Args:
        number: how many there are.
        mean: of each feature.
        deviation: the sum of squared differences from the mean.
    """

    number: Tensor
    mean: Tensor
    deviation: Tensor

    def rescale(self, eps: float) -> Heads:
        """Return 1 / sqrt(population variance + eps)."""
        return (self.deviation / self.number.clamp(min=1) + eps).rsqrt()


def _merge(first: Statistics, second: Statistics) -> Statistics:
    # Chan's formula: differences of squares would cancel where the mean is large against the spread.
    count = first.number + second.number
    share, apart = second.number / count.clamp(min=1), second.mean - first.mean
    deviation = first.deviation + second.deviation + apart.square() * first.number * share
    return Statistics(count, first.mean + apart * share, deviation)


def key_statistics(key: Heads, hidden: Hidden = None, causal: bool = False) -> Statistics:
    """Return the statistics of all visible keys, t = 1; with causal those of the keys up to each one."""
    wide = key.to(torch.promote_types(key.dtype, torch.float32))
    hidden = key.new_zeros(1, 1, key.shape[2], dtype=torch.bool) if hidden is None else hidden
    hidden = rearrange(hidden, "b h k -> b h k 1")
    visible, wide = (~hidden).to(wide.dtype), wide.masked_fill(hidden, 0.0)
    if causal:
        return prefix_scan(_merge, Statistics(visible.expand(*wide.shape[:3], 1), wide, torch.zeros_like(wide)))
    count = visible.sum(2, keepdim=True)
    mean = wide.sum(2, keepdim=True) / count.clamp(min=1)
    return Statistics(count, mean, ((wide - mean).square() * visible).sum(2, keepdim=True))


def centred(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    beta: float | Tensor = 1.0,
    *,
    rescale: bool = False,
    eps: float = 1e-5,
    hidden: Hidden = None,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h k d"]]:
    """Return (query - beta mu) r and (key - beta mu) r: their softmax attention is Attention-BN.

    Args:
        beta: a number, or one per head (h, 1, 1); 1 is a batch norm, 0 without rescale plain attention.
        rescale: divide by the standard deviation sigma of the keys, r = 1 / sqrt(sigma^2 + eps), else r = 1.
    """
    statistics = key_statistics(key, hidden)
    shifted = [heads.to(statistics.mean.dtype) - beta * statistics.mean for heads in (query, key)]
    if rescale:
        shifted = [heads * statistics.rescale(eps) for heads in shifted]
    return shifted[0].to(query.dtype), shifted[1].to(key.dtype)


def bn_queries(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    beta: float | Tensor = 1.0,
    *,
    rescale: bool = False,
    eps: float = 1e-5,
    hidden: Hidden = None,
    causal: bool = False,
) -> tuple[Float[Tensor, "b h q d"], Float[Tensor, "b h q 1"]]:
    """Return queries with which plain attention to the raw keys is Attention-BN, and what is left: a term of the query.

        <(q - beta mu) r, (k - beta mu) r> = <q', k> - <q', beta mu>
        q' = (q - beta mu) r^2

    Softmax over the keys cancels the second term, so that any kernel for softmax attention will do; others need it,
    times the scale of the scores.

    Args:
        causal: mu and r are those of the keys up to the query's own, and the queries the last ones of the keys.
    """
    statistics = key_statistics(key, hidden, causal)
    mean = statistics.mean[:, :, -query.shape[2] :] if causal else statistics.mean
    changed = query.to(mean.dtype) - beta * mean
    if rescale:
        scale = statistics.rescale(eps)
        changed = changed * (scale[:, :, -query.shape[2] :] if causal else scale).square()
    rest = -(changed * beta * mean).sum(-1, keepdim=True)
    return changed.to(query.dtype), rest


def head_distance(
    outputs: Heads, normalise: bool = False, hidden: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean distance between the outputs of two heads at one token, over pairs of heads and visible tokens.

    Args:
        normalise: give every output length 1 first: sqrt(2) is then the distance of orthogonal ones, whatever their
            sizes, which the raw distance grows with.
    """
    if normalise:
        outputs = nn.functional.normalize(outputs, dim=-1)
    n_heads = outputs.shape[1]
    first, second = torch.triu_indices(n_heads, n_heads, 1, device=outputs.device)
    distances = (outputs[:, first] - outputs[:, second]).norm(dim=-1)
    if hidden is None:
        return distances.mean()
    visible = rearrange(~hidden, "b t -> b 1 t").expand_as(distances)
    return distances[visible].mean()


class BatchNormAttention(NeighbourAttention):
    """Attention to keys that are centred over the tokens of their own sequence, and queries with them (Attention-BN).

        score[q, k] = <(q - beta mu) r, (k - beta mu) r> / sqrt(d)

    mu and r are those of the keys, for each sequence, head and feature on its own. There are no running averages:
    training and evaluation compute the same. Under softmax, centring amounts to a bias per key that all queries share.

    With another `variant` the scores alone are these, and its own normaliser and value network follow. So "hyla_bn"
    among the models' variants is HYLA whose code is made of centred queries and keys, where the centring does not
    reduce to a bias per key, because RMSHead cancels nothing.

    Args:
        arguments, options: those of `HypernetworkAttention`; variant is "softmax" if None is given.
        beta: how much of the mean is taken away.
        learn_beta: make it a parameter per head, which starts there.
        rescale: also divide by the keys' standard deviation, the root of their population variance + eps.
        eps: added to the variance where it divides.
        stats: "sequence" for those of all keys that are no padding; "causal" for those of the keys up to the
            query's own, for causal attention.

    Raises: ValueError as `HypernetworkAttention` does, and for unknown stats.
    Source: Nguyen et al., "A Primal-Dual Framework for Transformers and Neural Networks" (2023).
    Differs: eps, a learned beta, other normalisers and causal statistics are ours.
    """

    beta: Any

    def __init__(
        self,
        *arguments: Any,
        beta: float = 1.0,
        learn_beta: bool = False,
        rescale: bool = False,
        eps: float = 1e-5,
        stats: str = "sequence",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **softmax_unless_given(options))
        like = self.out_proj.weight
        full = torch.full((self.num_heads,), float(beta), device=like.device, dtype=like.dtype)
        self.start, self.beta = float(beta), nn.Parameter(full) if learn_beta else float(beta)
        self.rescale, self.eps = rescale, eps
        self.stats = choose("stats", stats, ["sequence", "causal"])

    def reset_parameters(self) -> None:
        """Draw all weights as `HypernetworkAttention` does, and set a learned beta to its start."""
        super().reset_parameters()
        if isinstance(self.beta, nn.Parameter):
            nn.init.constant_(self.beta, self.start)

    def _clean(self, *arguments: Any) -> tuple[Tensor, Tensor, bool]:
        key, value, causal = super()._clean(*arguments)
        if causal and self.stats == "sequence":
            raise ValueError(
                "is_causal=True with stats='sequence': the mean over all keys would tell queries of later tokens; "
                "use stats='causal'"
            )
        if not causal and self.stats == "causal":
            raise ValueError("stats='causal' needs is_causal=True, or the causal attn_mask")
        if self.stats == "causal" and self.rescale and arguments[0].dtype == torch.float16:
            raise ValueError(
                "rescale=True with stats='causal' overflows float16, as 1 / variance may be 1 / eps: use bfloat16 "
                "or float32, or rescale=False"
            )
        return key, value, causal

    def _prepare(
        self, queries: Tensor, keys: Tensor, bias: Bias, masked: Masked
    ) -> tuple[Tensor, Tensor, Bias, Masked]:
        beta = rearrange(self.beta, "h -> h 1 1") if isinstance(self.beta, Tensor) else self.beta
        # The last query sees all keys but padding, causal or not.
        settings: dict[str, Any] = {"rescale": self.rescale, "eps": self.eps}
        settings["hidden"] = None if masked is None else masked[:, :, -1]
        if self.stats == "sequence":
            return *centred(queries, keys, beta, **settings), bias, masked
        scale = queries.shape[-1] ** -0.5
        queries, rest = bn_queries(queries, keys, beta, causal=True, **settings)
        if self.normalizer != "softmax":
            rest = (rest * scale).to(keys.dtype)
            bias = rest if bias is None else bias + rest
        return queries, keys, bias, masked


def softmax_unless_given(options: dict[str, Any]) -> dict[str, Any]:
    given = any(options.get(name) is not None for name in ("variant", "normalizer", "value_network"))
    return options if given else options | {"variant": "softmax"}
