"""Trained models by name: which there are, that they are what was trained, and what is said of others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hyla_repro
from hyla_repro import paths, studies
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import DataFolder, model_name
from hyla_repro.results.store import Store
from hyla_repro.studies import Study
from hyla_repro.studies.trained import carried, load, trained_models


def test_names_tell_method_and_task() -> None:
    models = trained_models()
    assert {f"{method}-{task}" for method in ("softmax", "linear", "hyla")
            for task in ("fuzzy-logic", "sraven-k2", "shakespeare")} <= {*models}  # fmt: skip
    for name, runs in models.items():
        assert 0 in runs
        assert all(seed == run.seed for seed, run in runs.items())
        assert {name.startswith(f"{run.method.replace('_', '-')}-") for run in runs.values()} == {True}


@pytest.mark.parametrize("name", ["hyla-sraven-k2", "softmax-fuzzy-logic"])
def test_a_loaded_model_scores_as_its_run_did_in_training(name: str) -> None:
    """On a part of the split, so within a few standard errors; no untrained model is near."""
    run = trained_models()[name][0]
    batch, model = run.build_task().batch("test", 0, 500), load(name)
    assert not model.training
    with torch.inference_mode():
        scores = run.build_task().score(model(batch.inputs, last=run.n_read), batch)
    row = Store(committed_only=True).committed_runs()[run.id]
    assert abs(scores.mean() - row["test"]) < 4 * scores.std() / 500**0.5


def test_seeds_are_different_trainings() -> None:
    first, second = (load("hyla-sraven-k2", seed=seed).state_dict() for seed in (0, 1))
    assert not any(torch.equal(first[name], second[name]) for name in first if first[name].ndim > 1)
    again = hyla_repro.load("hyla-sraven-k2").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_unknown_names_and_seeds_are_answered_by_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"unknown trained model 'hyla-sraven': did you mean 'hyla-sraven-k2'.*linear-"
    ):
        load("hyla-sraven")
    held = ", ".join(map(str, range(10)))
    with pytest.raises(ValueError, match=rf"no weights of hyla-sraven-k2 with seed=11 here, only with {held}$"):
        load("hyla-sraven-k2", seed=11)


def test_altered_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = model_name(trained_models()["hyla-sraven-k2"][0])
    content = bytearray(DataFolder().read(name))
    DataFolder(tmp_path).write({name: bytes(content)})
    monkeypatch.setattr(paths, "SHIPPED", tmp_path)
    assert [*trained_models()] == ["hyla-sraven-k2"]
    load("hyla-sraven-k2")
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"was altered .*git checkout data/{name}"):
        load("hyla-sraven-k2")


def test_the_largest_preset_with_the_first_seed_and_the_first_setting_name_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Experiment]
) -> None:
    laptop = [make_run(seed=seed) for seed in (0, 1)]
    paper = [make_run(seed=seed, steps=41, learning_rate=rate) for rate in (1e-3, 3e-3) for seed in (0, 1)]
    by_preset = {"smoke": [], "laptop": laptop, "paper": paper}
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (), kept=by_preset.__getitem__)])

    def named(*runs: Experiment) -> dict[str, dict[int, Experiment]]:
        (tmp_path / "manifest.json").write_text(json.dumps({model_name(run): "" for run in runs}))
        return trained_models(DataFolder(tmp_path))

    assert named() == {}
    assert named(laptop[1]) == {}
    assert named(*laptop, paper[1]) == {"hyla-fuzzy-logic": {0: laptop[0], 1: laptop[1]}}
    assert named(*laptop, *paper) == {"hyla-fuzzy-logic": {0: paper[0], 1: paper[1]}}
    assert carried(DataFolder(tmp_path)) == [model_name(paper[0])]
