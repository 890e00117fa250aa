"""Layer dropping on our Transformer: what scores, orders, dropped networks and published tables must be."""

import math
import weakref
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.models.transformer import Transformer
from hyla_repro.studies.layer_drop import (
    PUBLISHED,
    best_subsets,
    drop_curve,
    drop_order,
    dropped,
    find_layers,
    importance,
    iterative_drop,
    kv_cache_bytes,
    oracle,
    speed_degradation_ratio,
    watching,
)
from hyla_repro.studies.layer_drop.layers import Module
from hyla_repro.studies.layer_drop.published import MISPRINTS, PUBLISHED_CACHE, PUBLISHED_FOUR_TASKS
from hyla_repro.studies.layer_drop.scoring import cosine_distance

LAYERS, INPUTS, TOKENS = 3, 5, 7
EVERYTHING: list[Module] = [("block", layer) for layer in range(LAYERS)]
METHODS = ("softmax", "linear", "hyla")


def make(variant: str = "hyla", **changes: object) -> Transformer:
    sizes = {"n_layers": LAYERS, "d_model": 11, "n_heads": 3, "qk_dim": 6, "v_dim": 6, "d_ff": 13, "n_positions": 7}
    config = sizes | {"n_inputs": INPUTS, "n_outputs": 2, "variant": variant} | changes
    return Transformer(TransformerConfig(**config)).initialize(0).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> Transformer:
    return make()


@pytest.fixture
def batches() -> list[Tensor]:
    return [draw(2, TOKENS, INPUTS, seed=seed) for seed in range(3)]


# --- scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", METHODS)
def test_scores_lie_between_0_and_2(variant: str, batches: list[Tensor]) -> None:
    for residual in (True, False):
        scores = importance(make(variant), batches, residual)
        assert len(scores) == (3 if residual else 2) * LAYERS
        assert all(0 <= score <= 2 for score in scores.values())


def test_a_module_that_adds_nothing_has_score_0_and_may_go(model: Transformer, batches: list[Tensor]) -> None:
    nn.init.zeros_(model.blocks[1].attention.out_proj.weight)
    whole = model(batches[0])
    assert importance(model, batches)["attn", 1] < 1e-6
    with dropped(model, [("attn", 1)]):
        assert torch.equal(model(batches[0]), whole)


def test_streams_are_those_of_the_pass(model: Transformer, batches: list[Tensor]) -> None:
    """The stream that leaves a module enters the next, and the last one is what is read out."""
    seen: list[tuple[Module, Tensor, Tensor]] = []
    with watching(model, lambda *visit: seen.append(visit)):
        outputs = model(batches[0])
    streams = {module: (x, y) for module, x, y in seen}
    assert torch.equal(streams["attn", 0][0], model.embedding(batches[0]))
    for layer in range(LAYERS):
        assert torch.equal(streams["attn", layer][1], streams["mlp", layer][0])
        assert torch.equal(streams["block", layer][1], streams["mlp", layer][1])
    assert torch.equal(model.read_out(model.norm(streams["block", LAYERS - 1][1])), outputs)


def test_the_mean_over_tokens_does_not_depend_on_batches(model: Transformer, batches: list[Tensor]) -> None:
    whole = torch.cat(batches)
    expected: dict[Module, float] = {}
    with torch.no_grad(), watching(model, lambda m, x, y: expected.update({m: cosine_distance(x, y).mean().item()})):
        model(whole)
    for split in ([whole], batches, batches[::-1], [whole[:1], whole[1:]]):
        scores = importance(model, split)
        assert all(math.isclose(scores[module], expected[module], abs_tol=1e-6) for module in expected)


def test_no_stream_is_kept(model: Transformer) -> None:
    """What is held between two batches is a number per module: no stream of a pass outlives it."""
    streams: list[weakref.ref[Tensor]] = []
    for block in model.blocks:
        block.norm2.register_forward_hook(lambda module, inputs, output: streams.append(weakref.ref(inputs[0])))

    def batches() -> Iterator[Tensor]:
        for seed in range(3):
            assert all(stream() is None for stream in streams)
            yield draw(2, TOKENS, INPUTS, seed=seed)

    importance(model, batches())
    assert len(streams) == 3 * LAYERS


def test_masks(model: Transformer, batches: list[Tensor]) -> None:
    plain = importance(model, batches)
    assert importance(model, batches, token_mask=torch.ones(TOKENS, dtype=torch.bool)) == plain
    last = torch.arange(TOKENS) >= TOKENS - 2
    masked = importance(model, batches, token_mask=last)
    assert masked == importance(model, batches, token_mask=lambda batch: last.expand(len(batch), -1))
    assert masked != plain
    rest = importance(model, batches, token_mask=~last)
    assert all(math.isclose((2 * masked[m] + 5 * rest[m]) / 7, plain[m], abs_tol=1e-6) for m in plain)


