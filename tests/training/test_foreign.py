"""Modules of others in our loop: parity with our own stack, resuming, and what is refused before training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hyla_repro.experiment import Experiment, TrainingRun
from hyla_repro.models import Transformer
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.training.foreign import Entry, ForeignStack, ModelSpec, describe_module
from hyla_repro.training.screening import check_resuming, screen
from hyla_repro.training.stack import Stack

Make = Callable[..., Experiment]
TASK = FuzzyLogic(n_variables=3, n_examples=7, heldout_fraction=0.5)
SPEC = ModelSpec("fuzzy_logic", "smoke", 4, 1, 7, 1, False, 0, TASK)


class Mixer(nn.Module):
    """A small module whose parts each test may replace."""

    def __init__(self, n_inputs: int = 4, n_outputs: int = 1, n_read: int = 1, noise: float = 0.0) -> None:
        super().__init__()
        self.n_read = n_read
        self.embed, self.dropout = nn.Linear(n_inputs, 5), nn.Dropout(noise)
        self.norm, self.mix = nn.BatchNorm1d(5), nn.GRU(5, 6, batch_first=True)
        self.out = nn.Linear(6, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).mT).mT
        return self.out(self.dropout(self.mix(x)[0])[:, -self.n_read :])


def entry_of(run: Experiment, build: Callable[[], Any], name: str = "mixer") -> Entry:
    shared = {field: getattr(run, field) for field in TrainingRun.model_fields}
    return Entry(**shared, name=name, build=build, **describe_module(build, build()))


def losses(stack: Stack, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        stack.advance()
        found += stack.recent(1)[0]
    return found


# --- the stack ----------------------------------------------------------------------------------------------


def test_our_transformer_handed_in_learns_what_it_learns_in_our_stack(make_run: Make) -> None:
    """Attention dropout is the one thing that a module of others does not get."""
    run = make_run(attention_dropout=0.0)

    class Handed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Transformer(run.model).initialize(run.seed)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x, last=1)

    own, foreign = Stack([run]), ForeignStack([entry_of(run, Handed)])
    assert losses(foreign, 20) == pytest.approx(losses(own, 20), rel=1e-4)
    assert foreign.evaluate(20)[0] == pytest.approx(own.evaluate(20)[0], rel=1e-3)
    assert torch.equal(foreign._decayed, own._decayed)


def test_dropout_and_batch_statistics_go_on_as_if_never_stopped(make_run: Make) -> None:
    run = entry_of(make_run(), lambda: Mixer(noise=0.3))
    whole = ForeignStack([run])
    losses(whole, 7)
    content = whole.to_bytes(0, {"seconds": 1.0})
    resumed = ForeignStack([run])
    torch.manual_seed(1234)  # what the process drew since is of no importance
    assert resumed.from_bytes(0, content)["seconds"] == 1.0
    assert losses(resumed, 5) == losses(whole, 5)
    assert resumed.evaluate(20) == whole.evaluate(20)
    for name, value in whole.state_dict(0).items():
        assert torch.equal(resumed.state_dict(0)[name], value), name


def test_the_callers_random_numbers_are_left_alone(make_run: Make) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    losses(ForeignStack([entry_of(make_run(), lambda: Mixer(noise=0.3))]), 2)
    # `entry_of` itself builds a module outside of any stack, so the state is read after a first build.
    torch.set_rng_state(before)
    stack = ForeignStack([entry_of(make_run(), lambda: Mixer())])
    state = torch.get_rng_state()
    losses(stack, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_whole_state_dict_is_the_result(make_run: Make) -> None:
    """Buffers, frozen parameters and both names of a tied weight, all of the last step."""

    class Tied(Mixer):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.out
            self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    stack = ForeignStack([entry_of(make_run(), Tied)])
    losses(stack, 5)
    state = stack.state_dict(0)
    assert torch.equal(state["again.weight"], state["out.weight"])
    assert torch.equal(state["fixed"], torch.ones(1))
    assert state["norm.num_batches_tracked"] == 5
    Tied().load_state_dict(state)


def test_seeds_differ_and_are_the_same_again(make_run: Make) -> None:
    first, again, other = (losses(ForeignStack([entry_of(make_run(seed=s), Mixer)]), 3) for s in (0, 0, 1))
    assert first == again != other


# --- identity -----------------------------------------------------------------------------------------------


def test_a_changed_module_meets_the_checkpoint_and_is_refused(make_run: Make) -> None:
    run = entry_of(make_run(), lambda: Mixer())
    content = ForeignStack([run]).to_bytes(0, {})

    class Wider(Mixer):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(2, 2)

    changed = entry_of(make_run(), Wider)
    assert changed.id == run.id
    with pytest.raises(ValueError, match=r"name='mixer' are of another model: its number of parameters and shapes and"):
        ForeignStack([changed]).from_bytes(0, content)
    assert entry_of(make_run(), Mixer, name="other").id != run.id
    assert entry_of(make_run(seed=1), Mixer).id != run.id


def test_the_source_of_a_module_tells_it_from_another() -> None:
    class Doubled(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    facts = [describe_module(make, make()) for make in (Mixer, Doubled)]
    assert facts[0]["shapes"] == facts[1]["shapes"]
    assert facts[0]["source"] != facts[1]["source"]


# --- what is refused ----------------------------------------------------------------------------------------


class Tokens(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(self.embed(x))[0])


class Tupled(Mixer):
    def forward(self, x: Tensor) -> Any:
        return self.mix(self.embed(x))


class Nan(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0 * 0


class Failing(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class Random(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(1)


class Counting(Mixer):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls


class Mixed(Mixer):
    """Takes the batch for the sequence, as torch's recurrent modules do without batch_first."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.GRU(5, 6)


