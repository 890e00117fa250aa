"""Models with the attention of other papers, and their controls: what each variant is, and that stacks train it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hyla_repro.attention import (
    NEIGHBOURS,
    VARIANTS,
    Aaren,
    HypernetworkAttention,
    KeyValueCache,
    LearnedQueryAttention,
)
from hyla_repro.attention.variants import MODEL_VARIANTS
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.models.transformer import Transformer
from hyla_repro.results.methods import ABLATIONS, ALL_METHODS, NAMES, architecture
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.studies.neighbours import series
from hyla_repro.studies.sraven.runs import Sizes, sraven
from hyla_repro.training.optimizer import decays
from hyla_repro.training.plan import total_flop
from hyla_repro.training.stack import Stack

BATCH, TOKENS, INPUTS = 2, 5, 3
ABSOLUTE = ["aaren", "softmax_causal", "hyla_learned_query"]
RELATIVE = [name for name in NEIGHBOURS if name not in ABSOLUTE]


def make(method: str, seed: int = 0, **changes: object) -> Transformer:
    sizes = {"n_layers": 2, "d_model": 11, "n_heads": 7, "qk_dim": 14, "v_dim": 21, "d_ff": 13, "n_positions": 7}
    config = sizes | {"n_inputs": INPUTS, "n_outputs": 2} | architecture(method) | changes
    return Transformer(TransformerConfig(**config)).initialize(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- names --------------------------------------------------------------------------------------------------


def test_neighbours_are_no_rows_of_table_a1() -> None:
    assert set(NEIGHBOURS) == {*ABSOLUTE, *RELATIVE}
    assert list(MODEL_VARIANTS) == [*VARIANTS, *NEIGHBOURS]
    assert len(VARIANTS) == 10
    assert not set(NEIGHBOURS) & set(ABLATIONS)
    assert set(ALL_METHODS) == set(NAMES)
    assert len(set(NAMES.values())) == len(NAMES)
    with pytest.raises(ValueError, match="unknown variant 'aaren'"):
        HypernetworkAttention(8, 2, variant="aaren")


@pytest.mark.parametrize("method", NEIGHBOURS)
@pytest.mark.parametrize("build", [fuzzy_logic, sraven])
def test_runs_are_named_by_their_method(build: Callable[..., Experiment], method: str) -> None:
    run = build("laptop", method, 0)
    assert run.method == run.row()["variant"] == method
    assert run.model.causal is (method in ABSOLUTE)
    pair = {"softmax": "softmax", "hyla": "hyla"}[method.split("_")[0].replace("aaren", "softmax")]
    assert total_flop(run) == total_flop(build("laptop", pair, 0))


@pytest.mark.parametrize(
    ("variant", "causal", "message"),
    [
        ("aaren", False, "variant='aaren' is defined for causal=True alone"),
        ("softmax_causal", False, "variant='softmax_causal' is defined for causal=True alone"),
        ("softmax_sh", True, "variant='softmax_sh' with causal=True: .*use causal=False"),
        ("softmax_bn_sh", True, "variant='softmax_bn_sh' with causal=True"),
        ("hyla_sh", True, "variant='hyla_sh' with causal=True"),
    ],
)
def test_orders_that_a_variant_cannot_have_are_named(variant: str, causal: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("softmax", variant=variant, causal=causal)


# --- what each computes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", NEIGHBOURS)
def test_last_is_a_slice_of_the_whole(method: str) -> None:
    model, x = make(method).double(), draw(BATCH, TOKENS, INPUTS).double()
    scales = (draw(2, TOKENS, TOKENS) > -1).double() / 0.9
    whole, codes = model(x, return_codes=True, code_scales=scales)
    for last in (1, TOKENS):
        some, own = model(x, return_codes=True, last=last, code_scales=scales)
        torch.testing.assert_close(some, whole[:, -last:], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(own[-1], codes[-1][:, :, -last:], rtol=1e-9, atol=1e-9)
    assert [code.shape for code in codes] == [(BATCH, 7, TOKENS, TOKENS)] * 2


@pytest.mark.parametrize("method", NEIGHBOURS)
def test_order_and_positions(method: str) -> None:
    """Causal ones look at no later token; the positions of each tell tokens apart."""
    model = make(method)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0], draw(1, TOKENS, INPUTS))
    size = jacobian[:, :, 0].abs().amax((1, 3))
    assert (size.diagonal() > 1e-6).all()
    assert ((size.triu(1) == 0).all().item()) is (method in ABSOLUTE)
    names = {name for name, _ in model.named_parameters() if name.endswith("position.table")}
    layers = {f"blocks.{layer}.position.table" for layer in range(2)}
    assert names == ({"position.table"} if method in ABSOLUTE else layers)
    if method in ABSOLUTE:
        x = draw(BATCH, TOKENS, INPUTS)
        before = model(x)
        model.position.table.data[0] = draw(11, seed=3)
        assert float((model(x) - before)[:, 0].abs().max().detach()) > 1e-3
        with pytest.raises(ValueError, match="8 tokens exceed n_positions=7"):
            model(draw(BATCH, 8, INPUTS))


@pytest.mark.parametrize("method", ["softmax_bn", "hyla_bn"])
def test_centred_variants_in_a_causal_model(method: str) -> None:
    model = make(method, causal=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0], draw(1, TOKENS, INPUTS))
    assert (jacobian[:, :, 0].abs().amax((1, 3)).triu(1) == 0).all()


def test_aaren_and_its_controls_differ_by_queries_alone() -> None:
    aaren, causal, hyla = (make(method) for method in ABSOLUTE)
    own = dict(aaren.named_parameters())
    assert set(own) - set(dict(causal.named_parameters())) == {f"blocks.{i}.attention.query_token" for i in range(2)}
    assert set(own) == set(dict(hyla.named_parameters()))
    assert all(isinstance(block.attention, Aaren) for block in aaren.blocks)
    assert all(isinstance(block.attention, LearnedQueryAttention) for block in hyla.blocks)
    # The same query for all tokens makes the causal control an Aaren.
    x = draw(BATCH, TOKENS, INPUTS)
    with torch.no_grad():
        hidden = aaren.embedding(x) + aaren.position(TOKENS)
        for ours, theirs in zip(aaren.blocks, causal.blocks, strict=True):
            normed = ours.norm1(hidden)
            token = ours.attention.query_token.expand_as(normed)
            output, code = theirs.attention(token, normed, normed, is_causal=True)
            assert torch.equal(ours.attention.in_proj_weight, theirs.attention.in_proj_weight)
            torch.testing.assert_close(ours.attention(normed, normed, normed), (output, code))
            streamed, _ = ours.attention.extend(normed)
            torch.testing.assert_close(streamed, output)
            hidden, _, _ = ours(hidden)


@pytest.mark.parametrize("method", RELATIVE)
def test_the_others_have_the_weights_of_their_control(method: str) -> None:
    control = "hyla" if method.startswith("hyla") else "softmax"
    ours, theirs, x = make(method), make(control), draw(BATCH, TOKENS, INPUTS)
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {
        k: v.tolist() for k, v in theirs.state_dict().items()
    }
    assert float((ours(x) - theirs(x)).abs().max().detach()) > 1e-3


def test_queries_start_with_unit_variance_and_do_not_decay() -> None:
    model = make("aaren", d_model=490, n_layers=1)
    named = dict(model.named_parameters())
    token, table = named["blocks.0.attention.query_token"], named["position.table"]
    # Standard deviations of 490 and 3430 draws: 1 +- 0.032, and 0.0452 +- 0.0006.
    assert abs(float(token.detach().std()) - 1) < 0.16
    assert abs(float(table.detach().std()) * 490**0.5 - 1) < 0.06
    assert not decays("blocks.0.attention.query_token", token)
    assert decays("position.table", table)
    other = dict(make("hyla_learned_query", d_model=490, n_layers=1).named_parameters())
    assert torch.equal(other["blocks.0.attention.query_token"], token)
    assert not torch.equal(dict(make("aaren", 1, d_model=490, n_layers=1).named_parameters())["position.table"], table)


# --- training -----------------------------------------------------------------------------------------------


def tiny(task: str, method: str, seed: int, **changes: object) -> Experiment:
    if task == "sraven":
        size = Sizes(steps=15, n_features=2, width=0.125, n_layers=1)
        run = sraven("smoke", method, seed, size, (1e-2, 0.1, 2))
        return run.model_copy(update={"batch_size": 32, "evaluation_sequences": 20} | changes)
    run = fuzzy_logic("smoke", method, seed, n_examples=5)
    sizes = {"d_model": 12, "n_heads": 4, "qk_dim": 8, "v_dim": 8, "d_ff": 13}
    small = {"model": run.model.model_copy(update=sizes), "batch_size": 32, "steps": 15, "warmup_steps": 2,
             "learning_rate": 1e-2, "evaluation_sequences": 20}  # fmt: skip
    return Experiment.model_validate(run.model_copy(update=small | changes).model_dump())


def determined(stack: Stack, index: int) -> dict[str, Tensor]:
    """Return the weights of a run but biases of queries, keys and values: no loss depends on those of keys."""
    return {name: x for name, x in stack.state_dict(index).items() if not name.endswith("in_proj_bias")}


@pytest.mark.parametrize("method", NEIGHBOURS)
@pytest.mark.parametrize("task", ["fuzzy_logic", "sraven"])
def test_stacks_train_every_neighbour(task: str, method: str) -> None:
    """Two runs beside each other go as one does alone, learn, and give codes of every layer."""
    runs = [tiny(task, method, 0), tiny(task, method, 1, learning_rate=5e-3)]
    together, alone = Stack(runs, remember=12), Stack(runs[1:])
    before = together.weights.clone()
    for _ in range(3):
        together.advance()
        alone.advance()
    assert together.recent(1)[0][1] == pytest.approx(alone.recent(1)[0][0], rel=1e-4)
    torch.testing.assert_close(determined(together, 1), determined(alone, 0), rtol=0, atol=5e-5)
    for name, moved in together._named((together.weights - before)[0]).items():
        assert moved.abs().max() > 0, f"{name} does not learn"
    for _ in range(9):
        together.advance()
    losses = torch.tensor(together.recent(12))
    assert losses.isfinite().all()
    assert losses[-4:].mean() < losses[:2].mean()
    assert all(torch.tensor(list(scores.values())).isfinite().all() for scores in together.evaluate(10))
    codes, _ = together.codes(together.task.evaluation_splits[0], 0, 5)
    assert codes.shape[:2] == (2, 5)
    assert codes.isfinite().all()


# --- padding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", MODEL_VARIANTS)
def test_padding_changes_nothing_whatever_stands_in_it(method: str) -> None:
    model = make(method).double().eval()
    inputs, more = draw(BATCH, TOKENS, INPUTS).double(), draw(BATCH, 2, INPUTS, seed=1).double()
    # Windows and means of the keys go over what a sequence has, so that a mask of nothing stands for no mask.
    alone = model(inputs, padding=torch.zeros(BATCH, TOKENS, dtype=torch.bool))
    torch.testing.assert_close(alone, model(inputs), rtol=0, atol=1e-12)
    padding = (torch.arange(TOKENS + 2) >= TOKENS).expand(BATCH, -1)
    for filling in (more, 100 * more):
        longer = torch.cat([inputs, filling], dim=1)
        torch.testing.assert_close(model(longer, padding=padding)[:, :TOKENS], alone, rtol=0, atol=1e-12)
    visible = model(longer)[:, :TOKENS]
    assert model.config.causal or (visible - alone).abs().max() > 1e-3, "the control sees them"


def test_padding_that_cannot_be_is_named() -> None:
    model = make("softmax")
    with pytest.raises(ValueError, match=r"padding has shape \(2, 4\): this task needs \(2, 5\) here"):
        model(draw(BATCH, TOKENS, INPUTS), padding=torch.zeros(BATCH, 4, dtype=torch.bool))
    causal = make("softmax", causal=True)
    with pytest.raises(ValueError, match="padding with caches"):
        causal(draw(BATCH, TOKENS, INPUTS), padding=torch.zeros(BATCH, TOKENS, dtype=torch.bool),
               caches=[KeyValueCache(), KeyValueCache()])  # fmt: skip


@pytest.mark.parametrize("method", ["softmax", "hyla", "aaren", "softmax_bn_sh"])
def test_a_stack_of_runs_with_padding_goes_as_each_does_alone(method: str, write_archive: Callable[[], object]) -> None:
    write_archive()
    runs = [series("smoke", method, seed) for seed in (0, 1)]
    together, alone = Stack(runs), [Stack([run]) for run in runs]
    for stack in (together, *alone):
        stack.advance()
        stack.advance()
    for index, stack in enumerate(alone):
        apart = (together.weights[index] - stack.weights[0]).abs()
        # AdamW divides a gradient by its own size, so its rounding shows where it is nearly zero.
        assert (apart > 1e-5).double().mean() < 1e-3
    assert [scores.keys() for scores in together.evaluate(20)] == [{"test": 0}.keys()] * 2
