"""A stack: schedule, decay rule, AdamW, dropout, independence of the runs, and the compiled step."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.training.dropout import dropout_scales
from hyla_repro.training.memory import fitting
from hyla_repro.training.optimizer import decays, learning_rate, schedule
from hyla_repro.training.provenance import compiler_available
from hyla_repro.training.stack import Stack

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]


def scales_of(run: Experiment, step: int) -> Tensor | None:
    return dropout_scales(run.model, run.attention_dropout, run.seed, step)


def determined(stack: Stack, index: int) -> dict[str, Tensor]:
    """Return a run's weights but those that no loss depends on: softmax cancels biases of the keys.

    Their gradient is rounding noise, which AdamW scales up to a learning rate a step.
    """
    weights = stack.state_dict(index)
    if stack.runs[0].model.variant != "softmax":
        return weights
    return {name: value for name, value in weights.items() if not name.endswith("in_proj_bias")}


# --- schedule, decay, dropout -------------------------------------------------------------------------------


def test_golden_learning_rates(golden: Path) -> None:
    for entry in json.loads((golden / "learning_rate_schedule.json").read_text()):
        settings = (entry["peak"], entry["warmup_steps"], entry["train_steps"])
        ours = [learning_rate(step, *settings) for step in entry["step"]]
        np.testing.assert_allclose(ours, entry["learning_rate"], rtol=0, atol=1e-6 * entry["peak"])


@given(st.integers(0, 300), st.integers(1, 5000), st.floats(1e-5, 1.0))
def test_learning_rate_rises_then_falls(warmup: int, more: int, peak: float) -> None:
    total = 2 * warmup + more
    rates = [learning_rate(step, peak, warmup, total) for step in range(total + 1)]
    assert all(0.0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[warmup] == pytest.approx(peak)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[total - warmup :] == pytest.approx([peak / 10] * (warmup + 1))


DECAYED = {
    "in_proj_weight", "in_proj_bias", "out_proj.weight", "inner_weight", "position.table", "up.weight", "down.weight",
    "embedding.weight", "read_out.weight",
}  # fmt: skip
FREE = {
    "norm.weight", "norm.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "out_proj.bias", "up.bias",
    "down.bias", "embedding.bias", "read_out.bias",
}  # fmt: skip


def ending(name: str, endings: set[str]) -> bool:
    return any(name == end or name.endswith("." + end) for end in endings)


def test_decay_rule_by_names(make_run: Make) -> None:
    """Query, key and value biases and position tables decay, as in the release; other biases and norms do not."""
    named = dict(Transformer(make_run("hyla_deep").model).named_parameters())
    in_groups = [[name for name in named if decays(name, named[name]) is yes] for yes in (True, False)]
    assert all(ending(name, DECAYED) and not ending(name, FREE) for name in in_groups[0])
    assert all(ending(name, FREE) and not ending(name, DECAYED) for name in in_groups[1])
    assert len(in_groups[0]) == 2 * 7 + 2
    assert len(in_groups[1]) == 2 * 7 + 4


@pytest.mark.parametrize("variant", ["softmax", "hyla_deep"])
def test_a_stack_steps_as_torch_adamw_does(variant: str, make_run: Make) -> None:
    """Over many steps, every run with its own seed, learning rate and decay, by autograd and torch's own optimiser."""
    settings = [{}, {"seed": 1, "learning_rate": 3e-3}, {"seed": 2, "weight_decay": 0.3}]
    runs = [make_run(variant, **{"seed": 0, "learning_rate": 1e-3, "weight_decay": 0.1} | own) for own in settings]
    stack = Stack(runs)
    for _ in range(20):
        stack.advance()
    for index, run in enumerate(runs):
        model, task = Transformer(run.model).initialize(run.seed), run.build_task()
        named = dict(model.named_parameters())
        groups = [
            {"params": [p for n, p in named.items() if decays(n, p) is yes], "weight_decay": run.weight_decay * yes}
            for yes in (True, False)
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)
        for step in range(20):
            batch = task.batch("train", step, run.batch_size)
            loss = task.loss(model(batch.inputs, last=1, code_scales=scales_of(run, step)), batch)
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, run.learning_rate, run.warmup_steps, run.steps)
            optimizer.step()
        assert stack.recent(1)[0][index] == pytest.approx(loss.item(), rel=1e-4)
        for name, weights in determined(stack, index).items():
            torch.testing.assert_close(
                weights, named[name].detach(), rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_dropout_scales(make_run: Make) -> None:
    run = make_run(attention_dropout=0.25)
    scales = torch.stack([scales_of(run, step) for step in range(200)])
    assert scales.shape == (200, 2, 7, 7)
    assert scales.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    # 19 600 draws: five standard deviations are 0.0155.
    assert abs(float((scales == 0).double().mean()) - 0.25) < 0.0155
    assert torch.equal(scales[3], scales_of(run, 3))
    assert not torch.equal(scales[3], scales[4])
    assert not torch.equal(scales[3, 0], scales[3, 1])
    assert not torch.equal(scales[3], scales_of(make_run(attention_dropout=0.25, seed=1), 3))
    assert scales_of(make_run(attention_dropout=0.0), 3) is None


def test_a_step_trains_on_its_own_batch_with_its_own_dropout(make_run: Make) -> None:
    run = make_run(attention_dropout=0.4)
    stack, model, task = Stack([run]), Transformer(run.model).initialize(0), run.build_task()
    for step in range(2):
        batch = task.batch("train", step, run.batch_size)
        assert batch.inputs.shape[0] == run.batch_size
        losses = [
            task.loss(model(batch.inputs, code_scales=scales)[:, -1:], batch) for scales in (scales_of(run, step), None)
        ]
        stack.advance()
        assert stack.recent(1)[0][0] == pytest.approx(losses[0].item(), rel=1e-5)
        assert abs(losses[0].item() - losses[1].item()) > 1e-3 * losses[0].item()
        # The first step has learning rate 0, so that the second starts from the same weights.
    assert not torch.equal(stack.state_dict(0)["embedding.weight"], model.embedding.weight)


# --- runs beside each other ---------------------------------------------------------------------------------


def stackable(make_run: Make, variant: str = "hyla", **changes: object) -> list[Experiment]:
    """Four runs that differ in everything that runs of a stack may differ in."""
    runs = [
        make_run(variant, seed=0, **changes), make_run(variant, seed=1, learning_rate=4e-3, **changes),
        make_run(variant, seed=0, weight_decay=0.4, **changes),
    ]  # fmt: skip
    return [*runs, make_run(variant, seed=5, task=runs[0].task | {"heldout_fraction": 0.3}, **changes)]


@pytest.mark.parametrize("variant", ["softmax", "linear", "hyla", "linear_rms_head_relu_values", "hyla_deep"])
def test_a_run_in_a_stack_goes_as_it_does_alone(variant: str, make_run: Make) -> None:
    runs = stackable(make_run, variant)
    together, alone = Stack(runs), [Stack([run]) for run in runs]
    for _ in range(12):
        for stack in (together, *alone):
            stack.advance()
    scores = together.evaluate(23)
    for index, stack in enumerate(alone):
        assert together.recent(1)[0][index] == pytest.approx(stack.recent(1)[0][0], rel=1e-5)
        torch.testing.assert_close(determined(together, index), determined(stack, 0), rtol=0, atol=1e-5)
        assert scores[index] == pytest.approx(stack.evaluate(23)[0], rel=1e-3)


def test_every_run_of_a_stack_sees_the_bits_of_its_own_data(make_run: Make) -> None:
    runs = stackable(make_run)
    for split in ("train", "heldout", "heldout_fixed_query", "train_fixed_context"):
        tables = Stack(runs).tables(split)
        drawn = torch.vmap(lambda own, split=split: runs[0].build_task().draw(split, own, 7, 9))(tables)
        for index, run in enumerate(runs):
            for ours, theirs in zip(drawn, run.build_task().batch(split, 7, 9), strict=True):
                assert torch.equal(ours[index], theirs)


def test_first_weights_may_have_a_seed_of_their_own(make_run: Make) -> None:
    run, seeded = make_run(seed=1), make_run(seed=6)
    own = Experiment.model_validate(make_run(seed=1).model_dump() | {"init_seed": 6})
    stack = Stack([run, seeded, own])
    assert torch.equal(stack.weights[2], stack.weights[1])
    assert not torch.equal(stack.weights[2], stack.weights[0])
    tables = stack.tables("train")["functions"]
    assert torch.equal(tables[2], tables[0])


def test_shape_tells_which_runs_share_a_stack(make_run: Make) -> None:
    runs = stackable(make_run)
    assert len({run.shape for run in runs}) == 1
    others = [make_run("linear"), make_run(steps=38), make_run(batch_size=6), make_run(attention_dropout=0.0)]
    assert len({run.shape for run in (runs[0], *others)}) == 5


def test_recent_losses_in_order(make_run: Make) -> None:
    long, short = Stack(stackable(make_run), remember=5), Stack(stackable(make_run))
    expected = []
    for _ in range(8):
        long.advance()
        short.advance()
        expected += short.recent(1)
    assert long.recent(5) == expected[-5:]
    assert long.recent(2) == expected[-2:]
    with pytest.raises(ValueError, match="count=6 is too large: the losses of 5 steps"):
        long.recent(6)


def test_schedule_is_the_learning_rate_and_the_corrections() -> None:
    table = schedule(50, 7).double().numpy()
    steps = np.arange(50)
    np.testing.assert_allclose(table[:, 0], [learning_rate(int(step), 1.0, 7, 50) for step in steps], rtol=1e-7)
    np.testing.assert_allclose(table[:, 1], 1 / (1 - 0.9 ** (steps + 1)), rtol=1e-7)
    np.testing.assert_allclose(table[:, 2], (1 - 0.999 ** (steps + 1)) ** -0.5, rtol=1e-7)


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**12))
def test_as_many_runs_as_fit_into_four_fifths_of_the_memory(each: int, fixed: int, free: int) -> None:
    size = fitting(free, fixed + each, fixed + 2 * each)
    assert size >= 1
    assert size == 1 or fixed + size * each <= 0.8 * free
    assert fixed + (size + 1) * each > 0.8 * free


