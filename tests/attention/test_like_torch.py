"""Case by case what torch tests of nn.MultiheadAttention (its test/nn/test_multihead_attention.py), asked of ours.

The page *Use it in your model* has the table of these cases; a test below keeps the two in step.
"""

import copy
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hyla_repro.attention.value_networks as networks
from hyla_repro.attention import VARIANTS, HypernetworkAttention

BATCH, QUERIES, KEYS = 2, 3, 5
PAGE = Path(__file__).parents[2] / "book" / "use-it.md"
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask"),
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both(*sizes: int, **options: object) -> tuple[nn.MultiheadAttention, HypernetworkAttention]:
    """Return torch's module with random parameters, and ours with the same ones."""
    theirs = nn.MultiheadAttention(*sizes, **{"batch_first": True, "dtype": torch.float64} | options)
    for index, parameter in enumerate(theirs.parameters()):
        parameter.data = 0.5 * draw(*parameter.shape, seed=index + 1)
    return theirs, HypernetworkAttention.like(theirs, variant="softmax")


# --- values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("masks", ["none", "padding", "attn_mask", "both", "float"])
@pytest.mark.parametrize(
    "options",
    [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True},
     {"kdim": 11, "vdim": 13}, {"kdim": 11, "vdim": 11, "add_bias_kv": True, "add_zero_attn": True},
     {"batch_first": False}, {"batch_first": False, "add_bias_kv": True}],
    ids=str,
)  # fmt: skip
def test_multihead_attention(options: dict, masks: str, average: bool) -> None:
    theirs, ours = both(14, 7, **options)
    tokens = [draw(BATCH, QUERIES, 14), draw(BATCH, KEYS, theirs.kdim, seed=1), draw(BATCH, KEYS, theirs.vdim, seed=2)]
    if not theirs.batch_first:
        tokens = [x.transpose(0, 1) for x in tokens]
    hidden, padding = torch.zeros(QUERIES, KEYS).bool(), torch.zeros(BATCH, KEYS).bool()
    hidden[0, 1:3] = padding[0, -1] = padding[1, -2:] = True
    given = {}
    if masks in ("padding", "both"):
        given["key_padding_mask"] = padding
    if masks in ("attn_mask", "both"):
        given["attn_mask"] = hidden
    if masks == "float":
        given["attn_mask"] = draw(QUERIES, KEYS, seed=3).masked_fill(hidden, float("-inf"))
    expected, expected_weights = theirs(*tokens, average_attn_weights=average, **given)
    output, weights = ours(*tokens, average_attn_weights=average, **given)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-12)


def test_multihead_attn_3d_attn_mask() -> None:
    _, ours = both(14, 7)
    query, key = draw(BATCH, QUERIES, 14), draw(BATCH, KEYS, 14, seed=1)
    masks = torch.zeros(BATCH, QUERIES, KEYS).masked_fill(draw(BATCH, QUERIES, KEYS, seed=2) > 0.5, float("-inf"))
    together = ours(query, key, key, attn_mask=masks.repeat_interleave(7, dim=0))[0]
    for b in range(BATCH):
        alone = ours(query[b : b + 1], key[b : b + 1], key[b : b + 1], attn_mask=masks[b])[0]
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", ["none", "2", "3", "padding"])
def test_unbatched_inputs(mask: str) -> None:
    theirs, ours = both(14, 7)
    query, key = draw(QUERIES, 14), draw(KEYS, 14, seed=1)
    hidden = torch.zeros(7, QUERIES, KEYS).bool()
    hidden[2, 1, 3] = hidden[:, 0, 0] = True
    given = {"none": {}, "2": {"attn_mask": hidden[2]}, "3": {"attn_mask": hidden},
             "padding": {"key_padding_mask": hidden[2, 1]}}[mask]  # fmt: skip
    for average in (True, False):
        expected = theirs(query, key, key, average_attn_weights=average, **given)
        actual = ours(query, key, key, average_attn_weights=average, **given)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert ours(query, key, key, need_weights=False)[1] is None


def test_multihead_attn_no_bias() -> None:
    ours = HypernetworkAttention(8, 4, bias=False)
    assert ours.in_proj_bias is None
    assert ours.out_proj.bias is None


def test_multihead_attn_in_proj_bias_none() -> None:
    theirs, ours = both(2, 2, bias=False)
    x = draw(2, 2, 2)
    torch.testing.assert_close(ours(x, x, x)[0], theirs(x, x, x)[0])


