"""Multi-head attention as a hypernetwork: normalisers, value networks and the module (sections 2 and 3)."""

from collections.abc import Callable
from typing import Any

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention.masks import Masked, split_masks
from hyla_repro.errors import choose

Code = Float[Tensor, "b h q k"]
Value = Float[Tensor, "b k h d"]
Mixed = Float[Tensor, "b q h d"]
Inner = Float[Tensor, "h d d"] | None
Activation = Callable[[Tensor], Tensor]

# Up to this head width, channel by channel beats a batched product of tiny matrices: on a CPU at width 2 twice as
# fast eager and 6 times compiled; and it never holds a (b, h, q, k, d) tensor (benchmarks/value_network.py).
_NARROW = 4


def softmax_over_keys(scores: Code, masked: Masked = None) -> Code:
    """Normalise each head's scores over the keys; a query that may see no key gets the zero code, not NaN."""
    if masked is None:
        return scores.softmax(-1)
    visible = scores.masked_fill(masked, torch.finfo(scores.dtype).min)
    return visible.softmax(-1).masked_fill(masked, 0.0)


def rms_over_heads(scores: Code, masked: Masked = None, eps: float = 1e-6) -> Code:
    """Divide the code of each pair (q, k) by its root mean square over the heads (RMSHead).

    Returns: dimensionless, RMS 1 over h wherever the scores are large against sqrt(eps); no learned scale.
    Source: paper, definition of HYLA. Masked pairs have score 0 and so code 0.
    """
    scores = unnormalized(scores, masked)
    return scores * torch.rsqrt(reduce(scores.square(), "b h q k -> b 1 q k", "mean") + eps)


def unnormalized(scores: Code, masked: Masked = None) -> Code:
    """Return the scores as they are, 0 at masked pairs (linear attention)."""
    return scores if masked is None else scores.masked_fill(masked, 0.0)


def _mix_heads(code: Code, value: Value) -> Float[Tensor, "b d q k"]:
    """First generated layer: sum_h a[h,q,k] value[k,h] for every pair."""
    if value.shape[-1] > _NARROW:
        return einsum(code, value, "b h q k, b k h d -> b d q k")
    channels = rearrange(value, "b k h d -> d b h 1 k")
    return rearrange([(code * channel).sum(1) for channel in channels], "d b q k -> b d q k")


def _mix_keys(code: Code, hidden: Float[Tensor, "b d q k"]) -> Mixed:
    """Second generated layer up to W_h^out: sum_k a[h,q,k] hidden[q,k] for every query and head."""
    if hidden.shape[1] > _NARROW:
        return einsum(code, hidden, "b h q k, b d q k -> b q h d")
    channels = rearrange(hidden, "b d q k -> d b 1 q k")
    return rearrange([(code * channel).sum(-1) for channel in channels], "d b h q -> b q h d")


