"""Attention with a learned query: four ways to one result, its state, its code, extremes, and reference arrays."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hyla_repro.attention import (
    Aaren,
    AarenState,
    HypernetworkAttention,
    KeyValueCache,
    LearnedQueryAttention,
    Sums,
    combine,
    prefix_attention,
    prefix_code,
)
from hyla_repro.attention.scan import prefix_scan, single_tokens

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 33, 12
GOLDEN = Path(__file__).parents[1] / "golden" / "related" / "aaren"


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(**options: object) -> Aaren:
    torch.manual_seed(0)
    return Aaren(WIDTH, HEADS, **{"dtype": torch.float64} | options)


def padding(n_tokens: int = TOKENS) -> Tensor:
    """One sequence that begins with padding and has some inside, one that ends with it."""
    hidden = torch.zeros(BATCH, n_tokens).bool()
    hidden[0, :4] = hidden[0, 9] = hidden[1, -5:] = True
    return hidden


def dense(module: Aaren, x: Tensor, hidden: Tensor | None = None) -> Tensor:
    return module(x, x, x, hidden)[0]


def scanned(module: Aaren, x: Tensor, hidden: Tensor | None = None) -> Tensor:
    return module(x, x, x, hidden, need_weights=False)[0]


def stepped(module: Aaren, x: Tensor) -> Tensor:
    state, outputs = module.init_state(len(x)), []
    for token in x.unbind(1):
        output, state = module.step(token, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


def mask_of(n_tokens: int) -> Tensor:
    return torch.ones(n_tokens, n_tokens).bool().triu(1)


# --- reference arrays ---------------------------------------------------------------------------------------


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


@pytest.mark.parametrize("name", ["plain", "wide_masked", "float32_2e4", "all_minus_110"])
def test_golden_prefixes(name: str) -> None:
    arrays = load(name)
    hidden = (arrays["key_mask"] == 0).unsqueeze(1)
    inputs = [arrays[part].double().requires_grad_() for part in ("query", "keys", "values")]
    scores = torch.einsum("bhd,bhtd->bht", inputs[0], inputs[1]) * inputs[0].shape[-1] ** -0.5
    outputs, sums = prefix_attention(scores, inputs[2], hidden)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(outputs, arrays["outputs"], **close)
    torch.testing.assert_close(sums.mean()[..., 0, :], arrays["final_mean"], **close)
    torch.testing.assert_close(sums.log_mass()[..., 0], arrays["final_log_mass"], **close)
    torch.testing.assert_close(sums.top[..., 0, 0], arrays["final_m"], **close)
    torch.testing.assert_close(sums.mass[..., 0, 0], arrays["final_u"], **close)
    torch.testing.assert_close(sums.total[..., 0, :], arrays["final_w"], **close)
    gradients = torch.autograd.grad((outputs * arrays["loss_weights_R"]).sum(), inputs)
    for part, gradient in zip(("query", "keys", "values"), gradients, strict=True):
        torch.testing.assert_close(gradient, arrays[f"grad_{part}"], rtol=1e-10, atol=1e-10)
    if "code" in arrays:
        torch.testing.assert_close(prefix_code(scores, hidden), arrays["code"], **close)


def test_golden_layer() -> None:
    arrays, settings = load("layer"), json.loads((GOLDEN / "index.json").read_text())["settings"]["layer"]
    module = Aaren(settings["features"], settings["heads"], dtype=torch.float64)
    weights = {f"W_{part}": arrays[f"W_{part}"] for part in "qkv"}
    module.load_state_dict({
        "query_token": arrays["query_token"], "in_proj_weight": torch.cat(list(weights.values())),
        "in_proj_bias": torch.cat([arrays[f"b_{part}"] for part in "qkv"]),
        "out_proj.weight": arrays["W_o"], "out_proj.bias": arrays["b_o"],
    })  # fmt: skip
    hidden = arrays["key_mask"] == 0
    for way in (dense, scanned):
        torch.testing.assert_close(way(module, arrays["x"], hidden), arrays["y"], rtol=0, atol=1e-10)


# --- 1: all ways to the result agree ------------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 31, 32, 33])
@pytest.mark.parametrize("position_bias", [None, "alibi"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_ways_agree(n_tokens: int, position_bias: str | None, dtype: torch.dtype, atol: float) -> None:
    module = make(dtype=dtype, position_bias=position_bias)
    x = draw(BATCH, n_tokens, WIDTH).to(dtype).requires_grad_()
    softmax = HypernetworkAttention(WIDTH, HEADS, variant="softmax", dtype=dtype)
    softmax.load_state_dict({k: v for k, v in module.state_dict().items() if k != "query_token"})
    steps = torch.arange(n_tokens, dtype=dtype)
    slopes = 2 ** (-8 * torch.arange(1, HEADS + 1, dtype=dtype) / HEADS)
    bias = None if position_bias is None else (slopes[:, None, None] * (steps - steps[:, None])).unsqueeze(0)
    query = module.query_token.expand_as(x)
    expected = softmax(query, x, x, attn_mask=mask_of(n_tokens), score_bias=bias)[0]

    def gradients(output: Tensor, owner: nn.Module) -> list[Tensor]:
        parameters = [module.query_token, x, owner.in_proj_weight, owner.in_proj_bias, owner.out_proj.weight]
        return torch.autograd.grad((output * draw(*output.shape, seed=3)).sum(), parameters, materialize_grads=True)

    expected_gradients = gradients(expected, softmax)
    ways: list[Callable[[Aaren, Tensor], Tensor]] = [dense, scanned, stepped]
    for block in (1, 5, 16, n_tokens, n_tokens + 7):
        blocked = make(dtype=dtype, position_bias=position_bias, block=block)
        blocked.query_token = module.query_token
        blocked.in_proj_weight, blocked.in_proj_bias = module.in_proj_weight, module.in_proj_bias
        blocked.out_proj = module.out_proj
        ways += [lambda _, x, b=blocked: scanned(b, x), lambda _, x, b=blocked: b.extend(x)[0]]
    for way in ways:
        output = way(module, x)
        torch.testing.assert_close(output, expected, rtol=0, atol=atol)
        for ours, theirs in zip(gradients(output, module), expected_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=10 * atol, atol=20 * atol)


@pytest.mark.parametrize("block", [None, 1, 5])
@pytest.mark.parametrize("position_bias", [None, "alibi"])
def test_ways_agree_with_padding(block: int | None, position_bias: str | None) -> None:
    module, x = make(block=block, position_bias=position_bias), draw(BATCH, TOKENS, WIDTH)
    expected = dense(module, x, padding())
    torch.testing.assert_close(scanned(module, x, padding()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(module.extend(x, key_padding_mask=padding())[0], expected, rtol=0, atol=1e-12)
    numbers = draw(BATCH, TOKENS).masked_fill(padding(), -torch.inf)
    torch.testing.assert_close(scanned(module, x, numbers), dense(module, x, numbers), rtol=0, atol=1e-12)
    own = draw(1, HEADS, 1, TOKENS, seed=5)
    ours, theirs = (module(x, x, x, need_weights=n, score_bias=own)[0] for n in (False, True))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


# --- 2: the operation ---------------------------------------------------------------------------------------


def sums(seed: int, size: float) -> Sums:
    return Sums(size * draw(4, 1, 1, seed=seed), draw(4, 1, 1, seed=seed + 1).exp(), draw(4, 1, 3, seed=seed + 2))


def represented(x: Sums, like: Tensor) -> tuple[Tensor, Tensor]:
    """What a triple stands for, relative to one maximum for all."""
    scale = (x.top - like).exp()
    return x.mass * scale, x.total * scale


@given(st.integers(0, 1000), st.sampled_from([1.0, 30.0, 1e4]))
def test_combine_is_associative_and_commutative(seed: int, size: float) -> None:
    a, b, c = (sums(seed + 5 * i, size) for i in range(3))
    left, right, swapped = combine(combine(a, b), c), combine(a, combine(b, c)), combine(c, combine(b, a))
    for other in (right, swapped):
        torch.testing.assert_close(left, other, rtol=1e-12, atol=1e-12)
    together = [sum(parts) for parts in zip(*(represented(x, left.top) for x in (a, b, c)), strict=True)]
    torch.testing.assert_close((left.mass, left.total), tuple(together), rtol=1e-12, atol=1e-12)


def test_the_empty_set_is_neutral_and_combines_with_itself() -> None:
    empty = single_tokens(draw(4, 1), draw(4, 1, 3), torch.ones(4, 1).bool())
    for other in (sums(0, 1e4), empty):
        torch.testing.assert_close(combine(empty, other), other, rtol=0, atol=0)
        torch.testing.assert_close(combine(other, empty), other, rtol=0, atol=0)
    assert all(part.isfinite().all() for part in (*combine(empty, empty), empty.mean(), empty.log_mass()))
    assert (empty.mean() == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9])
def test_scan_of_a_non_commutative_operation(n: int) -> None:
    """Affine maps: order and grouping show, unlike in sums."""

    def then(first: Sums, second: Sums) -> Sums:
        return Sums(first.top * second.top, second.mass, second.top * first.total + second.total)

    maps = Sums(draw(n, 1), draw(n, 1), draw(n, 1, seed=1))
    total, expected = torch.zeros(1, dtype=torch.float64), []
    for slope, offset in zip(maps.top, maps.total, strict=True):
        total = slope * total + offset
        expected.append(total)
    torch.testing.assert_close(prefix_scan(then, maps).total, torch.stack(expected))


# --- 3 to 8: what follows from the formula ------------------------------------------------------------------


@given(st.floats(-1e4, 1e4))
def test_a_shift_of_all_scores_changes_nothing(shift: float) -> None:
    """In float32, whose scores have been rounded to the shifted ones' step before."""
    step = 2.0**-9
    scores = (draw(HEADS, TOKENS, dtype=torch.float32) / step).round() * step
    shift = round(shift / step) * step
    values = draw(HEADS, TOKENS, 5, dtype=torch.float32)
    torch.testing.assert_close(prefix_code(scores + shift), prefix_code(scores), rtol=2e-3, atol=1e-6)
    shifted = prefix_attention(scores + shift, values)[0]
    torch.testing.assert_close(shifted, prefix_attention(scores, values)[0], rtol=0, atol=1e-6)