def test_what_padding_holds_is_not_counted() -> None:
    causal, mask = make("softmax", causal=True), torch.arange(TOKENS) < 4
    text = draw(2, TOKENS, INPUTS)
    expected = importance(causal, [text[:, :4]])
    text[:, 4:] = 9.0
    found = importance(causal, [text], token_mask=mask)
    assert all(math.isclose(found[module], expected[module], abs_tol=1e-6) for module in expected)
    text[:, 4:] = torch.nan
    with dropped(causal, [("attn", layer) for layer in range(LAYERS)]):
        assert not any(map(math.isnan, importance(causal, [text], token_mask=mask).values()))


def test_scores_ignore_the_scale_and_the_basis_of_the_stream() -> None:
    x, y = draw(2, 5, 7), draw(2, 5, 7, seed=1)
    basis = torch.linalg.qr(draw(7, 7, seed=2))[0]
    expected = cosine_distance(x, y)
    torch.testing.assert_close(cosine_distance(3 * x, 3 * y), expected)
    torch.testing.assert_close(cosine_distance(x @ basis, y @ basis), expected)


@given(rho=st.floats(0.01, 10), angle=st.floats(0, math.pi))
def test_closed_form(rho: float, angle: float) -> None:
    """With f of length rho |x| at this angle, cos(x, x + f) = (1 + rho c) / sqrt(1 + 2 rho c + rho^2)."""
    c, x = math.cos(angle), torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    y = x + rho * torch.tensor([c, math.sin(angle)], dtype=torch.float64)
    square = 1 + 2 * rho * c + rho**2
    if square > 1e-4:
        assert math.isclose(cosine_distance(x, y).item(), 1 - (1 + rho * c) / math.sqrt(square), abs_tol=1e-4)


def test_angles_of_a_block_are_at_most_those_of_its_parts(model: Transformer, batches: list[Tensor]) -> None:
    angles: dict[Module, Tensor] = {}
    with watching(model, lambda m, x, y: angles.update({m: (1 - cosine_distance(x, y)).clamp(-1, 1).acos()})):
        model(batches[0])
    for layer in range(LAYERS):
        assert (angles["block", layer] <= angles["attn", layer] + angles["mlp", layer] + 1e-3).all()


def test_relative_magnitude(model: Transformer, batches: list[Tensor]) -> None:
    expected: dict[Module, float] = {}
    with (
        torch.no_grad(),
        watching(model, lambda m, x, y: expected.update({m: ((y - x).norm(dim=-1) / y.norm(dim=-1)).mean().item()})),
    ):
        model(torch.cat(batches))
    found = importance(model, batches, measure="magnitude")
    assert all(math.isclose(found[module], expected[module], abs_tol=1e-5) for module in expected)


def test_modes_come_back_as_they_were(model: Transformer, batches: list[Tensor]) -> None:
    model.train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    importance(model, batches)
    assert [module.training for module in model.modules()] == modes


# --- dropping -----------------------------------------------------------------------------------------------


def test_dropping_nothing_changes_nothing_and_leaving_restores(model: Transformer, batches: list[Tensor]) -> None:
    whole = model(batches[0])
    with dropped(model, []):
        assert torch.equal(model(batches[0]), whole)
    with dropped(model, EVERYTHING):
        assert not torch.equal(model(batches[0]), whole)
        # An error inside restores as well.
        with pytest.raises(ValueError, match="do not fit"), dropped(model, EVERYTHING):
            model(batches[0][..., :3])
    assert torch.equal(model(batches[0]), whole)


@pytest.mark.parametrize("variant", METHODS)
def test_without_any_module_tokens_are_read_out_one_by_one(variant: str, batches: list[Tensor]) -> None:
    model, x = make(variant), batches[0]
    with dropped(model, EVERYTHING):
        outputs = model(x)
        torch.testing.assert_close(outputs, model.read_out(model.norm(model.embedding(x))), rtol=0, atol=0)
        other = torch.arange(TOKENS).roll(1)
        # Products of matrices may round by the place of a row.
        torch.testing.assert_close(model(x[:, other]), outputs[:, other])


def test_a_block_is_its_attention_and_its_mlp(model: Transformer, batches: list[Tensor]) -> None:
    outputs = []
    for modules in ([("block", 1)], [("attn", 1), ("mlp", 1)], [("mlp", 1), ("block", 1), ("attn", 1)]):
        with dropped(model, modules):
            outputs.append(model(batches[0]))
    assert all(torch.equal(one, other) for one, other in pairwise(outputs))


