"""Mixture of experts: who is chosen, with which weight, how evenly, and what that changes in a run's identity."""

import math
from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.experiment import Experiment
from hyla_repro.models.feed_forward import MixtureOfExperts
from hyla_repro.models.transformer import Transformer
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.training.stack import Stack

Make = Callable[..., Experiment]
EXPERTS = {"feed_forward": "moe", "n_experts": 4, "experts_per_token": 2}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(n_experts: int = 4, per_token: int = 2, seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    return MixtureOfExperts(6, 10, n_experts, per_token)


def with_experts(run: Experiment, **changes: object) -> Experiment:
    fields = run.model_dump()
    return Experiment.model_validate(fields | changes | {"model": fields["model"] | EXPERTS})


@given(n_experts=st.integers(2, 6), data=st.data(), seed=st.integers(0, 99))
def test_a_token_uses_its_highest_scored_experts(n_experts: int, data: st.DataObject, seed: int) -> None:
    per_token = data.draw(st.integers(1, n_experts))
    layer, x = make(n_experts, per_token, seed), draw(2, 5, 6, seed=seed)
    gates, scores = layer.gates(x), layer.router(x)
    chosen = gates > 0
    assert (chosen.sum(-1) == per_token).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 5))
    lowest_chosen = scores.masked_fill(~chosen, torch.inf).amin(-1)
    assert (scores.masked_fill(chosen, -torch.inf).amax(-1) < lowest_chosen).all()
    # The softmax is over the chosen alone: weights of two experts differ by the factor exp(difference of scores).
    logs = gates.log().masked_fill(~chosen, 0.0) - scores.masked_fill(~chosen, 0.0)
    spread = logs.masked_fill(~chosen, -torch.inf).amax(-1) - logs.masked_fill(~chosen, torch.inf).amin(-1)
    torch.testing.assert_close(spread, torch.zeros(2, 5), rtol=0, atol=1e-5)


def test_the_output_is_the_weighted_sum_of_the_chosen_experts() -> None:
    layer, x = make(), draw(2, 5, 6)
    output = rearrange(layer(x), "b t m -> (b t) m")
    for token, row in zip(rearrange(x, "b t m -> (b t) m"), output, strict=True):
        best = layer.router(token).topk(2)
        parts = [weight * layer.experts[index](rearrange(token, "m -> 1 1 m"))[0, 0]
                 for weight, index in zip(best.values.softmax(-1), best.indices, strict=True)]  # fmt: skip
        torch.testing.assert_close(row, torch.stack(parts).sum(0))


def test_equal_experts_are_one_feed_forward_layer() -> None:
    layer, x = make(), draw(2, 5, 6)
    for expert in layer.experts:
        expert.load_state_dict(layer.experts[0].state_dict())
    torch.testing.assert_close(layer(x), layer.experts[0](x))


def test_experts_that_are_not_chosen_learn_nothing_from_a_token() -> None:
    layer, x = make(), draw(1, 1, 6)
    layer(x).square().sum().backward()
    for expert, gate in zip(layer.experts, layer.gates(x)[0, 0], strict=True):
        assert bool(expert.up.weight.grad.abs().sum() > 0) == bool(gate > 0)
    assert layer.router.weight.grad.abs().sum() > 0


def test_imbalance_is_one_if_even_and_the_number_of_experts_if_one_takes_all() -> None:
    layer = make(n_experts=4, per_token=1)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(4, 6) * 50)
    even = torch.eye(4, 6).unsqueeze(0)
    assert layer.imbalance(even).item() == pytest.approx(1.0)
    assert layer.imbalance(even[:, :1].expand(1, 4, 6)).item() == pytest.approx(4.0)
    half = layer.imbalance(even[:, [0, 1]]).item()
    assert half == pytest.approx(2.0)


