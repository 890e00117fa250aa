"""Which tasks there are: the settings of each, without torch, and its generator, imported when asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from hyla_repro.errors import choose
from hyla_repro.tasks.fuzzy_logic.settings import FuzzyLogicSettings
from hyla_repro.tasks.language.settings import LanguageSettings
from hyla_repro.tasks.mqar.settings import MQARSettings
from hyla_repro.tasks.series.settings import SeriesSettings
from hyla_repro.tasks.sraven.settings import SRavenSettings


class Tasks(Mapping[str, type]):
    """The generators of all tasks by name; `settings` has what they can be made with."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[type, str | type]] = {}

    def add(self, name: str, settings: type, generator: str | type) -> None:
        """Add a task, or replace the one of that name.

        Args:
            name: its name in experiments and files: small letters, digits and underscores.
            settings: a frozen dataclass, as `TaskSettings` describes it.
            generator: a subclass of it that is a `Task`, or where to find it, as "module:class".
        """
        self._entries[name] = (settings, generator)

    def settings(self, name: str) -> type[Any]:
        """Return the settings class of a task.

        Raises: ValueError for an unknown task, naming those there are.
        """
        return self._entries[choose("task", name, self._entries)][0]

    def __getitem__(self, name: str) -> type:
        generator = self._entries[name][1]
        if isinstance(generator, str):
            module, _, attribute = generator.partition(":")
            return getattr(import_module(module), attribute)
        return generator

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


#: The generators by name; one is imported when it is asked for.
TASKS = Tasks()
TASKS.add("fuzzy_logic", FuzzyLogicSettings, "hyla_repro.tasks.fuzzy_logic.task:FuzzyLogic")
TASKS.add("sraven", SRavenSettings, "hyla_repro.tasks.sraven.task:SRaven")
TASKS.add("language", LanguageSettings, "hyla_repro.tasks.language.task:Language")
TASKS.add("series", SeriesSettings, "hyla_repro.tasks.series.task:Series")
TASKS.add("mqar", MQARSettings, "hyla_repro.tasks.mqar.task:MQAR")
