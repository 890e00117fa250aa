"""The parameters of torch.nn.MultiheadAttention, by its names, and what they project tokens to."""

from collections.abc import Mapping
from typing import Any, SupportsIndex

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.errors import whole_number

Heads = Float[Tensor, "b h t d"]


class Projections(nn.Module):
    """Query, key, value and output projections; the base of `HypernetworkAttention`, which documents the sizes.

    Args:
        widths: kdim, vdim, qk_dim and v_dim, embed_dim for None.
        deep: have the (h, d, d) basis of HYLA+'s middle layer.
        make: device and dtype.
    """

    # None where keys or values have widths of their own.
    in_proj_weight: Any
    in_proj_bias: nn.Parameter | None
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None
    inner_weight: nn.Parameter | None

    def __init__(
        self, embed_dim: SupportsIndex, num_heads: SupportsIndex, widths: Mapping[str, SupportsIndex | None],
        bias: bool, add_bias_kv: bool, add_zero_attn: bool, deep: bool, make: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__()
        why = "a layer has at least one"
        self.embed_dim = whole_number("embed_dim", embed_dim, 1, why)
        self.num_heads = whole_number("num_heads", num_heads, 1, why)
        self.kdim, self.vdim, self.qk_dim, self.v_dim = (
            self.embed_dim if width is None else whole_number(name, width, 1, why) for name, width in widths.items()
        )
        for name in ("qk_dim", "v_dim"):
            width, given = getattr(self, name), "embed_dim" if widths[name] is None else name
            if width % self.num_heads:
                raise ValueError(f"{given}={width} does not split into num_heads={self.num_heads} heads")
        self.head_dim = self.v_dim // self.num_heads
        self.add_zero_attn = add_zero_attn
        # nn.TransformerEncoderLayer asks for this before it replaces self_attn by a fused softmax kernel.
        self._qkv_same_embed_dim = False
        self._make(bias, add_bias_kv, deep, make)
        self._reset_in()

    def _make(self, bias: bool, add_bias_kv: bool, deep: bool, make: dict[str, Any]) -> None:
        def parameter(exists: bool, *shape: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(*shape, **make)) if exists else None

        self._rows = [self.qk_dim, self.qk_dim, self.v_dim]
        packed = self.kdim == self.vdim == self.embed_dim
        self.register_parameter("in_proj_weight", parameter(packed, sum(self._rows), self.embed_dim))
        inputs = (self.embed_dim, self.kdim, self.vdim)
        for name, row, width in zip("qkv", self._rows, inputs, strict=True):
            self.register_parameter(f"{name}_proj_weight", parameter(not packed, row, width))
        self.register_parameter("in_proj_bias", parameter(bias, sum(self._rows)))
        self.out_proj = nn.Linear(self.v_dim, self.embed_dim, bias=bias, **make)
        self.register_parameter("bias_k", parameter(add_bias_kv, 1, 1, self.qk_dim))
        self.register_parameter("bias_v", parameter(add_bias_kv, 1, 1, self.v_dim))
        self.register_parameter("inner_weight", parameter(deep, self.num_heads, self.head_dim, self.head_dim))

    def reset_parameters(self) -> None:
        """Draw all weights as nn.MultiheadAttention does; the generated middle layer has fan-in h * d."""
        self.out_proj.reset_parameters()
        self._reset_in()

    def _reset_in(self) -> None:
        for weight in self._in_weights() if self.in_proj_weight is None else (self.in_proj_weight,):
            nn.init.xavier_uniform_(weight)
        for bias in () if self.in_proj_bias is None else (self.in_proj_bias, self.out_proj.bias):
            nn.init.zeros_(bias)
        for added in (self.bias_k, self.bias_v):
            if added is not None:
                nn.init.xavier_normal_(added)
        if self.inner_weight is not None:
            nn.init.normal_(self.inner_weight, std=self.v_dim**-0.5)

    def _in_weights(self) -> tuple[Tensor, ...]:
        if self.in_proj_weight is not None:
            return self.in_proj_weight.split(self._rows)
        return tuple(self.get_parameter(f"{name}_proj_weight") for name in "qkv")

    def _in_biases(self) -> tuple[Tensor | None, ...]:
        return (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.split(self._rows)

    def _heads(self, projected: Float[Tensor, "b t width"]) -> Heads:
        return rearrange(projected, "b t (h d) -> b h t d", h=self.num_heads)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        projected: tuple[Tensor, ...]
        if self.in_proj_weight is not None and query is key and key is value:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).split(self._rows, dim=-1)
        else:
            projected = tuple(map(F.linear, (query, key, value), self._in_weights(), self._in_biases()))
        return tuple(map(self._heads, projected))

    @property
    def _n_added(self) -> int:
        """How many keys every query sees besides the tokens."""
        return int(self.bias_k is not None) + int(self.add_zero_attn)

    def _add_keys(self, keys: Heads, values: Float[Tensor, "b h t e"]) -> tuple[Tensor, Tensor]:
        """Append the learned key and value, and the key and value of zeros."""
        if self.bias_k is not None and self.bias_v is not None:
            learned = [self._heads(bias).expand(len(keys), -1, -1, -1) for bias in (self.bias_k, self.bias_v)]
            keys, values = torch.cat([keys, learned[0]], dim=2), torch.cat([values, learned[1]], dim=2)
        if self.add_zero_attn:
            keys, values = F.pad(keys, (0, 0, 0, 1)), F.pad(values, (0, 0, 0, 1))
        return keys, values

    def _cover_added(self, per_pair: Tensor | None, n_keys: int, fill: float = 0.0) -> Tensor | None:
        """Give a mask, bias or factor of n_keys keys a column for every added key."""
        if per_pair is None or not self._n_added:
            return per_pair
        return F.pad(per_pair.expand(*per_pair.shape[:-1], n_keys), (0, self._n_added), value=fill)


def check_settings(dropout: float, **flags: bool) -> None:
    """Raises: ValueError for a dropout that is no probability, or a flag that is neither True nor False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={flag!r} is not True or False: positions are those of nn.MultiheadAttention")
    if not 0.0 <= dropout <= 1.0:
        raise ValueError(f"dropout={dropout} is not a probability in [0, 1]")
