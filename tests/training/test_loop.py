"""Training: evaluation, results, bit-identical resuming, budgets, signals and divergence."""

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import Tensor

from hyla_repro.errors import DataError, DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.archive import export_runs, import_runs
from hyla_repro.ledger.runs import ALONG, CURVE, MODEL, Ledger
from hyla_repro.models.transformer import Transformer, load_model
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.training import loop, stack
from hyla_repro.training.loop import train
from hyla_repro.training.stack import Stack

ROOT = Path(__file__).parents[2]
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
    advance, clock = loop._Training.advance, loop.time.monotonic

    def counted(self: loop._Training) -> None:
        advance(self)
        taken[0] += 1

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock() + (1e6 if taken[0] >= taken[1] else 0.0)

    monkeypatch.setattr(loop._Training, "advance", counted)
    monkeypatch.setattr(loop, "time", Clock)

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


# --- evaluation ---------------------------------------------------------------------------------------------


def test_evaluation_is_the_mean_over_all_sequences(run: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 sequences in chunks of 5, 5 and 3: the short chunk must not weigh more."""
    monkeypatch.setattr(stack, "CHUNK", 5)
    task, model = run.build_task(), Transformer(run.model).initialize(run.seed)
    batches = [task.batch("heldout", step, size) for step, size in enumerate((5, 5, 3))]
    with torch.no_grad():
        scores = torch.cat([task.score(model(batch.inputs)[:, -1:], batch) for batch in batches])
    (found,) = Stack([run]).evaluate(13)
    assert found["heldout"] == pytest.approx(float(scores.double().mean()), rel=1e-5)


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
    model = load_model(ledger.folder(run) / MODEL, run.model)
    assert not model.training
    again = load_model(ledger.read(run, MODEL), run.model)
    task = run.build_task()
    for split, score in result["scores"].items():
        batch = task.batch(split, 0, run.evaluation_sequences)
        for loaded in (model, again):
            with torch.no_grad():
                scores = task.score(loaded(batch.inputs, last=task.n_read), batch)
            assert scores.double().mean().item() == pytest.approx(score, rel=1e-6)
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
    monkeypatch.setattr(loop, "_train_stack", lambda *args: pytest.fail("trained again"))
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


def test_weights_along_training_are_those_of_a_run_that_stopped_there(
    run: Experiment, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """They survive a stop, change nothing of the run, and travel with it in archives."""
    expected, ledger = whole(tmp_path / "whole", run), Ledger(tmp_path / "stopped")
    keep = {"keep": lambda run: (5, 12, 20), "budget_seconds": 1e5, "progress": False}
    there = {}
    for steps in (5, 7, 10):  # at the step, again, and past one
        stop_after(steps)
        train([run], ledger, **keep)
        checkpoint = safetensors.torch.load(ledger.load_checkpoints(run)[0][0])
        there[len(there)] = {n.removeprefix("model/"): x for n, x in checkpoint.items() if n.startswith("model/")}
    stop_after(10**9)
    assert train([run], ledger, **keep) == []
    assert outcome(ledger, run) == expected
    along = safetensors.torch.load(ledger.read(run, ALONG))
    assert {name.split("/")[0] for name in along} == {"5", "12", "20"}
    for step, place in ((5, 0), (12, 1)):
        assert all(torch.equal(along[f"{step}/{name}"], weight) for name, weight in there[place].items())
    assert any((along[f"5/{name}"] != weight).any() for name, weight in there[1].items())
    other = Ledger(tmp_path / "other")
    import_runs(export_runs([run], ledger, tmp_path / "parts"), other)
    assert other.read(run, ALONG) == ledger.read(run, ALONG)


def test_runs_that_keep_nothing_have_no_such_file(run: Experiment, ledger: Ledger) -> None:
    train([run], ledger, progress=False)
    assert set(ledger.result(run)["files"]) == {MODEL, CURVE}


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
    content = Stack([run]).to_bytes(0, {})
    with pytest.raises(ValueError, match=f"checkpoint of run {run.id} cannot continue run {other.id}"):
        Stack([other]).from_bytes(0, content)


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
from hyla_repro.training import loop, stack
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
advance = loop._Training.advance
def advance_then_signal(self):
    advance(self)
    if self.step == 11:
        os.kill(os.getpid(), int(sys.argv[3]))
loop._Training.advance = advance_then_signal
runs = [Experiment.model_validate(run) for run in json.loads(sys.argv[2])]
loop.train(runs, Ledger(Path(sys.argv[1])), progress=False)
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


# --- stacks -------------------------------------------------------------------------------------------------


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train all runs of one shape together, as on a GPU."""
    monkeypatch.setattr(loop, "_stack_size", lambda runs, device: len(runs))


def four(make_run: Make) -> list[Experiment]:
    return [make_run(seed=seed, learning_rate=rate) for seed in (0, 1) for rate in (1e-3, 4e-3)]


@pytest.mark.usefixtures("stacked")
def test_a_stack_has_the_results_of_its_runs_alone(make_run: Make, tmp_path: Path) -> None:
    runs, ledger = four(make_run), Ledger(tmp_path / "together")
    assert train(runs, ledger, progress=False) == []
    for run in runs:
        ours, alone = ledger.result(run), whole(tmp_path / run.id, run)
        assert ours["scores"] == pytest.approx(alone["scores"], rel=1e-3)
        assert ours["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)


@pytest.mark.usefixtures("stacked")
@pytest.mark.parametrize("stops", [[1], [30], [13, 17]], ids=str)
def test_stopped_and_resumed_stack_is_bit_identical(
    stops: list[int], make_run: Make, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    runs, ledger, straight = four(make_run), Ledger(tmp_path / "stopped"), Ledger(tmp_path / "straight")
    assert train(runs, straight, progress=False) == []
    for steps in stops:
        stop_after(steps)
        assert train(runs, ledger, budget_seconds=1e5, progress=False) == runs
    stop_after(10**9)
    assert train(runs, ledger, budget_seconds=1e5, progress=False) == []
    assert [outcome(ledger, run) for run in runs] == [outcome(straight, run) for run in runs]


@pytest.mark.usefixtures("stacked")
def test_a_stack_cut_off_between_two_results_has_the_same_bits(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of the stack is smaller and would round differently if it trained or evaluated once more."""
    runs, ledger, straight = four(make_run), Ledger(tmp_path / "cut"), Ledger(tmp_path / "straight")
    assert train(runs, straight, progress=False) == []
    commit, stored = Ledger.commit, []

    def commit_twice(self: Ledger, run: Experiment, *arguments: Any) -> None:
        if len(stored) == 2:
            raise OSError("cut off")
        stored.append(run)
        commit(self, run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", commit_twice)
        with pytest.raises(OSError, match="cut off"):
            train(runs, ledger, progress=False)
    assert [ledger.state(run) for run in runs] == ["done", "done", "paused", "paused"]
    assert train(runs, ledger, progress=False) == []
    assert [outcome(ledger, run) for run in runs] == [outcome(straight, run) for run in runs]


def test_what_a_killed_process_left_in_a_finished_run_goes(make_run: Make, ledger: Ledger) -> None:
    run = make_run()
    train([run], ledger, progress=False)
    folder = ledger.folder(run)
    before = sorted(path.name for path in folder.iterdir())
    for name in ("checkpoint-00000037-0123.safetensors", ".curve.csv.123.tmp", "lease"):
        (folder / name).write_bytes(b"left")
    train([run], ledger, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_tensor_float_is_part_of_the_identity_and_takes_a_gpu(make_run: Make, ledger: Ledger) -> None:
    plain, coarse = make_run(), make_run(precision="tf32")
    assert plain.id != coarse.id
    assert plain.shape != coarse.shape
    torch.set_float32_matmul_precision("high")
    with pytest.raises(ValueError, match=r"precision='tf32', which takes a GPU: use device='cuda'"):
        train([plain, coarse], ledger, progress=False)
    assert ledger.state(plain) == "missing"
    train([plain], ledger, progress=False)
    assert torch.get_float32_matmul_precision() == "highest"


def test_runs_keep_their_order_on_a_cpu(make_run: Make) -> None:
    runs = [make_run("hyla"), make_run("linear"), make_run("hyla", seed=1)]
    assert loop._stacks(runs, "cpu") == [[run] for run in runs]


def test_stacks_stand_in_the_order_of_their_first_runs(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_stack_size", lambda runs, device: 2)
    a, b, c, d = runs = [make_run("hyla"), make_run("linear"), make_run("hyla", seed=1), make_run("hyla", seed=2)]
    assert loop._stacks(runs, "cuda") == [[a, c], [b], [d]]


@pytest.mark.usefixtures("stacked")
def test_a_stack_cut_off_between_two_checkpoints_goes_on_together(
    make_run: Make, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """The process died after writing the second checkpoint of two of the four runs."""
    runs, ledger, straight = four(make_run), Ledger(tmp_path / "cut"), Ledger(tmp_path / "straight")
    assert train(runs, straight, progress=False) == []
    for steps in (7, 5):
        stop_after(steps)
        train(runs, ledger, budget_seconds=1e5, progress=False)
    for run in runs[2:]:
        max(ledger.folder(run).glob("checkpoint-*")).unlink()
    stop_after(10**9)
    assert train(runs, ledger, budget_seconds=1e5, progress=False) == []
    assert [outcome(ledger, run) for run in runs] == [outcome(straight, run) for run in runs]


@pytest.mark.usefixtures("stacked")
def test_runs_at_different_steps_are_trained_apart(
    make_run: Make, ledger: Ledger, stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = four(make_run)
    stop_after(9)
    train(runs[:2], ledger, budget_seconds=1e5, progress=False)
    original, trained = loop._train_stack, []
    monkeypatch.setattr(loop, "_train_stack", lambda part, *rest: trained.append(part) or original(part, *rest))
    stop_after(10**9)
    assert train(runs, ledger, budget_seconds=1e5, progress=False) == []
    assert trained == [runs[:2], runs[2:]]


@pytest.mark.usefixtures("stacked")
@pytest.mark.parametrize("look_every", [1, 50])
def test_a_diverged_run_does_not_harm_the_others_of_its_stack(
    look_every: int, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, ledger, straight = four(make_run), Ledger(tmp_path / "poisoned"), Ledger(tmp_path / "straight")
    assert train(runs, straight, progress=False) == []
    monkeypatch.setattr(loop, "_look_every", lambda device: look_every)
    original, victim = Stack._loss, torch.tensor(runs[2].seed)

    def poisoned(self: Stack, weights: dict, tables: dict) -> Tensor:
        loss = original(self, weights, tables)
        return torch.where((self.clock == 17) & (tables["seed"] == victim), torch.nan, loss)

    monkeypatch.setattr(Stack, "_loss", poisoned)
    with pytest.raises(DivergedError, match="loss is nan at step 17 of hyla"):
        train(runs, ledger, progress=False)
    assert [ledger.state(run) for run in runs] == ["done", "done", "diverged", "diverged"]
    for run in runs[:2]:
        assert outcome(ledger, run) == outcome(straight, run)


@pytest.mark.usefixtures("stacked")
def test_a_stack_that_does_not_fit_is_halved(
    make_run: Make, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, original, sizes = four(make_run), loop._train_stack, []

    def small_memory(part: list[Experiment], *rest: object) -> object:
        sizes.append(len(part))
        if len(part) > 1:
            raise torch.cuda.OutOfMemoryError("no")
        return original(part, *rest)

    monkeypatch.setattr(loop, "_train_stack", small_memory)
    assert train(runs, ledger, progress=False) == []
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert "4 runs do not fit into the memory of cpu: going on with 2" in capsys.readouterr().out