def test_no_token_reaches_an_earlier_output() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    changed = x.clone()
    changed[:, 20] += 1.0
    assert torch.equal(stepped(module, x)[:, :20], stepped(module, changed)[:, :20])
    for way in (scanned, dense):
        torch.testing.assert_close(way(module, x)[:, :20], way(module, changed)[:, :20], rtol=0, atol=1e-6)
        assert ((way(module, x) - way(module, changed))[:, 20:].abs().amax((0, 2)) > 1e-6).all()


def test_code_is_a_distribution_over_the_prefix_and_gives_the_output() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    output, code = module(x, x, x)
    torch.testing.assert_close(code.sum(-1), torch.ones_like(code[..., 0]))
    assert (code >= 0).all()
    assert (code.triu(1) == 0).all()
    _, _, values = module._project(x, x, x)
    torch.testing.assert_close(module.out_proj((code @ values).transpose(1, 2).flatten(2)), output)
    query, keys, _ = module._project(x, x, x)
    scores = (query * keys).sum(-1) * (WIDTH // HEADS) ** -0.5
    torch.testing.assert_close(prefix_code(scores), code, rtol=1e-12, atol=1e-12)
    before = prefix_attention(scores[..., :10], values[:, :, :10])[1].log_mass()[..., 0]
    torch.testing.assert_close(prefix_code(scores[..., 10:], log_mass=before), code[..., 10:, 10:])


def test_log_code_is_a_term_of_the_key_less_one_of_the_query() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    causal = HypernetworkAttention(WIDTH, HEADS, variant="softmax", dtype=torch.float64)
    sizes = []
    for attention in (module, causal):
        code = attention(x, x, x, is_causal=True)[1].log()
        double = code[..., 21:, 1:20] - code[..., 20:-1, 1:20] - code[..., 21:, :19] + code[..., 20:-1, :19]
        sizes.append(float(double.abs().max().detach()))
    assert sizes[0] < 1e-9
    assert sizes[1] > 0.1


def test_outputs_are_means_of_the_values_so_far() -> None:
    scores, values = 3 * draw(HEADS, TOKENS), draw(HEADS, TOKENS, 5)
    outputs = prefix_attention(scores, values)[0]
    assert (outputs <= values.cummax(1).values + 1e-12).all()
    assert (outputs >= values.cummin(1).values - 1e-12).all()
    assert torch.equal(outputs[:, 0], values[:, 0])
    same = values[:, :1].expand_as(values)
    torch.testing.assert_close(prefix_attention(scores, same)[0], same)


def test_only_the_last_output_ignores_the_order() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    shuffled = x[:, torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))]
    outputs, others = scanned(module, x), scanned(module, shuffled)
    torch.testing.assert_close(outputs[:, -1], others[:, -1])
    assert ((outputs - others)[:, :-1].abs().amax((0, 2)) > 1e-6).all()


