"""Names that a package offers without importing their modules: torch takes seconds, and many commands need none."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def exports(
    package: str, homes: Mapping[str, str], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`.

    Args:
        package: the package's `__name__`.
        homes: public name to the module that has it.
        modules: modules of the package that are offered as well.
    """

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in homes:
            offered = ", ".join([*homes, *modules])
            raise AttributeError(f"module {package!r} has no attribute {name!r}: it exports {offered}")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted({*vars(sys.modules[package]), *homes, *modules})


def later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports another when it is first called, and calls that."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **options)

    return call
