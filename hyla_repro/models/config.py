"""What a transformer is made of, checked and without torch: its kind of attention, its sizes, its feed-forward."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from hyla_repro.attention.variants import MODEL_VARIANTS, NEIGHBOURS
from hyla_repro.errors import choose

# Fields that came later, and what they were before they were there: runs with that keep their identity.
_LATER = {"n_experts": None, "experts_per_token": None, "position": "relative"}


class TransformerConfig(BaseModel):
    """Sizes and kind of a transformer; every field that changes a result must be given.

    Either n_inputs and n_outputs are set, or vocab_size.

    Args:
        variant: a key of VARIANTS, or of NEIGHBOURS.
        n_layers: how many blocks of attention and feed-forward.
        d_model: width of the residual stream.
        n_heads: heads of each attention, the size of the latent code.
        qk_dim: total width of the queries, and of the keys, over the heads.
        v_dim: total width of the values over the heads.
        d_ff: hidden width of the feed-forward, or of each of its experts.
        n_positions: the longest sequence; positions are made for so many.
        n_inputs: width of the vectors that are embedded linearly.
        n_outputs: width of the read-out of vectors.
        vocab_size: number of tokens, whose embedding is tied to the read-out.
        causal: let a token attend to itself and earlier ones alone.
        feed_forward: "gelu", "swiglu", or "moe", a mixture of experts.
        n_experts: number of experts, of "moe" alone.
        experts_per_token: how many of them each token goes through, of "moe" alone.
        position: "relative", a table of scores in each layer; "rotary" turns queries and keys and has no parameters.

    Raises: pydantic.ValidationError (a ValueError) naming the field and the value, or fields that do not fit together.
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
    position: Literal["relative", "rotary"] = "relative"

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, variant: str) -> str:
        return choose("variant", variant, MODEL_VARIANTS)

    @model_validator(mode="after")
    def _consistent(self) -> "TransformerConfig":
        for name, width in (("qk_dim", self.qk_dim), ("v_dim", self.v_dim)):
            if width % self.n_heads:
                raise ValueError(f"{name}={width} does not split into n_heads={self.n_heads} heads")
        if self.position == "rotary" and (self.qk_dim // self.n_heads) % 2:
            raise ValueError(
                f"position='rotary' turns pairs of channels: qk_dim={self.qk_dim} in n_heads={self.n_heads} heads "
                f"gives each {self.qk_dim // self.n_heads}, and needs an even number"
            )
        if self.position == "rotary" and self.variant in NEIGHBOURS:
            raise ValueError(f"variant={self.variant!r} has positions of its own: leave position at 'relative'")
        if self.absolute and not self.causal:
            raise ValueError(f"variant={self.variant!r} is defined for causal=True alone")
        if self.causal and self.variant.endswith("_sh"):
            raise ValueError(
                f"variant={self.variant!r} with causal=True: its windows have later tokens; use causal=False"
            )
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

    @property
    def absolute(self) -> bool:
        """Whether tokens have learned absolute positions, instead of a relative bias in every layer."""
        return self.variant in NEIGHBOURS and NEIGHBOURS[self.variant].absolute

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {k: v for k, v in serialize(self).items() if k not in _LATER or v != _LATER[k]}
