"""Task generators: a batch is a pure function of (task, split, seed, step)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.fuzzy_logic.task import FuzzyLogic, FuzzyLogicBatch
    from hyla_repro.tasks.mqar.task import MQAR, MQARBatch
    from hyla_repro.tasks.registry import TASKS
    from hyla_repro.tasks.sraven.task import SRaven, SRavenBatch
    from hyla_repro.tasks.task import Batch, Task
    from hyla_repro.tasks.views import Batches, as_dataset, as_iterable

__all__ = [
    "MQAR", "TASKS", "Batch", "Batches", "FuzzyLogic", "FuzzyLogicBatch", "MQARBatch", "SRaven", "SRavenBatch", "Task",
    "as_dataset", "as_iterable",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "TASKS": "hyla_repro.tasks.registry",
        "Batch": "hyla_repro.tasks.task",
        "MQAR": "hyla_repro.tasks.mqar.task",
        "MQARBatch": "hyla_repro.tasks.mqar.task",
        "FuzzyLogic": "hyla_repro.tasks.fuzzy_logic.task",
        "FuzzyLogicBatch": "hyla_repro.tasks.fuzzy_logic.task",
        "SRaven": "hyla_repro.tasks.sraven.task",
        "SRavenBatch": "hyla_repro.tasks.sraven.task",
        "Task": "hyla_repro.tasks.task",
        "Batches": "hyla_repro.tasks.views",
        "as_dataset": "hyla_repro.tasks.views",
        "as_iterable": "hyla_repro.tasks.views",
    },
)
