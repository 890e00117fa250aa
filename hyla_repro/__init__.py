"""Attention as a hypernetwork: a slim library, and everything behind the paper's figures.

Source: Schug, Kobayashi, Akram, Sacramento, Pascanu, "Attention as a Hypernetwork", ICLR 2025.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["VARIANTS", "HypernetworkAttention", "Transformer", "TransformerConfig"]

if TYPE_CHECKING:
    from hyla_repro.attention import HypernetworkAttention
    from hyla_repro.settings import VARIANTS, TransformerConfig
    from hyla_repro.transformer import Transformer

_HOMES = {"HypernetworkAttention": "attention", "Transformer": "transformer"}


def __getattr__(name: str) -> Any:
    # Pages and commands that only read results need no torch, which takes seconds to import.
    if name not in __all__:
        raise AttributeError(f"module 'hyla_repro' has no attribute {name!r}: it exports {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"hyla_repro.{_HOMES.get(name, 'settings')}"), name)
