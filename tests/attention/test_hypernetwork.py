"""Attention as a hypernetwork, against plain loops over the paper's formulas and against torch's own attention."""

import re
import subprocess
import sys
from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hyla_repro.attention import NORMALIZERS, VALUE_NETWORKS, HypernetworkAttention
from hyla_repro.attention import value_networks as attention
from hyla_repro.attention.variants import VARIANTS

ROOT = Path(__file__).parents[2]
# Pairwise different primes, so that no swapped axis can pass.
BATCH, QUERIES, KEYS, HEADS, WIDTH = 2, 3, 5, 7, 11
QK_HEAD, V_HEAD = 5, 3
GENERATED = sorted(set(VALUE_NETWORKS) - {"relu_values"})
ALL_PAIRS = list(product(NORMALIZERS, VALUE_NETWORKS))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(
    normalizer: str = "rms_head", value_network: str = "hyper_relu", bias: bool = True, heads: int = HEADS,
    v_head: int = V_HEAD, seed: int = 0, **kwargs: object,
) -> HypernetworkAttention:  # fmt: skip
    """Build a float64 module whose parameters, biases included, are all random."""
    module = HypernetworkAttention(
        WIDTH, heads, bias=bias, normalizer=normalizer, value_network=value_network,
        qk_dim=heads * QK_HEAD, v_dim=heads * v_head, dtype=torch.float64, **kwargs,
    )  # fmt: skip
    for index, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=100 * seed + index + 1)
    return module


