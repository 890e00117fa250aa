"""A table that is computed from trained weights, such as probes of latent codes; without pandas or torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Analysis:
    """What is computed of weights, and where it is kept.

    Args:
        table: its file in data/, with a row or more for the identity (`id`) of each run.
        make: runs of one shape, their weights as safetensors bytes, and a device to the rows, as a DataFrame.
        along: whether `make` takes, for each run, its weights by step: those kept along training, and the last.
    """

    table: str
    make: Callable[..., Any]
    along: bool = False
