"""Attention as a hypernetwork: a slim library, and everything behind the paper's figures.

Source: Schug, Kobayashi, Akram, Sacramento, Pascanu, "Attention as a Hypernetwork", ICLR 2025.
"""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports
from hyla_repro.version import __version__ as __version__

__all__ = [
    "VARIANTS", "HypernetworkAttention", "KeyValueCache", "Transformer", "TransformerConfig", "benchmark",
    "hypernetwork_attention", "load",
]  # fmt: skip

if TYPE_CHECKING:
    from hyla_repro import attention as attention
    from hyla_repro import models as models
    from hyla_repro import tasks as tasks
    from hyla_repro.attention import VARIANTS, HypernetworkAttention, KeyValueCache, hypernetwork_attention
    from hyla_repro.models import Transformer, TransformerConfig
    from hyla_repro.studies.mixers import benchmark
    from hyla_repro.studies.trained import load

__getattr__, __dir__ = exports(
    __name__,
    {
        "VARIANTS": "hyla_repro.attention.variants",
        "HypernetworkAttention": "hyla_repro.attention.hypernetwork",
        "KeyValueCache": "hyla_repro.attention.cache",
        "hypernetwork_attention": "hyla_repro.attention.functional",
        "Transformer": "hyla_repro.models.transformer",
        "TransformerConfig": "hyla_repro.models.config",
        "benchmark": "hyla_repro.studies.mixers.benchmarking",
        "load": "hyla_repro.studies.trained",
    },
    modules=("attention", "models", "tasks"),
)
