"""SRAVEN: symbolic Raven's matrices whose tasks are multisets of rules (section 5 of the paper)."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from math import factorial
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.counter_rng import CounterRNG, step_and_size
from hyla_repro.errors import choose, expect_shape
from hyla_repro.tasks.sraven import rules as rule_functions
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES, SRavenSettings

#: Split to the pool of its rule multisets and how columns permute the features: each on its own, not at all, or all
#: alike. `test` is `train` with fresh problems.
SPLITS = {
    "train": ("train", "by_column"),
    "test": ("train", "by_column"),
    "heldout": ("heldout", "by_column"),
    "train_unpermuted": ("train", "none"),
    "heldout_unpermuted": ("heldout", "none"),
    "train_aligned": ("train", "shared"),
    "heldout_aligned": ("heldout", "shared"),
}


class SRavenBatch(NamedTuple):
    """Problems: one-hot symbols of all panels but the last, then zeros where its symbols are asked for.

    Tokens run through the grid row by row, within a panel by position. Position i of column c shows feature
    permutations[c, i], whose rule is rules[permutations[c, i]]; so targets[i] continues feature permutations[-1, i].
    Rules are numbered as in `RULES` and sorted.
    """

    inputs: Float[Tensor, "b t f"]
    targets: Int[Tensor, "b k"]
    rules: Int[Tensor, "b k"]
    permutations: Int[Tensor, "b column k"]

    def to(self, device: torch.device | str) -> "SRavenBatch":
        """Return the batch on a device."""
        return SRavenBatch(*(part.to(device) for part in self))


@dataclass(frozen=True)
class SRaven(SRavenSettings):
    """The task generator of `SRavenSettings`, which says what its arguments are. Splits: see SPLITS.

    A problem's rules are drawn as a multiset and always listed in ascending order, as in the release. Where each
    column permutes the features on its own, the order makes no difference. In the unpermuted splits it does: the
    position of a symbol then tells something of its rule. The aligned splits have one permutation for all columns,
    so that there is nothing to align either, but positions tell nothing.

    Warns: rules that no training task has are named; so are settings that make two rules the same.

    Source: paper, section on SRAVEN; authors' data/raven.py, whose un-permuted streams are sorted too.
    Differs: the aligned splits are ours.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        seen = set(self.multisets["train"].flatten().tolist())
        if unseen := [name for index, name in enumerate(SRAVEN_RULES) if index not in seen]:
            warnings.warn(
                f"heldout_fraction={self.heldout_fraction} leaves rules that are in no training task: "
                f"{', '.join(unseen)}. Hold out less, or use more features.",
                stacklevel=3,
            )
        if self.n_values < 5:
            same = "plus_1 = minus_2, plus_2 = minus_1" if self.n_values == 3 else "plus_2 = minus_2"
            warnings.warn(
                f"n_values={self.n_values} makes rules coincide ({same}), so held-out tasks may be trained on "
                "under another name. Use 5 values or more.",
                stacklevel=3,
            )

    @cached_property
    def multisets(self) -> dict[str, Int[Tensor, "task k"]]:
        """The tasks of each pool, as ascending rule numbers."""
        every = torch.tensor(list(combinations_with_replacement(range(len(SRAVEN_RULES)), self.n_features)))
        order = CounterRNG(self.seed_of_split, "sraven/split").permutations(0, 1, len(every))[0]
        return {"train": every[order[self.n_heldout :]], "heldout": every[order[: self.n_heldout]]}

    def tables(self, split: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return what `draw` must know of this seed and split, as tensors of equal shape for every run of a stack.

        Returns: seed (); multisets (task, k), filled up to the number of all; size (), how many of them belong to
            the split; bounds (rule, row, draw), see `rules.bounds`.
        Raises: ValueError for an unknown split.
        """
        pool = self.multisets[SPLITS[choose("split", split, SPLITS)][0]]
        filled = torch.zeros(self.n_multisets, self.n_features, dtype=torch.int64)
        filled[: len(pool)] = pool
        tables = {"seed": torch.tensor(self.seed), "size": torch.tensor(len(pool)), "multisets": filled}
        tables["bounds"] = rule_functions.bounds(self.n_values, self.grid_size)
        return {name: table.to(device) for name, table in tables.items()}

    def draw(self, split: str, tables: Mapping[str, Tensor], step: int | Tensor, size: int) -> SRavenBatch:
        """Return the batch of a step from `tables`: tensor operations alone, for vmap, the compiler and CUDA graphs."""
        seed, device, grid = tables["seed"], tables["seed"].device, self.grid_size
        chosen = CounterRNG(seed, f"sraven/{split}/tasks").integers(step, (size,), tables["size"], device)
        rules = tables["multisets"][chosen]
        shape = (size, self.n_features, grid, grid - 1)
        numbers = CounterRNG(seed, f"sraven/{split}/rows").integers(step, shape, tables["bounds"][rules], device)
        features = rule_functions.apply(rules, numbers, self.n_values)
        permutations = self._permutations(split, seed, step, size)
        panels = rearrange(features, "b k row column -> b row column k").gather(
            -1, repeat(permutations, "b column k -> b row column k", row=grid)
        )
        return self.pack(panels, rules, permutations)

    def pack(
        self, panels: Int[Tensor, "b row column k"], rules: Int[Tensor, "b k"], permutations: Int[Tensor, "b column k"]
    ) -> SRavenBatch:
        """Return whole grids as the tokens that show them, and the symbols of the last panel as the targets."""
        symbols = rearrange(panels, "b row column k -> b (row column k)")
        shown = torch.arange(self.n_tokens, device=panels.device) < self.n_tokens - self.n_features
        # No symbol is -1, so the tokens of the panel in question are zero.
        asked = torch.where(shown, symbols, -1).unsqueeze(-1)
        inputs = (asked == torch.arange(self.n_values, device=panels.device)).to(torch.float32)
        return SRavenBatch(inputs, symbols[:, -self.n_features :], rules, permutations)

    def batch(self, split: str, step: int, size: int, device: torch.device | str = "cpu") -> SRavenBatch:
        """Return the batch of this split and step; a larger size only appends problems.

        Raises: ValueError for an unknown split, or a step or size that is not whole or out of range.
        """
        step, size = step_and_size(step, size, "problem")
        return self.draw(split, self.tables(split, device), step, size)

    def _permutations(self, split: str, seed: Tensor, step: int | Tensor, size: int) -> Int[Tensor, "b column k"]:
        kind, n = SPLITS[split][1], self.n_features
        if kind == "none":
            return repeat(torch.arange(n, device=seed.device), "k -> b column k", b=size, column=self.grid_size)
        columns = self.grid_size if kind == "by_column" else 1
        stream = CounterRNG(seed, f"sraven/{split}/permutations")
        drawn = rule_functions.permutation(stream.integers(step, (size, columns), factorial(n), seed.device), n)
        return drawn.expand(size, self.grid_size, n)

    def panels(self, batch: SRavenBatch) -> Int[Tensor, "b row column k"]:
        """Return the symbols of the whole grid, the last panel's from the targets.

        Raises: ValueError for a batch of a task of other sizes.
        """
        expected = (len(batch.targets), self.n_tokens, self.n_inputs)
        expect_shape("batch.inputs", batch.inputs.shape, expected, "(problem, token, value)")
        shown = batch.inputs[:, : -self.n_features].argmax(-1)
        return rearrange(
            torch.cat([shown, batch.targets], dim=-1), "b (row column k) -> b row column k",
            row=self.grid_size, column=self.grid_size,
        )  # fmt: skip

    def loss(self, outputs: Float[Tensor, "b k f"], batch: SRavenBatch) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the last panel's symbols, in nats per symbol.

        Raises: ValueError for outputs of another shape than (b, k, f).
        """
        self._check(outputs, batch)
        return F.cross_entropy(rearrange(outputs, "b k f -> b f k"), batch.targets)

    def score(self, outputs: Float[Tensor, "b k f"], batch: SRavenBatch) -> Float[Tensor, " b"]:
        """Return 1 where every symbol of the last panel is the likeliest, else 0; NaN where an output is not finite.

        Raises: ValueError for outputs of another shape than (b, k, f).
        """
        self._check(outputs, batch)
        right = (outputs.argmax(-1) == batch.targets).all(-1).to(outputs.dtype)
        return torch.where(outputs.isfinite().all(-1).all(-1), right, torch.nan)

    def _check(self, outputs: Tensor, batch: SRavenBatch) -> None:
        axes = "(problem, symbol of the last panel, value)"
        expect_shape("outputs", outputs.shape, (*batch.targets.shape, self.n_values), axes)