# --- 9: the state -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position_bias", [None, "alibi"])
def test_state_stays_small_and_goes_on_exactly(position_bias: str | None) -> None:
    module, x = make(position_bias=position_bias), draw(BATCH, TOKENS, WIDTH)
    whole, last = module.extend(x)
    first, state = module.extend(x[:, :20])
    assert state.nbytes == last.nbytes == module.init_state(BATCH).nbytes == BATCH * HEADS * (1 + WIDTH // HEADS) * 8
    saved = AarenState(*(part.clone() for part in state))
    second, end = module.extend(x[:, 20:], saved)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-12)
    output, _ = module.step(x[:, 20], saved)
    torch.testing.assert_close(output, whole[:, 20], rtol=0, atol=1e-12)
    again, _ = module.step(x[:, 20], state)
    assert torch.equal(output, again)
    alone, own = module.extend(x[1:])
    torch.testing.assert_close(alone, whole[1:], rtol=0, atol=1e-12)
    torch.testing.assert_close(own.mean, last.mean[1:], rtol=0, atol=1e-12)


def test_a_step_costs_the_same_after_any_number_of_tokens() -> None:
    """Counted operations; a cache of keys is the control, whose steps grow."""
    module, softmax = make(), HypernetworkAttention(WIDTH, HEADS, variant="softmax", dtype=torch.float64)
    costs: dict[str, list[int]] = {"state": [], "cache": []}
    for n_tokens in (3, 300):
        x, cache = draw(BATCH, n_tokens, WIDTH), KeyValueCache()
        _, state = module.extend(x)
        softmax(x, x, x, is_causal=True, cache=cache)
        new = draw(BATCH, 1, WIDTH)
        with FlopCounterMode(display=False) as counter:
            module.step(new[:, 0], state)
        costs["state"].append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            softmax(new, new, new, is_causal=True, cache=cache)
        costs["cache"].append(counter.get_total_flops())
    assert costs["state"][0] == costs["state"][1] > 0
    assert costs["cache"][1] > 5 * costs["cache"][0]