def by_hand(
    module: HypernetworkAttention, query: Tensor, tokens: Tensor, bias: np.ndarray, masked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate section 2 and the definition of HYLA literally: one pair (q, k) after the other.

    Args:
        bias, masked: (b, h, q, k), added to the scores and removed from the code.
    """
    n_heads, phi = module.num_heads, lambda x: np.maximum(x, 0.0)
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    w_q, w_k, w_v = np.split(weights["in_proj_weight"], np.cumsum([module.qk_dim, module.qk_dim]))
    b_in = weights.get("in_proj_bias", np.zeros(len(weights["in_proj_weight"])))
    b_q, b_k, b_v = np.split(b_in, np.cumsum([module.qk_dim, module.qk_dim]))
    w_out = weights["out_proj.weight"]

    def head(array: np.ndarray, h: int) -> np.ndarray:
        width = array.shape[0] // n_heads
        return array[h * width : (h + 1) * width]

    x_q, x_k = query.numpy(), tokens.numpy()
    (n_batch, n_q, _), n_k = x_q.shape, x_k.shape[1]
    score = np.zeros((n_batch, n_heads, n_q, n_k))
    for b, h, q, k in np.ndindex(*score.shape):
        left = head(w_q, h) @ x_q[b, q] + head(b_q, h)
        right = head(w_k, h) @ x_k[b, k] + head(b_k, h)
        score[b, h, q, k] = left @ right / sqrt(len(left)) + bias[b, h, q, k]

    code = np.zeros_like(score)
    for b, h, q, k in np.ndindex(*score.shape):
        if masked[b, h, q, k]:
            continue
        if module.normalizer == "none":
            code[b, h, q, k] = score[b, h, q, k]
        elif module.normalizer == "softmax":
            seen = [np.exp(score[b, h, q, j]) for j in range(n_k) if not masked[b, h, q, j]]
            code[b, h, q, k] = np.exp(score[b, h, q, k]) / sum(seen)
        else:
            squares = [0.0 if masked[b, g, q, k] else score[b, g, q, k] ** 2 for g in range(n_heads)]
            code[b, h, q, k] = score[b, h, q, k] / sqrt(sum(squares) / n_heads + 1e-6)

    output = np.zeros((n_batch, n_q, module.embed_dim))
    for b, q, k in np.ndindex(n_batch, n_q, n_k):
        a, x = code[b, :, q, k], x_k[b, k]
        values = [head(w_v, h) @ x + head(b_v, h) for h in range(n_heads)]
        out = [head(w_out.T, h).T for h in range(n_heads)]
        if module.value_network in ("linear", "relu_values"):
            act = phi if module.value_network == "relu_values" else (lambda v: v)
            output[b, q] += sum(a[h] * out[h] @ act(values[h]) for h in range(n_heads))
            continue
        hidden = sum(a[h] * values[h] for h in range(n_heads))
        if module.value_network != "hyper_linear":
            hidden = phi(hidden)
        if module.value_network == "hyper_deep":
            hidden = phi(sum(a[h] * weights["inner_weight"][h].T @ hidden for h in range(n_heads)))
        output[b, q] += sum(a[h] * out[h] for h in range(n_heads)) @ hidden
    return output + weights.get("out_proj.bias", 0.0), code


@pytest.mark.parametrize(("normalizer", "value_network"), ALL_PAIRS)
@pytest.mark.parametrize("with_mask", [False, True], ids=["all-visible", "masked"])
def test_equals_plain_loop(normalizer: str, value_network: str, with_mask: bool) -> None:
    module = make(normalizer, value_network)
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    bias = draw(BATCH, HEADS, QUERIES, KEYS, seed=2)
    masked = torch.rand(bias.shape, generator=torch.Generator().manual_seed(3)) < (0.3 if with_mask else 0.0)
    output, code = module(query, tokens, tokens, attn_mask=masked.flatten(0, 1), score_bias=bias)
    expected, expected_code = by_hand(module, query, tokens, bias.numpy(), masked.numpy())
    np.testing.assert_allclose(code.detach(), expected_code, rtol=0, atol=1e-13)
    np.testing.assert_allclose(output.detach(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_table_a1_has_its_own_output(variant: str) -> None:
    """Two rows of the table that computed the same would make their comparison meaningless."""
    x = draw(BATCH, KEYS, WIDTH)
    outputs = {}
    for name, pair in VARIANTS.items():
        module = make(*pair)
        assert (module.normalizer, module.value_network) == pair
        outputs[name] = module(x, x, x)[0]
    others = [other for other in VARIANTS if other != variant]
    assert min(float((outputs[variant] - outputs[other]).abs().max().detach()) for other in others) > 1e-3


def test_variants_are_the_attention_rows_of_table_a1() -> None:
    assert len(VARIANTS) == len(set(VARIANTS.values())) == 10
    assert VARIANTS["hyla"] == ("rms_head", "hyper_relu")
    assert VARIANTS["linear"] == ("none", "linear")
    assert VARIANTS["softmax"] == ("softmax", "linear")


# --- the paper's identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("v_head", [2, 5], ids=["narrow", "wide"])
@pytest.mark.parametrize(("normalizer", "value_network"), list(product(NORMALIZERS, GENERATED)))
def test_output_is_the_sum_of_generated_networks(normalizer: str, value_network: str, v_head: int) -> None:
    """y_q = sum_k network_{q,k}(x_k), for every normaliser: the claim of the paper's title."""
    module = make(normalizer, value_network, bias=False, v_head=v_head)
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    layers = module.value_network_weights(query, tokens)
    assert len(layers) == {"linear": 1, "hyper_linear": 2, "hyper_relu": 2, "hyper_deep": 3}[value_network]
    output = torch.zeros(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    for b, q, k in np.ndindex(BATCH, QUERIES, KEYS):
        hidden = tokens[b, k]
        for index, layer in enumerate(layers):
            hidden = layer[b, q, k] @ hidden
            if index < len(layers) - 1 and value_network != "hyper_linear":
                hidden = hidden.relu()
        output[b, q] += hidden
    actual = module(query, tokens, tokens)[0]
    assert float((actual - output).abs().max().detach()) <= 1e-12 * float(output.abs().max().detach())


def test_identity_holds_with_query_and_key_biases_and_separate_projections() -> None:
    module = make("softmax", "hyper_relu", kdim=WIDTH + 2, vdim=WIDTH + 2)
    with torch.no_grad():
        module.in_proj_bias[2 * module.qk_dim :] = 0.0
        module.out_proj.bias.zero_()
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH + 2, seed=1)
    first, second = module.value_network_weights(query, tokens)
    hidden = torch.einsum("bqkdm,bkm->bqkd", first, tokens).relu()
    expected = torch.einsum("bqkmd,bqkd->bqm", second, hidden)
    torch.testing.assert_close(module(query, tokens, tokens)[0], expected, rtol=0, atol=1e-12)


def test_one_head_can_only_rescale_one_matrix() -> None:
    module = make("none", "linear", bias=False, heads=1)
    (weights,) = module.value_network_weights(draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1))
    singular = torch.linalg.svdvals(weights.flatten(0, 2).flatten(1))
    assert singular[0] > 1e-3
    assert singular[1] < 1e-12 * singular[0]
    (several,) = make("none", "linear", bias=False).value_network_weights(
        draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    )
    assert torch.linalg.matrix_rank(several.flatten(0, 2).flatten(1)) == HEADS


