"""The settings of fuzzy logic, checked and without torch."""

from dataclasses import dataclass
from math import comb

from hyla_repro.errors import whole_number


@dataclass(frozen=True)
class FuzzyLogicSettings:
    """Functions of n_variables, each the disjunction of n_terms distinct terms, shown by n_examples.

    The last `unknown_fraction` of the 2**n_variables terms never occur in training; of the combinations of
    the known ones, a fraction is held out, drawn by seed.

    Args:
        n_variables: truth values per input.
        n_terms: terms per function.
        n_examples: tokens per sequence, the query included.
        heldout_fraction: part of the known-term combinations never trained on.
        seed: draws the split and every batch.
        unknown_fraction: part of the terms kept out of training altogether.
        split_seed: draws the split instead of `seed`, where one is given.

    Raises:
        ValueError: sizes that leave a split without functions, or fewer than two examples.

    Source: paper, section on fuzzy logic functions.
    """

    n_variables: int = 4
    n_terms: int = 2
    n_examples: int = 32
    heldout_fraction: float = 0.7
    seed: int = 0
    unknown_fraction: float = 0.25
    split_seed: int | None = None

    version = 1
    n_read = 1
    n_outputs = 1
    short_name = "fuzzy_logic"
    metric = "R²"
    # Runs of all figures have one size of model, so their names leave it out.
    names_model_size = False
    # What runs of one stack may differ in, besides the seed: it changes what tables hold, not their shape.
    stackable = ("heldout_fraction", "split_seed")
    evaluation_splits = ("test", "heldout", "unknown_terms")
    selected_by = "heldout"  # as in the paper
    lower_is_better = False
    scale = 100.0

    def __post_init__(self) -> None:
        for name in ("n_variables", "n_terms", "n_examples", "seed"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name}={getattr(self, name)!r} is not a whole number")
        if self.n_variables < 1 or self.n_variables > 10:
            raise ValueError(f"n_variables={self.n_variables} is out of range: use 1 to 10")
        if self.n_terms < 1:
            raise ValueError(f"n_terms={self.n_terms} is too small: a function has at least one term")
        if self.n_examples < 2:
            raise ValueError(f"n_examples={self.n_examples} is too small: use at least 2, a context and a query")
        if not 0.0 <= self.unknown_fraction < 1.0:
            raise ValueError(f"unknown_fraction={self.unknown_fraction} is not in [0, 1)")
        if not 0.0 < self.heldout_fraction < 1.0:
            raise ValueError(f"heldout_fraction={self.heldout_fraction} is not between 0 and 1: a split would be empty")
        if self.n_terms > self.n_known_terms:
            raise ValueError(
                f"n_terms={self.n_terms} exceeds the {self.n_known_terms} known terms of "
                f"n_variables={self.n_variables} with unknown_fraction={self.unknown_fraction}"
            )
        total = comb(self.n_known_terms, self.n_terms)
        if not 0 < int(total * self.heldout_fraction) < total:
            raise ValueError(
                f"heldout_fraction={self.heldout_fraction} of {total} functions leaves a split empty: "
                f"use {1 / total:.3g} to {1 - 1 / total:.3g}, or more variables"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} is out of range: use an integer from 0 to {2**32 - 1}")
        whole_number("split_seed", self.seed_of_split, 0, "it is one word of the random numbers' key", 2**32 - 1)

    @property
    def seed_of_split(self) -> int:
        """What draws the split."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def summary(self) -> str:
        return f"N={self.n_examples} held out={self.heldout_fraction}"

    @property
    def n_tokens(self) -> int:
        return self.n_examples

    @property
    def n_inputs(self) -> int:
        return self.n_variables + 1

    @property
    def n_known_terms(self) -> int:
        n_all = 2**self.n_variables
        return n_all - int(n_all * self.unknown_fraction)

    @property
    def model_sizes(self) -> dict[str, int]:
        return {"n_positions": self.n_tokens, "n_inputs": self.n_inputs, "n_outputs": self.n_outputs}