# --- 10: parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "count"), [((512, 8, 2048), 3_152_896), ((12, 3, 20), None)], ids=str)
def test_a_block_has_one_vector_more_than_torchs_layer(sizes: tuple[int, int, int], count: int | None) -> None:
    layer = nn.TransformerEncoderLayer(*sizes, 0.0, batch_first=True, dtype=torch.float64)
    before = sum(parameter.numel() for parameter in layer.parameters())
    layer.self_attn = Aaren.like(layer.self_attn)
    after = sum(parameter.numel() for parameter in layer.parameters())
    assert after - before == sizes[0]
    assert count in (None, after)
    x = draw(BATCH, 5, sizes[0])
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    trained = layer.train()(x, mask, is_causal=True)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x, mask, is_causal=True), trained)
    changed = x.clone()
    changed[:, -1] += 1
    torch.testing.assert_close(layer(changed, mask)[:, :-1], trained[:, :-1])


# --- 11: masks ----------------------------------------------------------------------------------------------


def test_hidden_tokens_are_as_if_removed() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    for way in (dense, scanned):
        outputs = way(module, x, padding())
        for row, hidden in enumerate(padding()):
            kept = x[row : row + 1, ~hidden]
            torch.testing.assert_close(outputs[row, ~hidden], way(module, kept)[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(outputs[0, :4], module.out_proj.bias.expand(4, -1), rtol=0, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("way", [dense, scanned])
def test_nothing_leaks_out_of_hidden_tokens(way: Callable[..., Tensor], bad: float) -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    results = []
    for tokens in (x, x.masked_fill(padding().unsqueeze(-1), bad)):
        output = way(module, tokens, padding())
        results.append((output, *torch.autograd.grad(output.square().sum(), module.parameters())))
    for clean, dirty in zip(*results, strict=True):
        assert dirty.isfinite().all()
        torch.testing.assert_close(clean, dirty, rtol=0, atol=0)


def test_functions_hide_values_that_are_no_numbers() -> None:
    hidden = padding()[0]
    scores, values = draw(TOKENS).requires_grad_(), draw(TOKENS, 5)
    dirty = values.masked_fill(hidden.unsqueeze(-1), torch.nan).requires_grad_()
    output = prefix_attention(scores.masked_fill(hidden, torch.nan), dirty, hidden)[0]
    torch.testing.assert_close(output, prefix_attention(scores, values, hidden)[0], rtol=0, atol=0)
    for gradient in torch.autograd.grad(output.sum(), (scores, dirty)):
        assert gradient.isfinite().all()
    assert (output[:4] == 0).all()
    code = prefix_code(scores, hidden)
    assert (code[:4] == 0).all()
    assert (code[:, hidden] == 0).all()
    assert torch.autograd.grad(code.square().sum(), scores)[0].isfinite().all()


# --- 12: extremes -------------------------------------------------------------------------------------------


def wrong_by_cummax(scores: Tensor, values: Tensor) -> Tensor:
    """Sum terms that were scaled by different maxima: a tempting shortcut, and no prefix attention."""
    weights = (scores - scores.cummax(-1).values).exp().unsqueeze(-1)
    return (weights * values).cumsum(-2) / weights.cumsum(-2)


def wrong_by_one_maximum(scores: Tensor, values: Tensor) -> Tensor:
    weights = (scores - scores.amax(-1, keepdim=True)).exp().unsqueeze(-1)
    return (weights * values).cumsum(-2) / weights.cumsum(-2)


def by_softmax(scores: Tensor, values: Tensor) -> Tensor:
    visible = scores.unsqueeze(-2).masked_fill(mask_of(scores.shape[-1]), -torch.inf)
    return visible.softmax(-1) @ values


def test_shortcuts_fail() -> None:
    scores, values = draw(HEADS, TOKENS), draw(HEADS, TOKENS, 5)
    expected = by_softmax(scores, values)
    torch.testing.assert_close(prefix_attention(scores, values)[0], expected, rtol=0, atol=1e-12)
    assert float((wrong_by_cummax(scores, values) - expected).abs().max()) > 0.1
    rising = torch.linspace(-1e3, 1e3, TOKENS, dtype=torch.float64).expand(HEADS, -1)
    expected = by_softmax(rising, values)
    torch.testing.assert_close(prefix_attention(rising, values)[0], expected, rtol=0, atol=1e-12)
    assert wrong_by_one_maximum(rising, values).isnan().any()


@pytest.mark.parametrize("size", [110.0, 2e4])
def test_large_scores_in_float32(size: float) -> None:
    values = draw(HEADS, TOKENS, 5, dtype=torch.float32)
    for scores in (size * draw(HEADS, TOKENS, dtype=torch.float32), torch.full((HEADS, TOKENS), -size)):
        scores = scores.requires_grad_()
        output = prefix_attention(scores, values)[0]
        expected = by_softmax(scores.double(), values.double())
        torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)
        assert torch.autograd.grad(output.sum(), scores)[0].isfinite().all()


def in_its_own_dtype(scores: Tensor, values: Tensor) -> Tensor:
    """The recurrence with a state as coarse as its inputs: the mass stops growing."""
    top, mass, total = scores[0], torch.ones_like(scores[0]), values[0]
    for score, value in zip(scores[1:], values[1:], strict=True):
        new = torch.maximum(top, score)
        old, own = (top - new).exp(), (score - new).exp()
        top, mass, total = new, mass * old + own, total * old + value * own
    return total / mass


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_state_in_float32(dtype: torch.dtype) -> None:
    scores, values = draw(4096).to(dtype), (1 + draw(4096, 5)).to(dtype)
    expected = (scores.double().softmax(0).unsqueeze(-1) * values.double()).sum(0)
    output, sums = prefix_attention(scores, values)
    assert (output.dtype, {part.dtype for part in sums}) == (dtype, {torch.float32})
    torch.testing.assert_close(output[-1].double(), expected, rtol=0, atol=1e-2)
    assert float((in_its_own_dtype(scores, values).double() - expected).abs().max()) > 1e-2
    module = make(dtype=dtype)
    x = draw(1, 512, WIDTH).to(dtype)
    wide = copy.deepcopy(module).double()
    for way in (scanned, stepped):
        output = way(module, x)
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), dense(wide, x.double()), rtol=0, atol=2e-2)
    assert {part.dtype for part in module.extend(x)[1]} == {torch.float32}