def test_relu_values_generates_no_network() -> None:
    module = make("rms_head", "relu_values")
    with pytest.raises(ValueError, match=r"value_network='relu_values' generates no value network.*hyper_relu"):
        module.value_network_weights(draw(1, 2, WIDTH), draw(1, 2, WIDTH))


# --- normalisers --------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.sampled_from([1e-4, 1e-2, 1.0, 1e3]), st.sampled_from([1, 2, 3, 7]))
def test_rms_head_has_unit_rms_over_heads(seed: int, size: float, heads: int) -> None:
    scores = size * draw(BATCH, heads, QUERIES, KEYS, seed=seed)
    square = scores.square().mean(1)
    code = NORMALIZERS["rms_head"](scores)
    torch.testing.assert_close(code.square().mean(1), square / (square + 1e-6), rtol=1e-12, atol=0)
    # Pairs do not communicate: each code depends on its own scores alone.
    alone = NORMALIZERS["rms_head"](scores[:, :, :1, -1:])
    torch.testing.assert_close(alone, code[:, :, :1, -1:], rtol=1e-14, atol=0)


def test_rms_head_ignores_the_size_of_the_scores() -> None:
    scores = draw(BATCH, HEADS, QUERIES, KEYS)
    code = NORMALIZERS["rms_head"](1e4 * scores)
    torch.testing.assert_close(NORMALIZERS["rms_head"](1e8 * scores), code, rtol=1e-9, atol=1e-9)


def test_rms_head_of_one_head_keeps_the_sign_only() -> None:
    scores = draw(BATCH, 1, QUERIES, KEYS)
    torch.testing.assert_close(NORMALIZERS["rms_head"](1e3 * scores), scores.sign(), rtol=0, atol=1e-6)


def test_rms_head_by_hand() -> None:
    scores = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    root = sqrt(25 / 3 + 1e-6)
    expected = torch.tensor([3 / root, 4 / root, 0.0], dtype=torch.float64)
    torch.testing.assert_close(NORMALIZERS["rms_head"](scores).flatten(), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@given(seed=st.integers(0, 2**31))
def test_masked_pairs_have_code_zero_and_do_not_touch_the_others(normalizer: str, seed: int) -> None:
    scores = draw(BATCH, HEADS, QUERIES, KEYS, seed=seed)
    masked = torch.rand(BATCH, 1, QUERIES, KEYS, generator=torch.Generator().manual_seed(seed)) < 0.5
    code = NORMALIZERS[normalizer](scores, masked)
    assert (code[masked.expand_as(code)] == 0).all()
    changed = NORMALIZERS[normalizer](scores.masked_fill(masked, 1e3), masked)
    torch.testing.assert_close(changed, code, rtol=0, atol=0)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_no_mask_equals_a_mask_that_hides_nothing(normalizer: str) -> None:
    scores = draw(BATCH, HEADS, QUERIES, KEYS)
    nothing = torch.zeros(1, 1, QUERIES, KEYS, dtype=torch.bool)
    torch.testing.assert_close(NORMALIZERS[normalizer](scores, nothing), NORMALIZERS[normalizer](scores))


# --- torch's own attention ----------------------------------------------------------------------------------


def pair_of_modules(
    embed_dim: int, heads: int, bias: bool = True, kdim: int | None = None, vdim: int | None = None
) -> tuple[nn.MultiheadAttention, HypernetworkAttention]:
    theirs = nn.MultiheadAttention(
        embed_dim, heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=True, dtype=torch.float64
    )
    for index, parameter in enumerate(theirs.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=index + 1)
    ours = HypernetworkAttention(
        embed_dim, heads, bias=bias, kdim=kdim, vdim=vdim, normalizer="softmax", value_network="linear",
        dtype=torch.float64,
    )  # fmt: skip
    assert str(ours.load_state_dict(theirs.state_dict(), strict=True)) == "<All keys matched successfully>"
    return theirs, ours


def make_mask(kind: str, heads: int, queries: int, keys: int) -> Tensor | None:
    """Build a mask of torch's kinds; key 0 stays visible, where torch would return NaN."""
    if kind == "none":
        return None
    shape = {"2": (queries, keys), "3": (BATCH * heads, queries, keys), "k": (BATCH, keys)}[kind[-1]]
    hidden = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.4
    hidden[..., 0] = False
    if kind.startswith("bool"):
        return hidden
    finite = draw(*shape, seed=6)
    return finite if kind.startswith("bias") else finite.masked_fill(hidden, float("-inf"))


@pytest.mark.parametrize("padding", ["none", "bool_k", "float_k"])
@pytest.mark.parametrize("mask", ["none", "bool2", "float2", "bias2", "bool3", "float3"])
@pytest.mark.parametrize("kind", ["self", "cross", "cross_kdim", "cross_vdim"])
@pytest.mark.parametrize(("embed_dim", "heads"), [(21, 7), (22, 2)])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_softmax_linear_is_multihead_attention(
    padding: str, mask: str, kind: str, embed_dim: int, heads: int, bias: bool
) -> None:
    kdim = 13 if kind == "cross_kdim" else None
    vdim = 17 if kind == "cross_vdim" else None
    theirs, ours = pair_of_modules(embed_dim, heads, bias, kdim, vdim)
    query = draw(BATCH, QUERIES, embed_dim)
    key = query if kind == "self" else draw(BATCH, KEYS, kdim or embed_dim, seed=7)
    value = query if kind == "self" else draw(BATCH, KEYS, vdim or embed_dim, seed=8)
    masks = {
        "attn_mask": make_mask(mask, heads, QUERIES, key.shape[1]),
        "key_padding_mask": make_mask(padding, heads, QUERIES, key.shape[1]),
    }
    for average in (False, True):
        for is_causal in (False,) if masks["attn_mask"] is None else (False, True):
            options = masks | {"average_attn_weights": average, "is_causal": is_causal}
            expected, expected_weights = theirs(query, key, value, **options)
            output, weights = ours(query, key, value, **options)
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-14)
    output, weights = ours(query, key, value, need_weights=False, **masks)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    assert weights is None


