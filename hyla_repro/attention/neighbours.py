"""What the attentions of neighbouring papers share: their masks, and padding that cannot reach a result."""

from collections.abc import Callable
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hyla_repro.attention.cache import Cache
from hyla_repro.attention.hypernetwork import HypernetworkAttention
from hyla_repro.attention.masks import only_causal, split_mask
from hyla_repro.attention.projections import Heads


class NeighbourAttention(HypernetworkAttention):
    """`HypernetworkAttention` that hides a key from all queries or from none, but for the causal mask.

    Padding is set to zero before it is projected: no NaN or infinity in it reaches an output or a gradient.

    Args:
        arguments, options: those of `HypernetworkAttention`, without add_bias_kv and add_zero_attn.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name, present in (("add_bias_kv", self.bias_k is not None), ("add_zero_attn", self.add_zero_attn)):
            if present:
                raise ValueError(f"{name}=True is not defined for {type(self).__name__}: its keys are the tokens alone")
        if self.chunk is not None:
            raise ValueError(f"chunk={self.chunk} is not defined for {type(self).__name__}: use chunk=None")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = False,
        is_causal: bool = False,
        *,
        score_bias: Float[Tensor, "#b #h #q #k"] | None = None,
        code_scale: Float[Tensor, "#b #h #q #k"] | None = None,
        rotate: Callable[[Heads], Heads] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, and return the outputs with the latent code (b, h, q, k), as `HypernetworkAttention` does.

        Args:
            attn_mask: the causal mask, as torch's layers pass it, and no other.

        Raises: ValueError for another attn_mask or a rotate, and as `HypernetworkAttention.forward` does.
        """
        self._refuse_rotation(rotate)
        if not (query.is_nested or key.is_nested or value.is_nested):
            key, value, is_causal = self._clean(query, key, value, key_padding_mask, attn_mask, is_causal)
            attn_mask = None
        return super().forward(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal,
            score_bias=score_bias, code_scale=code_scale, cache=cache,
        )  # fmt: skip

    def _refuse_rotation(self, rotate: Callable[[Heads], Heads] | None) -> None:
        if rotate is not None:
            raise ValueError(f"rotate is not defined for {type(self).__name__}: give tokens absolute positions")

    def _clean(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, attn_mask: Tensor | None, causal: bool
    ) -> tuple[Tensor, Tensor, bool]:
        """Return keys and values with zeros for padding, and whether attention is causal."""
        self._check_tokens(query, key, value)
        axis = 1 if self.batch_first and query.ndim == 3 else 0
        if attn_mask is not None:
            causal = only_causal(attn_mask, query.shape[axis], key.shape[axis])
        if padding is None:
            return key, value, causal
        # With a cache, the mask covers earlier tokens too.
        hidden = split_mask("key_padding_mask", padding)[1][..., -key.shape[axis] :]
        if hidden.ndim == 2 and not self.batch_first:
            hidden = rearrange(hidden, "b t -> t b")
        # A mask that does not fit is refused later, by its whole shape.
        if hidden.shape != key.shape[:-1]:
            return key, value, causal
        blank = key.masked_fill(hidden.unsqueeze(-1), 0.0)
        return blank, blank if value is key else value.masked_fill(hidden.unsqueeze(-1), 0.0), causal
