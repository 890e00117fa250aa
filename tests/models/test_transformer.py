"""The transformer: reading only the last tokens, latent codes, initial weights and clear errors."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from hyla_repro.attention.variants import VARIANTS
from hyla_repro.models.config import TransformerConfig
from hyla_repro.models.transformer import Transformer

BATCH, TOKENS, INPUTS, OUTPUTS, HEADS = 2, 5, 3, 2, 7
SIZES = {
    "variant": "hyla", "n_layers": 3, "d_model": 11, "n_heads": HEADS, "qk_dim": 14, "v_dim": 21, "d_ff": 13,
    "n_positions": 7,
}  # fmt: skip


def make(seed: int = 0, **changes: object) -> Transformer:
    config = SIZES | {"n_inputs": INPUTS, "n_outputs": OUTPUTS} | changes
    return Transformer(TransformerConfig(**config)).initialize(seed)


def make_language(**changes: object) -> Transformer:
    return make(n_inputs=None, n_outputs=None, vocab_size=17, causal=True, **changes)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("last", [1, 2, TOKENS])
def test_last_is_a_slice_of_the_whole(variant: str, causal: bool, last: int) -> None:
    model, x = make(variant=variant, causal=causal).double(), draw(BATCH, TOKENS, INPUTS).double()
    scales = (draw(3, TOKENS, TOKENS) > -1).double() / 0.9
    whole, codes = model(x, return_codes=True, code_scales=scales)
    some, some_codes = model(x, return_codes=True, last=last, code_scales=scales)
    assert whole.shape == (BATCH, TOKENS, OUTPUTS)
    assert some.shape == (BATCH, last, OUTPUTS)
    torch.testing.assert_close(some, whole[:, -last:], rtol=1e-9, atol=1e-9)
    assert [code.shape for code in some_codes[:-1]] == [(BATCH, HEADS, TOKENS, TOKENS)] * 2
    for ours, all_queries in zip(some_codes[:-1], codes[:-1], strict=True):
        torch.testing.assert_close(ours, all_queries, rtol=0, atol=0)
    torch.testing.assert_close(some_codes[-1], codes[-1][:, :, -last:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_last_has_the_gradients_of_the_slice(variant: str) -> None:
    x, gradients = draw(BATCH, TOKENS, INPUTS), []
    for last in (None, 1):
        model = make(variant=variant).double()
        model(x.double(), last=last)[:, -1].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for whole, some in zip(*gradients, strict=True):
        torch.testing.assert_close(some, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("last", "at_once"), [(None, True), (TOKENS, True), (TOKENS - 1, False)])
def test_reading_all_tokens_is_reading_without_last(last: int | None, at_once: bool) -> None:
    """To the bit, and at the same speed: the final block projects queries, keys and values at once."""
    model, x, projected = make(), draw(BATCH, TOKENS, INPUTS), []
    expected = model(x)
    model.blocks[-1].attention.register_forward_pre_hook(lambda module, tokens: projected.append(tokens))
    outputs = model(x, last=last)
    ((query, key, value),) = projected
    assert (query is key is value) == at_once
    assert outputs.shape[1] == (last or TOKENS)
    if at_once:
        assert torch.equal(outputs, expected)


@pytest.mark.parametrize("last", [0, -1, TOKENS + 1, TOKENS + 3])
def test_last_beyond_the_tokens_is_named(last: int) -> None:
    with pytest.raises(ValueError, match=f"last={last}"):
        make()(draw(BATCH, TOKENS, INPUTS), last=last)


@pytest.mark.parametrize("variant", VARIANTS)
def test_codes_are_those_of_every_layer(variant: str) -> None:
    model, x = make(variant=variant), draw(BATCH, TOKENS, INPUTS)
    outputs, codes = model(x, return_codes=True)
    torch.testing.assert_close(model(x), outputs, rtol=0, atol=0)
    assert [code.shape for code in codes] == [(BATCH, HEADS, TOKENS, TOKENS)] * 3
    hidden = model.embedding(x)
    for block, code in zip(model.blocks, codes, strict=True):
        normed = block.norm1(hidden)
        mixed, same = block.attention(normed, normed, normed, score_bias=block.position(TOKENS))
        torch.testing.assert_close(code, same, rtol=0, atol=1e-6)
        hidden = hidden + mixed
        hidden = hidden + block.feed_forward(block.norm2(hidden))
    torch.testing.assert_close(model.read_out(model.norm(hidden)), outputs, rtol=0, atol=1e-5)


def test_code_scales_act_per_layer_and_are_shared_by_batch_and_heads() -> None:
    model, x = make(), draw(BATCH, TOKENS, INPUTS)
    scales = torch.ones(3, TOKENS, TOKENS)
    scales[0, 4, 2], scales[0, 1, 3], scales[2, 4, 0] = 0.0, 3.0, 0.0
    plain, codes = model(x, return_codes=True)
    scaled, scaled_codes = model(x, return_codes=True, code_scales=scales)
    torch.testing.assert_close(scaled_codes[0], codes[0] * scales[0], rtol=0, atol=0)
    assert (scaled_codes[2][:, :, 4, 0] == 0).all()
    assert (scaled_codes[1] != 0).all()
    assert not torch.allclose(scaled[:, 4], plain[:, 4])
    torch.testing.assert_close(model(x, code_scales=torch.ones(3, TOKENS, TOKENS)), plain, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
def test_causal_model_never_looks_ahead(variant: str, feed_forward: str) -> None:
    """By gradients: exactly zero for every later token, and not zero for the token itself."""
    model = make(variant=variant, causal=True, feed_forward=feed_forward)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0], draw(1, TOKENS, INPUTS))
    size = jacobian[:, :, 0].abs().amax((1, 3))
    assert (size.triu(1) == 0).all()
    assert (size.diagonal() > 1e-6).all()
    assert size.tril(-1).sum() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_positions_tell_tokens_apart(variant: str) -> None:
    """Without its position table the model does not know the order of its context."""
    model, x = make(variant=variant), draw(BATCH, TOKENS, INPUTS)
    shuffled = x[:, [2, 0, 3, 1, 4]]
    assert not torch.allclose(model(shuffled, last=1), model(x, last=1), atol=1e-5)
    for block in model.blocks:
        block.position.table.data.zero_()
    torch.testing.assert_close(model(shuffled, last=1), model(x, last=1), rtol=0, atol=1e-5)


# --- language models ----------------------------------------------------------------------------------------


def test_token_embedding_is_tied_to_the_read_out() -> None:
    model = make_language()
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    assert model(tokens).shape == (BATCH, TOKENS, 17)
    torch.testing.assert_close(model(tokens, last=2), model(tokens)[:, -2:], rtol=0, atol=1e-5)
    before = model(tokens)
    # The final LayerNorm decides the direction that each token's embedding is compared with.
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
    expected = model.embedding.weight.sum(-1) / math.sqrt(11)
    torch.testing.assert_close(model(tokens), expected.expand(BATCH, TOKENS, -1), rtol=0, atol=1e-6)
    assert not torch.allclose(before, model(tokens))
    assert not hasattr(model, "read_out")


# --- initial weights ----------------------------------------------------------------------------------------


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(1)
    first = make(seed=5).state_dict()
    torch.manual_seed(2)
    again, other = make(seed=9).initialize(5).state_dict(), make(seed=6).state_dict()
    drawn = [name for name, value in first.items() if value.unique().numel() > 1]
    assert len(drawn) == 2 + 3 * 5
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, other[name]) == (name not in drawn)
    # A deeper model starts from the same first layers: no draw depends on those before it.
    deeper = make(seed=5, n_layers=5).state_dict()
    assert all(torch.equal(value, deeper[name]) for name, value in first.items())
    layers = [first[f"blocks.{layer}.attention.in_proj_weight"] for layer in range(3)]
    assert not torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[1], layers[2])


def test_initialize_fills_parameters_of_any_kind() -> None:
    double = make(seed=5).double().initialize(5)
    single = make(seed=5)
    for (name, wide), narrow in zip(double.named_parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(wide.float(), narrow.data, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("variant", ["hyla", "hyla_deep"])
@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
def test_kernels_have_fan_in_variance(variant: str, feed_forward: str) -> None:
    """Truncated normal with variance 1 / fan-in, which keeps a projection of unit inputs at unit size."""
    model = make(
        variant=variant, d_model=128, n_heads=8, qk_dim=64, v_dim=128, d_ff=256, n_inputs=128, n_outputs=64,
        n_positions=64, n_layers=1, feed_forward=feed_forward,
    )  # fmt: skip
    edge = 2 / 0.87962566103423978
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            is_scale = "norm" in name and name.endswith("weight")
            assert (parameter == (1.0 if is_scale else 0.0)).all(), name
            continue
        values = parameter.flatten().double()
        # HYLA+'s middle layer sums over its 8 heads of width 16; a table is drawn per bucket.
        fan_in = {"inner_weight": 8 * 16, "table": 64}.get(name.rsplit(".", 1)[-1], parameter.shape[-1])
        expected = 1 / fan_in
        assert abs(values.var().item() / expected - 1) < 6 * math.sqrt(2 / len(values)), name
        assert abs(values.mean().item()) < 5 * math.sqrt(expected / len(values)), name
        largest = values.abs().max().item() * math.sqrt(fan_in)
        assert largest > 2.6 if name.endswith("table") else 2.0 < largest <= edge + 1e-6, name


def test_layernorm_epsilon_and_gelu_are_the_release_ones() -> None:
    model = make()
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 7
    assert {norm.eps for norm in norms} == {1e-6}
    feed = model.blocks[0].feed_forward
    x = draw(BATCH, TOKENS, 11)
    inner = feed.up(x)
    tanh = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    torch.testing.assert_close(feed(x), feed.down(tanh), rtol=1e-5, atol=1e-6)


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "hylaa"}, r"unknown variant 'hylaa': did you mean 'hyla'\?"),
        ({"qk_dim": 15}, r"qk_dim=15 does not split into n_heads=7 heads"),
        ({"v_dim": 20}, r"v_dim=20 does not split into n_heads=7 heads"),
        ({"n_layers": 0}, r"n_layers\n.*greater than or equal to 1"),
        ({"n_positions": 1}, r"n_positions\n.*greater than or equal to 2"),
        ({"d_model": "wide"}, r"d_model\n.*valid integer"),
        ({"feed_forward": "relu"}, r"feed_forward\n.*'gelu', 'swiglu' or 'moe'"),
        ({"n_inputs": None}, r"give n_inputs and n_outputs for vectors, or vocab_size alone"),
        ({"n_outputs": None}, r"give n_inputs and n_outputs for vectors, or vocab_size alone"),
        ({"vocab_size": 17}, r"give n_inputs and n_outputs for vectors, or vocab_size alone"),
        ({"n_inputs": None, "n_outputs": None}, r"give n_inputs and n_outputs for vectors"),
        ({"dropout": 0.1}, r"dropout\n.*Extra inputs are not permitted"),
    ],
)
def test_configurations_that_cannot_work_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_configuration_is_frozen_and_complete() -> None:
    config = make().config
    with pytest.raises(ValidationError, match="frozen"):
        config.n_layers = 4
    for field in ("variant", "n_layers", "d_model", "n_heads", "qk_dim", "v_dim", "d_ff", "n_positions"):
        with pytest.raises(ValidationError, match=f"{field}\n.*Field required"):
            TransformerConfig(**{k: v for k, v in SIZES.items() if k != field}, n_inputs=3, n_outputs=2)


@pytest.mark.parametrize("shape", [(BATCH, TOKENS, INPUTS + 1), (TOKENS, INPUTS), (BATCH, 1, TOKENS, INPUTS)])
def test_vectors_of_the_wrong_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"shape \({', '.join(map(str, shape))}\).*\(batch, token, n_inputs=3\)"):
        make()(torch.zeros(shape))


def test_tokens_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5, 1\) do not fit: need \(batch, token\) of token numbers"):
        make_language()(torch.zeros(BATCH, TOKENS, 1, dtype=torch.long))


def test_too_many_tokens_are_named() -> None:
    with pytest.raises(ValueError, match=r"8 tokens exceed n_positions=7 of this model"):
        make()(draw(BATCH, 8, INPUTS))
