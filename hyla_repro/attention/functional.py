"""Attention as a hypernetwork on projected queries, keys and values, called as scaled_dot_product_attention is."""

from typing import SupportsIndex

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.attention.chunked import attend_in_blocks
from hyla_repro.attention.masks import Bias, Masked, broadcast_mask, causal_mask, per_visible_key, split_mask
from hyla_repro.attention.normalizers import NORMALIZERS, Code
from hyla_repro.attention.value_networks import VALUE_NETWORKS, Activation, as_activation
from hyla_repro.errors import choose, whole_number

# The power of the number n of keys that a query sees, by which its output is divided.
KEY_REDUCTIONS = {"sum": 0.0, "root": 0.5, "mean": 1.0}


def attend(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    bias: Bias,
    masked: Masked,
    *,
    normalizer: str,
    value_network: str,
    activation: Activation,
    inner_weight: Float[Tensor, "h e e"] | None = None,
    key_reduction: str = "sum",
    scale: float | None = None,
    code_scale: Bias = None,
    dropout: float = 0.0,
    chunk: int | None = None,
    causal: bool = False,
    n_added: int = 0,
) -> tuple[Float[Tensor, "b h q e"], Code | None]:
    """Return what each head mixes, and the latent code: the engine of the function and the module, without checks.

    With a chunk there is no code, and a causal mask is no part of `masked` but `causal`, of all but n_added last keys.
    """
    power = KEY_REDUCTIONS[key_reduction]
    if chunk is not None:
        if dropout:
            raise ValueError(
                f"chunk={chunk} draws no dropout (here {dropout}), which the backward pass would have to draw again: "
                "set dropout to 0, or draw a code_scale"
            )
        mixed = attend_in_blocks(
            query, key, value, bias, masked, normalizer=normalizer, value_network=value_network,
            activation=activation, inner_weight=inner_weight, power=power, scale=scale, code_scale=code_scale,
            chunk=chunk, causal=causal, n_added=n_added,
        )  # fmt: skip
        return mixed, None
    code = latent_code(query, key, bias, masked, normalizer, scale)
    if code_scale is not None:
        code = code * code_scale
    if dropout:
        code = F.dropout(code, dropout)
    mixed = VALUE_NETWORKS[value_network](code, value, activation, inner_weight)
    return (mixed if power == 0.0 else mixed * per_visible_key(_visible(code, masked), power, code.dtype)), code


