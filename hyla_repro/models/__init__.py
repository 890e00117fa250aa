"""Transformers around hypernetwork attention, texts that they go on with, and weights of the authors' release."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports
from hyla_repro.models.config import TransformerConfig

if TYPE_CHECKING:
    from hyla_repro.models.generation import generate
    from hyla_repro.models.reference import load_release
    from hyla_repro.models.transformer import Transformer, load_model

__all__ = ["Transformer", "TransformerConfig", "generate", "load_model", "load_release"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Transformer": "hyla_repro.models.transformer",
        "generate": "hyla_repro.models.generation",
        "load_model": "hyla_repro.models.transformer",
        "load_release": "hyla_repro.models.reference",
    },
)
