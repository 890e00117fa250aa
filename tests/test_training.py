"""Training: schedule, decay rule, bit-identical resuming, budgets, signals and divergence."""

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyla_repro import presets, training
from hyla_repro.errors import DataError, DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.runs import CURVE, MODEL, Ledger
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.training import dropout_scales, evaluate, learning_rate, load_model, make_optimizer, train
from hyla_repro.transformer import Transformer

ROOT = Path(__file__).parent.parent
Make = Callable[..., Experiment]


def files(ledger: Ledger, run: Experiment) -> dict[str, bytes]:
    assert ledger.state(run) == "done"
    return {name: ledger.read(run, name) for name in (MODEL, CURVE)}


def outcome(ledger: Ledger, run: Experiment) -> dict[str, object]:
    """Return everything a run's result says, but when and where it was made."""
    result = ledger.result(run)
    return {"files": files(ledger, run), "scores": result["scores"], "train_loss": result["train_loss"]}


def curve(ledger: Ledger, run: Experiment) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(ledger.read(run, CURVE)))


def whole(root: Path, run: Experiment) -> dict[str, object]:
    """Train a run in one go in a ledger of its own."""
    ledger = Ledger(root)
    assert train([run], ledger, progress=False) == []
    return outcome(ledger, run)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the budget run out once this many steps have been taken, whatever the clock says."""
    taken = [0, math.inf]
    advance, clock = training._Training.advance, training.time.monotonic

    def counted(self: training._Training) -> None:
        advance(self)
        taken[0] += 1

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock() + (1e6 if taken[0] >= taken[1] else 0.0)

    monkeypatch.setattr(training._Training, "advance", counted)
    monkeypatch.setattr(training, "time", Clock)

    def limit(steps: int) -> None:
        taken[:] = [0, steps]

    return limit


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Multiply the training loss of one step; return the list that all losses go to, as they were."""
    losses: list[float] = []
    original = FuzzyLogic.loss

    def set_step(step: int, value: float) -> list[float]:
        def loss(self: FuzzyLogic, outputs: Tensor, batch: object) -> Tensor:
            true = original(self, outputs, batch)
            losses.append(true.item())
            return true * value if len(losses) == step + 1 else true

        monkeypatch.setattr(FuzzyLogic, "loss", loss)
        return losses

    return set_step


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
    model = Transformer(make_run("hyla_deep").model)
    decayed, free = make_optimizer(model, 0.3).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_groups = [[names.pop(id(parameter)) for parameter in group["params"]] for group in (decayed, free)]
    assert not names, f"not optimised: {names}"
    assert all(ending(name, DECAYED) and not ending(name, FREE) for name in in_groups[0])
    assert all(ending(name, FREE) and not ending(name, DECAYED) for name in in_groups[1])
    assert len(in_groups[0]) == 2 * 7 + 2
    assert len(in_groups[1]) == 2 * 7 + 4


