"""Errors that name the value, what is allowed and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from operator import index
from typing import Any


class DataError(RuntimeError):
    """A committed or recorded file is missing or is not what its digest says."""


class MissingPackageError(ImportError):
    """An optional package is not installed; the message says which extra brings it."""


class UnfinishedError(RuntimeError):
    """A chapter's notebook did not run to its end."""


class DivergedError(RuntimeError):
    """Training reached a loss that is not finite.

    Args:
        step: the step that had it, from 0.
        last_finite_loss: the loss before, None if there was none.
    """

    def __init__(self, message: str, step: int, last_finite_loss: float | None) -> None:
        super().__init__(message)
        self.facts = {"error": message, "step": step, "last_finite_loss": last_finite_loss}


def choose(what: str, value: object, allowed: Iterable[str]) -> str:
    """Return value if it is allowed.

    Raises: ValueError naming the value, the nearest allowed name and all allowed names.
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    near = get_close_matches(str(value), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {value!r}: {hint}allowed are {', '.join(names)}")


def whole_number(name: str, value: Any, low: int, why: str, high: int | None = None) -> int:
    """Return a number, of Python, numpy or a tensor, as an int.

    Raises: ValueError naming the value, what is allowed and why, for one that is not whole or out of range.
    """
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a whole number")
    if number < low or (high is not None and number > high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}={number} is out of range: use {allowed}; {why}")
    return number


def expect_shape(name: str, shape: Sequence[int], expected: Sequence[int], axes: str) -> None:
    """Refuse an array of another shape than a task needs, which broadcasting might take.

    Raises: ValueError naming both shapes and the axes.
    """
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} has shape {tuple(shape)}: this task needs {tuple(expected)} here, {axes}")