def linear_value(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate one linear layer per pair: standard multi-head attention (section 2)."""
    return einsum(code, value, "b h q k, b k h d -> b q h d")


def relu_values(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Apply the activation to each head's value before mixing: a non-linearity the code does not shape."""
    return linear_value(code, activation(value), activation)


def hyper_linear(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate two linear layers from the same code: HYLA without its non-linearity."""
    return _mix_keys(code, _mix_heads(code, value))


def hyper_relu(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate both layers of a one-hidden-layer value network from the same code: HYLA (section 3)."""
    hidden = activation(_mix_heads(code, value))
    return _mix_keys(code, hidden)


def hyper_deep(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate a third layer between the two of HYLA, from the basis `inner` (HYLA+)."""
    assert inner is not None, "hyper_deep needs the (h, d, d) basis of its middle layer"
    hidden = activation(_mix_heads(code, value))
    # Every head's image of hidden comes first, so that the code contracts it like any other value.
    images = einsum(hidden, inner, "b d q k, h d e -> b h q k e")
    hidden = activation(rearrange((code.unsqueeze(-1) * images).sum(1), "b q k e -> b e q k"))
    return _mix_keys(code, hidden)


NORMALIZERS = {"softmax": softmax_over_keys, "rms_head": rms_over_heads, "none": unnormalized}
VALUE_NETWORKS = {
    "linear": linear_value,
    "relu_values": relu_values,
    "hyper_linear": hyper_linear,
    "hyper_relu": hyper_relu,
    "hyper_deep": hyper_deep,
}


class HypernetworkAttention(nn.Module):
    """Multi-head attention whose latent code generates a value network for every pair (q, k).

    With the defaults this is HYLA, with `normalizer="softmax", value_network="linear"` it is
    `torch.nn.MultiheadAttention`, whose call, `state_dict` and constructor's keywords it shares, but for batch_first
    (always), add_bias_kv and add_zero_attn (never).

        a[:, q, k] = normalizer(<W_h^query x_q, W_h^key x_k> / sqrt(d_k))                   latent code
        y_q = sum_k (sum_h a[h,q,k] W_h^out) activation(sum_h a[h,q,k] W_h^value x_k)       HYLA

    Args:
        embed_dim: model width of queries and outputs.
        num_heads: number of heads h, the size of the latent code.
        dropout: probability of dropping an element of the normalised code in training.
        bias: add biases to the query, key, value and output projections.
        kdim, vdim: width of the keys' and values' tokens, embed_dim if None.
        batch_first: must be True.
        normalizer, value_network: keys of NORMALIZERS and VALUE_NETWORKS; VARIANTS pairs them.
        activation: non-linearity phi of the value network.
        qk_dim, v_dim: total query/key and value widths over all heads, embed_dim if None.

    Raises: ValueError for a width that does not split into heads, an unknown normalizer or value network.
    Source: paper, sections 2 and 3.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = True,
        normalizer: str = "rms_head",
        value_network: str = "hyper_relu",
        activation: Activation = torch.relu,
        qk_dim: int | None = None,
        v_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not batch_first:
            raise ValueError("batch_first=False is not supported: pass tensors as (batch, token, width)")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout} is not a probability in [0, 1)")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, True
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.qk_dim, self.v_dim = qk_dim or embed_dim, v_dim or embed_dim
        for name, width in (("embed_dim" if qk_dim is None else "qk_dim", self.qk_dim), ("v_dim", self.v_dim)):
            if num_heads < 1 or width % num_heads:
                raise ValueError(f"{name}={width} does not split into num_heads={num_heads} heads")
        self.normalizer = choose("normalizer", normalizer, NORMALIZERS)
        self.value_network = choose("value_network", value_network, VALUE_NETWORKS)
        self.activation = activation
        # nn.TransformerEncoderLayer asks for this before it replaces self_attn by a fused softmax kernel.
        self._qkv_same_embed_dim = False

        make: dict[str, Any] = {"device": device, "dtype": dtype}
        self._rows = [self.qk_dim, self.qk_dim, self.v_dim]
        self._packed = self.kdim == self.vdim == embed_dim
        if self._packed:
            self.in_proj_weight = nn.Parameter(torch.empty(sum(self._rows), embed_dim, **make))
        else:
            for name, row, width in zip("qkv", self._rows, (embed_dim, self.kdim, self.vdim), strict=True):
                self.register_parameter(f"{name}_proj_weight", nn.Parameter(torch.empty(row, width, **make)))
        self.in_proj_bias = nn.Parameter(torch.empty(sum(self._rows), **make)) if bias else None
        self.out_proj = nn.Linear(self.v_dim, embed_dim, bias=bias, **make)
        inner = (num_heads, self.v_dim // num_heads, self.v_dim // num_heads)
        self.inner_weight = nn.Parameter(torch.empty(inner, **make)) if value_network == "hyper_deep" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as nn.MultiheadAttention does; the generated middle layer has fan-in h * d."""
        for weight in [self.in_proj_weight] if self._packed else self._in_weights():
            nn.init.xavier_uniform_(weight)
        for bias in () if self.in_proj_bias is None else (self.in_proj_bias, self.out_proj.bias):
            nn.init.zeros_(bias)
        if self.inner_weight is not None:
            nn.init.normal_(self.inner_weight, std=self.v_dim**-0.5)

    def _in_weights(self) -> tuple[Tensor, ...]:
        if self._packed:
            return self.in_proj_weight.split(self._rows)
        return tuple(self.get_parameter(f"{name}_proj_weight") for name in "qkv")

    def _in_biases(self) -> tuple[Tensor | None, ...]:
        return (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.split(self._rows)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        projected: tuple[Tensor, ...]
        if self._packed and query is key and key is value:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).split(self._rows, dim=-1)
        else:
            projected = tuple(map(F.linear, (query, key, value), self._in_weights(), self._in_biases()))
        return tuple(rearrange(p, "b t (h d) -> b t h d", h=self.num_heads) for p in projected)

    def _code(self, query: Tensor, key: Tensor, bias: Tensor | None, masked: Masked) -> Code:
        """Return the normalised latent code of projected queries and keys."""
        scores = einsum(query * query.shape[-1] ** -0.5, key, "b q h d, b k h d -> b h q k")
        return NORMALIZERS[self.normalizer](scores if bias is None else scores + bias, masked)

    def forward(
        self,
        query: Float[Tensor, "b q m"],
        key: Float[Tensor, "b k m_key"],
        value: Float[Tensor, "b k m_value"],
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = False,
        is_causal: bool = False,
        *,
        score_bias: Float[Tensor, "#b #h #q #k"] | None = None,
        code_scale: Float[Tensor, "#b #h #q #k"] | None = None,
    ) -> tuple[Float[Tensor, "b q m"], Tensor | None]:
        """Attend, and return the outputs with the latent code (b, h, q, k).

        Args:
            key_padding_mask: (b, k), True or -inf where a key is padding.
            need_weights: return the latent code, after dropout, as the second element.
            attn_mask: (q, k) or (b*h, q, k); True or -inf removes a pair, finite numbers are added to the scores.
            average_attn_weights: return the code's mean over heads instead of the code.
            is_causal: without an attn_mask, let query q see keys up to q (aligned at the last key).
            score_bias: finite numbers added to the scores, such as a relative position bias.
            code_scale: factor on the normalised code, for dropout masks drawn by the caller.

        Differs: torch averages the weights by default, refuses is_causal without a mask, and returns NaN for a
            query that sees no key, whose code is 0 here.
        """
        for name, tokens in (("query", query), ("key", key), ("value", value)):
            if tokens.ndim != 3:
                raise ValueError(
                    f"{name} has shape {tuple(tokens.shape)}, needs (batch, token, width): unsqueeze(0) one"
                )
        if query.is_nested:
            raise ValueError("nested tensors are not supported: build TransformerEncoder(enable_nested_tensor=False)")
        shape = (query.shape[0], self.num_heads, query.shape[1], key.shape[1])
        bias, masked = split_masks(attn_mask, key_padding_mask, is_causal, shape, query.device)
        bias = score_bias if bias is None else bias if score_bias is None else bias + score_bias
        queries, keys, values = self._project(query, key, value)
        code = self._code(queries, keys, bias, masked)
        if code_scale is not None:
            code = code * code_scale
        if self.dropout and self.training:
            code = F.dropout(code, self.dropout)
        mixed = VALUE_NETWORKS[self.value_network](code, values, self.activation, self.inner_weight)
        output = self.out_proj(rearrange(mixed, "b q h d -> b q (h d)"))
        if average_attn_weights:
            code = reduce(code, "b h q k -> b q k", "mean")
        return output, code if need_weights else None

    def value_network_weights(
        self, query: Float[Tensor, "b q m"], key: Float[Tensor, "b k m_key"]
    ) -> tuple[Float[Tensor, "b q k _ _"], ...]:
        """Generate the weight matrices of the value network of every pair, innermost layer first.

        Standard attention has one, W_{q,k} = sum_h a[h,q,k] W_h^out W_h^value, HYLA two, HYLA+ three. Without
        biases, y_q is the sum over k of that network applied to x_k, exactly.

        Returns: matrices (b, q, k, out, in).
        Raises: ValueError for relu_values, whose non-linearity stands outside what the code generates.
        """
        if self.value_network == "relu_values":
            raise ValueError("value_network='relu_values' generates no value network: use hyper_relu or another one")
        (w_q, w_k, w_v), (b_q, b_k, _) = self._in_weights(), self._in_biases()
        heads = {"h": self.num_heads}
        queries, keys = F.linear(query, w_q, b_q), F.linear(key, w_k, b_k)
        queries, keys = (rearrange(p, "b t (h d) -> b t h d", **heads) for p in (queries, keys))
        code = self._code(queries, keys, None, None)
        inside = rearrange(w_v, "(h d) m -> h d m", **heads)
        outside = rearrange(self.out_proj.weight, "m (h d) -> h m d", **heads)
        if self.value_network == "linear":
            bases = [einsum(outside, inside, "h m d, h d n -> h m n")]
        elif self.inner_weight is None:
            bases = [inside, outside]
        else:
            bases = [inside, rearrange(self.inner_weight, "h d e -> h e d"), outside]
        return tuple(einsum(code, basis, "b h q k, h i j -> b q k i j") for basis in bases)
