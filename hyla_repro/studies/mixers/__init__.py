"""Mixers of others: any module trained as our rows were, the leaderboard, and three modules that we did not write."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports
from hyla_repro.studies.study import SEEDS, Chapter, Study

if TYPE_CHECKING:
    from hyla_repro.studies.mixers.benchmarking import Benchmark, benchmark
    from hyla_repro.studies.mixers.guests import GUESTS
    from hyla_repro.training.foreign import ModelSpec

__all__ = ["GUESTS", "MIXERS", "Benchmark", "ModelSpec", "benchmark"]
_HOMES = {
    "Benchmark": f"{__name__}.benchmarking", "benchmark": f"{__name__}.benchmarking", "GUESTS": f"{__name__}.guests",
    "ModelSpec": "hyla_repro.training.foreign",
}  # fmt: skip
__getattr__, __dir__ = exports(__name__, _HOMES)

MIXERS = Study(
    name="mixers",
    title="Your own mixer",
    chapters=(Chapter("mixer", parameters={"width": (1, 1024), "seed": SEEDS}, defaults={"width": 64, "seed": 0}),),
)
