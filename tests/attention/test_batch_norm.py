"""Attention on centred keys: its four forms, its symmetries, padding, causal statistics, and support vectors."""

import math
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hyla_repro.attention import (
    BatchNormAttention,
    HypernetworkAttention,
    KeyValueCache,
    bn_queries,
    centred,
    head_distance,
    key_statistics,
    pool_tokens,
)

BATCH, HEADS, TOKENS, WIDTH, HEAD = 2, 3, 11, 12, 5
GOLDEN = Path(__file__).parents[1] / "golden" / "related" / "primal_dual"
BETAS, RESCALE = (
    pytest.mark.parametrize("beta", [0.0, 0.6, 1.0, 1.7]),
    pytest.mark.parametrize("rescale", [False, True]),
)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def heads(queries: int = TOKENS) -> tuple[Tensor, Tensor]:
    """Queries and keys of different means and scales."""
    return 2 + draw(BATCH, HEADS, queries, HEAD), 1 + draw(BATCH, HEADS, TOKENS, HEAD, seed=1) * torch.arange(
        1, HEAD + 1
    )


def make(**options: object) -> BatchNormAttention:
    torch.manual_seed(0)
    return BatchNormAttention(WIDTH, HEADS, **{"dtype": torch.float64} | options)


def softmax_like(module: HypernetworkAttention) -> HypernetworkAttention:
    plain = HypernetworkAttention(WIDTH, HEADS, variant="softmax", dtype=torch.float64)
    plain.load_state_dict(module.state_dict())
    return plain


def padding() -> Tensor:
    hidden = torch.zeros(BATCH, TOKENS).bool()
    hidden[0, :3] = hidden[0, 7] = hidden[1, -4:] = True
    return hidden