def test_optimizer_is_adamw(make_run: Make) -> None:
    """Decoupled decay, bias correction and epsilon outside the root, in NumPy's float64."""
    model = Transformer(make_run().model).initialize(1)
    optimizer = make_optimizer(model, 0.3)
    expected = {name: parameter.detach().double().numpy() for name, parameter in model.named_parameters()}
    first, second = ({name: np.zeros_like(value) for name, value in expected.items()} for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for step, rate in enumerate((0.0, 1e-2, 3e-2, 1e-3), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            gradient = parameter.grad.double().numpy()
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            change = (first[name] / (1 - 0.9**step)) / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
            decay = 0.3 * expected[name] if ending(name, DECAYED) else 0.0
            expected[name] = expected[name] - rate * (change + decay)
        optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_dropout_scales(make_run: Make) -> None:
    run = make_run(attention_dropout=0.25)
    scales = torch.stack([dropout_scales(run, step, "cpu") for step in range(200)])
    assert scales.shape == (200, 2, 7, 7)
    assert scales.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    # 19 600 draws: five standard deviations are 0.0155.
    assert abs(float((scales == 0).double().mean()) - 0.25) < 0.0155
    assert torch.equal(scales[3], dropout_scales(run, 3, "cpu"))
    assert not torch.equal(scales[3], scales[4])
    assert not torch.equal(scales[3, 0], scales[3, 1])
    assert not torch.equal(scales[3], dropout_scales(make_run(attention_dropout=0.25, seed=1), 3, "cpu"))
    assert dropout_scales(make_run(attention_dropout=0.0), 3, "cpu") is None


def test_a_step_trains_on_its_own_batch_with_its_own_dropout(make_run: Make) -> None:
    run = make_run(attention_dropout=0.4)
    state, model, task = training._Training(run, "cpu", False), Transformer(run.model).initialize(0), run.build_task()
    for step in range(2):
        batch = task.batch("train", step, run.batch_size)
        assert batch.inputs.shape[0] == run.batch_size
        losses = [
            task.loss(model(batch.inputs, code_scales=scales)[:, -1:], batch)
            for scales in (dropout_scales(run, step, "cpu"), None)
        ]
        state.loss_sum.zero_()
        state.advance()
        assert state.loss_sum.item() == pytest.approx(losses[0].item(), rel=1e-5)
        assert abs(losses[0].item() - losses[1].item()) > 1e-3 * losses[0].item()
        # The first step has learning rate 0, so that the second starts from the same weights.
    assert not torch.equal(state.model.embedding.weight, model.embedding.weight)


# --- evaluation ---------------------------------------------------------------------------------------------


def test_evaluation_is_the_mean_over_all_sequences(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 sequences in chunks of 5, 5 and 3: the short chunk must not weigh more."""
    monkeypatch.setattr(training, "_CHUNK", 5)
    task, model = run.build_task(), Transformer(run.model).initialize(0)
    batches = [task.batch("heldout", step, size) for step, size in enumerate((5, 5, 3))]
    with torch.no_grad():
        scores = torch.cat([task.score(model(batch.inputs)[:, -1:], batch) for batch in batches])
    assert evaluate(model, task, "heldout", 13, "cpu") == pytest.approx(float(scores.double().mean()), rel=1e-5)
    assert model.embedding.weight.grad is None


def test_perfect_model_scores_one(run: Experiment) -> None:
    class Oracle:
        """Knows the last answer of every sequence of the evaluation stream."""

        step = 0

        def __call__(self, inputs: Tensor, last: int) -> Tensor:
            batch = run.build_task().batch("test", self.step, len(inputs))
            assert torch.equal(batch.inputs, inputs)
            assert last == 1
            self.step += 1
            return batch.targets.unsqueeze(1)

    # Called directly, because a type-checking import hook asks for a Transformer.
    plain = getattr(evaluate, "__wrapped__", evaluate)
    model = Transformer(run.model)
    model.forward = Oracle()
    assert plain(model, run.build_task(), "test", 1013, "cpu") == 1.0


# --- results ------------------------------------------------------------------------------------------------


def test_tiny_run_learns(make_run: Make, ledger: Ledger) -> None:
    """One function of two variables: the loss falls below 0.4 of what answering the mean would cost."""
    model = make_run().model.model_copy(update={"n_inputs": 3, "d_model": 16, "qk_dim": 12, "v_dim": 12, "d_ff": 32})
    run = make_run(
        task={"n_variables": 2, "n_terms": 1, "n_examples": 7, "heldout_fraction": 0.67}, model=model, steps=150,
        batch_size=32, learning_rate=1e-2, warmup_steps=20, attention_dropout=0.0, evaluation_sequences=100,
    )  # fmt: skip
    assert train([run], ledger, progress=False) == []
    losses = curve(ledger, run)["train_loss"]
    variance = run.build_task().batch("train", 0, 2000).targets.var().item()
    assert losses.iloc[-1] < 0.4 * variance < losses.iloc[0]


def test_result_describes_the_trained_model(run: Experiment, ledger: Ledger) -> None:
    assert train([run], ledger, progress=False) == []
    table, result = curve(ledger, run), ledger.result(run)
    assert list(table.columns) == ["step", "train_loss", "test", "heldout", "unknown_terms"]
    assert table["step"].tolist() == [30, 37]
    model = load_model(ledger.folder(run) / MODEL, run)
    assert not model.training
    again = load_model(ledger.read(run, MODEL), run)
    for split, score in result["scores"].items():
        assert evaluate(model, run.build_task(), split, run.evaluation_sequences, "cpu") == score
        assert evaluate(again, run.build_task(), split, run.evaluation_sequences, "cpu") == score
        assert table[split].iloc[-1] == pytest.approx(score, rel=1e-9)
    assert result["train_loss"] == pytest.approx(table["train_loss"].iloc[-1], rel=1e-9)
    assert {"device", "threads", "torch", "commit", "date", "compiled"} <= set(result["provenance"])


def test_curve_holds_the_mean_loss_since_the_last_point(
    run: Experiment, ledger: Ledger, poison: Callable[..., list[float]]
) -> None:
    losses = poison(step=10**9, value=1.0)
    assert train([run], ledger, progress=False) == []
    table = curve(ledger, run)
    assert len(losses) == run.steps
    assert table["train_loss"].tolist() == pytest.approx([np.mean(losses[:30]), np.mean(losses[30:])], rel=1e-5)


def test_same_run_twice_is_byte_identical(run: Experiment, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = whole(tmp_path / "a", run)
    torch.manual_seed(2)
    assert whole(tmp_path / "b", run) == first


def test_a_run_does_not_depend_on_the_others_in_its_list(make_run: Make, tmp_path: Path) -> None:
    runs = [make_run("softmax"), make_run("hyla", seed=3), make_run("hyla")]
    ledger = Ledger(tmp_path / "together")
    assert train(runs, ledger, progress=False) == []
    for run in runs:
        assert outcome(ledger, run) == whole(tmp_path / run.id, run)


def test_finished_runs_are_left_alone(run: Experiment, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    train([run], ledger, progress=False)
    before = (ledger.folder(run) / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(training, "_train_one", lambda *args: pytest.fail("trained again"))
    assert train([run], ledger, progress=False) == []
    assert (ledger.folder(run) / "result.json").stat().st_mtime_ns == before


def test_damaged_run_is_trained_again(run: Experiment, ledger: Ledger) -> None:
    train([run], ledger, progress=False)
    first = outcome(ledger, run)
    (ledger.folder(run) / MODEL).write_bytes(b"")
    assert ledger.state(run) == "damaged"
    assert train([run], ledger, progress=False) == []
    assert outcome(ledger, run) == first


def test_locked_run_is_passed_over(make_run: Make, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    mine, theirs = make_run(seed=0), make_run(seed=1)
    with ledger.lock(theirs):
        assert train([theirs, mine], ledger, progress=False) == [theirs]
    assert ledger.state(mine) == "done"
    assert ledger.state(theirs) == "missing"
    assert f"{theirs.id}) is being trained by process" in capsys.readouterr().out


# --- stopping and resuming ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["hyla", "softmax"])
@pytest.mark.parametrize("stops", [[1], [29], [30], [31], [36], [1, 1, 1], [13, 17], [5, 25, 1]], ids=str)
def test_stopped_and_resumed_is_bit_identical(
    variant: str, stops: list[int], make_run: Make, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    run, ledger = make_run(variant), Ledger(tmp_path / "stopped")
    expected = whole(tmp_path / "whole", run)
    done = 0
    for steps in stops:
        stop_after(steps)
        assert train([run], ledger, budget_seconds=1e5, progress=False) == [run]
        assert ledger.state(run) == "paused"
        done += steps
        assert any(f"checkpoint-{done:08d}-" in path.name for path in ledger.folder(run).iterdir())
    stop_after(10**9)
    assert train([run], ledger, budget_seconds=1e5, progress=False) == []
    assert outcome(ledger, run) == expected
    assert not list(ledger.folder(run).glob("checkpoint-*"))


def test_damaged_checkpoint_resumes_from_the_one_before(
    run: Experiment, tmp_path: Path, stop_after: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "stopped")
    for steps in (7, 5):
        stop_after(steps)
        train([run], ledger, budget_seconds=1e5, progress=False)
    older, newest = sorted(ledger.folder(run).glob("checkpoint-*"))
    assert "00000007" in older.name
    assert "00000012" in newest.name
    newest.write_bytes(newest.read_bytes()[:-1])
    stop_after(10**9)
    assert train([run], ledger, budget_seconds=1e5, progress=False) == []
    assert f"checkpoint {newest} is damaged; using the one before it" in capsys.readouterr().out
    assert outcome(ledger, run) == whole(tmp_path / "whole", run)


def test_checkpoint_of_another_run_is_refused(make_run: Make) -> None:
    run, other = make_run(seed=0), make_run(seed=1)
    content = training._Training(run, "cpu", False).to_bytes()
    with pytest.raises(ValueError, match=f"checkpoint of run {run.id} cannot continue run {other.id}"):
        training._Training(other, "cpu", False).from_bytes(content)


def test_budget_leaves_the_rest_and_returns_it(
    make_run: Make, ledger: Ledger, stop_after: Callable[[int], None]
) -> None:
    runs = [make_run(seed=seed) for seed in range(3)]
    stop_after(37 + 5)
    assert train(runs, ledger, budget_seconds=1e5, progress=False) == runs[1:]
    assert [ledger.state(run) for run in runs] == ["done", "paused", "missing"]


def test_no_budget_left_trains_nothing(run: Experiment, ledger: Ledger) -> None:
    assert train([run], ledger, budget_seconds=-1.0, progress=False) == [run]
    assert ledger.state(run) == "missing"


SIGNALLED = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from hyla_repro import training
from hyla_repro.experiment import Experiment
from hyla_repro.runs import Ledger
advance = training._Training.advance
def advance_then_signal(self):
    advance(self)
    if self.step == 11:
        os.kill(os.getpid(), int(sys.argv[3]))
training._Training.advance = advance_then_signal
runs = [Experiment.model_validate(run) for run in json.loads(sys.argv[2])]
training.train(runs, Ledger(Path(sys.argv[1])), progress=False)
print("not reached")
"""


# What Python exits with after a KeyboardInterrupt depends on what torch runs at exit; it is never success.
@pytest.mark.parametrize(("number", "codes"), [(15, {143}), (2, {130, -2, 1})], ids=["SIGTERM", "SIGINT"])
def test_signal_saves_a_checkpoint_and_resuming_is_identical(
    number: int, codes: set[int], make_run: Make, tmp_path: Path
) -> None:
    runs, ledger = [make_run(seed=0), make_run(seed=1)], Ledger(tmp_path / "signalled")
    settings = json.dumps([run.model_dump() for run in runs])
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    done = subprocess.run([sys.executable, script, str(ledger.root), settings, str(number)], cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode in codes, done.stderr
    assert "not reached" not in done.stdout
    assert number == 15 or done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert [ledger.state(run) for run in runs] == ["paused", "missing"]
    (checkpoint,) = ledger.folder(runs[0]).glob("checkpoint-*")
    assert "00000011" in checkpoint.name
    assert train(runs[:1], ledger, progress=False) == []
    assert outcome(ledger, runs[0]) == whole(tmp_path / "whole", runs[0])


# --- divergence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 11, 29, 30, 36])
def test_loss_that_is_not_finite_stops_and_is_named(
    value: float, step: int, run: Experiment, ledger: Ledger, poison: Callable[..., list[float]]
) -> None:
    losses = poison(step, value)
    with pytest.raises(DivergedError) as caught:
        train([run], ledger, progress=False)
    message = str(caught.value)
    assert f"loss is {value} at step {step} of {run.label}" in message
    assert f"last finite loss: {losses[step - 1]}" in message
    assert ledger.state(run) == "diverged"
    with pytest.raises(DataError):
        ledger.result(run)
    facts = json.loads((ledger.folder(run) / "diverged.json").read_text())
    assert (facts["step"], facts["last_finite_loss"]) == (step, losses[step - 1])


def test_diverged_run_is_not_trained_again(make_run: Make, ledger: Ledger, poison: Callable[..., list[float]]) -> None:
    runs = [make_run(seed=0), make_run(seed=1)]
    poison(3, math.nan)
    with pytest.raises(DivergedError):
        train(runs[:1], ledger, progress=False)
    assert train(runs, ledger, progress=False) == runs[:1]
    assert [ledger.state(run) for run in runs] == ["diverged", "done"]


def test_weights_that_the_last_step_ruins_are_no_result(make_run: Make, ledger: Ledger) -> None:
    """The loss of the only step is finite, but not what the step leaves behind."""
    run = make_run(steps=1, warmup_steps=0, learning_rate=1e38)
    with pytest.raises(DivergedError):
        train([run], ledger, progress=False)
    assert ledger.state(run) == "diverged"


# --- the compiled step --------------------------------------------------------------------------------------

COMPILED = """
import sys
import torch
from hyla_repro import training
from hyla_repro.experiment import Experiment
torch.set_num_threads(2)
run = Experiment.model_validate_json(sys.argv[1])
state = training._Training(run, "cpu", use_compiler=True)
arguments = state.task.batch("train", 0, run.batch_size), training.dropout_scales(run, 0, "cpu")
gradients = []
for loss in (state._eager_loss, state._loss):
    state.model.zero_grad(set_to_none=True)
    loss(*arguments).backward()
    gradients.append({name: parameter.grad for name, parameter in state.model.named_parameters()})
for name, eager in gradients[0].items():
    worst, largest = (gradients[1][name] - eager).abs().max().item(), eager.abs().max().item()
    assert worst <= 1e-4 * largest, f"gradient of {name}: {worst} of {largest}"
for _ in range(3):
    state.advance()
print("equal", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["softmax", "linear", "hyla", "hyla_deep"])
def test_compiled_gradients_are_the_eager_ones(variant: str, tmp_path: Path) -> None:
    """At the paper's own sizes, because the compiler writes another program, with bugs of its own, for each shape.

    In a process of its own: run-time type checks, which the tests may switch on, break graphs.
    """
    if not training.compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    settings = presets.fuzzy_logic("paper", variant, 0).model_dump_json()
    command = [sys.executable, "-X", "faulthandler", "-c", COMPILED, settings]
    own_cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=own_cache, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr[:3000]


SHAPES = """
import sys
import torch
from hyla_repro import training
from hyla_repro.experiment import Experiment
torch.set_num_threads(1)
with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
    for settings in sys.argv[1:]:
        training._Training(Experiment.model_validate_json(settings), "cpu", use_compiler=True).advance()
print("compiled", flush=True)
"""


@pytest.mark.slow
def test_runs_of_other_shapes_are_compiled_too(make_run: Make, tmp_path: Path) -> None:
    """The compiler allows a function eight shapes, here one, and a list of runs may hold more."""
    if not training.compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    settings = [make_run(variant).model_dump_json() for variant in ("softmax", "linear")]
    own_cache = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES, *settings], cwd=ROOT, env=own_cache, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "compiled"), done.stderr[-3000:]
