"""Attention that people build on, of torch and einops alone: normalisers, value networks and the module."""

from typing import TYPE_CHECKING

from hyla_repro.attention.variants import VARIANTS, Variant
from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.attention.hypernetwork import NORMALIZERS, VALUE_NETWORKS, HypernetworkAttention

__all__ = ["NORMALIZERS", "VALUE_NETWORKS", "VARIANTS", "HypernetworkAttention", "Variant"]

_HOME = "hyla_repro.attention.hypernetwork"
__getattr__, __dir__ = exports(
    __name__, {"NORMALIZERS": _HOME, "VALUE_NETWORKS": _HOME, "HypernetworkAttention": _HOME}
)
