"""Fuzzy logic functions: in-context regression of compositional functions (section 4 of the paper)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor

from hyla_repro.counter_rng import CounterRNG, step_and_size
from hyla_repro.errors import choose, expect_shape
from hyla_repro.tasks.fuzzy_logic.settings import FuzzyLogicSettings

#: Split to the pool of its functions and how inputs are drawn: all anew, with one query for all sequences, or with one
#: context for all. `test` is `train` with fresh draws.
SPLITS = {
    "train": ("train", "uniform"),
    "test": ("train", "uniform"),
    "heldout": ("heldout", "uniform"),
    "unknown_terms": ("unknown_terms", "uniform"),
    "train_fixed_query": ("train", "fixed_query"),
    "heldout_fixed_query": ("heldout", "fixed_query"),
    "train_fixed_context": ("train", "fixed_context"),
    "heldout_fixed_context": ("heldout", "fixed_context"),
}


class FuzzyLogicBatch(NamedTuple):
    """Sequences of examples (x, f(x)); the last f(x) is 0 in the inputs and is the target."""

    inputs: Float[Tensor, "b t v_plus_1"]
    targets: Float[Tensor, "b 1"]
    terms: Int[Tensor, "b k"]

    def to(self, device: torch.device | str) -> "FuzzyLogicBatch":
        """Return the batch on a device."""
        return FuzzyLogicBatch(*(part.to(device) for part in self))


def evaluate(terms: Int[Tensor, "b k v"], x: Float[Tensor, "b t v"]) -> Float[Tensor, "b t"]:
    """Return the fuzzy truth value of the disjunction of k conjunctions (Zadeh: and = min, or = max).

    Args:
        terms: 1 where the variable stands plain in the term, 0 where it is negated (1 - x).
        x: truth values in [0, 1].
    """
    plain, x = rearrange(terms, "b k v -> b 1 k v").bool(), rearrange(x, "b t v -> b t 1 v")
    return torch.where(plain, x, 1.0 - x).amin(-1).amax(-1)


@dataclass(frozen=True)
class FuzzyLogic(FuzzyLogicSettings):
    """The task generator of `FuzzyLogicSettings`, which says what its arguments are. Splits: see SPLITS.

    Source: paper, section on fuzzy logic functions; authors' data/logic.py.
    """

    @cached_property
    def terms(self) -> Int[Tensor, "term v"]:
        """All terms in product order: row i has a 1 where variable v stands plain."""
        return torch.tensor(list(product([0, 1], repeat=self.n_variables)))

    @cached_property
    def functions(self) -> dict[str, Int[Tensor, "f k"]]:
        """The functions of each pool, as rows of term numbers."""
        known = torch.tensor(list(combinations(range(self.n_known_terms), self.n_terms)))
        unknown = list(combinations(range(self.n_known_terms, len(self.terms)), self.n_terms))
        order = CounterRNG(self.seed_of_split, "fuzzy_logic/split").permutations(0, 1, len(known))[0]
        n_heldout = int(len(known) * self.heldout_fraction)
        heldout, train = known[order[:n_heldout]], known[order[n_heldout:]]
        return {"train": train, "heldout": heldout, "unknown_terms": torch.tensor(unknown).reshape(-1, self.n_terms)}

    def tables(self, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of this seed and split, as tensors of equal shape for every run of a stack.

        Returns: seed (); functions (f, k), term numbers filled up to the number of all functions; size (), how many
            of them belong to the split; terms (term, v).
        Raises: ValueError for an unknown split, or a split without functions.
        """
        pool = self.functions[SPLITS[choose("split", split, SPLITS)][0]]
        if not len(pool):
            raise ValueError(
                f"split={split!r} is empty: {len(self.terms) - self.n_known_terms} unknown terms make no function "
                f"of n_terms={self.n_terms}"
            )
        filled = torch.zeros(comb(len(self.terms), self.n_terms), self.n_terms, dtype=torch.int64)
        filled[: len(pool)] = pool
        tables = {"seed": torch.tensor(self.seed), "size": torch.tensor(len(pool)), "functions": filled}
        tables["terms"] = self.terms
        return {name: table.to(device) for name, table in tables.items()}

    def draw(self, split: str, tables: Mapping[str, Tensor], step: int | Tensor, size: int) -> FuzzyLogicBatch:
        """Return the batch of a step from `tables`: tensor operations alone, for vmap, the compiler and CUDA graphs."""
        device = tables["seed"].device
        stream = CounterRNG(tables["seed"], f"fuzzy_logic/{split}/functions")
        chosen = tables["functions"][stream.integers(step, (size,), tables["size"], device)]
        x = self._inputs(split, tables["seed"], step, size)
        values = evaluate(tables["terms"][chosen], x)
        shown = torch.cat([values[:, :-1], torch.zeros_like(values[:, -1:])], dim=-1)
        return FuzzyLogicBatch(torch.cat([x, shown.unsqueeze(-1)], dim=-1), values[:, -1:], chosen)

    def batch(self, split: str, step: int, size: int, device: torch.device | str = "cpu") -> FuzzyLogicBatch:
        """Return the batch of this split and step; a larger size only appends sequences.

        Raises: ValueError for an unknown split, a split without functions, or a step or size that is not
            whole or out of range.
        """
        step, size = step_and_size(step, size)
        return self.draw(split, self.tables(split, device), step, size)

    def _inputs(self, split: str, seed: Tensor, step: int | Tensor, size: int) -> Float[Tensor, "b t v"]:
        one, distribution = (self.n_examples, self.n_variables), SPLITS[split][1]
        x = CounterRNG(seed, f"fuzzy_logic/{split}/inputs").uniform(step, (size, *one), seed.device)
        if distribution == "uniform":
            return x
        fixed = repeat(CounterRNG(seed, "fuzzy_logic/fixed").uniform(0, one, seed.device), "t v -> b t v", b=size)
        last = torch.arange(self.n_examples, device=seed.device) == self.n_examples - 1
        keep = last if distribution == "fixed_query" else ~last
        return torch.where(rearrange(keep, "t -> 1 t 1"), fixed, x)

    def loss(self, outputs: Float[Tensor, "b 1 1"], batch: FuzzyLogicBatch) -> Float[Tensor, ""]:
        """Return the mean squared error at the last token.

        Raises: ValueError for outputs of another shape than (b, 1, 1).
        """
        self._check(outputs, batch)
        return (rearrange(outputs, "b 1 1 -> b 1") - batch.targets).square().mean()

    def score(self, outputs: Float[Tensor, "b 1 1"], batch: FuzzyLogicBatch) -> Float[Tensor, " b"]:
        """Return R2 of each sequence: 1 minus its squared error over the variance of its own targets.

        Raises: ValueError for outputs of another shape than (b, 1, 1).
        """
        self._check(outputs, batch)
        values = torch.cat([batch.inputs[:, :-1, -1], batch.targets], dim=-1)
        variance = (values - reduce(values, "b t -> b 1", "mean")).square().mean(-1)
        error = (rearrange(outputs, "b 1 1 -> b 1") - batch.targets).square()
        return 1.0 - rearrange(error, "b 1 -> b") / variance

    def _check(self, outputs: Tensor, batch: FuzzyLogicBatch) -> None:
        expect_shape("outputs", outputs.shape, (*batch.targets.shape, 1), "(sequence, last token, value)")


