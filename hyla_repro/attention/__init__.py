"""Attention that people build on, of torch and einops alone: the module, the function, and their parts."""

from typing import TYPE_CHECKING

from hyla_repro.attention.variants import NEIGHBOURS, VARIANTS, Neighbour, Variant
from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.attention.aaren import Aaren, AarenState, LearnedQueryAttention
    from hyla_repro.attention.batch_norm import (
        BatchNormAttention,
        Statistics,
        bn_queries,
        centred,
        head_distance,
        key_statistics,
    )
    from hyla_repro.attention.cache import KeyValueCache
    from hyla_repro.attention.functional import KEY_REDUCTIONS, hypernetwork_attention
    from hyla_repro.attention.hypernetwork import HypernetworkAttention
    from hyla_repro.attention.masks import MASKED_BELOW
    from hyla_repro.attention.normalizers import NORMALIZERS
    from hyla_repro.attention.scaled_head import ScaledHeadAttention
    from hyla_repro.attention.scan import Sums, combine, prefix_attention, prefix_code
    from hyla_repro.attention.value_networks import ACTIVATIONS, VALUE_NETWORKS
    from hyla_repro.attention.windows import pool_tokens, spread_code, window_weights

__all__ = [
    "ACTIVATIONS", "KEY_REDUCTIONS", "MASKED_BELOW", "NEIGHBOURS", "NORMALIZERS", "VALUE_NETWORKS", "VARIANTS",
    "Aaren", "AarenState", "BatchNormAttention", "HypernetworkAttention", "KeyValueCache", "LearnedQueryAttention",
    "Neighbour", "ScaledHeadAttention", "Statistics", "Sums", "Variant", "bn_queries", "centred", "combine",
    "head_distance", "hypernetwork_attention", "key_statistics", "pool_tokens", "prefix_attention", "prefix_code",
    "spread_code", "window_weights",
]  # fmt: skip

_NAMES = {
    "aaren": ("Aaren", "AarenState", "LearnedQueryAttention"),
    "batch_norm": ("BatchNormAttention", "Statistics", "bn_queries", "centred", "head_distance", "key_statistics"),
    "cache": ("KeyValueCache",),
    "functional": ("KEY_REDUCTIONS", "hypernetwork_attention"),
    "hypernetwork": ("HypernetworkAttention",),
    "masks": ("MASKED_BELOW",),
    "normalizers": ("NORMALIZERS",),
    "scaled_head": ("ScaledHeadAttention",),
    "scan": ("Sums", "combine", "prefix_attention", "prefix_code"),
    "value_networks": ("ACTIVATIONS", "VALUE_NETWORKS"),
    "windows": ("pool_tokens", "spread_code", "window_weights"),
}
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
)
