"""Costs: operations counted against torch's own counter, hours scaled from timed runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.results.methods import METHODS
from hyla_repro.studies import experiments
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.training.plan import Timed, describe, minutes_per_run, seconds_of, step_flop, total_flop, with_values


@pytest.mark.parametrize("experts", [{}, {"feed_forward": "moe", "n_experts": 4, "experts_per_token": 2}], ids=len)
@pytest.mark.parametrize("variant", METHODS)
def test_operations_are_those_that_torch_counts(variant: str, experts: dict) -> None:
    run = fuzzy_logic("laptop", variant, 0, n_examples=16).model_copy(update={"batch_size": 3})
    run = run.model_copy(update={"model": run.model.model_copy(update=experts)})
    model, task = Transformer(run.model).initialize(0), run.build_task()
    batch = task.batch("train", 0, run.batch_size)
    with FlopCounterMode(display=False) as counter:
        task.loss(model(batch.inputs, last=1), batch).backward()
    # torch also counts the small product that adds position tables, which is no work that a model must do.
    assert counter.get_total_flops() == pytest.approx(step_flop(run), rel=0.01)


@pytest.mark.parametrize("reads_all", [True, False], ids=["all", "last"])
@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
@pytest.mark.parametrize("variant", ["softmax", "hyla"])
def test_operations_of_token_models_are_those_that_torch_counts(
    variant: str, feed_forward: str, reads_all: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: rotary positions have no product, and heads of width 8 are mixed by products that torch counts."""
    tokens = {
        "n_inputs": None, "n_outputs": None, "vocab_size": 97, "n_positions": 16, "v_dim": 64, "causal": True,
        "feed_forward": feed_forward, "position": "rotary",
    }  # fmt: skip
    run = fuzzy_logic("laptop", variant, 0, n_examples=16)
    run = run.model_copy(update={"batch_size": 3, "model": run.model.model_copy(update=tokens)})
    if reads_all:
        monkeypatch.setattr(Experiment, "n_read", property(lambda run: run.model.n_positions))
    model, text = Transformer(run.model).initialize(0), torch.arange(48).reshape(3, 16)
    with FlopCounterMode(display=False) as counter:
        model(text, last=run.n_read).square().sum().backward()
    assert counter.get_total_flops() == step_flop(run)


def test_operations_of_runs_that_were_timed_never_change() -> None:
    """Hours are scaled by them: a new value here needs all measurements anew."""
    assert step_flop(fuzzy_logic("paper", "hyla", 0)) == 2_015_592_448
    assert step_flop(sraven("paper", "hyla_moe", 0)) == 26_430_406_656


def test_deeper_value_networks_cost_more() -> None:
    costs = [step_flop(fuzzy_logic("laptop", variant, 0)) for variant in ("linear", "hyla", "hyla_deep")]
    assert costs == sorted(set(costs))
    assert total_flop(fuzzy_logic("laptop", "hyla", 0)) == 10_000 * costs[1]


def test_minutes_scale_from_the_same_variant_on_the_same_device() -> None:
    softmax, hyla, longer = (fuzzy_logic("laptop", v, 0, n) for v, n in (("softmax", 32), ("hyla", 32), ("hyla", 64)))
    timed = [
        Timed(softmax, "this", 8.0),
        Timed(hyla, "this", 10.0),
        Timed(hyla, "this", 14.0),
        Timed(hyla, "that", 1.0),
    ]
    estimate = minutes_per_run(timed, "this")
    assert estimate(hyla) == pytest.approx(12.0)
    assert estimate(longer) == pytest.approx(12.0 * total_flop(longer) / total_flop(hyla))
    assert minutes_per_run(timed, "other")(hyla) is None
    linear = fuzzy_logic("laptop", "linear", 0)
    rates = sorted(entry.minutes / total_flop(entry.run) for entry in timed[:3])
    assert estimate(linear) == pytest.approx(rates[1] * total_flop(linear))


def test_plan_counts_kinds_cheapest_first() -> None:
    runs = experiments("fig2b", "laptop")
    text = describe(runs, minutes_per_run([Timed(runs[0], "this", 6.0)], "this"), "this", 2)
    lines = text.splitlines()
    assert [line.split("held")[0].split(" x ")[1] for line in lines[:3]] == [
        "softmax N=32 ",
        "linear N=32 ",
        "hyla N=32 ",
    ]
    assert "6.0 min each" in lines[0]
    assert lines[-1].startswith("9 runs, ")
    assert "h on this, 2 at a time" in lines[-1]
    assert "no run was timed on that yet" in describe(runs, minutes_per_run([], "that"), "that", 1)
    assert describe([], minutes_per_run([], "that"), "that", 1).startswith("0 runs, 0 TFLOP")


def test_runs_are_picked_by_any_column_of_their_rows() -> None:
    runs = experiments("tablea1", "laptop")
    (run,) = with_values(runs, ["method=hyla", "seed=0", "task=fuzzy_logic"])
    assert (run.method, run.seed, run.task_name) == ("hyla", 0, "fuzzy_logic")
    assert with_values(runs, []) == runs
    grid = experiments("fig4", "paper")
    assert {run.learning_rate for run in with_values(grid, ["learning_rate=1e-3"])} == {0.001}
    assert {run.steps for run in with_values(grid, ["steps=78125"])} == {78125}
    assert {run.method for run in with_values(runs, ["method=hyla_moe"])} == {"hyla_moe"}


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (["metod=hyla"], "unknown column 'metod': did you mean 'method'"),
        (["method=hylaa"], "unknown method 'hylaa'.*allowed are .*hyla"),
        (["seed=11"], "unknown seed '11'.*allowed are 0, 1, 2"),
        (["seed=0", "method="], "unknown method ''"),
        # No run of SRAVEN has a number of examples.
        (["task=sraven", "n_examples=32"], "unknown column 'n_examples'"),
    ],
)
def test_conditions_that_no_run_meets_are_named_with_what_there_is(conditions: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        with_values(experiments("tablea1", "laptop"), conditions)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800.0), ("1.5h", 5400.0), ("8s", 8.0)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "-3m", "3 m", "1e3s"])
def test_texts_that_are_no_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time: write a number and s, m or h"):
        seconds_of(text)
