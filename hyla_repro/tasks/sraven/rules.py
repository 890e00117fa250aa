"""The eight rules of SRAVEN, from random numbers to the rows of a feature (section 5 of the paper)."""

from collections.abc import Callable
from math import comb, factorial

import torch
from einops import rearrange, repeat
from jaxtyping import Int
from torch import Tensor

from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

Numbers = Int[Tensor, "*b row draw"]
Rows = Int[Tensor, "*b row column"]


def constant(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that repeat their first number."""
    return repeat(numbers[..., 0], "... row -> ... row column", column=numbers.shape[-2])


def progression(numbers: Numbers, n_values: int, increment: int) -> Rows:
    """Return rows that start at their first number and go on by the increment."""
    columns = torch.arange(numbers.shape[-2], device=numbers.device)
    return (numbers[..., :1] + increment * columns) % n_values


def plus_1(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that start at their first number and go up by 1, modulo n_values."""
    return progression(numbers, n_values, 1)


def plus_2(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that start at their first number and go up by 2, modulo n_values."""
    return progression(numbers, n_values, 2)


def minus_1(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that start at their first number and go down by 1, modulo n_values."""
    return progression(numbers, n_values, -1)


def minus_2(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that start at their first number and go down by 2, modulo n_values."""
    return progression(numbers, n_values, -2)


def addition(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that end in the sum of the numbers before."""
    return torch.cat([numbers, numbers.sum(-1, keepdim=True) % n_values], dim=-1)


def difference(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that end in the first number minus those between."""
    result = numbers[..., :1] - numbers[..., 1:].sum(-1, keepdim=True)
    return torch.cat([numbers, result % n_values], dim=-1)


def distribute_three(numbers: Numbers, n_values: int) -> Rows:
    """Return rows that are orders of one set of distinct symbols.

    Args:
        numbers: of row r the first is below n_values - r and tells symbol r, the second is below factorial(rows)
            and tells the order.
    """
    symbols = distinct(list(numbers[..., 0].unbind(-1)))
    orders = permutation(numbers[..., 1], numbers.shape[-2])
    return repeat(symbols, "... column -> ... row column", row=numbers.shape[-2]).gather(-1, orders)


_FUNCTIONS = (constant, plus_1, plus_2, minus_1, minus_2, addition, difference, distribute_three)
#: The rules by name, in the order of their numbers.
RULES: dict[str, Callable[[Tensor, int], Tensor]] = dict(zip(SRAVEN_RULES, _FUNCTIONS, strict=True))


def bounds(n_values: int, grid_size: int) -> Int[Tensor, "rule row draw"]:
    """Return how many values each of a rule's random numbers has."""
    table = torch.full((len(RULES), grid_size, grid_size - 1), n_values)
    distribute = table[SRAVEN_RULES.index("distribute_three")]
    distribute[:] = 1  # longer rows have more numbers than this rule needs
    distribute[:, 0] -= 1 - n_values + torch.arange(grid_size)
    distribute[:, 1] = factorial(grid_size)
    return table


def apply(rules: Int[Tensor, "*b"], numbers: Numbers, n_values: int) -> Rows:
    """Return the rows of features that follow these rules, by number."""
    rows = torch.zeros_like(constant(numbers, n_values))
    for index, rule in enumerate(RULES.values()):
        rows = torch.where(rearrange(rules == index, "... -> ... 1 1"), rule(numbers, n_values), rows)
    return rows


def distinct(digits: list[Tensor]) -> Int[Tensor, "*b digit"]:
    """Return numbers without repetition, uniform where digit i is uniform on {0, ..., n - 1 - i}.

    A digit counts the numbers that are left; each earlier one at or below it moves it up.
    """
    numbers = []
    for place, digit in enumerate(digits):
        number = digit
        for earlier in digits[:place][::-1]:
            number = number + (number >= earlier)
        numbers.append(number)
    return torch.stack(numbers, dim=-1)


def permutation(number: Int[Tensor, "*b"], n: int) -> Int[Tensor, "*b n"]:
    """Return the permutation of 0..n-1 with this number, from 0 to factorial(n) - 1, in lexicographic order."""
    return distinct([number // factorial(n - 1 - place) % (n - place) for place in range(n)])


def fillings(name: str, n_values: int, grid_size: int) -> int:
    """Return in how many ways a rule can fill a whole grid with the symbols of one feature."""
    if name == "distribute_three":
        return comb(n_values, grid_size) * factorial(grid_size) ** grid_size
    free = grid_size - 1 if name in ("addition", "difference") else 1
    return n_values ** (grid_size * free)