def test_autocast_keeps_the_state_in_float32() -> None:
    module, x = make(dtype=torch.float32), draw(BATCH, TOKENS, WIDTH, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = module.extend(x)
        one, after = module.step(x[:, 0], module.init_state(BATCH))
    assert {part.dtype for part in (*state, *after)} == {torch.float32}
    torch.testing.assert_close(output.float(), dense(module, x), rtol=0, atol=0.05)
    torch.testing.assert_close(one.float(), dense(module, x)[:, 0], rtol=0, atol=0.05)


# --- the call of torch's attention --------------------------------------------------------------------------


def test_layouts() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    other = Aaren(WIDTH, HEADS, batch_first=False, dtype=torch.float64)
    other.load_state_dict(module.state_dict())
    turned = x.transpose(0, 1)
    for need in (True, False):
        expected, code = module(x[:, -3:], x, x, padding(), need_weights=need)
        torch.testing.assert_close(expected, module(x, x, x, padding())[0][:, -3:], rtol=0, atol=1e-12)
        output, _ = other(turned[-3:], turned, turned, padding(), need_weights=need)
        torch.testing.assert_close(output.transpose(0, 1), expected, rtol=0, atol=1e-12)
        single, own = module(x[0, -3:], x[0], x[0], padding()[0], need_weights=need)
        torch.testing.assert_close(single, expected[0], rtol=0, atol=1e-12)
        assert (code is None) == (own is None) == (not need)
    assert module(x, x, x, average_attn_weights=True)[1].shape == (BATCH, TOKENS, TOKENS)
    nest = torch.nested.nested_tensor([x[0, :4], x[1, :7]], layout=torch.jagged)
    for row, tokens in zip(module(nest, nest, nest, need_weights=False)[0].unbind(), nest.unbind(), strict=True):
        torch.testing.assert_close(row, module(tokens, tokens, tokens)[0], rtol=0, atol=1e-12)


def test_the_content_of_queries_has_no_effect() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    nonsense = torch.full_like(x, torch.nan)
    assert torch.equal(module(nonsense, x, x)[0], dense(module, x))
    assert torch.equal(module(nonsense, x, x, need_weights=False)[0], scanned(module, x))


def test_a_cache_gives_what_the_state_gives() -> None:
    module, x, cache = make(), draw(BATCH, 7, WIDTH), KeyValueCache()
    outputs = [module(token, token, token, cache=cache)[0] for token in x.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(outputs, dim=1), module.extend(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("reason", ["code_scale", "dropout"])
def test_dropout_acts_on_the_code_in_any_case(reason: str) -> None:
    x = draw(BATCH, TOKENS, WIDTH)
    module = make(dropout=0.0 if reason == "code_scale" else 1.0)
    scale = torch.zeros(1, 1, TOKENS, TOKENS, dtype=torch.float64) if reason == "code_scale" else None
    output, code = module(x, x, x, need_weights=False, code_scale=scale)
    assert code is None
    torch.testing.assert_close(output, module.out_proj.bias.expand_as(output), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        ({"add_bias_kv": True}, {}, r"add_bias_kv=True is not defined for Aaren"),
        ({"add_zero_attn": True}, {}, r"add_zero_attn=True is not defined for Aaren"),
        ({"position_bias": "rotary"}, {}, r"unknown position_bias 'rotary'"),
        ({"block": 0}, {}, r"block=0 is out of range"),
        ({}, {"is_causal": False}, r"is_causal=False is not defined for Aaren"),
        ({}, {"attn_mask": torch.zeros(5, 5)}, r"attn_mask of shape \(5, 5\) is not the causal .*key_padding_mask"),
        ({}, {"attn_mask": torch.zeros(1, 5).bool()}, r"attn_mask of shape \(1, 5\) is not the causal mask \(5, 5\)"),
        ({}, {"score_bias": torch.zeros(1, 3, 5, 5)}, r"score_bias has shape \(1, 3, 5, 5\), Aaren takes .*absolute"),
        ({}, {"key_padding_mask": torch.zeros(2, 6).bool()}, r"key_padding_mask has shape \(2, 6\), needs \(2, 5\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("need_weights", [True, False])
def test_what_is_not_defined_is_refused_by_name(options: dict, call: dict, message: str, need_weights: bool) -> None:
    x = draw(BATCH, 5, WIDTH)
    with pytest.raises(ValueError, match=message):
        make(**options)(x, x, x, need_weights=need_weights, **call)


def test_more_queries_than_keys_are_refused() -> None:
    x = draw(BATCH, 5, WIDTH)
    with pytest.raises(ValueError, match="5 queries are more than 3 keys"):
        make()(x, x[:, :3], x[:, :3], need_weights=False)


def test_reset_draws_a_query_of_unit_variance() -> None:
    with torch.device("meta"):
        module = Aaren(400, 4)
    module.to_empty(device="cpu")
    module.query_token.data.fill_(torch.nan)
    module.reset_parameters()
    # The standard deviation of 400 draws is 1 +- 0.035.
    assert abs(float(module.query_token.detach().std()) - 1) < 0.18


# --- HYLA with a learned query ------------------------------------------------------------------------------


def test_hyla_with_a_learned_query_is_a_running_sum() -> None:
    """RMSHead looks at no other key: a key has one code for all queries, and the layer collapses."""
    module = LearnedQueryAttention(WIDTH, HEADS, variant="hyla", bias=False, dtype=torch.float64)
    x = draw(BATCH, 7, WIDTH)
    output, code = module(x, x, x, is_causal=True)
    torch.testing.assert_close(code, code[:, :, -1:].expand_as(code).tril())
    alone = module(x[:, :1].expand(-1, 7, -1), x, x, is_causal=False)[1][:, :, 0]
    torch.testing.assert_close(code[:, :, -1], alone)
    each = torch.stack([module(x[:, :1], x[:, t : t + 1], x[:, t : t + 1])[0][:, 0] for t in range(7)], dim=1)
    torch.testing.assert_close(each.cumsum(1), output)


@pytest.mark.parametrize("variant", ["softmax", "hyla", "hyla_deep"])
def test_a_learned_query_is_a_query_that_all_tokens_share(variant: str) -> None:
    module = LearnedQueryAttention(WIDTH, HEADS, variant=variant, dtype=torch.float64)
    plain = HypernetworkAttention(WIDTH, HEADS, variant=variant, dtype=torch.float64)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k != "query_token"})
    x = draw(BATCH, 7, WIDTH)
    expected = plain(module.query_token.expand_as(x), x, x, is_causal=True)
    torch.testing.assert_close(module(x, x, x, is_causal=True), expected, rtol=0, atol=1e-12)


def test_rotations_and_blocks_of_pairs_are_refused_by_name() -> None:
    x = draw(BATCH, TOKENS, WIDTH)
    for need_weights in (True, False):
        with pytest.raises(ValueError, match="rotate is not defined for Aaren: give tokens absolute positions"):
            make()(x, x, x, need_weights=need_weights, rotate=lambda heads: heads)
    with pytest.raises(ValueError, match="chunk=8 is not defined for Aaren: use chunk=None"):
        make(chunk=8)
