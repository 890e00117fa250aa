"""Multi-head attention as a hypernetwork: the module, which projects tokens and calls `attend` (sections 2 and 3)."""

from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention import nested
from hyla_repro.attention.cache import Cache
from hyla_repro.attention.functional import KEY_REDUCTIONS, attend, check_chunk, latent_code
from hyla_repro.attention.masks import Bias, Masked, batched, split_masks
from hyla_repro.attention.normalizers import NORMALIZERS
from hyla_repro.attention.projections import Heads, Projections, check_settings
from hyla_repro.attention.value_networks import VALUE_NETWORKS, Activation, as_activation
from hyla_repro.attention.variants import VARIANTS, Variant
from hyla_repro.errors import choose


class HypernetworkAttention(Projections):
    """Multi-head attention whose latent code generates a value network for every pair (q, k).

    With the defaults this is HYLA, with `variant="softmax"` it is `torch.nn.MultiheadAttention`, whose constructor,
    call and `state_dict` it shares. `HypernetworkAttention.like(attention)` replaces one that exists.

        a[:, q, k] = normalizer(<W_h^query x_q, W_h^key x_k> / sqrt(d_k))
        W_value[q, k], W_out[q, k] = sum_h a[h, q, k] W_h^value, sum_h a[h, q, k] W_h^out
        y_q = sum_k W_out[q, k] activation(W_value[q, k] x_k)

    The first line is the latent code, the others are HYLA.

    Args:
        embed_dim: model width of queries and outputs.
        num_heads: number of heads h, the size of the latent code.
        dropout: probability of dropping an element of the normalised code in training.
        bias: add biases to the query, key, value and output projections.
        add_bias_kv: let every query also see one key with a learned key and value.
        add_zero_attn: let every query also see a key of zeros; its code is 0 unless the normaliser is softmax.
        kdim: width of the keys' tokens, embed_dim if None.
        vdim: width of the values' tokens, embed_dim if None.
        batch_first: tokens are (batch, token, width), else (token, batch, width).
        variant: a key of VARIANTS, instead of normalizer and value_network.
        normalizer: a key of NORMALIZERS, that of HYLA ("rms_head") if None.
        value_network: a key of VALUE_NETWORKS, that of HYLA ("hyper_relu") if None.
        activation: non-linearity phi of the value network, "relu", "gelu" or a function.
        qk_dim: total width of the queries, and of the keys, over all heads, embed_dim if None.
        v_dim: total width of the values over all heads, embed_dim if None.
        key_reduction: "sum" over the keys as in the paper; "mean" and "root" divide each head's output by the number
            of keys that the query sees, or by its root, so that outputs do not grow with the sequence.
        chunk: queries, and keys, of a block: memory then grows with the tokens and not with their pairs. 256 is a good
            start; None computes all pairs at once. Call with need_weights=False, as no code is ever whole.

    Raises: ValueError for a width that does not split into heads, a value out of range, an unknown name.
    Source: paper, sections 2 and 3.
    Differs: in torch, batch_first is False unless it is given.
    """

    def __init__(
        self,
        embed_dim: SupportsIndex,
        num_heads: SupportsIndex,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: SupportsIndex | None = None,
        vdim: SupportsIndex | None = None,
        batch_first: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        variant: str | None = None,
        normalizer: str | None = None,
        value_network: str | None = None,
        activation: str | Activation = "relu",
        qk_dim: SupportsIndex | None = None,
        v_dim: SupportsIndex | None = None,
        key_reduction: str = "sum",
        chunk: SupportsIndex | None = None,
    ) -> None:
        pair = _choose_pair(variant, normalizer, value_network)
        check_settings(dropout, bias=bias, add_bias_kv=add_bias_kv, add_zero_attn=add_zero_attn,
                       batch_first=batch_first)  # fmt: skip
        widths = {"kdim": kdim, "vdim": vdim, "qk_dim": qk_dim, "v_dim": v_dim}
        deep, make = pair.value_network == "hyper_deep", {"device": device, "dtype": dtype}
        super().__init__(embed_dim, num_heads, widths, bias, add_bias_kv, add_zero_attn, deep, make)
        self.dropout, self.batch_first = float(dropout), batch_first
        self.normalizer, self.value_network = pair
        self.activation = as_activation(activation)
        self.key_reduction = choose("key_reduction", key_reduction, KEY_REDUCTIONS)
        self.chunk = check_chunk(chunk)

    @classmethod
    def like(cls, attention: nn.MultiheadAttention, **choices: Any) -> "HypernetworkAttention":
        """Return hypernetwork attention with the sizes, layout and weights of torch's.

        Args:
            choices: keywords of the constructor such as variant; HYLA without any.

        Raises: ValueError as the constructor does.
        """
        weight, bias = attention.out_proj.weight, attention.in_proj_bias is not None
        new = cls(
            attention.embed_dim, attention.num_heads, attention.dropout, bias, attention.bias_k is not None,
            attention.add_zero_attn, attention.kdim, attention.vdim, attention.batch_first, weight.device, weight.dtype,
            **choices,
        )  # fmt: skip
        # HYLA+ has a middle layer that torch's attention cannot give, and so have others a parameter of their own.
        new.load_state_dict(new.state_dict() | attention.state_dict())
        return new.train(attention.training)

    def extra_repr(self) -> str:
        """Say what the module computes, in the names of the constructor's arguments."""
        names = {pair: name for name, pair in VARIANTS.items()}
        variant = names.get(Variant(self.normalizer, self.value_network), "none of Table A1")
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}, "
            f"normalizer={self.normalizer!r}, value_network={self.value_network!r} ({variant}), "
            f"key_reduction={self.key_reduction!r}" + ("" if self.chunk is None else f", chunk={self.chunk}")
        )

    # Nested tensors have no shape that an annotation of the tokens could check.
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
        """Attend, and return the outputs with the latent code (b, h, q, k).

        Args:
            query, key, value: (b, t, width), (t, b, width) if not batch_first, (t, width) without a batch; or nested.
            key_padding_mask: (b, k), True or -inf where a key is padding.
            need_weights: return the latent code, after dropout, as the second element.
            attn_mask: (q, k) or (b*h, q, k); True, -inf or any number up to MASKED_BELOW = -9000 removes a pair, other
                numbers are added to the scores.
            average_attn_weights: return the code's mean over heads instead of the code.
            is_causal: without an attn_mask, let query q see keys up to q (aligned at the last key).
            score_bias: finite numbers added to the scores, such as a relative position bias; never a mask.
            code_scale: factor on the normalised code, for dropout masks drawn by the caller.
            rotate: applied to the projected queries, and to the keys (b, h, t, d) before a cache takes them, such as a
                rotation by positions.
            cache: takes the keys and values (b, h, k, d) of these tokens, gives those of all so far: a `KeyValueCache`,
                or a host library's own.

        Returns: outputs in the layout of the query; the code, without batch (h, q, k), or None.
        Raises: ValueError naming tokens or masks that do not fit, or need_weights or dropout that a chunk excludes.
        Differs: torch averages the weights by default, refuses is_causal without a mask, and returns NaN for a
            query that sees no key, whose code is 0 here.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            return self._forward_nested(
                (query, key, value), key_padding_mask, attn_mask, need_weights=need_weights, cache=cache,
                average_attn_weights=average_attn_weights, is_causal=is_causal, score_bias=score_bias,
                code_scale=code_scale, rotate=rotate,
            )  # fmt: skip
        self._check_tokens(query, key, value)
        check_chunk(self.chunk, "need_weights=True" if need_weights else None)
        if query.ndim == 2 and key_padding_mask is not None:
            key_padding_mask = batched(key_padding_mask)
        queries, keys, values = self._project(*self._batches_first(query, key, value))
        if rotate is not None:
            queries, keys = rotate(queries), rotate(keys)
        if cache is not None:
            keys, values = cache(keys, values)
        n_keys = keys.shape[2]
        shape = (*queries.shape[:3], n_keys)
        bias, masked = split_masks(attn_mask, key_padding_mask, is_causal and self.chunk is None, shape, query.device)
        bias = score_bias if bias is None else bias if score_bias is None else bias + score_bias
        queries, keys, bias, masked = self._prepare(queries, keys, bias, masked)
        mixed, code = attend(
            queries, *self._add_keys(keys, values), self._cover_added(bias, n_keys),
            self._cover_added(masked, n_keys), normalizer=self.normalizer, value_network=self.value_network,
            activation=self.activation, inner_weight=self.inner_weight, key_reduction=self.key_reduction,
            code_scale=self._cover_added(code_scale, n_keys, 1.0), dropout=self.dropout if self.training else 0.0,
            chunk=self.chunk, causal=is_causal and attn_mask is None, n_added=self._n_added,
        )  # fmt: skip
        output = self.out_proj(rearrange(mixed, "b h q d -> b q (h d)"))
        if code is not None and average_attn_weights:
            code = reduce(code, "b h q k -> b q k", "mean")
        if query.ndim == 2:
            return output[0], None if code is None or not need_weights else code[0]
        return output if self.batch_first else rearrange(output, "b q m -> q b m"), code if need_weights else None

    def _prepare(
        self, queries: Tensor, keys: Tensor, bias: Bias, masked: Masked
    ) -> tuple[Tensor, Tensor, Bias, Masked]:
        """Return what the code is made of; attentions of other papers change it here."""
        return queries, keys, bias, masked

    def _check_tokens(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        layout = "(batch, token, width)" if self.batch_first else "(token, batch, width)"
        widths = {"embed_dim": self.embed_dim, "kdim": self.kdim, "vdim": self.vdim}
        named = {"query": query, "key": key, "value": value}
        for (name, tokens), (size, width) in zip(named.items(), widths.items(), strict=True):
            if tokens.ndim not in (2, 3) or tokens.ndim != query.ndim:
                raise ValueError(f"{name} has shape {tuple(tokens.shape)}, needs {layout}, or all three (token, width)")
            if tokens.shape[-1] != width:
                raise ValueError(f"{name} has shape {tuple(tokens.shape)}, its last axis must be {size}={width}")
        if tuple(key.shape[:-1]) != tuple(value.shape[:-1]):
            raise ValueError(
                f"key has shape {tuple(key.shape)}, value {tuple(value.shape)}: both need the same tokens and batch"
            )
        axis = 0 if self.batch_first else 1
        if query.ndim == 3 and query.shape[axis] != key.shape[axis]:
            raise ValueError(
                f"query has shape {tuple(query.shape)}, key {tuple(key.shape)}: both need the same batch, and "
                f"batch_first={self.batch_first} means {layout}; expand one that all share"
            )

    def _batches_first(self, *tokens: Tensor) -> tuple[Tensor, ...]:
        """Return tokens as (b, t, m); where all three are one tensor, they stay one, which is projected at once."""
        if tokens[0].ndim == 3 and self.batch_first:
            return tokens
        pattern = "t m -> 1 t m" if tokens[0].ndim == 2 else "t b m -> b t m"
        if tokens[0] is tokens[1] and tokens[1] is tokens[2]:
            return (rearrange(tokens[0], pattern),) * 3
        return tuple(rearrange(x, pattern) for x in tokens)

    def _forward_nested(
        self, tokens: tuple[Tensor, Tensor, Tensor], padding: Tensor | None, attn_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with sequences filled up to one length, as a mask of the longest may cover more than they have."""
        query, key, value = tokens
        if padding is not None or options["cache"] is not None or not all(x.is_nested and x.dim() == 3 for x in tokens):
            raise ValueError(
                "nested tensors need query, key and value nested, sequences of (token, width) in each, and no "
                "key_padding_mask or cache: their lengths say what is padding"
            )
        if not self.batch_first:
            raise ValueError("nested tensors need batch_first=True: their first axis is the batch")
        (queries, missing), (keys, hidden) = nested.pad(query), nested.pad(key)
        # One tensor stays one, so that it is projected at once.
        values = keys if value is key else nested.pad(value)[0]
        if query is key:
            queries = keys
        if attn_mask is not None:
            attn_mask = attn_mask[..., : queries.shape[1], : keys.shape[1]]
        output, code = self.forward(queries, keys, values, hidden, attn_mask=attn_mask, **options)
        return nested.pack(output, missing, query), code

    def value_network_weights(
        self, query: Float[Tensor, "b q m"], key: Float[Tensor, "b k m_key"]
    ) -> tuple[Float[Tensor, "b q k _ _"], ...]:
        """Generate the weight matrices of the value network of every pair, innermost layer first.

        Standard attention has one, HYLA two, HYLA+ three. That of standard attention is

            W[q, k] = sum_h a[h, q, k] W_h^out W_h^value

        Without biases, y_q is the sum over k of that network applied to x_k, exactly.

        Returns: matrices (b, q, k, out, in), those of key_reduction="sum".
        Raises: ValueError for relu_values, whose non-linearity stands outside what the code generates.
        """
        if self.value_network == "relu_values":
            raise ValueError("value_network='relu_values' generates no value network: use hyper_relu or another one")
        (w_q, w_k, w_v), (b_q, b_k, _) = self._in_weights(), self._in_biases()
        queries, keys = self._heads(F.linear(query, w_q, b_q)), self._heads(F.linear(key, w_k, b_k))
        code = latent_code(queries, keys, None, None, self.normalizer)
        inside = rearrange(w_v, "(h d) m -> h d m", h=self.num_heads)
        outside = rearrange(self.out_proj.weight, "m (h d) -> h m d", h=self.num_heads)
        if self.value_network == "linear":
            bases = [einsum(outside, inside, "h m d, h d n -> h m n")]
        elif self.inner_weight is None:
            bases = [inside, outside]
        else:
            bases = [inside, rearrange(self.inner_weight, "h d e -> h e d"), outside]
        return tuple(einsum(code, basis, "b h q k, h i j -> b q k i j") for basis in bases)


def _choose_pair(variant: str | None, normalizer: str | None, value_network: str | None) -> Variant:
    if variant is not None and not normalizer == value_network is None:
        raise ValueError(
            f"variant={variant!r} has its normalizer and value_network already, and normalizer={normalizer!r}, "
            f"value_network={value_network!r} were given too: give the one or the other"
        )
    pair = VARIANTS[choose("variant", "hyla" if variant is None else variant, VARIANTS)]
    return Variant(
        pair.normalizer if normalizer is None else choose("normalizer", normalizer, NORMALIZERS),
        pair.value_network if value_network is None else choose("value_network", value_network, VALUE_NETWORKS),
    )