@pytest.mark.parametrize("variant", METHODS)
def test_without_attention_no_token_reaches_another(variant: str) -> None:
    model, x = make(variant), draw(1, TOKENS, INPUTS).requires_grad_()
    for modules, reached in ([], True), ([("attn", layer) for layer in range(LAYERS)], False):
        with dropped(model, modules):
            (gradient,) = torch.autograd.grad(model(x)[0, 0].sum(), x)
        assert gradient[0, 0].any()
        assert bool(gradient[0, 1:].any()) is reached


@pytest.mark.parametrize("variant", ["linear", "hyla", "softmax"])
def test_a_code_of_zero_drops_attention_where_it_has_no_bias(variant: str, batches: list[Tensor]) -> None:
    model = make(variant)
    scales = torch.ones(LAYERS, TOKENS, TOKENS)
    scales[1] = 0
    with dropped(model, [("attn", 1)]):
        expected = model(batches[0])
    torch.testing.assert_close(model(batches[0], code_scales=scales), expected, rtol=0, atol=1e-6)
    # A LayerNorm hides the same number in all channels.
    model.blocks[1].attention.out_proj.bias.data = draw(11)
    assert not torch.allclose(model(batches[0], code_scales=scales), expected, atol=1e-3)


def test_a_module_that_is_watched_inside_shows_what_is_left(model: Transformer, batches: list[Tensor]) -> None:
    """A dropped module changes nothing, and later ones are scored on the stream that reaches them without it."""
    whole = importance(model, batches)
    with dropped(model, [("attn", 0)]):
        rest = importance(model, batches)
    assert rest["attn", 0] < 1e-6
    assert rest["mlp", 0] != whole["mlp", 0]


def test_dropped_modules_do_not_disturb_who_watches_already(model: Transformer, batches: list[Tensor]) -> None:
    seen: dict[Module, bool] = {}
    with watching(model, lambda m, x, y: seen.update({m: torch.equal(x, y)})), dropped(model, [("mlp", 2)]):
        model(batches[0])
    assert {module for module, same in seen.items() if same} == {("mlp", 2)}


def test_generation_goes_on_with_caches(batches: list[Tensor]) -> None:
    from hyla_repro.models.generation import generate

    model = make("softmax", causal=True, n_inputs=None, n_outputs=None, vocab_size=13, feed_forward="swiglu",
                 position="rotary")  # fmt: skip
    text = torch.tensor([[1, 2, 3]])
    with dropped(model, [("attn", 0), ("mlp", 1)]):
        longer = generate(model, text, 4, temperature=0.8, seed=0)
        logits = model(longer)
    assert longer.shape == (1, 7)
    assert torch.isfinite(logits).all()


# --- orders and curves --------------------------------------------------------------------------------------


@pytest.fixture
def scores(model: Transformer, batches: list[Tensor]) -> dict[Module, float]:
    return importance(model, batches)


def test_orders(scores: dict[Module, float]) -> None:
    joint = drop_order(scores)
    assert [scores[module] for module in joint] == sorted(scores[m] for m in scores if m[0] != "block")
    for kind in ("attn", "mlp"):
        assert [module for module in joint if module[0] == kind] == drop_order(scores, kind)
    assert drop_order(scores, "block", "reverse") == [("block", layer) for layer in (2, 1, 0)]
    assert drop_order(scores, "joint", "reverse")[:3] == [("mlp", 2), ("attn", 2), ("mlp", 1)]
    drawn = [drop_order(scores, "joint", "random", seed) for seed in range(5)]
    assert all(sorted(order) == sorted(joint) for order in drawn)
    assert len({tuple(order) for order in drawn}) > 1
    assert drawn[0] == drop_order(scores, "joint", "random", 0)


def test_equal_scores_keep_the_order_of_layers() -> None:
    equal = {(kind, layer): 0.5 for layer in (2, 0, 1) for kind in ("mlp", "attn")}
    assert drop_order(equal) == [("attn", 0), ("attn", 1), ("attn", 2), ("mlp", 0), ("mlp", 1), ("mlp", 2)]


def test_the_first_step_of_iterating_is_the_first_of_one_shot(
    model: Transformer, batches: list[Tensor], scores: dict[Module, float]
) -> None:
    for target in ("attn", "mlp", "block", "joint"):
        order = iterative_drop(model, 3, batches, target)
        assert order[0] == drop_order(scores, target)[0]
        assert len(set(order)) == 3
        assert iterative_drop(model, 2, batches, target) == order[:2]
    assert importance(model, batches) == scores