def codes(query: Tensor, key: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return (query @ key.transpose(-1, -2) / math.sqrt(HEAD) + bias).softmax(-1)


# --- reference arrays: support vector regression ------------------------------------------------------------

CASES = ["softmax", "bn_beta1_rescale", "bn_beta06", "sh_scale2", "bnsh_beta1_rescale_scale3"]


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


@pytest.mark.parametrize("name", CASES)
def test_golden_regression_is_attention(name: str) -> None:
    """A support vector regression's predictions are attention to its keys with its multipliers as values."""
    arrays = load(name)
    scale, settings = int(arrays["scale"]), {"beta": float(arrays["beta"]), "rescale": bool(arrays["rescale"])}
    keys = pool_tokens(arrays["keys"], scale)
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(keys, arrays["train_keys"], **close)
    query, key = (x[None, None] for x in (arrays["queries"], keys))
    code = codes(*centred(query, key, **settings))[0, 0]
    torch.testing.assert_close(code, arrays["code"], **close)
    torch.testing.assert_close(codes(bn_queries(query, key, **settings)[0], key)[0, 0], arrays["code"], **close)
    torch.testing.assert_close(code @ arrays["values"] + arrays["bias"], arrays["predictions"], **close)
    statistics = key_statistics(key)
    if settings["beta"]:
        torch.testing.assert_close(statistics.mean[0, 0, 0], arrays["mu"].flatten(), **close)
    if settings["rescale"]:
        torch.testing.assert_close(statistics.rescale(1e-5)[0, 0, 0], arrays["r"].flatten(), **close)


def regression(x: Tensor, targets: Tensor, z: Tensor, limit: float = 50.0) -> dict[str, np.ndarray]:
    """Fit a support vector regression per target, and return its predictions at z with the values of attention."""
    svm = pytest.importorskip("sklearn.svm")
    kernel = (x @ x.T / math.sqrt(x.shape[1])).exp()
    h = kernel.sum(-1)
    at_z = (z @ x.T / math.sqrt(x.shape[1])).exp()
    dual, predictions, bias = [], [], []
    for column in targets.T:
        model = svm.SVR(kernel="precomputed", C=limit, epsilon=0.02, tol=1e-10)
        model.fit((kernel / (h[:, None] * h)).numpy(), column.numpy())
        own = np.zeros(len(x))
        own[model.support_] = model.dual_coef_[0]
        dual.append(own)
        bias.append(model.intercept_[0])
        predictions.append(model.predict((at_z / (at_z.sum(-1)[:, None] * h)).numpy()))
    multipliers = np.stack(dual, axis=-1)
    return {"values": multipliers / h.numpy()[:, None], "multipliers": multipliers, "bias": np.array(bias),
            "predictions": np.stack(predictions, axis=-1), "h": h.numpy()}  # fmt: skip


@pytest.mark.parametrize(
    ("beta", "rescale", "scale"), [(0.0, False, 1), (1.0, True, 1), (0.6, False, 1), (1.0, True, 2)]
)
def test_a_regression_that_is_fitted_here_is_attention(beta: float, rescale: bool, scale: int) -> None:
    query, key = (x[:1, :1] for x in heads(7))
    pooled = pool_tokens(key / 3, scale)
    z, x = (part[0, 0] for part in centred(query / 3, pooled, beta, rescale=rescale))
    fit = regression(x, draw(len(x), 2, seed=5), z)
    code = codes(z[None, None], x[None, None])[0, 0].numpy()
    np.testing.assert_allclose(code @ fit["values"] + fit["bias"], fit["predictions"], rtol=0, atol=1e-8)
    np.testing.assert_allclose((fit["values"] * fit["h"][:, None]).sum(0), 0, atol=1e-8)
    assert (np.abs(fit["multipliers"]) <= 50 * (1 + 1e-9)).all()
    assert np.abs(fit["multipliers"]).max() > 1e-3


def monomials(x: Tensor, degree: int) -> Tensor:
    """Scaled monomials whose products sum to exp(<x, y> / sqrt(d))."""
    x = x / x.shape[-1] ** 0.25
    features = [torch.ones(len(x), dtype=x.dtype)]
    for n in range(1, degree + 1):
        for chosen in combinations_with_replacement(range(x.shape[-1]), n):
            powers = [chosen.count(i) for i in range(x.shape[-1])]
            scale = math.prod(math.factorial(power) for power in powers) ** -0.5
            features.append(scale * torch.stack([x[:, i] ** p for i, p in enumerate(powers)]).prod(0))
    return torch.stack(features, dim=-1)


def test_monomials_converge_to_the_kernel() -> None:
    x, y = draw(5, 3), draw(4, 3, seed=1)
    kernel = (x @ y.T / math.sqrt(3)).exp()
    errors = [float((monomials(x, n) @ monomials(y, n).T - kernel).abs().max()) for n in (2, 4, 8, 14)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-8
    assert monomials(x, 14).shape[-1] == sum(math.comb(3 + t - 1, t) for t in range(15))


# --- 1, 2: the forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [None, padding()], ids=["all", "padded"])
def test_beta_zero_is_softmax_attention(hidden: Tensor | None) -> None:
    module = make(beta=0.0)
    plain, results = softmax_like(module), []
    for attention in (module, plain):
        x = draw(BATCH, TOKENS, WIDTH).requires_grad_()
        output, code = attention(x, x, x, hidden)
        weights = (x, attention.in_proj_weight, attention.out_proj.weight)
        results.append((output, code, *torch.autograd.grad(output.square().sum(), weights)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def expanded(query: Tensor, key: Tensor, beta: float, rescale: bool) -> Tensor:
    """For beta = 1: each key's score less its mean similarity to all keys."""
    variance = key.var(2, unbiased=False, keepdim=True) + 1e-5 if rescale else torch.ones(1)
    similarity = ((key / variance) @ key.transpose(-1, -2)).mean(2, keepdim=True)
    return (((query / variance) @ key.transpose(-1, -2) - beta * similarity) / math.sqrt(HEAD)).softmax(-1)


@BETAS
@RESCALE
def test_four_forms_are_one(beta: float, rescale: bool) -> None:
    query, key = heads()
    settings = {"beta": beta, "rescale": rescale}
    expected = codes(*centred(query, key, **settings))
    changed, rest = bn_queries(query, key, **settings)
    mean = key.mean(2, keepdim=True)
    scale = 1 / (key.var(2, unbiased=False, keepdim=True) + 1e-5) if rescale else torch.ones_like(mean)
    key_bias = -beta * (mean * scale) @ key.transpose(-1, -2) / math.sqrt(HEAD)
    for code in (codes(changed, key), codes(changed, key, rest), codes(query * scale, key, key_bias),
                 expanded(query, key, beta, rescale)):  # fmt: skip
        torch.testing.assert_close(code, expected, rtol=0, atol=1e-12)
    # As scores, and not only as codes, which forget terms of the query.
    full = [q @ k.transpose(-1, -2) for q, k in (centred(query, key, **settings), (changed, key))]
    torch.testing.assert_close(full[1] + rest, full[0])


@BETAS
@RESCALE
def test_the_module_is_the_functions_between_projections(beta: float, rescale: bool) -> None:
    module, x = make(beta=beta, rescale=rescale), draw(BATCH, TOKENS, WIDTH)
    query, key, value = softmax_like(module)._project(x, x, x)
    q, k = centred(query, key, beta, rescale=rescale, hidden=padding()[:, None])
    scores = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).masked_fill(padding()[:, None, None], -torch.inf)
    output, code = module(x, x, x, padding())
    torch.testing.assert_close(code, scores.softmax(-1), rtol=0, atol=1e-12)
    mixed = (code @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, module.out_proj(mixed), rtol=0, atol=1e-12)


# --- 3, 13: symmetries, and an error that they find ---------------------------------------------------------


def multiplied(query: Tensor, key: Tensor, beta: float, eps: float) -> tuple[Tensor, Tensor]:
    """The trap: multiply by the standard deviation."""
    mean, deviation = key.mean(2, keepdim=True), (key.var(2, unbiased=False, keepdim=True) + eps).sqrt()
    return (query - beta * mean) * deviation, (key - beta * mean) * deviation


def test_a_shift_of_queries_and_keys_together_changes_nothing() -> None:
    query, key = heads()
    shift = 3 * draw(1, HEADS, 1, HEAD, seed=4)
    for rescale in (False, True):
        for beta, same in ((1.0, True), (0.6, False)):
            plain = codes(*centred(query, key, beta, rescale=rescale))
            shifted = codes(*centred(query + shift, key + shift, beta, rescale=rescale))
            assert (float((plain - shifted).abs().max()) < 1e-12) is same
        of_keys = codes(*centred(query, key + shift, 1.0, rescale=rescale))
        assert float((of_keys - codes(*centred(query, key, 1.0, rescale=rescale))).abs().max()) > 1e-2
    # Plain softmax forgets a shift of the keys.
    torch.testing.assert_close(codes(query, key + shift), codes(query, key))


def test_a_common_scale_of_an_axis_changes_nothing_unless_one_multiplies() -> None:
    query, key = heads()
    scale = draw(1, HEADS, 1, HEAD, seed=4).exp()
    settings = {"beta": 1.0, "eps": 0.0}
    ours = [codes(*centred(query * w, key * w, rescale=True, **settings)) for w in (1.0, scale)]
    torch.testing.assert_close(ours[0], ours[1], rtol=0, atol=1e-12)
    wrong = [codes(*multiplied(query * w, key * w, **settings)) for w in (1.0, scale)]
    assert float((wrong[0] - wrong[1]).abs().max()) > 1e-2


def test_variance_survives_a_large_mean() -> None:
    """In float32, where a difference of squares has no digit left."""
    key = draw(1, 1, 500, 3, dtype=torch.float32)
    far, wide = key + 3e4, (key + 3e4).double()
    assert float((far.square().mean(2) - far.mean(2).square() - 1).abs().max()) > 1
    for causal in (False, True):
        ours = key_statistics(far, causal=causal)
        expected = key_statistics(wide, causal=causal)
        torch.testing.assert_close(
            ours.rescale(1e-5)[:, :, -1].double(), expected.rescale(1e-5)[:, :, -1], rtol=1e-2, atol=0
        )


# --- 4, 6: code and permutations ----------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [None, padding()], ids=["all", "padded"])
def test_code_is_a_distribution(hidden: Tensor | None) -> None:
    module, x = make(rescale=True), draw(BATCH, TOKENS, WIDTH)
    _, code = module(x, x, x, hidden)
    assert code.shape == (BATCH, HEADS, TOKENS, TOKENS)
    torch.testing.assert_close(code.sum(-1), torch.ones_like(code[..., 0]))
    assert (code >= 0).all()
    if hidden is not None:
        assert (code.masked_select(hidden[:, None, None]) == 0).all()


def test_permuted_tokens_have_permuted_outputs() -> None:
    module, x = make(rescale=True), draw(BATCH, TOKENS, WIDTH)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    shuffled = x[:, order]
    torch.testing.assert_close(module(shuffled, shuffled, shuffled)[0], module(x, x, x)[0][:, order])


# --- 7, 8: padding, modes, parameters -----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, 1e30, float("nan")])
@pytest.mark.parametrize("stats", ["sequence", "causal"])
def test_padding_changes_nothing(bad: float, stats: str) -> None:
    causal = stats == "causal"
    module, x = make(rescale=True, stats=stats), draw(BATCH, TOKENS, WIDTH)
    longer = torch.cat([x, torch.full((BATCH, 6, WIDTH), bad, dtype=x.dtype)], dim=1)
    hidden = torch.arange(TOKENS + 6).expand(BATCH, -1) >= TOKENS
    results = []
    for key, mask in ((x, None), (longer, hidden)):
        query = torch.cat([torch.zeros_like(key[:, TOKENS:]), x], dim=1) if causal else x
        if causal and mask is not None:
            key, mask = torch.cat([key[:, TOKENS:], x], dim=1), mask.flip(1)
        for mode in (True, False):
            output = module.train(mode)(query, key, key, mask, is_causal=causal)[0][:, -TOKENS:]
            results.append((output, *torch.autograd.grad(output.square().sum(), module.parameters())))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert not list(module.buffers())


def test_sequences_do_not_know_of_each_other() -> None:
    module, x = make(rescale=True), draw(BATCH, TOKENS, WIDTH)
    alone = module(x[1:], x[1:], x[1:])[0]
    torch.testing.assert_close(alone, module(x, x, x)[0][1:], rtol=0, atol=1e-12)


def test_weights_are_softmax_attentions() -> None:
    module = make()
    assert softmax_like(module).state_dict().keys() == module.state_dict().keys()
    learned = make(beta=0.6, learn_beta=True)
    assert learned.state_dict().keys() - module.state_dict().keys() == {"beta"}
    assert learned.beta.tolist() == pytest.approx([0.6] * HEADS)
    learned.beta.data.fill_(torch.nan)
    learned.reset_parameters()
    assert learned.beta.tolist() == pytest.approx([0.6] * HEADS)
    x = draw(BATCH, TOKENS, WIDTH)
    learned.load_state_dict(module.state_dict() | {"beta": torch.tensor([0.0, 0.6, 1.0])})
    expected = torch.stack([make(beta=beta)(x, x, x)[1][:, h] for h, beta in enumerate((0.0, 0.6, 1.0))], dim=1)
    output, code = learned(x, x, x)
    torch.testing.assert_close(code, expected, rtol=0, atol=1e-7)
    assert (torch.autograd.grad(output.square().sum(), learned.beta)[0] != 0).all()


# --- 9: few tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["one", "equal", "hidden"])
@RESCALE
@pytest.mark.parametrize("stats", ["sequence", "causal"])
def test_few_and_equal_keys(case: str, rescale: bool, stats: str) -> None:
    module = make(rescale=rescale, stats=stats)
    x = draw(BATCH, TOKENS, WIDTH)
    x = x[:, :1] if case == "one" else x[:, :1].expand(-1, TOKENS, -1) if case == "equal" else x
    x = x.contiguous().requires_grad_()
    hidden = torch.ones(BATCH, TOKENS).bool() if case == "hidden" else None
    output, code = module(x, x, x, hidden, is_causal=stats == "causal")
    for gradient in torch.autograd.grad(output.sum(), (x, *module.parameters())):
        assert gradient.isfinite().all()
    visible = 1.0 / torch.arange(1, x.shape[1] + 1) if stats == "causal" else torch.full((x.shape[1],), 1 / x.shape[1])
    expected = visible[:, None].expand(-1, x.shape[1]).double() * (0.0 if case == "hidden" else 1.0)
    expected = expected.tril() if stats == "causal" else expected
    torch.testing.assert_close(code, expected.expand_as(code), rtol=0, atol=1e-6)
    if case == "hidden":
        torch.testing.assert_close(output, module.out_proj.bias.expand_as(output))


# --- 10: causal statistics ----------------------------------------------------------------------------------


@RESCALE
@pytest.mark.parametrize("variant", ["softmax", "hyla"])
def test_causal_statistics_know_of_no_later_token(rescale: bool, variant: str) -> None:
    module, x = make(rescale=rescale, stats="causal", variant=variant), draw(BATCH, TOKENS, WIDTH)
    changed = x.clone()
    changed[:, 7] += 1
    (ours, code), (theirs, other) = (module(t, t, t, is_causal=True) for t in (x, changed))
    torch.testing.assert_close(ours[:, :7], theirs[:, :7], rtol=0, atol=0)
    torch.testing.assert_close(code[:, :, :7], other[:, :, :7], rtol=0, atol=0)
    assert ((ours - theirs)[:, 7:].abs().amax((0, 2)) > 1e-6).all()
    # The control: with the mean of all keys, queries that do not see the changed one have other codes.
    query, key = heads()
    later = key.clone()
    later[:, :, 7] += 1
    hidden = torch.ones(7, TOKENS).bool().triu(1)
    blind = [bn_queries(query, k, rescale=rescale)[0][:, :, :7] @ k.transpose(-1, -2) for k in (key, later)]
    leak = [scores.masked_fill(hidden, -torch.inf).softmax(-1) for scores in blind]
    assert float((leak[0] - leak[1]).abs().max()) > 1e-3


@RESCALE
@pytest.mark.parametrize("variant", ["softmax", "hyla"])
@pytest.mark.parametrize("hidden", [None, padding()], ids=["all", "padded"])
def test_causal_outputs_are_those_of_every_prefix(rescale: bool, variant: str, hidden: Tensor | None) -> None:
    module = make(rescale=rescale, stats="causal", variant=variant)
    prefix = make(rescale=rescale, variant=variant)
    prefix.load_state_dict(module.state_dict())
    x = draw(BATCH, TOKENS, WIDTH)
    output = module(x, x, x, hidden, is_causal=True)[0]
    torch.testing.assert_close(module(x[:, -2:], x, x, hidden, is_causal=True)[0], output[:, -2:], rtol=0, atol=1e-12)
    mask = torch.ones(TOKENS, TOKENS).bool().triu(1)
    torch.testing.assert_close(module(x, x, x, hidden, attn_mask=mask)[0], output, rtol=0, atol=0)
    for t in range(TOKENS):
        seen = x[:, : t + 1]
        own = None if hidden is None else hidden[:, : t + 1]
        torch.testing.assert_close(prefix(seen[:, -1:], seen, seen, own)[0][:, 0], output[:, t], rtol=0, atol=1e-10)
    cache = KeyValueCache()
    stepwise = []
    for t, token in enumerate(x.split(1, dim=1)):
        own = None if hidden is None else hidden[:, : t + 1]
        stepwise.append(module(token, token, token, own, is_causal=True, cache=cache)[0])
    torch.testing.assert_close(torch.cat(stepwise, dim=1), output, rtol=0, atol=1e-12)


# --- HYLA, half precision, heads, errors --------------------------------------------------------------------


def test_hyla_needs_the_whole_centred_form() -> None:
    """Its normaliser cancels no term of the query, so that the trick of softmax would give another code."""
    module, x = make(variant="hyla", bias=False), draw(BATCH, TOKENS, WIDTH)
    plain = HypernetworkAttention(WIDTH, HEADS, variant="hyla", bias=False, dtype=torch.float64)
    plain.load_state_dict(module.state_dict())
    _, code = module(x, x, x)
    query, key, _ = plain._project(x, x, x)
    scores = [q @ k.transpose(-1, -2) for q, k in (centred(query, key), (bn_queries(query, key)[0], key))]
    normed = [s * (s.square().mean(1, keepdim=True) + 4e-6).rsqrt() for s in scores]
    torch.testing.assert_close(code, normed[0], rtol=1e-6, atol=1e-9)
    assert float((code - normed[1]).abs().max().detach()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_the_mean_away_in_float32(dtype: torch.dtype) -> None:
    """Keys with a mean that is large against their spread, which a mean in half precision moves."""
    key = (64 + draw(1, 1, 400, HEAD)).to(dtype)
    ours = centred(key, key, rescale=True)[1]
    expected = centred(key.double(), key.double(), rescale=True)[1]
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), expected, rtol=2e-2, atol=2e-2)
    mean = sum(key.unbind(2)) / 400
    assert float((mean.double() - key.double().mean(2)).abs().max()) > 0.05
    module = make(rescale=True, dtype=dtype)
    x = draw(BATCH, TOKENS, WIDTH).to(dtype)
    output, code = module(x, x, x)
    assert output.isfinite().all()
    assert output.dtype == code.dtype == dtype


def test_distance_of_heads() -> None:
    outputs = torch.zeros(1, 3, 2, 2)
    outputs[0, :, 0] = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
    outputs[0, :, 1] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert head_distance(outputs).item() == pytest.approx((5 + 5 + 0 + 0 + 1 + 1) / 6)
    assert head_distance(outputs, normalise=True).item() == pytest.approx(2 * math.sqrt(2) / 6)
    hidden = torch.tensor([[False, True]])
    assert head_distance(outputs, hidden=hidden).item() == pytest.approx(10 / 3)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        ({"stats": "batch"}, {}, r"unknown stats 'batch'"),
        ({"add_bias_kv": True}, {}, r"add_bias_kv=True is not defined for BatchNormAttention"),
        ({}, {"is_causal": True}, r"is_causal=True with stats='sequence': .*use stats='causal'"),
        ({"stats": "causal"}, {}, r"stats='causal' needs is_causal=True"),
        ({}, {"attn_mask": torch.zeros(5, 5)}, r"attn_mask of shape \(5, 5\) is not the causal mask"),
        ({"stats": "causal", "rescale": True, "dtype": torch.float16}, {"is_causal": True}, r"overflows float16"),
    ],
)
def test_what_is_not_defined_is_refused_by_name(options: dict, call: dict, message: str) -> None:
    x = draw(BATCH, 5, WIDTH, dtype=options.get("dtype", torch.float64))
    with pytest.raises(ValueError, match=message):
        make(**options)(x, x, x, **call)
