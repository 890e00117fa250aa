"""Attention that people build on, of torch and einops alone: the module, the function, and their parts."""

from typing import TYPE_CHECKING

from hyla_repro.attention.variants import VARIANTS, Variant
from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.attention.cache import KeyValueCache
    from hyla_repro.attention.functional import KEY_REDUCTIONS, hypernetwork_attention
    from hyla_repro.attention.hypernetwork import HypernetworkAttention
    from hyla_repro.attention.masks import MASKED_BELOW
    from hyla_repro.attention.normalizers import NORMALIZERS
    from hyla_repro.attention.value_networks import ACTIVATIONS, VALUE_NETWORKS

__all__ = [
    "ACTIVATIONS", "KEY_REDUCTIONS", "MASKED_BELOW", "NORMALIZERS", "VALUE_NETWORKS", "VARIANTS",
    "HypernetworkAttention", "KeyValueCache", "Variant", "hypernetwork_attention",
]  # fmt: skip

_NAMES = {
    "cache": ("KeyValueCache",),
    "functional": ("KEY_REDUCTIONS", "hypernetwork_attention"),
    "hypernetwork": ("HypernetworkAttention",),
    "masks": ("MASKED_BELOW",),
    "normalizers": ("NORMALIZERS",),
    "value_networks": ("ACTIVATIONS", "VALUE_NETWORKS"),
}
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
)