def test_imbalance_is_summed_over_layers_and_zero_without_experts(run: Experiment) -> None:
    x = draw(3, run.model.n_positions, run.model.n_inputs)
    assert Transformer(run.model)(x, return_imbalance=True)[1].item() == 0.0
    model = Transformer(with_experts(run).model)
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.feed_forward.register_forward_pre_hook(lambda layer, inputs: seen.append(layer.imbalance(*inputs)))
    outputs, total = model(x, return_imbalance=True)
    assert len(seen) == run.model.n_layers
    torch.testing.assert_close(total, torch.stack(seen).sum())
    torch.testing.assert_close(outputs, model(x))


def test_weights_start_with_the_variance_of_fan_in() -> None:
    base = fuzzy_logic("laptop", "hyla", 0)
    model = Transformer(with_experts(base).model).initialize(3)
    for name, parameter in model.named_parameters():
        if "feed_forward" in name and parameter.ndim == 2:
            expected = 1 / parameter.shape[1]
            assert abs(parameter.var().item() / expected - 1) < 6 * math.sqrt(2 / parameter.numel()), name


def test_runs_in_a_stack_are_those_trained_alone(make_run: Make) -> None:
    members = [with_experts(make_run(seed=seed)) for seed in range(2)]
    together, alone = Stack(members), [Stack([run]) for run in members]
    for _ in range(20):
        together.advance()
        for stack in alone:
            stack.advance()
    for index, stack in enumerate(alone):
        torch.testing.assert_close(together.weights[index], stack.weights[0], rtol=1e-4, atol=1e-5)


def test_load_balancing_spreads_tokens_more_evenly(make_run: Make) -> None:
    def final_imbalance(**changes: object) -> float:
        run = with_experts(make_run(steps=60, learning_rate=1e-2), **changes)
        stack = Stack([run])
        for _ in range(run.steps):
            stack.advance()
        model = Transformer(run.model)
        model.load_state_dict(stack.state_dict(0))
        with torch.no_grad():
            return model(run.build_task().batch("test", 0, 50).inputs, return_imbalance=True)[1].item()

    assert final_imbalance(load_balancing=1.0) < final_imbalance() - 0.01


# --- identity and errors ------------------------------------------------------------------------------------


def test_experts_change_the_identity_and_their_absence_does_not(run: Experiment) -> None:
    dumped = run.model_dump()
    assert not [name for name in (*dumped, *dumped["model"]) if "expert" in name or "balanc" in name]
    experts = with_experts(run)
    others = [with_experts(run, load_balancing=0.01), experts]
    for changes in ({"n_experts": 5}, {"experts_per_token": 1}):
        fields = experts.model_dump()
        others.append(Experiment.model_validate(fields | {"model": fields["model"] | changes}))
    assert len({run.id, *(other.id for other in others)}) == 5
    assert len({run.shape, *(other.shape for other in others)}) == 5
    assert Experiment.model_validate_json(others[0].model_dump_json()) == others[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_experts": None}, "'moe' with n_experts=None and experts_per_token=2: 'moe' needs both"),
        ({"experts_per_token": None}, "'moe' needs both, other feed-forwards neither"),
        ({"feed_forward": "gelu"}, "'gelu' with n_experts=4 and experts_per_token=2"),
        ({"experts_per_token": 5}, "experts_per_token=5 exceeds n_experts=4"),
        ({"n_experts": 1}, "n_experts\n.*greater than or equal to 2"),
        ({"experts_per_token": 0}, "experts_per_token\n.*greater than or equal to 1"),
    ],
)
def test_impossible_experts_are_refused(run: Experiment, changes: dict, message: str) -> None:
    fields = run.model_dump()["model"] | EXPERTS | changes
    with pytest.raises(ValueError, match=message):
        type(run.model).model_validate(fields)


def test_balancing_without_experts_is_refused(run: Experiment) -> None:
    with pytest.raises(ValueError, match=r"load_balancing=0\.1 needs feed_forward='moe'"):
        Experiment.model_validate(run.model_dump() | {"load_balancing": 0.1})
