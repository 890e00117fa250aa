"""The settings of SRAVEN and the names of its rules, checked and without torch."""

from dataclasses import dataclass
from math import comb

from hyla_repro.errors import whole_number

# The rules of SRAVEN in the order of their numbers.
SRAVEN_RULES = ("constant", "plus_1", "plus_2", "minus_1", "minus_2", "addition", "difference", "distribute_three")


@dataclass(frozen=True)
class SRavenSettings:
    """A grid of panels, each of n_features symbols from 0 to n_values - 1; every feature follows a rule along the rows.

    A task is a multiset of n_features of the eight rules; a fraction of the multisets is held out, drawn by seed.
    Rows of other than three panels keep all rules, as in the release: addition sums all panels before the last,
    difference takes those after the first from it, and distribute-three distributes grid_size symbols.

    Args:
        n_features: symbols per panel, K, from 1 to 8.
        n_values: symbols that a feature can have, F, up to 256; fewer than 5 make progressions coincide.
        grid_size: panels per row and rows per problem, from 3 to 8.
        heldout_fraction: part of the multisets never trained on.
        seed: draws the split and every batch.
        split_seed: draws the split instead of `seed`, where one is given.

    Raises:
        ValueError: sizes out of range, or a fraction that leaves a split empty.

    Source: paper, section on SRAVEN; authors' data/raven.py.
    """

    n_features: int = 4
    n_values: int = 8
    grid_size: int = 3
    heldout_fraction: float = 0.25
    seed: int = 0
    split_seed: int | None = None

    version = 1
    metric = "accuracy"
    names_model_size = True
    stackable = ("heldout_fraction", "split_seed")
    evaluation_splits = ("test", "heldout")
    selected_by = "heldout"  # as in the paper
    lower_is_better = False
    scale = 100.0

    def __post_init__(self) -> None:
        for name, low, high, why in (
            ("n_features", 1, 8, "a panel has at least one symbol, and 8! orders of them is what one draw can tell"),
            ("grid_size", 3, 8, "rows of two panels leave addition and difference no rule, and 8 is the most tested"),
            ("n_values", self.grid_size, 256, f"distribute-three needs grid_size={self.grid_size} distinct symbols"),
            ("seed", 0, 2**32 - 1, "it is one word of the random numbers' key"),
        ):
            value = getattr(self, name)
            if type(value) is not int:
                raise ValueError(f"{name}={value!r} is not a whole number")
            if not low <= value <= high:
                raise ValueError(f"{name}={value} is out of range: use {low} to {high}; {why}")
        whole_number("split_seed", self.seed_of_split, 0, "it is one word of the random numbers' key", 2**32 - 1)
        if not isinstance(self.heldout_fraction, (int, float)) or not 0.0 < self.heldout_fraction < 1.0:
            raise ValueError(
                f"heldout_fraction={self.heldout_fraction!r} is not between 0 and 1: a split would be empty"
            )
        if not 0 < self.n_heldout < self.n_multisets:
            total = self.n_multisets
            raise ValueError(
                f"heldout_fraction={self.heldout_fraction} of {total} rule multisets leaves a split empty: "
                f"use {1 / total:.3g} to {1 - 1 / total:.3g}, or more features"
            )

    @property
    def seed_of_split(self) -> int:
        """What draws the split."""
        return self.seed if self.split_seed is None else self.split_seed

    @property
    def short_name(self) -> str:
        return f"sraven_k{self.n_features}"

    @property
    def summary(self) -> str:
        return f"SRAVEN K={self.n_features} F={self.n_values} G={self.grid_size} held out={self.heldout_fraction}"

    @property
    def n_multisets(self) -> int:
        """How many tasks there are, in all splits together."""
        return comb(len(SRAVEN_RULES) + self.n_features - 1, self.n_features)

    @property
    def n_heldout(self) -> int:
        """How many tasks are held out."""
        return int(self.n_multisets * self.heldout_fraction)

    @property
    def n_tokens(self) -> int:
        return self.grid_size**2 * self.n_features

    @property
    def n_inputs(self) -> int:
        return self.n_values

    @property
    def n_outputs(self) -> int:
        return self.n_values

    @property
    def n_read(self) -> int:
        return self.n_features

    @property
    def model_sizes(self) -> dict[str, int]:
        return {"n_positions": self.n_tokens, "n_inputs": self.n_inputs, "n_outputs": self.n_outputs}
