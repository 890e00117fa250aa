"""Attention of heads that see windows: by windows and by tokens, its code, masks, costs and errors."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hyla_repro.attention import (
    BatchNormAttention,
    HypernetworkAttention,
    ScaledHeadAttention,
    centred,
    pool_tokens,
    spread_code,
    window_weights,
)

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 11, 12
SCALES = [(1, 1, 1), (1, 2, 2), (2, 1, 4), (3, 50, 1)]
DOWN = ["mean", "stride", "conv"]
CENTRED = [{}, {"beta": 0.6}, {"beta": 1.0, "rescale": True}]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(scales: tuple[int, ...] = (1, 2, 4), **options: object) -> ScaledHeadAttention:
    torch.manual_seed(0)
    module = ScaledHeadAttention(WIDTH, HEADS, scales=scales, **{"dtype": torch.float64} | options)
    for kernel in module.kernels:
        nn.init.normal_(kernel)
    return module


def softmax_like(module: ScaledHeadAttention, **options: object) -> HypernetworkAttention:
    plain = HypernetworkAttention(WIDTH, HEADS, dtype=torch.float64, **{"variant": "softmax"} | options)
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("kernels")})
    return plain


def padding(n_tokens: int = TOKENS) -> Tensor:
    """A window of two that is hidden, windows of which a part is, and padding at both ends."""
    hidden = torch.zeros(BATCH, n_tokens).bool()
    hidden[0, :2] = hidden[0, 5] = hidden[1, 4:6] = hidden[1, -4:] = True
    return hidden


MASKS = pytest.mark.parametrize("hidden", [None, padding()], ids=["all", "padded"])


# --- windows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 11, 50])
def test_pooling_is_torchs(scale: int) -> None:
    x = draw(BATCH, TOKENS, WIDTH)
    expected = (
        F.avg_pool1d(x.transpose(1, 2), scale, ceil_mode=True, count_include_pad=False)
        if scale <= TOKENS
        else x.mean(1)[..., None]
    )
    torch.testing.assert_close(pool_tokens(x, scale), expected.transpose(1, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(pool_tokens(x, scale, down="stride"), x[:, ::scale], rtol=0, atol=0)


@pytest.mark.parametrize("down", ["mean", "stride"])
@pytest.mark.parametrize("scale", [1, 2, 3, 11])
def test_pooling_leaves_hidden_tokens_out(down: str, scale: int) -> None:
    x = draw(BATCH, TOKENS, WIDTH)
    dirty = x.masked_fill(padding().unsqueeze(-1), torch.nan)
    pooled = pool_tokens(dirty, scale, padding(), down)
    for b in range(BATCH):
        for n in range(math.ceil(TOKENS / scale)):
            window = x[b, n * scale : (n + 1) * scale][~padding()[b, n * scale : (n + 1) * scale]]
            expected = torch.zeros(WIDTH).double()
            if len(window):
                expected = window.mean(0) if down == "mean" else window[0]
            torch.testing.assert_close(pooled[b, n], expected)


@MASKS
@pytest.mark.parametrize("scale", [2, 3])
def test_pooling_commutes_with_projections(scale: int, hidden: Tensor | None) -> None:
    x, layer = draw(BATCH, TOKENS, WIDTH), nn.Linear(WIDTH, 5, dtype=torch.float64)
    seen = window_weights(TOKENS, scale, hidden).sum(-1) > 0
    seen = seen.expand(BATCH, -1)
    ours, theirs = layer(pool_tokens(x, scale, hidden)), pool_tokens(layer(x), scale, hidden)
    torch.testing.assert_close(ours[seen], theirs[seen], rtol=0, atol=1e-12)


# --- 1: scales of one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", DOWN)
@MASKS
def test_scales_of_one_are_softmax_attention(down: str, hidden: Tensor | None) -> None:
    module = ScaledHeadAttention(WIDTH, HEADS, scales=[1] * HEADS, down=down, dtype=torch.float64)
    results = []
    for attention, need in ((softmax_like(module), True), (module, True), (module, False)):
        x = draw(BATCH, TOKENS, WIDTH).requires_grad_()
        output = attention(x, x, x, hidden, need_weights=need)[0]
        weights = (x, attention.in_proj_weight, attention.out_proj.weight)
        results.append((output, *torch.autograd.grad(output.square().sum(), weights)))
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    causal = [attention(x, x, x, hidden, is_causal=True) for attention in (softmax_like(module), module)]
    torch.testing.assert_close(causal[1], causal[0], rtol=0, atol=1e-12)


# --- 4, 5: by windows, by tokens, and the code --------------------------------------------------------------


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("options", CENTRED, ids=str)
@MASKS
def test_windows_and_tokens_give_one_result(
    scales: tuple[int, ...], down: str, options: dict, hidden: Tensor | None
) -> None:
    module = make(scales, down=down, average_bias=True, **options)
    x, bias = draw(BATCH, TOKENS, WIDTH), draw(1, HEADS, TOKENS, TOKENS, seed=3)
    _, _, values = softmax_like(module)._project(x, x, x)
    for score_bias in (None, bias):
        output, code = module(x, x, x, hidden, score_bias=score_bias)
        by_windows, none = module(x, x, x, hidden, need_weights=False, score_bias=score_bias)
        assert none is None
        torch.testing.assert_close(by_windows, output, rtol=0, atol=1e-12)
        torch.testing.assert_close(code.sum(-1), torch.ones_like(code[..., 0]))
        assert (code >= 0).all()
        torch.testing.assert_close(
            module.out_proj((code @ values).transpose(1, 2).flatten(2)), output, rtol=0, atol=1e-12
        )
        for h, (scale, coarse) in enumerate(zip(scales, module.coarse_code(x, x, hidden, score_bias), strict=True)):
            assert coarse.shape == (BATCH, TOKENS, math.ceil(TOKENS / scale))
            weights = window_weights(TOKENS, scale, hidden, down, coarse)
            torch.testing.assert_close(spread_code(coarse, scale, TOKENS, weights), code[:, h], rtol=0, atol=1e-12)
            if hidden is None and down != "stride":
                torch.testing.assert_close(spread_code(coarse, scale, TOKENS), code[:, h], rtol=0, atol=1e-12)
                columns = code[0, h].detach().T.round(decimals=10).unique(dim=0)
                assert len(columns) == math.ceil(TOKENS / scale)


@MASKS
@pytest.mark.parametrize("options", CENTRED, ids=str)
def test_heads_by_hand(options: dict, hidden: Tensor | None) -> None:
    """Window by window with loops over sequences and heads: pool first, then centre."""
    module, x = make(**options), draw(BATCH, TOKENS, WIDTH)
    query, key, value = softmax_like(module)._project(x, x, x)
    mixed = torch.zeros_like(value)
    for b in range(BATCH):
        for h, scale in enumerate(module.scales):
            shown = torch.arange(TOKENS) if hidden is None else (~hidden[b]).nonzero()[:, 0]
            groups = [shown[shown // scale == n] for n in (shown // scale).unique()]
            k, v = (torch.stack([part[b, h, own].mean(0) for own in groups]) for part in (key, value))
            q = query[b, h]
            if options:
                deviation = (k.var(0, unbiased=False) + 1e-5).sqrt() if options.get("rescale") else 1.0
                q, k = ((part - options["beta"] * k.mean(0)) / deviation for part in (q, k))
            mixed[b, h] = (q @ k.T / math.sqrt(WIDTH // HEADS)).softmax(-1) @ v
    expected = module.out_proj(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(module(x, x, x, hidden)[0], expected, rtol=0, atol=1e-12)


def test_statistics_are_of_windows() -> None:
    """The two orders differ where the last window is ragged; and beta makes it Attention-BN at scale one."""
    module, x = make((1, 2, 4), beta=1.0, rescale=True), draw(BATCH, TOKENS, WIDTH)
    query, key, _ = softmax_like(module)._project(x, x, x)
    for h, scale in enumerate((1, 2, 4)):
        pooled = pool_tokens(key, scale)
        first = centred(query, pooled, rescale=True)
        second = centred(query, key, rescale=True)
        codes = [
            (q @ k.transpose(-1, -2) / 2).softmax(-1)[:, h]
            for q, k in (first, (second[0], pool_tokens(second[1], scale)))
        ]
        torch.testing.assert_close(module.coarse_code(x, x)[h], codes[0], rtol=0, atol=1e-12)
        assert (float((codes[0] - codes[1]).abs().max().detach()) > 1e-3) is (scale > 1)
    ones = make((1, 1, 1), beta=0.6)
    norm = BatchNormAttention(WIDTH, HEADS, beta=0.6, dtype=torch.float64)
    norm.load_state_dict(ones.state_dict())
    torch.testing.assert_close(ones(x, x, x), norm(x, x, x), rtol=0, atol=1e-12)


# --- 6, 7, 8: permutations, padding, parameters -------------------------------------------------------------


def test_which_permutations_permute_the_output() -> None:
    module, x = make((2, 2, 2)), draw(BATCH, 8, WIDTH)
    output = module(x, x, x)[0]
    for order, same in (
        ([1, 0, 2, 3, 5, 4, 6, 7], True),
        ([6, 7, 2, 3, 0, 1, 4, 5], True),
        ([0, 2, 1, 3, 4, 5, 6, 7], False),
    ):
        shuffled = x[:, order]
        permuted = module(shuffled, shuffled, shuffled)[0]
        assert (float((permuted - output[:, order]).abs().max().detach()) < 1e-12) is same


@pytest.mark.parametrize("bad", [0.0, 1e30, float("nan")])
@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("more", [1, 6])
def test_padding_changes_nothing(bad: float, down: str, more: int) -> None:
    module, x = make(down=down, beta=1.0, rescale=True), draw(BATCH, TOKENS, WIDTH)
    longer = torch.cat([x, torch.full((BATCH, more, WIDTH), bad, dtype=x.dtype)], dim=1)
    hidden = torch.arange(TOKENS + more).expand(BATCH, -1) >= TOKENS
    results = []
    for key, mask in ((x, None), (longer, hidden)):
        for mode, need in ((True, True), (False, True), (False, False)):
            output = module.train(mode)(x, key, key, mask, need_weights=need)[0]
            results.append((output, *torch.autograd.grad(output.square().sum(), module.parameters())))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert not list(module.buffers())
    alone = module(x[1:], x[1:], x[1:])[0]
    torch.testing.assert_close(alone, results[0][0][1:], rtol=0, atol=1e-12)


def test_weights_are_softmax_attentions_but_for_a_convolution() -> None:
    plain = HypernetworkAttention(WIDTH, HEADS, variant="softmax").state_dict()
    for down in ("mean", "stride"):
        module = make(down=down, dtype=torch.float32)
        assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in plain.items()}
    convolved = ScaledHeadAttention(WIDTH, HEADS, scales=(1, 2, 4), down="conv", dtype=torch.float64)
    width = WIDTH // HEADS
    assert sum(k.numel() for k in convolved.kernels) == width * (1 + 2 + 4)
    mean = make((1, 2, 4))
    mean.load_state_dict(softmax_like(convolved).state_dict())
    x = draw(BATCH, TOKENS, WIDTH)
    torch.testing.assert_close(convolved(x, x, x, padding())[0], mean(x, x, x, padding())[0], rtol=0, atol=1e-12)
    convolved.kernels[0].data.fill_(torch.nan)
    convolved.reset_parameters()
    assert all((kernel == 1).all() for kernel in convolved.kernels)


# --- 9: few tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", DOWN)
@pytest.mark.parametrize("options", CENTRED, ids=str)
@pytest.mark.parametrize("need", [True, False])
def test_few_keys(down: str, options: dict, need: bool) -> None:
    module = make((50, 50, 50), down=down, **options)
    x = draw(BATCH, TOKENS, WIDTH).requires_grad_()
    first, other = module(x, x, x, need_weights=need)[0], module(x + 1, x, x, need_weights=need)[0]
    # One window is all that there is: the query cannot choose.
    torch.testing.assert_close(first, first[:, :1].expand_as(first), rtol=0, atol=1e-12)
    torch.testing.assert_close(first, other, rtol=0, atol=1e-12)
    value = softmax_like(module)._project(x, x, x)[2]
    shown = value[:, :, :1] if down == "stride" else value.mean(2, keepdim=True)
    torch.testing.assert_close(first[:, :1], module.out_proj(shown.transpose(1, 2).flatten(2)), rtol=0, atol=1e-12)
    single = x[:, :1]
    torch.testing.assert_close(
        module(single, single, single, need_weights=need)[0], softmax_like(module)(single, single, single)[0]
    )
    output, code = module(x, x, x, torch.ones(BATCH, TOKENS).bool(), need_weights=need)
    torch.testing.assert_close(output, module.out_proj.bias.expand_as(output))
    assert code is None or (code == 0).all()
    for result in (first, output):
        for gradient in torch.autograd.grad(
            result.sum(), (x, *module.parameters()), materialize_grads=True, retain_graph=True
        ):
            assert gradient.isfinite().all()


# --- 11: cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [*SCALES[:3], (3, 5, 1)], ids=str)
@pytest.mark.parametrize("n_tokens", [8, TOKENS])
def test_operations_are_counted_as_torch_counts_them(scales: tuple[int, ...], n_tokens: int) -> None:
    module, x = make(scales, bias=False), draw(1, n_tokens, WIDTH)
    with FlopCounterMode(display=False) as counter:
        module(x, x, x, need_weights=False)
    assert module.attention_flops(n_tokens) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("n_tokens", "width", "scales", "ratio"),
    [
        (4096, 64, (1, 2), 0.754),
        (4096, 64, (1, 2, 4, 8), 0.477),
        (1024, 512, (1, 1, 2, 2), 0.812),
        (1024, 512, (1, 2, 4, 8), 0.602),
    ],
)
def test_the_share_of_operations_that_is_left(n_tokens: int, width: int, scales: tuple[int, ...], ratio: float) -> None:
    with torch.device("meta"):
        counts = [
            ScaledHeadAttention(width, len(s), scales=s).attention_flops(n_tokens) for s in (scales, (1,) * len(scales))
        ]
        assert abs(counts[0] / counts[1] - ratio) < 6e-4
        larger = [ScaledHeadAttention(width, 2, scales=(1, s)).attention_flops(n_tokens) for s in range(1, 9)]
    assert larger == sorted(larger, reverse=True)
    assert len(set(larger)) == 8


# --- HYLA, the call, errors ---------------------------------------------------------------------------------


@MASKS
def test_hyla_has_scores_of_windows_and_values_of_tokens(hidden: Tensor | None) -> None:
    module, x = make(variant="hyla"), draw(BATCH, TOKENS, WIDTH)
    plain = softmax_like(module, variant="hyla")
    query, key, _ = plain._project(x, x, x)
    mask = torch.zeros(BATCH, TOKENS).bool() if hidden is None else hidden
    spread = [
        pool_tokens(key, s, mask[:, None])[:, h].repeat_interleave(s, 1)[:, :TOKENS]
        for h, s in enumerate(module.scales)
    ]
    scores = (query @ torch.stack(spread, dim=1).transpose(-1, -2) / 2).masked_fill(mask[:, None, None], 0.0)
    code = scores * (scores.square().mean(1, keepdim=True) + 1e-6).rsqrt()
    output, ours = module(x, x, x, hidden)
    torch.testing.assert_close(ours, code, rtol=0, atol=1e-12)
    torch.testing.assert_close(module(x, x, x, hidden, need_weights=False)[0], output, rtol=0, atol=0)
    ones = make((1, 1, 1), variant="hyla")
    torch.testing.assert_close(
        ones(x, x, x, hidden), softmax_like(ones, variant="hyla")(x, x, x, hidden), rtol=0, atol=1e-12
    )
    with pytest.raises(ValueError, match="normalizer='rms_head' makes codes of tokens alone"):
        module.coarse_code(x, x)


def test_layouts_and_dropout() -> None:
    module, x = make(), draw(BATCH, TOKENS, WIDTH)
    other = make(batch_first=False)
    turned = x.transpose(0, 1)
    for need in (True, False):
        expected, code = module(x[:, -3:], x, x, padding(), need_weights=need)
        output, _ = other(turned[-3:], turned, turned, padding(), need_weights=need)
        torch.testing.assert_close(output.transpose(0, 1), expected, rtol=0, atol=1e-12)
        single, own = module(x[0, -3:], x[0], x[0], padding()[0], need_weights=need)
        torch.testing.assert_close(single, expected[0], rtol=0, atol=1e-12)
        assert (code is None) == (own is None) == (not need)
    dropping = make(dropout=1.0)
    output = dropping(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(output, dropping.out_proj.bias.expand_as(output), rtol=0, atol=0)
    nest = torch.nested.nested_tensor([x[0, :4], x[1, :7]], layout=torch.jagged)
    for row, tokens in zip(module(nest, nest, nest, need_weights=False)[0].unbind(), nest.unbind(), strict=True):
        torch.testing.assert_close(row, module(tokens, tokens, tokens)[0], rtol=0, atol=1e-12)


def test_half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        module, x = make(beta=1.0, rescale=True, dtype=dtype), draw(BATCH, TOKENS, WIDTH).to(dtype)
        for need in (True, False):
            output, code = module(x, x, x, padding(), need_weights=need)
            assert output.isfinite().all()
            assert output.dtype == dtype
            assert code is None or code.dtype == dtype


@pytest.mark.parametrize(
    ("options", "call", "error", "message"),
    [
        ({"scales": (1, 2)}, {}, ValueError, r"scales=\[1, 2\] has 2 entries, needs num_heads=3"),
        ({"scales": (1, 2, 0)}, {}, ValueError, r"scales=0 is out of range"),
        ({"down": "max"}, {}, ValueError, r"unknown down 'max'"),
        ({"rescale": True}, {}, ValueError, r"rescale=True needs a beta"),
        ({"add_zero_attn": True}, {}, ValueError, r"add_zero_attn=True is not defined for ScaledHeadAttention"),
        ({}, {"is_causal": True}, NotImplementedError, r"causal attention with scales=\[1, 2, 4\]"),
        ({}, {"attn_mask": torch.ones(5, 5).bool().triu(1)}, NotImplementedError, r"causal attention with scales"),
        ({"scales": (1, 1, 1), "beta": 1.0}, {"is_causal": True}, NotImplementedError, r"beta=1.0"),
        ({}, {"attn_mask": torch.zeros(5, 5)}, ValueError, r"attn_mask of shape \(5, 5\) is not the causal mask"),
        ({}, {"score_bias": torch.zeros(1, 3, 5, 5)}, ValueError, r"score_bias is of tokens .*average_bias=True"),
        ({}, {"key_padding_mask": torch.zeros(2, 6).bool()}, ValueError, r"key_padding_mask has shape \(2, 6\)"),
    ],
)
@pytest.mark.parametrize("need_weights", [True, False])
def test_what_is_not_defined_is_refused_by_name(
    options: dict, call: dict, error: type, message: str, need_weights: bool
) -> None:
    x = draw(BATCH, 5, WIDTH)
    with pytest.raises(error, match=message):
        make(**options)(x, x, x, need_weights=need_weights, **call)
