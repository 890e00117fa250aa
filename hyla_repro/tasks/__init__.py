"""Task generators: a batch is a pure function of (task, split, seed, step)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.fuzzy_logic.task import FuzzyLogic, FuzzyLogicBatch
    from hyla_repro.tasks.registry import TASKS
    from hyla_repro.tasks.sraven.task import SRaven, SRavenBatch
    from hyla_repro.tasks.task import Batch, Task

__all__ = ["TASKS", "Batch", "FuzzyLogic", "FuzzyLogicBatch", "SRaven", "SRavenBatch", "Task"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "TASKS": "hyla_repro.tasks.registry",
        "Batch": "hyla_repro.tasks.task",
        "FuzzyLogic": "hyla_repro.tasks.fuzzy_logic.task",
        "FuzzyLogicBatch": "hyla_repro.tasks.fuzzy_logic.task",
        "SRaven": "hyla_repro.tasks.sraven.task",
        "SRavenBatch": "hyla_repro.tasks.sraven.task",
        "Task": "hyla_repro.tasks.task",
    },
)