class Extra(Mixer):
    def get_extra_state(self) -> dict:
        return {"calls": 1}

    def set_extra_state(self, state: Any) -> None: ...


def frozen() -> nn.Module:
    return Mixer().requires_grad_(False)


BAD: list[tuple[Any, str]] = [
    (None, "make_model=None cannot be called"),
    (lambda spec: "a model", "returned str, which is no torch.nn.Module"),
    (lambda spec: frozen(), "no parameters that require a gradient"),
    (lambda spec: Mixer().double(), "parameters of torch.float64"),
    (lambda spec: Extra(), "holds _extra_state, no tensor"),
    (lambda spec: Failing(), r"fails on inputs of shape \(5, 7, 4\): RuntimeError"),
    (lambda spec: Tupled(), "returns tuple for inputs"),
    (lambda spec: Tokens(), r"shape \(5, 7, 1\) .* fuzzy_logic needs \(5, 1, 1\), the outputs of the last n_read=1"),
    (lambda spec: Nan(), "not finite"),
    (lambda spec: Random(), "other outputs at a second call"),
    (lambda spec: Counting(), "other outputs at a second call"),
    (lambda spec: Mixed(), "depend on the others of its batch"),
]


@pytest.mark.parametrize(("make_model", "message"), BAD)
def test_a_module_that_cannot_be_trained_is_named_before(make_model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        screen(make_model, SPEC, TASK.batch("train", 0, 5).inputs)
    assert "\n" not in str(caught.value)


def test_a_module_that_can_is_returned() -> None:
    assert isinstance(screen(lambda spec: Mixer(), SPEC, TASK.batch("train", 0, 5).inputs), Mixer)


def test_future_tokens_are_found_in_a_causal_task_and_allowed_in_others() -> None:
    class Backwards(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flip(1))

    causal, free = (ModelSpec("language", "smoke", 4, 1, 7, 3, causal, 0, TASK) for causal in (True, False))
    inputs = TASK.batch("train", 0, 5).inputs
    screen(lambda spec: Mixer(n_read=3), causal, inputs)
    screen(lambda spec: Backwards(n_read=3), free, inputs)
    with pytest.raises(ValueError, match="uses future tokens, and language is causal"):
        screen(lambda spec: Backwards(n_read=3), causal, inputs)


class Outside(Mixer):
    """Remembers what it has seen in an attribute, in training alone."""

    seen: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + x.detach().mean()
        return super().forward(x) + self.seen


class Drawn(Mixer):
    """Draws a fixed part of its computation anew whenever it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = torch.randn(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.fixed.mean()


class Steps(Mixer):
    """Counts its steps, which no checkpoint holds and only training shows."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(x) * (1 + self.steps * self.training)


@pytest.mark.parametrize("build", [Outside, Drawn, Steps])
def test_state_outside_the_state_dict_is_found(make_run: Make, build: type[Mixer]) -> None:
    check_resuming(entry_of(make_run(), lambda: Mixer(noise=0.3)))
    with pytest.raises(ValueError, match="state outside its state_dict"):
        check_resuming(entry_of(make_run(), build))


def test_a_loss_that_is_not_finite_in_the_first_steps_is_named(make_run: Make) -> None:
    class Exploding(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1e30 if self.training else 1.0)

    with pytest.raises(ValueError, match="not finite in the first steps"):
        check_resuming(entry_of(make_run(), Exploding))
