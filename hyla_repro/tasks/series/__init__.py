"""Time series of the UEA archive, told apart by class; the texts come in the wheel of `aeon` (`hyla-repro[series]`)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.series.files import read
    from hyla_repro.tasks.series.settings import DATA_SETS
    from hyla_repro.tasks.series.task import Series, SeriesBatch

__all__ = ["DATA_SETS", "Series", "SeriesBatch", "read"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "DATA_SETS": "hyla_repro.tasks.series.settings",
        "Series": "hyla_repro.tasks.series.task",
        "SeriesBatch": "hyla_repro.tasks.series.task",
        "read": "hyla_repro.tasks.series.files",
    },
)