def test_gradients_are_those_of_multihead_attention() -> None:
    theirs, ours = pair_of_modules(21, 7)
    x, cotangent = draw(BATCH, KEYS, 21), draw(BATCH, KEYS, 21, seed=9)
    for module in (theirs, ours):
        (module(x, x, x)[0] * cotangent).sum().backward()
    for (name, expected), (same, parameter) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert same == name
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("widths", [{}, {"kdim": 13, "vdim": 17}])
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_and_initial_weights_are_those_of_multihead_attention(widths: dict, bias: bool) -> None:
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(21, 7, bias=bias, batch_first=True, **widths)
    torch.manual_seed(3)
    ours = HypernetworkAttention(21, 7, bias=bias, **widths)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for name, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected, rtol=0, atol=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_is_causal_alone_lets_a_query_see_the_keys_up_to_its_own() -> None:
    theirs, ours = pair_of_modules(21, 7)
    x = draw(BATCH, KEYS, 21)
    future = nn.Transformer.generate_square_subsequent_mask(KEYS, dtype=torch.float64)
    expected, _ = theirs(x, x, x, attn_mask=future)
    torch.testing.assert_close(ours(x, x, x, is_causal=True)[0], expected, rtol=0, atol=1e-12)
    # Fewer queries than keys are aligned at the last key, as in decoding.
    torch.testing.assert_close(ours(x[:, -2:], x, x, is_causal=True)[0], expected[:, -2:], rtol=0, atol=1e-12)


# --- inside torch's layers ----------------------------------------------------------------------------------