def test_curves_and_oracle(model: Transformer, batches: list[Tensor], scores: dict[Module, float]) -> None:
    def evaluate(network: nn.Module) -> float:
        return network(batches[0]).square().mean().item()

    order = drop_order(scores)
    curve, every = drop_curve(model, order, evaluate), oracle(model, evaluate)
    assert len(curve) == 2 * LAYERS + 1
    assert len(every) == 2 ** (2 * LAYERS)
    assert curve[0] == evaluate(model) == every[()]
    modules = drop_order(scores, "joint", "reverse")
    assert set(map(frozenset, every)) == {frozenset(c) for n in range(7) for c in combinations(modules, n)}
    best = best_subsets(every)
    for n, score in enumerate(curve):
        (same,) = (subset for subset in every if set(subset) == set(order[:n]))
        assert every[same] == score <= every[best[n]]
    assert list(oracle(model, evaluate, largest=1)) == [(), *((m,) for m in modules[::-1] if m[0] == "attn"),
                                                        *((m,) for m in modules[::-1] if m[0] == "mlp")]  # fmt: skip


def test_scores_inside_a_sweep_are_of_the_whole_network(model: Transformer, batches: list[Tensor]) -> None:
    order = drop_order(importance(model, batches), "attn")
    drop_curve(model, order, lambda network: network(batches[0]).sum().item())
    assert drop_order(importance(model, batches), "attn") == order


# --- published tables ---------------------------------------------------------------------------------------


def test_printed_ratios_are_what_the_tables_give_but_for_two() -> None:
    wrong = set()
    for name, drops in (PUBLISHED | PUBLISHED_FOUR_TASKS).items():
        for what, row in drops.rows.items():
            if row.ratio is not None:
                # Averages are rounded to 0.1, speed-ups to 0.01.
                found = speed_degradation_ratio(drops.average - row.average, row.speedup)
                if abs(round(found, 2) - row.ratio) > 0.0051:
                    wrong.add((name, *what))
    assert wrong == {("Llama-2-13B", "attn", 4), ("Llama-3-70B", "attn", 40)}
    assert all(any(name in line for line in MISPRINTS) for name, *_ in wrong)


def test_printed_caches_are_what_the_formula_gives_but_for_one() -> None:
    for name, row in PUBLISHED_CACHE.items():
        sizes = [kv_cache_bytes(layers, row.d_kv, row.batch, 2048) / 2**30 for layers in (row.layers, row.kept)]
        assert (sizes == [row.whole, row.after]) is (name != "Llama-2-13B")
    assert sizes == [20, 10]


# --- faults -------------------------------------------------------------------------------------------------


def test_faults_are_named(model: Transformer, batches: list[Tensor], scores: dict[Module, float]) -> None:
    with pytest.raises(ValueError, match="Linear has no blocks"):
        find_layers(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="unknown measure 'cosin': did you mean 'cosine'"):
        importance(model, batches, measure="cosin")
    with pytest.raises(ValueError, match="use residual=True"):
        importance(model, batches, residual=False, measure="magnitude")
    with pytest.raises(ValueError, match="no token counts"):
        importance(model, [])
    with pytest.raises(ValueError, match="no token counts"):
        importance(model, batches, token_mask=torch.zeros(TOKENS, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"token_mask has shape \(3,\).*\(2, 7\)"):
        importance(model, batches, token_mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="unknown target 'attention'"):
        drop_order(scores, "attention")
    with pytest.raises(ValueError, match="unknown method"):
        drop_order(scores, "attn", "worst")
    with pytest.raises(ValueError, match="hold nothing of target='block'"):
        drop_order(importance(model, batches, residual=False), "block")
    with pytest.raises(ValueError, match="unknown kind of module 'head'"), dropped(model, [("head", 0)]):
        pass
    with pytest.raises(ValueError, match="layer=3 is out of range: use 0 to 2"), dropped(model, [("attn", 3)]):
        pass
    with pytest.raises(ValueError, match="n=4 is out of range"):
        iterative_drop(model, 4, batches, "attn")
    with pytest.raises(ValueError, match="speedup=1"):
        speed_degradation_ratio(2.0, 1.0)


def test_too_many_subsets_are_refused() -> None:
    deep = make(n_layers=7)
    with pytest.raises(ValueError, match="16384 subsets of 14 modules are too many"):
        oracle(deep, lambda network: 0.0)
    assert len(oracle(deep, lambda network: 0.0, largest=1)) == 15


def test_blocks_of_another_kind_are_refused(model: Transformer, batches: list[Tensor]) -> None:
    """A norm behind the sublayer: what is added to the stream is not what the sublayer returned."""
    model.blocks[1].attention.register_forward_hook(lambda m, i, output: (3 * output[0], output[1]))
    assert importance(model, batches)
    normed = nn.LayerNorm(11)
    handle = model.blocks[1].norm2.register_forward_pre_hook(lambda m, inputs: (normed(inputs[0]),))
    with pytest.raises(ValueError, match="attn of layer 1 does not add its own output to the stream"):
        importance(model, batches)
    handle.remove()


def test_untrained_models_of_the_study_have_scores(run: Experiment) -> None:
    assert importance(Transformer(run.model).initialize(0), [draw(2, 7, 4)])