def formula(terms: Int[Tensor, "k v"]) -> str:
    """Return a function in mathtext, a bar over each negated variable."""
    conjunctions = [" ".join(f"x_{v}" if plain else rf"\bar{{x}}_{v}" for v, plain in enumerate(term.tolist(), start=1))
                    for term in terms]  # fmt: skip
    return "$" + r" \vee ".join(conjunctions) + "$"


def function_images(
    task: FuzzyLogic, functions: list[tuple[int, ...]], others: tuple[float, ...] = (0.2, 0.7), size: int = 101
) -> dict[str, np.ndarray]:
    """Return images (x2, x1) of functions, given by term numbers, over their first two variables.

    Args:
        others: values of the remaining variables, repeated as needed.
    """
    axis = torch.linspace(0, 1, size)
    x2, x1 = torch.meshgrid(axis, axis, indexing="ij")
    rest = [torch.full_like(x1, others[i % len(others)]) for i in range(task.n_variables - 2)]
    x = rearrange(torch.stack([x1, x2, *rest]), "v i j -> 1 (i j) v")
    images = {}
    for function in functions:
        values = evaluate(task.terms[list(function)].unsqueeze(0), x)
        images[formula(task.terms[list(function)])] = rearrange(values, "1 (i j) -> i j", i=size).numpy()
    return images


def split_matrix(task: FuzzyLogic) -> np.ndarray:
    """Return, for pairs (larger, smaller) of terms: 1 train, 2 held out, 3 unknown terms, 0 no function.

    Raises: ValueError unless functions have two terms.
    """
    if task.n_terms != 2:
        raise ValueError(f"a matrix shows functions of 2 terms, not n_terms={task.n_terms}")
    matrix = np.zeros((len(task.terms), len(task.terms)), dtype=int)
    for number, pool in enumerate(("train", "heldout", "unknown_terms"), start=1):
        low, high = task.functions[pool].numpy().T
        matrix[high, low] = number
    return matrix