# Two heads: torch takes its fused path for an even number of heads only.
def encoder_layer(width: int = 14, heads: int = 2, **kwargs: object) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, heads, dim_feedforward=17, dropout=0.0, batch_first=True)
    layer.self_attn = HypernetworkAttention(width, heads, **kwargs)
    return layer


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "src_mask", "bool_mask", "padding", "both", "causal"])
def test_encoder_layer_never_takes_the_fused_softmax_path(norm_first: bool, mask: str) -> None:
    layer = encoder_layer()
    layer.norm_first = norm_first
    x = draw(BATCH, KEYS, 14, dtype=torch.float32)
    future = nn.Transformer.generate_square_subsequent_mask(KEYS)
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padding[:, -1] = True
    masks = {
        "none": {},
        "src_mask": {"src_mask": future},
        "bool_mask": {"src_mask": future == float("-inf")},
        "padding": {"src_key_padding_mask": padding},
        "both": {"src_mask": future, "src_key_padding_mask": padding.float().masked_fill(padding, float("-inf"))},
        "causal": {"src_mask": future, "is_causal": True},
    }[mask]
    training = layer(x, **masks)
    with torch.inference_mode():
        evaluated = layer.eval()(x, **masks)
    torch.testing.assert_close(evaluated, training, rtol=0, atol=1e-6)
    z = x + layer.self_attn(*[layer.norm1(x) if norm_first else x] * 3, attn_mask=masks.get("src_mask"),
                            key_padding_mask=masks.get("src_key_padding_mask"))[0]  # fmt: skip
    z = z if norm_first else layer.norm1(z)
    feed = layer.linear2(layer.linear1(layer.norm2(z) if norm_first else z).relu())
    expected = z + feed if norm_first else layer.norm2(z + feed)
    torch.testing.assert_close(evaluated, expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_encoder_layer_trains(variant: str) -> None:
    normalizer, value_network = VARIANTS[variant]
    layer = encoder_layer(normalizer=normalizer, value_network=value_network)
    x = draw(11, KEYS, 14, dtype=torch.float32)
    target = x.roll(1, dims=1).cumsum(1).tanh()
    optimizer, losses = torch.optim.Adam(layer.parameters(), lr=1e-2), []
    for _ in range(40):
        loss = nn.functional.mse_loss(layer(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None for parameter in layer.self_attn.parameters())


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_encoder_stack_equals_its_layers_in_turn() -> None:
    torch.manual_seed(0)
    stack = nn.TransformerEncoder(encoder_layer(), num_layers=2)
    for layer in stack.layers:
        layer.self_attn.reset_parameters()
    x = draw(BATCH, KEYS, 14, dtype=torch.float32)
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padding[0, -2:] = True
    with torch.no_grad():
        expected = x
        for layer in stack.layers.train():
            expected = layer(expected, src_key_padding_mask=padding)
        actual = stack.eval()(x, src_key_padding_mask=padding)
        assert not torch.equal(stack.layers[0](x), stack.layers[1](x))
    torch.testing.assert_close(actual[~padding], expected[~padding], rtol=0, atol=1e-5)


def test_decoder_layer_uses_both_attentions() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(14, 2, 17, dropout=0.0, batch_first=True)
    layer.self_attn, layer.multihead_attn = HypernetworkAttention(14, 2), HypernetworkAttention(14, 2)
    x, memory = draw(BATCH, QUERIES, 14, dtype=torch.float32), draw(BATCH, KEYS, 14, seed=1, dtype=torch.float32)
    future = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padding[:, 0] = True
    output = layer(x, memory, tgt_mask=future, tgt_is_causal=True, memory_key_padding_mask=padding)
    z = layer.norm1(x + layer.self_attn(x, x, x, is_causal=True)[0])
    z = layer.norm2(z + layer.multihead_attn(z, memory[:, 1:], memory[:, 1:])[0])
    expected = layer.norm3(z + layer.linear2(layer.linear1(z).relu()))
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    output.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in layer.self_attn.parameters())


# --- symmetries and causality -------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_heads_does_not_matter(variant: str) -> None:
    module, shuffled = make(*VARIANTS[variant]), make(*VARIANTS[variant])
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    by_head = {"in_proj_weight": 0, "in_proj_bias": 0, "out_proj.weight": 1, "inner_weight": 0}
    for name, parameter in shuffled.named_parameters():
        if name not in by_head:
            continue
        sizes = [module.qk_dim, module.qk_dim, module.v_dim] if name.startswith("in_proj") else [-1]
        axis = by_head[name]
        parts = [parameter.data] if sizes == [-1] else parameter.data.split(sizes)
        moved = [part.unflatten(axis, (HEADS, -1)).index_select(axis, order).flatten(axis, axis + 1) for part in parts]
        parameter.data = torch.cat(moved)
    x = draw(BATCH, KEYS, WIDTH)
    output, code = module(x, x, x)
    moved_output, moved_code = shuffled(x, x, x)
    assert not torch.equal(module.in_proj_weight, shuffled.in_proj_weight)
    torch.testing.assert_close(moved_code, code[:, order], rtol=0, atol=1e-13)
    torch.testing.assert_close(moved_output, output, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
@given(order=st.permutations(range(KEYS)))
def test_order_of_keys_moves_the_code_and_nothing_else(variant: str, order: list[int]) -> None:
    module = make(*VARIANTS[variant])
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    output, code = module(query, tokens, tokens)
    moved_output, moved_code = module(query, tokens[:, order], tokens[:, order])
    torch.testing.assert_close(moved_code, code[:, :, :, order], rtol=0, atol=1e-13)
    torch.testing.assert_close(moved_output, output, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_causality_by_gradients(variant: str) -> None:
    """d y_q / d x_t is exactly zero for every t > q, and not zero for t <= q."""
    # Wide heads, so that no pair's ReLUs are all off.
    module = make(*VARIANTS[variant], v_head=11)
    x = draw(1, KEYS, WIDTH)
    jacobian = torch.autograd.functional.jacobian(lambda t: module(t, t, t, is_causal=True)[0][0], x)
    size = jacobian[:, :, 0].abs().amax((1, 3))
    for q, t in np.ndindex(KEYS, KEYS):
        assert (size[q, t] == 0) if t > q else (size[q, t] > 1e-6), f"output {q}, input {t}"


@pytest.mark.parametrize(("normalizer", "value_network"), ALL_PAIRS)
@pytest.mark.parametrize("mask_kind", ["bool", "float"])
def test_a_query_that_sees_no_key_gets_the_output_bias(normalizer: str, value_network: str, mask_kind: str) -> None:
    module = make(normalizer, value_network)
    x = draw(BATCH, KEYS, WIDTH).requires_grad_()
    mask = torch.zeros(KEYS, KEYS, dtype=torch.bool)
    mask[2] = True
    as_given = mask if mask_kind == "bool" else torch.zeros(KEYS, KEYS, dtype=torch.float64).masked_fill(mask, -np.inf)
    output, code = module(x, x, x, attn_mask=as_given)
    assert (code[:, :, 2] == 0).all()
    assert (code[:, :, [0, 1, 3, 4]] != 0).all()
    torch.testing.assert_close(output[:, 2], module.out_proj.bias.expand(BATCH, -1), rtol=0, atol=0)
    output.square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_zero_scores_have_finite_gradients() -> None:
    """RMSHead divides by a root that vanishes with the scores: only its epsilon keeps the slope finite."""
    module = make("rms_head", "hyper_relu", bias=False)
    x = torch.zeros(BATCH, KEYS, WIDTH, dtype=torch.float64, requires_grad=True)
    module(x, x, x)[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


# --- masks --------------------------------------------------------------------------------------------------


def test_masks_of_every_kind_agree() -> None:
    module = make()
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    hidden = torch.rand(QUERIES, KEYS, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = module(query, tokens, tokens, attn_mask=hidden)[0]
    same = [
        torch.zeros(QUERIES, KEYS, dtype=torch.float64).masked_fill(hidden, float("-inf")),
        hidden.expand(BATCH * HEADS, -1, -1),
        torch.zeros(BATCH * HEADS, QUERIES, KEYS, dtype=torch.float64).masked_fill(hidden, float("-inf")),
    ]
    for mask in same:
        torch.testing.assert_close(module(query, tokens, tokens, attn_mask=mask)[0], expected, rtol=0, atol=1e-13)


def test_three_dimensional_mask_counts_batch_before_heads() -> None:
    module = make("none", "linear")
    x = draw(BATCH, KEYS, WIDTH)
    mask = torch.zeros(BATCH * HEADS, KEYS, KEYS, dtype=torch.bool)
    mask[1 * HEADS + 3] = True  # second sequence, fourth head
    _, code = module(x, x, x, attn_mask=mask)
    zero = (code == 0).all((-2, -1))
    assert zero.nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_equals_leaving_the_keys_out(variant: str) -> None:
    module = make(*VARIANTS[variant])
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padding[:, 3:] = True
    expected, _ = module(query, tokens[:, :3], tokens[:, :3])
    actual, _ = module(query, tokens, tokens, key_padding_mask=padding)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, HEADS, QUERIES, KEYS), (BATCH, 1, 1, KEYS), (BATCH, HEADS, QUERIES, KEYS)])
def test_finite_masks_and_score_bias_are_added_to_the_scores(shape: tuple[int, ...]) -> None:
    module = make("none", "linear")
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    bias, mask, padding = draw(*shape, seed=2), draw(BATCH * HEADS, QUERIES, KEYS, seed=4), draw(BATCH, KEYS, seed=3)
    _, plain = module(query, tokens, tokens)
    _, code = module(query, tokens, tokens, attn_mask=mask, key_padding_mask=padding, score_bias=bias)
    expected = plain + mask.unflatten(0, (BATCH, HEADS)) + padding[:, None, None] + bias
    torch.testing.assert_close(code, expected, rtol=0, atol=1e-13)
    # A pair that is hidden stays hidden, whatever is added.
    _, hidden = module(query, tokens, tokens, attn_mask=mask > 0, score_bias=bias)
    assert torch.equal(hidden == 0, (mask > 0).unflatten(0, (BATCH, HEADS)))


# --- dropout ------------------------------------------------------------------------------------------------


def test_dropout_acts_on_the_normalised_code_in_training_only() -> None:
    module = make(dropout=0.25)
    x = draw(11, KEYS, WIDTH)
    module.eval()
    output, code = module(x, x, x)
    torch.testing.assert_close(module(x, x, x)[0], output, rtol=0, atol=0)
    torch.testing.assert_close(make(dropout=0.0).train()(x, x, x)[0], output, rtol=0, atol=0)
    module.train()
    torch.manual_seed(0)
    dropped = module(x, x, x)[1]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], code[kept] / 0.75, rtol=1e-12, atol=0)
    # 1925 draws of probability 1/4: five standard deviations are 0.05.
    assert abs(1 - float(kept.double().mean()) - 0.25) < 0.05
    assert not torch.equal(kept, module(x, x, x)[1] != 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_code_scale_multiplies_the_normalised_code(variant: str) -> None:
    module = make(*VARIANTS[variant])
    x = draw(BATCH, KEYS, WIDTH)
    scale = (draw(1, 1, KEYS, KEYS, seed=1) > 0).double() / 0.9
    _, code = module(x, x, x)
    output, scaled = module(x, x, x, code_scale=scale)
    torch.testing.assert_close(scaled, code * scale, rtol=0, atol=0)
    if module.value_network == "linear":
        # The output is linear in the code, so dropping pairs is dropping their terms of the sum.
        value = x @ module.in_proj_weight[2 * module.qk_dim :].T + module.in_proj_bias[2 * module.qk_dim :]
        mixed = torch.einsum("bhqk,bkhd->bqhd", code * scale, value.unflatten(-1, (HEADS, V_HEAD)))
        torch.testing.assert_close(output, module.out_proj(mixed.flatten(2)), rtol=0, atol=1e-12)
    else:
        assert not torch.allclose(output, module(x, x, x)[0])


# --- implementation paths and derivatives -------------------------------------------------------------------


@pytest.mark.parametrize("v_head", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("value_network", ["hyper_linear", "hyper_relu", "hyper_deep"])
def test_narrow_and_wide_heads_compute_the_same(
    v_head: int, value_network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    results = {}
    for narrow in (0, 100):
        monkeypatch.setattr(attention, "_NARROW", narrow)
        module = make("rms_head", value_network, v_head=v_head)
        output, _ = module(query, tokens, tokens)
        output.square().sum().backward()
        results[narrow] = [output, *(parameter.grad for parameter in module.parameters())]
    for wide, narrow in zip(results[0], results[100], strict=True):
        torch.testing.assert_close(narrow, wide, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("v_head", [2, 5], ids=["narrow", "wide"])
def test_gradcheck(variant: str, v_head: int) -> None:
    module = make(*VARIANTS[variant], heads=3, v_head=v_head)
    inputs = (draw(1, 2, WIDTH).requires_grad_(), draw(1, 3, WIDTH, seed=1).requires_grad_())
    names, parameters = zip(*module.named_parameters(), strict=True)

    def output(query: Tensor, tokens: Tensor, *values: Tensor) -> Tensor:
        values_by_name = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, values_by_name, (query, tokens, tokens))[0]

    assert torch.autograd.gradcheck(output, (*inputs, *parameters), fast_mode=True)


def test_activation_is_used() -> None:
    x = draw(BATCH, KEYS, WIDTH)
    identity = make("rms_head", "hyper_relu", activation=lambda t: t)
    torch.testing.assert_close(identity(x, x, x)[0], make("rms_head", "hyper_linear")(x, x, x)[0])


COMPILED = """
import torch
from hyla_repro import VARIANTS, HypernetworkAttention
for name, (normalizer, value_network) in VARIANTS.items():
    torch._dynamo.reset()
    for width in (6, 21):
        module = HypernetworkAttention(width, 3, normalizer=normalizer, value_network=value_network)
        x = torch.randn(2, 5, width)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        ours, eager = compiled(x, x, x, is_causal=True)[0], module(x, x, x, is_causal=True)[0]
        torch.testing.assert_close(ours, eager)
        ours.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
print("all compiled")
"""


@pytest.mark.slow
def test_every_variant_compiles_without_a_graph_break() -> None:
    """In a process of its own: run-time type checks, which the tests may switch on, break graphs."""
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "all compiled", done.stderr[-2000:]


# --- clear errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 3), r"embed_dim=10 does not split into num_heads=3 heads"),
        ((9, 3, {"qk_dim": 10}), r"qk_dim=10 does not split into num_heads=3 heads"),
        ((9, 3, {"v_dim": 11}), r"v_dim=11 does not split into num_heads=3 heads"),
        ((9, 0), r"num_heads=0"),
        ((9, 3, {"dropout": 1.5}), r"dropout=1.5 is not a probability in \[0, 1\]"),
        ((9, 3, {"dropout": -0.1}), r"dropout=-0.1"),
        ((9, 3, {"batch_first": 0}), r"batch_first=0 is not True or False"),
        ((9, 3, 0.0, True, 9, 9), r"add_bias_kv=9 is not True or False: positions are those of nn.MultiheadAttention"),
        ((9, 3, {"kdim": True}), r"kdim=True is not a whole number"),
        ((9, 3, {"vdim": 0}), r"vdim=0 is out of range: use 1 or more"),
        ((9, 3.0), r"num_heads=3.0 is not a whole number"),
        ((9, 3, {"activation": "gellu"}), r"unknown activation 'gellu': did you mean 'gelu'\?"),
        ((9, 3, {"variant": "hylla"}), r"unknown variant 'hylla': did you mean 'hyla'\?"),
        ((9, 3, {"variant": "hyla", "normalizer": "none"}), r"variant='hyla' has its normalizer and value_network"),
        ((9, 3, {"key_reduction": "avg"}), r"unknown key_reduction 'avg'.*sum, root, mean"),
        ((9, 3, {"normalizer": "rmshead"}), r"unknown normalizer 'rmshead': did you mean 'rms_head'\?"),
        ((9, 3, {"value_network": "hyper_rellu"}), r"unknown value_network 'hyper_rellu': did you mean 'hyper_relu'\?"),
    ],
)
def test_constructor_errors_name_the_value(arguments: tuple, message: str) -> None:
    *sizes, kwargs = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    # The tests' own checks of annotations refuse values of the wrong type first, with a TypeError.
    with pytest.raises((ValueError, TypeError), match=f"{message}|Type-check error"):
        HypernetworkAttention(*sizes, **kwargs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attn_mask", (QUERIES, KEYS + 1)),
        ("attn_mask", (QUERIES + 1, KEYS)),
        ("attn_mask", (1, KEYS)),
        ("attn_mask", (KEYS,)),
        ("attn_mask", (BATCH, 1, QUERIES, KEYS)),
        ("attn_mask", (BATCH * HEADS, KEYS, KEYS)),
        ("attn_mask", (BATCH * HEADS + 1, QUERIES, KEYS)),
        ("attn_mask", ((BATCH + 1) * HEADS, QUERIES, KEYS)),
        ("attn_mask", (HEADS, QUERIES, KEYS)),
        ("key_padding_mask", (BATCH, KEYS + 1)),
        ("key_padding_mask", (BATCH + 1, KEYS)),
        ("key_padding_mask", (1, KEYS)),
        ("key_padding_mask", (KEYS,)),
    ],
)
def test_masks_of_the_wrong_size_are_named(name: str, shape: tuple[int, ...]) -> None:
    """Torch refuses them all: a mask that was stretched to fit would hide other pairs than its author meant."""
    module = make()
    message = rf"{name} has shape {re.escape(str(shape))}"
    query, tokens = draw(BATCH, QUERIES, WIDTH), draw(BATCH, KEYS, WIDTH, seed=1)
    with pytest.raises(ValueError, match=message):
        module(query, tokens, tokens, **{name: torch.zeros(shape, dtype=torch.bool)})


@pytest.mark.parametrize("name", ["attn_mask", "key_padding_mask"])
def test_masks_of_integers_are_refused(name: str) -> None:
    """0 and 1 could mean hidden or an additive score; torch refuses them, and so must a drop-in."""
    module = make()
    tokens = draw(BATCH, KEYS, WIDTH)
    mask = torch.ones((KEYS, KEYS) if name == "attn_mask" else (BATCH, KEYS), dtype=torch.int64)
    with pytest.raises((ValueError, TypeError), match=name):
        module(tokens, tokens, tokens, **{name: mask})


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_the_parameters_of_multihead_attention(variant: str) -> None:
    """HYLA adds no parameter; only HYLA+ has its middle layer, h matrices of d x d."""
    module = make(*VARIANTS[variant])
    extra = {"inner_weight"} if variant == "hyla_deep" else set()
    names = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}
    assert {name for name, _ in module.named_parameters()} == names | extra
    if extra:
        assert module.inner_weight.shape == (HEADS, V_HEAD, V_HEAD)
