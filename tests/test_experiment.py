"""An experiment's identity: stable, different for every field, and refused where it cannot work."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from hyla_repro.experiment import Experiment
from hyla_repro.studies import PRESETS, experiments
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.tasks import FuzzyLogic

Make = Callable[..., Experiment]

# One valid change of every field that decides a result.
CHANGES: dict[str, Any] = {
    "task": {"n_variables": 3, "n_terms": 2, "n_examples": 7, "heldout_fraction": 0.4},
    "steps": 38,
    "batch_size": 6,
    "learning_rate": 2e-3,
    "weight_decay": 0.2,
    "warmup_steps": 4,
    "attention_dropout": 0.2,
    "evaluation_sequences": 24,
    "seed": 1,
    "init_seed": 4,
}
MODEL_CHANGES: dict[str, Any] = {
    "variant": "linear", "n_layers": 3, "d_model": 12, "n_heads": 2, "qk_dim": 9, "v_dim": 9, "d_ff": 14,
    "causal": True, "feed_forward": "swiglu", "position": "rotary",
}  # fmt: skip
# Fields with one allowed value only, and those that the task fixes.
FIXED = {"task_name", "precision", "semantics", "model"}
FIXED_BY_TASK = {"n_positions", "n_inputs", "n_outputs", "vocab_size"}
# Those of mixtures of experts, in tests/test_experts.py.
OF_EXPERTS = {"n_experts", "experts_per_token", "load_balancing"}


def changed(run: Experiment, **changes: Any) -> Experiment:
    return Experiment.model_validate(run.model_dump() | changes)


def test_identity_of_a_published_run_never_changes() -> None:
    """Every stored result is named by this hash: a new value here orphans all of them."""
    assert fuzzy_logic("paper", "hyla", 0).id == "1b8f601e289a"


def test_identity_is_the_hash_of_the_fields(run: Experiment) -> None:
    assert run.id == changed(run).id
    assert len(run.id) == 12
    assert set(run.id) <= set("0123456789abcdef")
    reordered = dict(reversed(run.model_dump().items()))
    reordered["task"] = dict(reversed(reordered["task"].items()))
    assert Experiment.model_validate(reordered).id == run.id


def test_identity_changes_with_every_field(run: Experiment) -> None:
    assert set(CHANGES) | FIXED == set(Experiment.model_fields) - OF_EXPERTS
    assert set(MODEL_CHANGES) | FIXED_BY_TASK == set(type(run.model).model_fields) - OF_EXPERTS
    runs = [run, *(changed(run, **{field: value}) for field, value in CHANGES.items())]
    for field, value in MODEL_CHANGES.items():
        runs.append(changed(run, model=run.model.model_dump() | {field: value}))
    longer = changed(run, task=run.task | {"n_examples": 11}, model=run.model.model_dump() | {"n_positions": 11})
    assert len({run.id for run in [*runs, longer]}) == len(runs) + 1


def test_a_changed_copy_has_its_own_identity(run: Experiment) -> None:
    """Also after the original's identity was read: a stale one would store this run over another."""
    copy = run.model_copy(update={"seed": run.seed + 1})
    expected = copy.id
    assert run.id != expected
    assert run.model_copy(update={"seed": run.seed + 1}).id == expected
    assert run.model_copy(update={"seed": run.seed + 1}).label.endswith(f"({expected})")


def test_identity_does_not_depend_on_the_process(run: Experiment) -> None:
    text = json.dumps(json.loads(run.model_dump_json()), indent=3)
    assert Experiment.model_validate_json(text).id == run.id


@pytest.mark.parametrize("preset", PRESETS)
def test_json_round_trip(preset: str) -> None:
    for run in experiments("all", preset):
        assert Experiment.model_validate_json(run.model_dump_json()) == run
        assert Experiment.model_validate(json.loads(json.dumps(run.model_dump(mode="json")))).id == run.id


