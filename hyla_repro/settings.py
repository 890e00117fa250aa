"""What a run is made of, checked and without torch: variants of attention, sizes of models, settings of tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from hyla_repro.errors import choose


class Variant(NamedTuple):
    """One row of Table A1: how the code is normalised and which network it generates."""

    normalizer: str
    value_network: str


VARIANTS = {
    "softmax": Variant("softmax", "linear"),
    "linear": Variant("none", "linear"),
    "hyla": Variant("rms_head", "hyper_relu"),
    "linear_rms_head": Variant("rms_head", "linear"),
    "linear_rms_head_relu_values": Variant("rms_head", "relu_values"),
    "hyla_no_rms_head": Variant("none", "hyper_relu"),
    "hyla_no_relu": Variant("rms_head", "hyper_linear"),
    "hyla_no_relu_no_rms_head": Variant("none", "hyper_linear"),
    "hyla_softmax": Variant("softmax", "hyper_relu"),
    "hyla_deep": Variant("rms_head", "hyper_deep"),
}


class TransformerConfig(BaseModel):
    """Sizes and kind of a transformer; every field that changes a result must be given.

    Exactly one of n_inputs (a linear embedding of vectors) and vocab_size (a token embedding, tied to the
    read-out) is set. qk_dim and v_dim are totals over the heads. n_experts, each of width d_ff, and experts_per_token
    belong to the feed-forward "moe" and to no other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    n_layers: int = Field(ge=1)
    d_model: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    qk_dim: int = Field(ge=1)
    v_dim: int = Field(ge=1)
    d_ff: int = Field(ge=1)
    n_positions: int = Field(ge=2)
    n_inputs: int | None = None
    n_outputs: int | None = None
    vocab_size: int | None = None
    causal: bool = False
    feed_forward: Literal["gelu", "swiglu", "moe"] = "gelu"
    n_experts: int | None = Field(default=None, ge=2)
    experts_per_token: int | None = Field(default=None, ge=1)

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, variant: str) -> str:
        return choose("variant", variant, VARIANTS)

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerConfig":
        for name, width in (("qk_dim", self.qk_dim), ("v_dim", self.v_dim)):
            if width % self.n_heads:
                raise ValueError(f"{name}={width} does not split into n_heads={self.n_heads} heads")
        vectors = (self.n_inputs is not None, self.n_outputs is not None)
        if vectors != (self.vocab_size is None,) * 2:
            raise ValueError("give n_inputs and n_outputs for vectors, or vocab_size alone for tokens")
        experts = (self.n_experts, self.experts_per_token)
        if (self.feed_forward == "moe") != (None not in experts) or experts.count(None) == 1:
            raise ValueError(
                f"feed_forward={self.feed_forward!r} with n_experts={experts[0]} and experts_per_token={experts[1]}: "
                "'moe' needs both, other feed-forwards neither"
            )
        if (self.experts_per_token or 0) > (self.n_experts or 0):
            raise ValueError(f"experts_per_token={self.experts_per_token} exceeds n_experts={self.n_experts}")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_experts(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # Runs without experts keep the identity that they had before there were any.
        return {k: v for k, v in serialize(self).items() if v is not None or "expert" not in k}


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

    n_read = 1
    n_outputs = 1
    metric = "R²"
    # Runs of all figures have one size of model, so their names leave it out.
    names_model_size = False
    # What runs of one stack may differ in, besides the seed: it changes what tables hold, not their shape.
    stackable = ("heldout_fraction",)
    evaluation_splits = ("test", "heldout", "unknown_terms")

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

    Raises:
        ValueError: sizes out of range, or a fraction that leaves a split empty.

    Source: paper, section on SRAVEN; authors' data/raven.py.
    """

    n_features: int = 4
    n_values: int = 8
    grid_size: int = 3
    heldout_fraction: float = 0.25
    seed: int = 0

    metric = "accuracy"
    names_model_size = True
    stackable = ("heldout_fraction",)
    evaluation_splits = ("test", "heldout")

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


TASK_SETTINGS: dict[str, type[FuzzyLogicSettings] | type[SRavenSettings]] = {
    "fuzzy_logic": FuzzyLogicSettings,
    "sraven": SRavenSettings,
}
