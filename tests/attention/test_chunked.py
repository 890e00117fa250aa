"""Attention in blocks is attention at once: outputs and gradients of every pair, masks, and memory."""

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from hyla_repro.attention import (
    NORMALIZERS,
    VALUE_NETWORKS,
    VARIANTS,
    HypernetworkAttention,
    chunked,
    hypernetwork_attention,
)
from hyla_repro.attention.functional import attend
from hyla_repro.attention.masks import causal_mask

BATCH, HEADS, QK, WIDTH = 2, 3, 5, 4
PAIRS = list(product(NORMALIZERS, VALUE_NETWORKS))
KINDS = ("bias", "code_scale", "masked")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(pair: tuple[str, str], queries: int, keys: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Return the arguments of `attend` for a pair, without masks and biases."""
    shapes = {"query": (queries, QK), "key": (keys, QK), "value": (keys, WIDTH)}
    tensors = {name: draw(BATCH, HEADS, *shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}
    inner = draw(HEADS, WIDTH, WIDTH, seed=3, dtype=dtype) if pair[1] == "hyper_deep" else None
    return tensors | {"bias": None, "masked": None, "inner_weight": inner, "activation": torch.relu,
                      "normalizer": pair[0], "value_network": pair[1]}  # fmt: skip


def leaves_of(arguments: dict[str, Any]) -> dict[str, Tensor]:
    numbers = {name: x for name, x in arguments.items() if isinstance(x, Tensor) and x.is_floating_point()}
    return {name: x.detach().requires_grad_() for name, x in numbers.items()}


def results(arguments: dict[str, Any], **options: Any) -> list[Tensor]:
    """Return the output and the gradients of all inputs that are numbers."""
    leaves = leaves_of(arguments)
    mixed = attend(**(arguments | leaves), **options)[0]
    return [mixed.detach(), *torch.autograd.grad(mixed, list(leaves.values()), draw(*mixed.shape, seed=9).to(mixed))]


def assert_same(arguments: dict[str, Any], chunk: int, causal: bool = False, tolerance: float = 1e-12) -> None:
    n_queries, n_keys = arguments["query"].shape[2], arguments["key"].shape[2]
    masked = arguments["masked"]
    if causal:
        future = causal_mask(n_queries, n_keys, torch.device("cpu"))
        masked = future if masked is None else masked | future
    shared = {"key_reduction": arguments.get("key_reduction", "sum")}
    expected = results(arguments | {"masked": masked} | shared)
    for one, other in zip(results(arguments | shared, chunk=chunk, causal=causal), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * max(1.0, float(other.abs().max())))


def with_masks(arguments: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    drawn = {name: draw(*shape, seed=i + 5) for i, (name, shape) in enumerate(shapes.items())}
    if "masked" in drawn:
        drawn["masked"] = drawn["masked"] > 0.3
        drawn["masked"][..., :1, :] = True  # a query that sees no key
    return arguments | {name: x.to(arguments["query"].dtype) if name != "masked" else x for name, x in drawn.items()}


# --- the same numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("causal", [False, True])
def test_every_pair_gives_outputs_and_gradients_of_the_plain_form(pair: tuple[str, str], causal: bool) -> None:
    """Cross attention of 7 queries and 11 keys, with all that may be given, in blocks that do not fit."""
    shapes = {"bias": (1, HEADS, 7, 11), "code_scale": (BATCH, HEADS, 7, 11), "masked": (BATCH, 1, 7, 11)}
    assert_same(with_masks(make(pair, 7, 11), shapes), 4, causal)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_mask_and_block(data: st.DataObject) -> None:
    pair, causal = data.draw(st.sampled_from(PAIRS)), data.draw(st.booleans())
    queries, keys, chunk = (data.draw(st.integers(1, high)) for high in (9, 9, 10))
    axes = ((1, BATCH), (1, HEADS), (1, queries), (1, keys))
    kinds = data.draw(st.sets(st.sampled_from(KINDS)))
    shapes = {kind: tuple(data.draw(st.sampled_from(axis)) for axis in axes) for kind in KINDS if kind in kinds}
    arguments = with_masks(make(pair, queries, keys), shapes)
    reduction = data.draw(st.sampled_from(["sum", "root", "mean"]))
    assert_same(arguments | {"key_reduction": reduction}, chunk, causal)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_float32(pair: tuple[str, str]) -> None:
    assert_same(make(pair, 37, 37, torch.float32), 8, True, 2e-5)


@pytest.mark.parametrize("variant", ["hyla", "hyla_softmax", "softmax"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_float32(variant: str, dtype: torch.dtype) -> None:
    """As near to float64 as the plain form is, though a key's gradient is a sum over 16 blocks."""
    wide = make(VARIANTS[variant], 32, 32)
    half = {name: x.to(dtype) if isinstance(x, Tensor) else x for name, x in wide.items()}
    exact = {name: x.double() if isinstance(x, Tensor) else x for name, x in half.items()}
    expected, plain, blocks = results(exact), results(half), results(half, chunk=2)
    for one, other, truth in zip(blocks, plain, expected, strict=True):
        assert one.dtype == dtype
        error, allowed = ((x.double() - truth).norm() / truth.norm() for x in (one, other))
        assert error < 1.5 * allowed + torch.finfo(dtype).eps


@pytest.mark.parametrize("pair", [("rms_head", "hyper_relu"), ("softmax", "hyper_deep"), ("softmax", "linear")])
def test_gradients_and_their_gradients_are_those_of_finite_differences(pair: tuple[str, str]) -> None:
    given = make(pair, 3, 3) | {"activation": torch.tanh, "bias": draw(1, HEADS, 3, 3, seed=4)}
    names = [name for name, value in given.items() if isinstance(value, Tensor)]
    inputs = [given[name][:1] if name != "inner_weight" else given[name] for name in names]

    def mix(*tensors: Tensor) -> Tensor:
        return attend(**(given | dict(zip(names, tensors, strict=True))), chunk=2, causal=True)[0]

    inputs = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(mix, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(mix, inputs, fast_mode=True)


_FORWARD = chunked._LogSumExp.forward


def maxima_of_blocks(plan: Any, *tensors: Any) -> Tensor:
    """Take each row's denominator from its first block alone."""
    return _FORWARD(plan, tensors[0], tensors[1][:, :, : plan.chunk], *tensors[2:])


def forgets_masks(plan: Any, part: dict[str, Tensor], was: Any = chunked._mix) -> Tensor:
    return was(plan, {name: x for name, x in part.items() if name != "masked"})


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [(chunked._LogSumExp, "forward", staticmethod(maxima_of_blocks)), (chunked, "_mix", forgets_masks)],
    ids=["denominator of one block", "mask forgotten"],
)
def test_the_comparison_notices_faults(owner: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, causal = make(("softmax", "hyper_relu"), 7, 7), name == "_mix"
    assert_same(arguments, 3, causal)
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(arguments, 3, causal)


# --- the module and the function ------------------------------------------------------------------------------


def modules(variant: str, **options: Any) -> tuple[HypernetworkAttention, HypernetworkAttention]:
    options = {"variant": variant, "dtype": torch.float64} | options
    plain, blocks = HypernetworkAttention(12, 3, **options), HypernetworkAttention(12, 3, chunk=4, **options)
    blocks.load_state_dict(plain.state_dict())
    return plain, blocks


@pytest.mark.parametrize("variant", ["hyla", "hyla_softmax"])
@pytest.mark.parametrize("masks", ["causal", "causal and padding", "additive and padding"])
@pytest.mark.parametrize(
    "options", [{}, {"add_bias_kv": True, "add_zero_attn": True, "key_reduction": "mean"}], ids=str
)
@pytest.mark.parametrize("tokens", [(9, 9), (9, 6), (5, 9)], ids=str)
def test_the_module_with_its_masks(variant: str, masks: str, options: dict, tokens: tuple[int, int]) -> None:
    """More queries than keys leave queries that see added keys at most."""
    plain, blocks = modules(variant, **options)
    x, y = draw(BATCH, tokens[0], 12), draw(BATCH, tokens[1], 12, seed=1)
    given: dict[str, Any] = {"is_causal": masks.startswith("causal"), "score_bias": draw(1, 3, *tokens)}
    if "padding" in masks:
        given["key_padding_mask"] = torch.tensor([[True], [False]]) & (torch.arange(tokens[1]) > 3)
    if "additive" in masks:
        given["attn_mask"] = draw(*tokens, seed=2).masked_fill(draw(*tokens, seed=3) > 0.5, -1e9)
    outputs = [module(x, y, y, need_weights=False, **given) for module in (plain, blocks)]
    assert outputs[1][1] is None
    torch.testing.assert_close(outputs[1][0], outputs[0][0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_function_slices_masks(variant: str) -> None:
    pair = VARIANTS[variant]
    arguments = make(pair, 7, 11)
    heads = [arguments[name] for name in ("query", "key", "value")]
    for mask in (draw(7, 11) > 0, draw(BATCH, 1, 1, 11), None):
        one, other = (
            hypernetwork_attention(*heads, mask, inner_weight=arguments["inner_weight"], chunk=chunk, **pair._asdict())
            for chunk in (None, 3)
        )
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_blocks_inside_a_checkpoint() -> None:
    _, blocks = modules("hyla_softmax")
    x, gradients = draw(BATCH, 9, 12), []
    for call in (blocks, lambda *tokens, **options: checkpoint(blocks, *tokens, use_reentrant=False, **options)):
        tokens = x.clone().requires_grad_()
        call(tokens, tokens, tokens, need_weights=False)[0].square().sum().backward()
        gradients.append(tokens.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_an_encoder_trains_and_evaluates_in_blocks() -> None:
    layer = nn.TransformerEncoderLayer(12, 3, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x, outputs = draw(BATCH, 9, 12, dtype=torch.float32), []
    weights = [one.self_attn for one in encoder.layers]
    for chunk in (None, 4):
        for one, attention in zip(encoder.layers, weights, strict=True):
            one.self_attn = HypernetworkAttention.like(attention, chunk=chunk)
        outputs += [encoder.train()(x), encoder.eval()(x)]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=2e-5)


def test_stacked_models_and_their_gradients() -> None:
    plain, blocks = modules("hyla_softmax")
    x = draw(BATCH, 5, 12)

    def loss(module: nn.Module) -> Callable[[dict[str, Tensor]], Tensor]:
        options = {"need_weights": False, "is_causal": True}
        return lambda weights: functional_call(module, weights, (x, x, x), options)[0].square().sum()

    stacked = stack_module_state([plain, blocks])[0]
    one, other = (vmap(grad(loss(module)))(stacked) for module in (plain, blocks))
    for name in stacked:
        torch.testing.assert_close(other[name], one[name], rtol=1e-10, atol=1e-10)


COMPILED = """
import torch
from hyla_repro import HypernetworkAttention
torch.set_num_threads(1)
layer = HypernetworkAttention(12, 3, chunk=3)
gradients = []
for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
    x = torch.ones(2, 5, 12).cumsum(1).sin().requires_grad_()
    call(x, x, x, is_causal=True, need_weights=False)[0].square().sum().backward()
    gradients.append(x.grad)
torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
print("one graph")
"""


def test_compiled_as_one_graph() -> None:
    """In a process of its own, as run-time type checks break graphs."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.stdout.strip() == "one graph", done.stderr[-3000:]


def test_autocast() -> None:
    plain, blocks = modules("hyla_softmax", dtype=torch.float32)
    x = draw(BATCH, 9, 12, dtype=torch.float32)
    gradients = []
    for module in (plain, blocks):
        with torch.autocast("cpu", torch.bfloat16):
            output = module(x, x, x, need_weights=False)[0]
        assert output.dtype == torch.bfloat16
        output.float().sum().backward()
        gradients.append(module.in_proj_weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=0.05 * float(gradients[0].abs().max()))


# --- memory ---------------------------------------------------------------------------------------------------


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remember the elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def largest(pair: tuple[str, str], tokens: int, chunk: int | None, causal: bool) -> tuple[int, int]:
    """Return the elements of the largest tensor of a forward and backward pass, and of all that are saved between."""
    arguments, saved = make(pair, tokens, tokens), {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    leaves = leaves_of(arguments)
    with Largest() as mode:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            mixed = attend(**(arguments | leaves), key_reduction="mean", chunk=chunk, causal=causal)[0]
        torch.autograd.grad(mixed, list(leaves.values()), torch.ones_like(mixed))
    return mode.elements, sum(saved.values())


@pytest.mark.parametrize("pair", [("rms_head", "hyper_relu"), ("softmax", "hyper_relu"), ("softmax", "linear")])
@pytest.mark.parametrize("causal", [False, True])
def test_memory_grows_with_the_tokens_and_plain_with_their_pairs(pair: tuple[str, str], causal: bool) -> None:
    """With a mask of booleans alone, causal attention would hold 96**2 elements, more than a block has."""
    small, large = (largest(pair, tokens, 8, causal) for tokens in (48, 96))
    assert large[0] <= 2 * small[0] < 96**2
    assert large[1] <= 2.1 * small[1]
    plain = [largest(pair, tokens, None, False) for tokens in (48, 96)]
    assert plain[1][0] == 4 * plain[0][0]
    assert plain[1][1] > 3.5 * plain[0][1]


def test_causal_attention_skips_hidden_blocks() -> None:
    plan = chunked._Plan(4, True, 0, 1.0, "none", True, torch.relu)
    assert len(list(chunked._blocks(plan, 16, 16))) == 10
    assert len(list(chunked._blocks(plan._replace(causal=False), 16, 16))) == 16


# --- what blocks cannot do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 0}, r"chunk=0 is out of range: use 1 or more"),
        ({"chunk": True}, r"chunk=True is not a whole number"),
        ({"return_code": True}, r"chunk=4 never holds the code that return_code=True asks for"),
        ({"dropout_p": 0.1}, r"chunk=4 draws no dropout \(here 0.1\).* draw a code_scale"),
        ({"activation": nn.PReLU(dtype=torch.float64)}, r"PReLU.* has parameters, .* chunk=4: use one without"),
    ],
)
def test_what_blocks_cannot_do_is_refused(changes: dict, message: str) -> None:
    heads = [draw(BATCH, HEADS, 5, WIDTH)] * 3
    with pytest.raises(ValueError, match=message):
        hypernetwork_attention(*heads, **({"chunk": 4} | changes))


def test_the_module_refuses_weights_and_its_own_dropout_and_takes_factors() -> None:
    blocks, x = modules("hyla", dropout=0.5)[1], draw(BATCH, 5, 12)
    with pytest.raises(ValueError, match="chunk=4 never holds the code that need_weights=True asks for"):
        blocks(x, x, x)
    with pytest.raises(ValueError, match=r"chunk=4 draws no dropout \(here 0.5\)"):
        blocks(x, x, x, need_weights=False)
    assert blocks.eval()(x, x, x, need_weights=False, code_scale=torch.zeros(1, 1, 5, 5))[0].isfinite().all()
    assert "chunk=4" in repr(blocks)