def test_multihead_attn_in_proj_weight_none() -> None:
    theirs, ours = both(4, 4, vdim=2, kdim=2)
    assert ours.in_proj_weight is None
    query, key = draw(4, 4, 4), draw(4, 4, 2)
    torch.testing.assert_close(ours(query, key, key)[0], theirs(query, key, key)[0])


def test_multihead_self_attn_two_masks() -> None:
    """Where a query sees no key, torch gives NaN and ours the bias of the output."""
    theirs, ours = both(14, 7)
    x = draw(8, 5, 14)
    attn_mask, padding = draw(5, 5, seed=1) > 0, draw(8, 5, seed=2) > 0
    blind = (attn_mask | padding.unsqueeze(1)).all(-1)
    assert blind.any()
    expected = theirs(x, x, x, attn_mask=attn_mask, key_padding_mask=padding)[0]
    output = ours(x, x, x, attn_mask=attn_mask, key_padding_mask=padding)[0]
    torch.testing.assert_close(output[~blind], expected[~blind], rtol=0, atol=1e-12)
    torch.testing.assert_close(output[blind], ours.out_proj.bias.expand_as(output[blind]), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_never_takes_torchs_fast_path(variant: str) -> None:
    layer = nn.TransformerEncoderLayer(16, 8, 16, batch_first=True)
    layer.self_attn = HypernetworkAttention.like(layer.self_attn, variant=variant)
    x = draw(8, 5, 16, dtype=torch.float32)
    with (
        mock.patch("torch._native_multi_head_attention", side_effect=AssertionError),
        mock.patch("torch._transformer_encoder_layer_fwd", side_effect=AssertionError),
    ):
        layer.eval()(x)


# --- types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float, torch.double])
@pytest.mark.parametrize("training", [True, False])
def test_multihead_attention_dtype(variant: str, dtype: torch.dtype, training: bool) -> None:
    ours = HypernetworkAttention(32, 8, variant=variant).to(dtype).train(training)
    x = draw(2, 5, 32, dtype=torch.float32).to(dtype)
    output, code = ours(x, x, x)
    assert (output.dtype, code.dtype, output.shape) == (dtype, dtype, x.shape)
    assert output.isfinite().all()


def test_query_and_bias_of_different_dtypes() -> None:
    """Torch may add a bias of another type; ours leaves it to torch's linear layer, which refuses it."""
    _, ours = both(4, 4)
    ours.in_proj_bias = nn.Parameter(ours.in_proj_bias.half())
    x = draw(4, 4, 4)
    with pytest.raises(RuntimeError, match="dtype"):
        ours(x, x, x)


@torch.no_grad()
def test_autocast() -> None:
    ours = HypernetworkAttention(32, 8)
    x = draw(2, 5, 32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(x, x, x)[0]
    torch.testing.assert_close(output.float(), ours(x, x, x)[0], rtol=0.1, atol=0.1 * float(output.std()))


# --- errors ---------------------------------------------------------------------------------------------------

BATCHED, UNBATCHED = (4, 4, 4), (4, 4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    ("shapes", "masks", "message"),
    [
        ((BATCHED, UNBATCHED, BATCHED), {}, r"key has shape \(4, 4\), needs \(batch, token, width\)"),
        ((BATCHED, BATCHED, UNBATCHED), {}, r"value has shape \(4, 4\), needs"),
        ((BATCHED, BATCHED, BATCHED), {"key_padding_mask": (4,)}, r"key_padding_mask has shape \(4,\), needs \(4, 4\)"),
        ((BATCHED, BATCHED, BATCHED), {"attn_mask": (4,)}, r"attn_mask has shape \(4,\), needs \(4, 4\) or"),
        ((UNBATCHED, BATCHED, UNBATCHED), {}, r"key has shape \(4, 4, 4\), needs .*all three \(token, width\)"),
        ((UNBATCHED, UNBATCHED, BATCHED), {}, r"value has shape \(4, 4, 4\)"),
        ((UNBATCHED, UNBATCHED, UNBATCHED), {"key_padding_mask": (1, 4)}, r"key_padding_mask has shape \(1, 4\)"),
        ((UNBATCHED, UNBATCHED, UNBATCHED), {"attn_mask": (4,)}, r"attn_mask has shape \(4,\)"),
        ((UNBATCHED, UNBATCHED, UNBATCHED), {"attn_mask": (5, 4, 4)}, r"attn_mask has shape .* or \(4, 4, 4\)"),
        (((4,), (4,), (4,)), {}, r"query has shape \(4,\)"),
        ((BATCHED, (4, 5, 4), (4, 6, 4)), {}, r"key has shape \(4, 5, 4\), value \(4, 6, 4\): both need the same tok"),
        ((BATCHED, (1, 4, 4), (1, 4, 4)), {}, r"query has shape \(4, 4, 4\), key \(1, 4, 4\): .*same batch.*expand"),
        (((1, 4, 4), BATCHED, BATCHED), {}, r"query has shape \(1, 4, 4\), key \(4, 4, 4\)"),
        (((4, 4, 3), BATCHED, BATCHED), {}, r"query has shape \(4, 4, 3\), its last axis must be embed_dim=4"),
        ((BATCHED, (4, 4, 3), BATCHED), {}, r"key has shape \(4, 4, 3\), its last axis must be kdim=4"),
    ],
)
def test_multihead_attn_invalid_shape(
    shapes: tuple, masks: dict, message: str, training: bool, need_weights: bool
) -> None:
    ours = HypernetworkAttention(4, 4).train(training)
    given = {name: torch.zeros(shape).bool() for name, shape in masks.items()}
    with torch.set_grad_enabled(training), pytest.raises(ValueError, match=message):
        ours(*(torch.randn(shape) for shape in shapes), need_weights=need_weights, **given)


# --- nested tensors -------------------------------------------------------------------------------------------


def nest(*lengths: int, layout: torch.layout = torch.jagged, seed: int = 0) -> Tensor:
    rows = [draw(n, 10, seed=seed + i) for i, n in enumerate(lengths)]
    return torch.nested.nested_tensor(rows, layout=layout)


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("variant", ["softmax", "hyla", "hyla_deep"])
def test_multihead_attn_nested_tensor(variant: str, options: dict, layout: torch.layout) -> None:
    ours = HypernetworkAttention(10, 5, variant=variant, dtype=torch.float64, **options)
    same, other = nest(4, 6, layout=layout), nest(7, 16, layout=layout, seed=9)
    for query, key in ((same, same), (same, other)):
        output = ours(query, key, key)[0]
        assert output.is_nested
        assert output.layout == layout
        for row, q, k in zip(output.unbind(), query.unbind(), key.unbind(), strict=True):
            torch.testing.assert_close(row, ours(q, k, k)[0], rtol=0, atol=1e-12)
    (same + ours(same, same, same)[0]).unbind()  # as a residual connection adds it


def test_nested_tensors_that_cannot_be_are_refused() -> None:
    ours = HypernetworkAttention(10, 5, dtype=torch.float64)
    whole, dense = nest(4, 6), draw(2, 6, 10)
    empty = torch.nested.nested_tensor([])
    for tokens in ((empty, empty, empty), (whole, dense, dense), (dense, whole, whole)):
        with pytest.raises(ValueError, match="nested tensors need query, key and value nested"):
            ours(*tokens)
    with pytest.raises(ValueError, match="batch_first=True"):
        HypernetworkAttention(10, 5, batch_first=False, dtype=torch.float64)(whole, whole, whole)


def swap(model: nn.Module, **choices: object) -> nn.Module:
    """Exchange every attention of torch in a model that is built already."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, HypernetworkAttention.like(child, **choices))
    return model


@pytest.mark.parametrize("variant", ["softmax", "hyla", "hyla_deep"])
def test_models_whose_attention_is_exchanged_evaluate_as_they_train(variant: str) -> None:
    """Such encoders pack padded batches into nested tensors, at the first eval() and no_grad()."""
    torch.manual_seed(0)
    x, padding = draw(3, 6, 16, dtype=torch.float32), torch.zeros(3, 6).bool()
    padding[1, 4:] = padding[2, 5:] = True
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 17, 0.0, batch_first=True), 2)
    whole = nn.Transformer(16, 4, 1, 1, 17, 0.0, batch_first=True)
    swap(encoder, variant=variant), swap(whole, variant=variant)
    masks = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    future = nn.Transformer.generate_square_subsequent_mask(6)
    calls = [
        (encoder, lambda: encoder(x, src_key_padding_mask=padding)),
        (encoder, lambda: encoder(x, mask=future, src_key_padding_mask=padding.float() * -1e9)),
        (whole, lambda: whole(x, x, tgt_mask=future, tgt_is_causal=True, **masks)),
    ]
    for model, call in calls:
        trained = call() if model.train() else None
        with torch.no_grad():
            evaluated = call() if model.eval() else None
        visible = ~padding if model is encoder else torch.ones_like(padding)
        torch.testing.assert_close(evaluated[visible], trained[visible], rtol=0, atol=1e-5)


# --- as a module ----------------------------------------------------------------------------------------------


def test_positions_and_attributes_are_torchs() -> None:
    arguments = (16, 4, 0.25, True, True, True, 7, 5, False, "cpu", torch.float64)
    theirs, ours = nn.MultiheadAttention(*arguments), HypernetworkAttention(*arguments, variant="softmax")
    same = ("embed_dim", "num_heads", "head_dim", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
    assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k"):
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)
    torch.manual_seed(3)
    expected = nn.MultiheadAttention(*arguments).state_dict()
    torch.manual_seed(3)
    for name, value in HypernetworkAttention(*arguments).state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_multi_head_attention_forward_reads_our_attributes() -> None:
    _, ours = both(14, 7, add_bias_kv=True, add_zero_attn=True)
    x = draw(QUERIES, BATCH, 14)
    expected = nn.functional.multi_head_attention_forward(
        x, x, x, ours.embed_dim, ours.num_heads, ours.in_proj_weight, ours.in_proj_bias, ours.bias_k, ours.bias_v,
        ours.add_zero_attn, ours.dropout, ours.out_proj.weight, ours.out_proj.bias, ours.training,
    )[0]  # fmt: skip
    x = x.transpose(0, 1)
    torch.testing.assert_close(ours(x, x, x)[0], expected.transpose(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"kdim": 7}, {"add_bias_kv": True}, {"variant": "hyla_deep"}], ids=str)
def test_a_module_from_the_meta_device_is_whole_after_reset(options: dict) -> None:
    with torch.device("meta"):
        ours = HypernetworkAttention(16, 4, **options)
    ours.to_empty(device="cpu")
    for parameter in ours.parameters():
        parameter.data.fill_(torch.nan)
    ours.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in ours.parameters())
    assert ours.out_proj.weight.std() > 0


def test_copies_and_numpy_sizes_and_repr() -> None:
    ours = HypernetworkAttention(np.int64(16), np.int32(4), 1.0, kdim=np.int64(7), qk_dim=np.int64(8))
    assert type(ours.embed_dim) is type(ours.num_heads) is type(ours.kdim) is type(ours.qk_dim) is int
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert repr(copied) == repr(ours)
    text = "normalizer='rms_head', value_network='hyper_relu' (hyla), key_reduction='sum'"
    assert text in repr(ours)
    assert "none of Table A1" in repr(HypernetworkAttention(8, 2, normalizer="softmax", value_network="hyper_deep"))


def test_dropout_of_one_drops_everything() -> None:
    ours, x = HypernetworkAttention(16, 4, dropout=1.0), draw(2, 5, 16, dtype=torch.float32)
    output, code = ours(x, x, x)
    assert (code == 0).all()
    torch.testing.assert_close(output, ours.out_proj.bias.expand_as(output))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activations_by_name(activation: str) -> None:
    x = draw(2, 5, 16, dtype=torch.float32)
    named = HypernetworkAttention(16, 4, activation=activation)
    given = HypernetworkAttention(16, 4, activation=getattr(torch.nn.functional, activation))
    given.load_state_dict(named.state_dict())
    assert torch.equal(named(x, x, x)[0], given(x, x, x)[0])
    assert sorted(networks.ACTIVATIONS) == ["gelu", "relu"]


def test_like_keeps_device_mode_and_weights() -> None:
    theirs = nn.MultiheadAttention(14, 7, 0.5, bias=False, dtype=torch.float64).eval()
    ours = HypernetworkAttention.like(theirs, variant="hyla_deep")
    assert (ours.dropout, ours.batch_first, ours.training, ours.in_proj_bias) == (0.5, False, False, None)
    assert torch.equal(ours.in_proj_weight, theirs.in_proj_weight)
    assert ours.out_proj.weight.dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in dir() if name.startswith("test_")])
def test_the_page_lists_every_case(name: str) -> None:
    assert f"`{name}`" in PAGE.read_text(), f"book/use-it.md lacks a line for {name}"