def test_task_gets_the_seed_of_the_run(make_run: Make) -> None:
    expected = FuzzyLogic(n_variables=3, n_terms=2, n_examples=7, heldout_fraction=0.5, seed=11)
    assert make_run(seed=11).build_task() == expected


def test_label_and_row_name_the_settings(make_run: Make) -> None:
    run = make_run("linear", 11)
    assert run.label == f"linear N=7 held out=0.5 seed=11 ({run.id})"
    other = changed(run, task=run.task | {"split_seed": 0}, init_seed=3)
    assert other.label == f"linear N=7 held out=0.5 seed=11 split_seed=0 init_seed=3 ({other.id})"
    assert (other.row()["split_seed"], other.row()["init_seed"]) == (0, 3)
    assert other.point == run.point
    row = run.row()
    assert (row["id"], row["variant"], row["seed"], row["n_examples"]) == (run.id, "linear", 11, 7)
    assert all(not isinstance(value, dict) for value in row.values())


def test_experiment_is_frozen(run: Experiment) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        run.steps = 3


@pytest.mark.parametrize("field", sorted(set(CHANGES) - {"init_seed"} | {"task_name", "model"}))
def test_nothing_that_decides_a_result_has_a_default(run: Experiment, field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field}\n.*Field required"):
        Experiment.model_validate({k: v for k, v in run.model_dump().items() if k != field})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_name": "fuzzy"}, r"unknown task 'fuzzy'.*allowed are fuzzy_logic"),
        ({"steps": 0}, r"steps\n.*greater than or equal to 1"),
        ({"batch_size": 0}, r"batch_size\n.*greater than or equal to 1"),
        ({"learning_rate": 0.0}, r"learning_rate\n.*greater than 0"),
        ({"learning_rate": float("inf")}, r"learning_rate\n.*finite number"),
        ({"weight_decay": -0.1}, r"weight_decay\n.*greater than or equal to 0"),
        ({"weight_decay": float("nan")}, r"weight_decay\n.*"),
        ({"attention_dropout": 1.0}, r"attention_dropout\n.*less than 1"),
        ({"evaluation_sequences": 0}, r"evaluation_sequences\n.*greater than or equal to 1"),
        ({"seed": -1}, r"seed\n.*greater than or equal to 0"),
        ({"seed": 2**32}, r"seed\n.*less than 4294967296"),
        ({"precision": "bfloat16"}, r"precision\n.*'float32' or 'tf32'"),
        ({"semantics": 2}, r"semantics\n.*1"),
        ({"warmup_steps": 19}, r"warmup_steps=19 needs more than twice as many steps, not 37"),
        ({"momentum": 0.9}, r"momentum\n.*Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_work_are_named(run: Experiment, changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(run, **changes)


def test_model_and_task_must_fit(run: Experiment) -> None:
    with pytest.raises(ValidationError, match=r"\(n_positions, n_inputs, n_outputs\) must be the task's \(7, 4, 1\)"):
        changed(run, model=run.model.model_dump() | {"n_positions": 8})
    with pytest.raises(ValidationError, match=r"must be the task's \(7, 4, 1\)"):
        changed(run, model=run.model.model_dump() | {"n_inputs": None, "n_outputs": None, "vocab_size": 17})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_terms": 7}, r"n_terms=7 exceeds the 6 known terms"),
        ({"heldout_fraction": 0.01}, r"heldout_fraction=0.01 of 15 functions leaves a split empty"),
        ({"n_variabels": 3}, r"n_variabels"),
        ({"seed": 3}, r"seed"),
        ({"n_examples": 7.5}, r"n_examples"),
    ],
)
def test_errors_of_the_task_are_validation_errors(run: Experiment, changes: dict, message: str) -> None:
    """Whatever is wrong, the caller sees one kind of error that names the field."""
    with pytest.raises(ValidationError, match=message):
        changed(run, task=run.task | changes)
