"""The function on projected heads, masks that are large numbers, half precision, the cache and the size of outputs."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.attention import (
    MASKED_BELOW,
    NORMALIZERS,
    VARIANTS,
    HypernetworkAttention,
    KeyValueCache,
    hypernetwork_attention,
)

BATCH, HEADS, QUERIES, KEYS, WIDTH = 2, 7, 3, 5, 11
softmax = partial(hypernetwork_attention, normalizer="softmax", value_network="linear")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def heads(queries: int = QUERIES, d_value: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(
        draw(BATCH, HEADS, tokens, width, seed=seed)
        for seed, (tokens, width) in enumerate([(queries, 5), (KEYS, 5), (KEYS, d_value)])
    )


# --- the function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bool, float])
@pytest.mark.parametrize(
    "shape",
    [(QUERIES, KEYS), (1, KEYS), (HEADS, QUERIES, KEYS), (1, QUERIES, KEYS), (BATCH, 1, 1, KEYS),
     (BATCH, HEADS, QUERIES, KEYS), (1, HEADS, 1, 1)],
    ids=str,
)  # fmt: skip
def test_softmax_is_scaled_dot_product_attention(shape: tuple[int, ...], kind: type) -> None:
    mask = draw(*shape, seed=9)
    mask = mask > -0.5 if kind is bool else mask
    if kind is bool:
        mask[..., 0] = True
    for scale in (None, 0.3):
        expected = F.scaled_dot_product_attention(*heads(), attn_mask=mask, scale=scale)
        torch.testing.assert_close(softmax(*heads(), mask, scale=scale), expected, rtol=0, atol=1e-12)


def test_causal_is_torchs_for_equal_lengths_and_refused_for_others() -> None:
    tokens = heads(KEYS)
    expected = F.scaled_dot_product_attention(*tokens, is_causal=True)
    torch.testing.assert_close(softmax(*tokens, is_causal=True), expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"is_causal=True needs .*as many queries as keys, not 3 and 5: give an attn_"):
        softmax(*heads(), is_causal=True)
    with pytest.raises(ValueError, match=r"is_causal=True needs no attn_mask"):
        softmax(*tokens, torch.ones(KEYS, KEYS).bool(), is_causal=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_module_is_the_function_between_projections(variant: str) -> None:
    module = HypernetworkAttention(14, 7, variant=variant, dtype=torch.float64)
    x = draw(BATCH, KEYS, 14)
    query, key, value = module._project(x, x, x)
    output, code = hypernetwork_attention(
        query, key, value, is_causal=True, inner_weight=module.inner_weight, out_weight=module.out_proj.weight,
        return_code=True, **VARIANTS[variant]._asdict(),
    )  # fmt: skip
    expected, expected_code = module(x, x, x, is_causal=True)
    torch.testing.assert_close(code, expected_code, rtol=0, atol=0)
    torch.testing.assert_close(output + module.out_proj.bias, expected, rtol=0, atol=1e-12)


def test_dropout_acts_on_the_code() -> None:
    _, code = hypernetwork_attention(*heads(), dropout_p=1.0, return_code=True)
    assert (code == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": (HEADS, QUERIES, 5)}, r"query has shape \(7, 3, 5\)|Type-check error"),
        ({"key": (BATCH, 1, KEYS, 5)}, r"key has shape \(2, 1, 5, 5\), query \(2, 7, 3, 5\): .*repeat heads"),
        ({"key": (BATCH, HEADS, KEYS, 4)}, r"key has shape \(2, 7, 5, 4\)"),
        ({"key": (1, HEADS, KEYS, 5)}, r"key has shape \(1, 7, 5, 5\)"),
        ({"value": (BATCH, HEADS, KEYS + 1, 3)}, r"value has shape \(2, 7, 6, 3\), key \(2, 7, 5, 5\)"),
        ({"attn_mask": (KEYS,)}, r"attn_mask has shape \(5,\), needs one that broadcasts to .* = \(2, 7, 3, 5\)"),
        ({"attn_mask": (BATCH, QUERIES, KEYS)}, r"attn_mask has shape \(2, 3, 5\)"),
        ({"attn_mask": (1, 1, 1, 1, 1)}, r"attn_mask has shape"),
        ({"inner_weight": (HEADS, 3, 3)}, r"value_network='hyper_relu' takes no inner_weight"),
        ({"value_network": "hyper_deep"}, r"value_network='hyper_deep' needs an inner_weight"),
        ({"value_network": "hyper_deep", "inner_weight": (HEADS, 4, 4)}, r"inner_weight has shape .*\(7, 3, 3\)"),
        ({"out_weight": (WIDTH, 20)}, r"out_weight has shape \(11, 20\), needs \(model width, 21\)"),
        ({"normalizer": "rms"}, r"unknown normalizer 'rms'"),
        ({"activation": "tanhh"}, r"unknown activation 'tanhh'"),
        ({"key_reduction": "max"}, r"unknown key_reduction 'max'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, message: str) -> None:
    given = dict(zip(("query", "key", "value"), heads(), strict=True))
    given |= {name: draw(*value) if isinstance(value, tuple) else value for name, value in changes.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        hypernetwork_attention(**given)


def test_masks_of_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"attn_mask has dtype torch.int64, needs bool, or floating point"):
        hypernetwork_attention(*heads(), torch.ones(QUERIES, KEYS, dtype=torch.int64))


# --- large numbers that mean masked ---------------------------------------------------------------------------

LOW = {"-inf": float("-inf"), "float32": torch.finfo(torch.float32).min, "-1e9": -1e9, "-1e4": -1e4}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("kind", ["attn_mask", "key_padding_mask", "both", "function"])
def test_large_negative_numbers_mask(variant: str, low: str, kind: str) -> None:
    """Host libraries write them for masked; a score of -1e9 would be the largest of all codes of HYLA."""
    module = HypernetworkAttention(14, 7, variant=variant)
    hidden = torch.ones(KEYS, KEYS).bool().triu(1)
    padding = torch.zeros(BATCH, KEYS).bool()
    padding[0, -1] = True
    masks = {"attn_mask": hidden} if kind != "key_padding_mask" else {}
    masks |= {"key_padding_mask": padding} if kind in ("key_padding_mask", "both") else {}
    results = []
    for as_numbers in (False, True):
        given = {name: mask.float().masked_fill(mask, LOW[low]) if as_numbers else mask for name, mask in masks.items()}
        x = draw(BATCH, KEYS, 14, dtype=torch.float32).requires_grad_()
        if kind == "function":
            mask = given["attn_mask"] if as_numbers else ~hidden
            inner, projected = module.inner_weight, module._project(x, x, x)
            pair = VARIANTS[variant]._asdict()
            output = hypernetwork_attention(*projected, mask, inner_weight=inner, **pair)
        else:
            output = module(x, x, x, **given)[0]
        results.append((output, *torch.autograd.grad(output.square().sum(), (x, module.in_proj_weight))))
    for plain, numbers in zip(*results, strict=True):
        assert numbers.isfinite().all()
        torch.testing.assert_close(numbers, plain, rtol=0, atol=0)


def test_the_threshold_lies_where_bfloat16_rounds_minus_ten_thousand() -> None:
    assert torch.tensor(-1e4, dtype=torch.bfloat16).item() <= MASKED_BELOW
    module, x = HypernetworkAttention(14, 7, variant="linear", dtype=torch.float64), draw(1, 2, 14)
    above, below = (module(x, x, x, attn_mask=torch.full((2, 2), MASKED_BELOW + add))[1] for add in (1.0, 0.0))
    assert (above != 0).all()
    assert (below == 0).all()


# --- half precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 256.0, 1e4, 6e4])
def test_half_precision_keeps_the_code(dtype: torch.dtype, size: float) -> None:
    scores = (size * (2 * torch.rand(BATCH, HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(0)) - 1)).to(
        dtype
    )
    code, expected = NORMALIZERS["rms_head"](scores), NORMALIZERS["rms_head"](scores.double())
    assert code.dtype == dtype
    torch.testing.assert_close(code.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-3)


# --- a cache for generation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("steps", [(1,) * KEYS, (3, 1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True, "key_reduction": "mean"}], ids=str)
def test_cache_gives_what_the_whole_sequence_gives(variant: str, steps: tuple[int, ...], options: dict) -> None:
    module = HypernetworkAttention(14, 7, variant=variant, dtype=torch.float64, **options)
    x = draw(BATCH, KEYS, 14)
    padding = torch.zeros(BATCH, KEYS).bool()
    padding[1, 0] = True
    expected = module(x, x, x, is_causal=True, key_padding_mask=padding)[0]
    cache, outputs = KeyValueCache(), []
    for new in x.split(steps, dim=1):
        seen = padding[:, : len(cache) + new.shape[1]]
        outputs.append(module(new, new, new, is_causal=True, key_padding_mask=seen, cache=cache)[0])
    assert len(cache) == KEYS
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rotation_is_of_projected_queries_and_keys_before_the_cache(variant: str) -> None:
    module, x = HypernetworkAttention(14, 7, variant=variant, dtype=torch.float64), draw(BATCH, KEYS, 14)
    seen: list[Tensor] = []
    factors = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def rotate(heads: Tensor) -> Tensor:
        seen.append(heads)
        return heads * factors

    plain, cache = module(x, x, x)[0], KeyValueCache()
    turned = module(x[:, 1:], x, x, rotate=rotate, cache=cache)[0]
    queries, keys, values = module._project(x, x, x)
    for heads, expected in zip(seen, (queries[:, :, 1:], keys), strict=True):
        torch.testing.assert_close(heads, expected, rtol=0, atol=1e-12)
    assert torch.equal(cache.keys, seen[1] * factors)
    torch.testing.assert_close(cache.values, values, rtol=0, atol=1e-12)
    assert (turned - plain[:, 1:]).abs().max() > 1e-3
    # A factor on queries and keys is its square on the queries' projection alone.
    with torch.no_grad():
        module.in_proj_weight[:14] *= factors.square().repeat(7).unsqueeze(-1)
        module.in_proj_bias[:14] *= factors.square().repeat(7)
    torch.testing.assert_close(turned, module(x[:, 1:], x, x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tokens_are_rotated_as_each_alone() -> None:
    module = HypernetworkAttention(14, 7, variant="softmax", dtype=torch.float64)
    texts = [draw(length, 14, seed=length) for length in (3, 5)]
    places = torch.arange(1.0, 6.0, dtype=torch.float64).unsqueeze(-1)

    def rotate(heads: Tensor) -> Tensor:
        return heads * places[: heads.shape[2]]

    nested = torch.nested.as_nested_tensor(texts)
    outputs = module(nested, nested, nested, rotate=rotate)[0]
    for text, output in zip(texts, outputs.unbind(), strict=True):
        torch.testing.assert_close(output, module(text, text, text, rotate=rotate)[0], rtol=0, atol=1e-12)
        assert (output - module(text, text, text)[0]).abs().max() > 1e-3


def test_a_cache_of_other_tokens_is_refused() -> None:
    module, cache = HypernetworkAttention(14, 7, dtype=torch.float64), KeyValueCache()
    x = draw(BATCH, KEYS, 14)
    module(x, x, x, cache=cache)
    with pytest.raises(ValueError, match=r"keys of shape \(1, 7, 5, 2\) do not continue the cache's \(2, 7, 5, 2\)"):
        module(x[:1], x[:1], x[:1], cache=cache)


def test_a_cache_that_a_host_passes_by_its_own_name_is_never_ignored() -> None:
    module, x = HypernetworkAttention(14, 7), draw(BATCH, KEYS, 14, dtype=torch.float32)
    for name in ("past_key_values", "past_key_value", "layer_past", "use_cache"):
        with pytest.raises(TypeError, match=name):
            module(x, x, x, **{name: object()})


# --- the size of outputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("reduction", "power"), [("sum", 0.0), ("root", 0.5), ("mean", 1.0)])
def test_key_reduction_divides_by_the_keys_that_a_query_sees(variant: str, reduction: str, power: float) -> None:
    options = {"variant": variant, "bias": False, "dtype": torch.float64}
    module = HypernetworkAttention(14, 7, key_reduction=reduction, **options)
    plain = HypernetworkAttention(14, 7, **options)
    plain.load_state_dict(module.state_dict())
    x, padding = draw(BATCH, KEYS, 14), torch.zeros(BATCH, KEYS).bool()
    padding[1, -2:] = True
    for masks in ({}, {"is_causal": True}, {"key_padding_mask": padding}):
        n = torch.full((BATCH, KEYS), float(KEYS), dtype=torch.float64)
        if "is_causal" in masks:
            n = torch.arange(1, KEYS + 1, dtype=torch.float64).expand(BATCH, -1)
        if "key_padding_mask" in masks:
            n[1] -= 2
        expected = plain(x, x, x, **masks)[0] / n.pow(power).unsqueeze(-1)
        torch.testing.assert_close(module(x, x, x, **masks)[0], expected, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_outputs_of_the_root_keep_their_size_in_long_sequences() -> None:
    """The numbers of the page: at initialisation HYLA grows with the root of the number of keys."""
    torch.manual_seed(0)
    sizes = {}
    for reduction in ("sum", "root"):
        module = HypernetworkAttention(64, 8, key_reduction=reduction)
        sizes[reduction] = [float(module(*[torch.randn(1, t, 64)] * 3)[0].std()) for t in (16, 256)]
    assert sizes["sum"][1] > 2.5 * sizes["sum"][0]
    assert 0.5 < sizes["root"][1] / sizes["root"][0] < 1.6


def test_errors_quote_the_documented_threshold() -> None:
    for text in (hypernetwork_attention.__doc__, HypernetworkAttention.forward.__doc__):
        assert re.search(rf"MASKED_BELOW = {MASKED_BELOW:.0f}", text)
