"""The attention of a transformer's blocks, by the name of its variant."""

from typing import Any

from hyla_repro.attention import (
    NEIGHBOURS,
    VARIANTS,
    Aaren,
    BatchNormAttention,
    HypernetworkAttention,
    LearnedQueryAttention,
    ScaledHeadAttention,
)
from hyla_repro.models.config import TransformerConfig


def build_attention(config: TransformerConfig) -> HypernetworkAttention:
    """Return the attention of one block.

    Half of the heads of "softmax_sh", "softmax_bn_sh" and "hyla_sh" see windows of two tokens, the others tokens; the
    bias of relative positions is averaged over windows. In a causal model, "softmax_bn" and "hyla_bn" centre each
    query by the keys up to its own.
    """
    sizes: dict[str, Any] = {"qk_dim": config.qk_dim, "v_dim": config.v_dim}
    neighbour = NEIGHBOURS.get(config.variant)
    if neighbour is None:
        variant = VARIANTS[config.variant]
        return HypernetworkAttention(
            config.d_model, config.n_heads, normalizer=variant.normalizer, value_network=variant.value_network, **sizes
        )
    if neighbour.module == "aaren":
        return Aaren(config.d_model, config.n_heads, **sizes)
    sizes |= {"normalizer": neighbour.normalizer, "value_network": neighbour.value_network}
    if neighbour.module == "batch_norm":
        stats = "causal" if config.causal else "sequence"
        return BatchNormAttention(config.d_model, config.n_heads, beta=neighbour.beta or 0.0, stats=stats, **sizes)
    if neighbour.module == "scaled_head":
        wide = config.n_heads // 2
        scales = [1] * (config.n_heads - wide) + [2] * wide
        return ScaledHeadAttention(
            config.d_model, config.n_heads, scales=scales, beta=neighbour.beta, average_bias=True, **sizes
        )
    make = LearnedQueryAttention if neighbour.module == "learned_query" else HypernetworkAttention
    return make(config.d_model, config.n_heads, **sizes)
