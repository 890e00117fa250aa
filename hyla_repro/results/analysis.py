"""Tables that are computed, of trained weights or of settings alone; without pandas or torch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyla_repro.files import sha256


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


@dataclass(frozen=True)
class Computed:
    """What is computed of settings alone, part by part, and where it is kept.

    A part's identity is that of its settings, as a run's is: rows of other settings than today's count for nothing.

    Args:
        table: its file in data/, with a row or more for the identity (`id`) of each part, beside its settings.
        parts: returns the settings of all parts, frozen dataclasses.
        make: settings of a part to its rows, as a DataFrame.
    """

    table: str
    parts: Callable[[], Sequence[Any]]
    make: Callable[[Any], Any]

    def wanted(self) -> dict[str, Any]:
        """Return the settings of every part by its identity."""
        return {identity(part): part for part in self.parts()}


def identity(settings: Any) -> str:
    """Return twelve digits that change with any of the settings, those of a frozen dataclass."""
    return sha256(json.dumps([type(settings).__name__, asdict(settings)], sort_keys=True).encode())[:12]