def latent_code(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    bias: Bias,
    masked: Masked,
    normalizer: str,
    scale: float | None = None,
) -> Code:
    """Return the normalised latent code a[:, q, k] = normalizer(<query, key> * scale + bias)."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = einsum(query * factor, key, "b h q d, b h k d -> b h q k")
    return NORMALIZERS[normalizer](scores if bias is None else scores + bias, masked)


def _visible(code: Code, masked: Masked) -> Int[Tensor, "#b #h #q 1"]:
    hidden = torch.zeros_like(code[:1, :1, :1], dtype=torch.bool) if masked is None else masked
    return (~hidden).expand(*hidden.shape[:-1], code.shape[-1]).sum(-1, keepdim=True)


def hypernetwork_attention(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "..."],
    value: Float[Tensor, "..."],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    normalizer: str = "rms_head",
    value_network: str = "hyper_relu",
    activation: str | Activation = "relu",
    inner_weight: Float[Tensor, "h e e"] | None = None,
    out_weight: Float[Tensor, "m h_e"] | None = None,
    key_reduction: str = "sum",
    return_code: bool = False,
    chunk: SupportsIndex | None = None,
) -> Tensor | tuple[Tensor, Code]:
    """Attend with projected heads, and return what each head mixes.

        a[:, q, k] = normalizer(scale <query_q, key_k> + mask)
        y[h, q] = sum_k a[h, q, k] activation(sum_g a[g, q, k] value[g, k])

    The first line is the latent code, the second is HYLA.

    Args:
        key: (b, h, k, d).
        value: (b, h, k, e), e of its own.
        attn_mask: of two, three or four dimensions that broadcast to (b, h, q, k). As for torch's function, and unlike
            the module's masks, True keeps a pair; numbers are added to the scores, up to MASKED_BELOW = -9000 they
            remove the pair.
        dropout_p: probability of dropping an element of the code, whether in training or not.
        is_causal: let query q see the keys up to q; without an attn_mask, and for as many queries as keys.
        scale: factor on the scores, 1 / sqrt(d) if None.
        normalizer: a key of NORMALIZERS; `**VARIANTS["hyla"]._asdict()` gives this and the next one.
        value_network: a key of VALUE_NETWORKS.
        activation: non-linearity of the value network, "relu", "gelu" or a function.
        inner_weight: (h, e, e), the middle layer of hyper_deep, which alone has it.
        out_weight: (m, h * e), the weight of the output projection W^out.
        key_reduction: "sum" as in the paper; "mean" and "root" divide by the number of keys that a query sees, or by
            its root.
        return_code: also return the latent code.
        chunk: queries, and keys, of a block: memory then grows with the tokens and not with their pairs. 256 is a good
            start; None computes all pairs at once.

    Returns: (b, h, q, e), with out_weight (b, q, m); with return_code also the code (b, h, q, k).
    Raises: ValueError naming sizes that do not fit, an unknown name, an inner_weight too few or too many, or, with a
        chunk, what takes the whole code: return_code and dropout_p.
    Source: paper, sections 2 and 3.
    Differs: scaled_dot_product_attention aligns is_causal at the first key where there are fewer queries than keys, the
        module at the last; so that case is refused. It broadcasts batches and heads, which is refused too.
    """
    _check(query, key, value, inner_weight, out_weight, value_network)
    if is_causal and (attn_mask is not None or query.shape[2] != key.shape[2]):
        raise ValueError(
            f"is_causal=True needs no attn_mask and as many queries as keys, not {query.shape[2]} and {key.shape[2]}: "
            "give an attn_mask that says which keys each query sees"
        )
    shape = (*query.shape[:3], key.shape[2])
    chunk = check_chunk(chunk, "return_code=True" if return_code else None)
    bias, masked = None, causal_mask(shape[2], shape[3], query.device) if is_causal and chunk is None else None
    if attn_mask is not None:
        whole = broadcast_mask(attn_mask, shape)
        bias, masked = split_mask("attn_mask", ~whole if whole.dtype == torch.bool else whole)
    mixed, code = attend(
        query, key, value, bias, masked, normalizer=choose("normalizer", normalizer, NORMALIZERS),
        value_network=value_network, activation=as_activation(activation), inner_weight=inner_weight,
        key_reduction=choose("key_reduction", key_reduction, KEY_REDUCTIONS), scale=scale, dropout=dropout_p,
        chunk=chunk, causal=is_causal,
    )  # fmt: skip
    output = mixed if out_weight is None else F.linear(rearrange(mixed, "b h q e -> b q (h e)"), out_weight)
    return output if code is None or not return_code else (output, code)


def check_chunk(chunk: SupportsIndex | None, asks_for_code: str | None = None) -> int | None:
    """Return the size of a block as an int, None for none.

    Args:
        asks_for_code: an argument that asks for the code, if there is one.

    Raises: ValueError for a size below 1, or when the code is asked for.
    """
    if chunk is None:
        return None
    if asks_for_code is not None:
        raise ValueError(f"chunk={chunk} never holds the code that {asks_for_code} asks for: set one of them otherwise")
    return whole_number("chunk", chunk, 1, "a block has at least one query and one key")


def _check(
    query: Tensor, key: Tensor, value: Tensor, inner: Tensor | None, out: Tensor | None, value_network: str
) -> None:
    for name, heads in (("query", query), ("key", key), ("value", value)):
        if heads.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(heads.shape)}, needs (batch, head, token, width)")
    if key.shape[:2] != query.shape[:2] or key.shape[3] != query.shape[3]:
        raise ValueError(
            f"key has shape {tuple(key.shape)}, query {tuple(query.shape)}: batch, heads and width must be equal; "
            "repeat heads that several queries share"
        )
    if value.shape[:3] != key.shape[:3]:
        raise ValueError(
            f"value has shape {tuple(value.shape)}, key {tuple(key.shape)}: batch, heads and tokens must be equal"
        )
    n_heads, width = value.shape[1], value.shape[3]
    if (choose("value_network", value_network, VALUE_NETWORKS) == "hyper_deep") != (inner is not None):
        raise ValueError(
            f"value_network={value_network!r} {'needs an' if inner is None else 'takes no'} inner_weight: "
            "hyper_deep has one, (head, width, width), and no other network"
        )
    if inner is not None and tuple(inner.shape) != (n_heads, width, width):
        raise ValueError(f"inner_weight has shape {tuple(inner.shape)}, needs {(n_heads, width, width)}")
    if out is not None and (out.ndim != 2 or out.shape[1] != n_heads * width):
        raise ValueError(f"out_weight has shape {tuple(out.shape)}, needs (model width, {n_heads * width})")