# --- the compiled step --------------------------------------------------------------------------------------

COMPILED = """
import sys
import torch
from hyla_repro.experiment import Experiment
from hyla_repro.training.dropout import dropout_scales
from hyla_repro.training.stack import Stack
torch.set_num_threads(2)
run = Experiment.model_validate_json(sys.argv[1])
eager, compiled = (Stack([run], use_compiler=choice) for choice in (False, True))
for stack in (eager, compiled):
    stack.advance()
# From zero, one step makes the first moment a tenth of the gradient.
named = [stack._named(stack.first[0]) for stack in (eager, compiled)]
for name, expected in named[0].items():
    worst, largest = (named[1][name] - expected).abs().max().item(), expected.abs().max().item()
    assert worst <= 1e-4 * largest, f"gradient of {name}: {worst} of {largest}"
for stack in (eager, compiled):
    stack.advance()
assert abs(eager.recent(1)[0][0] / compiled.recent(1)[0][0] - 1) < 1e-4
print("equal", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["softmax", "linear", "hyla", "hyla_deep", "aaren", "hyla_learned_query", "softmax_bn_sh", "hyla_bn"]
)
def test_compiled_gradients_are_the_eager_ones(variant: str, tmp_path: Path) -> None:
    """At the paper's own sizes, because the compiler writes another program, with bugs of its own, for each shape.

    In a process of its own: run-time type checks, which the tests may switch on, break graphs.
    """
    if not compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    settings = fuzzy_logic("paper", variant, 0).model_dump_json()
    command = [sys.executable, "-X", "faulthandler", "-c", COMPILED, settings]
    own_cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=own_cache, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr[:3000]


SHAPES = """
import sys
import torch
from hyla_repro.experiment import Experiment
from hyla_repro.training.dropout import dropout_scales
from hyla_repro.training.stack import Stack
torch.set_num_threads(1)
with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
    for settings in sys.argv[1:]:
        Stack([Experiment.model_validate_json(settings)], use_compiler=True).advance()
print("compiled", flush=True)
"""


@pytest.mark.slow
def test_runs_of_other_shapes_are_compiled_too(make_run: Make, tmp_path: Path) -> None:
    """The compiler allows a function eight shapes, here one, and a list of runs may hold more."""
    if not compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    settings = [make_run(variant).model_dump_json() for variant in ("softmax", "linear")]
    own_cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES, *settings], cwd=ROOT, env=own_cache, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "compiled"), done.stderr[-3000:]
