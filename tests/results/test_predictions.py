"""Predictions of committed models: the committed scores follow from them, and they say what was asked and answered."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch

from hyla_repro.cli import main
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import DataFolder, model_name
from hyla_repro.models.transformer import Transformer
from hyla_repro.results.predictions import parquet, predictions, with_weights
from hyla_repro.results.store import Store
from hyla_repro.studies import PRESETS, STUDIES
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.studies.study import once
from hyla_repro.tasks.fuzzy_logic.task import FuzzyLogic
from hyla_repro.tasks.sraven.task import SRaven

pytest.importorskip("pyarrow")
# Accuracies and R2 are means over thousands of problems; another processor's rounding turns few of them.
TOLERANCE = 1e-3


def weights_of(run: Experiment) -> bytes:
    model = Transformer(run.model).initialize(run.seed)
    return safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})


def folder_with(tmp_path: Path, *runs: Experiment) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.write({model_name(run): weights_of(run) for run in runs})
    return folder


def read(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))


# --- the committed files ---------------------------------------------------------------------------------------


def committed() -> dict[str, pd.DataFrame]:
    folder = DataFolder()
    names = [name for name in folder.manifest() if name.startswith("predictions/")]
    return {Path(name).stem: read(folder.read(name)) for name in names}


def test_the_committed_files_hold_the_main_comparisons_and_are_small() -> None:
    main_runs = once(run for study in STUDIES if study.main for preset in PRESETS for run in study.main(preset))
    held = with_weights(main_runs, DataFolder())
    for task, table in committed().items():
        assert set(table["id"]) == {run.id for run in held[task]}
    assert set(committed()) == set(held) - {"language"}
    sizes = [(DataFolder().folder / "predictions" / f"{task}.parquet").stat().st_size for task in committed()]
    assert sum(sizes) < 400_000 * sum(len(runs) for task, runs in held.items() if task in committed())


def test_committed_scores_are_the_means_of_the_committed_predictions() -> None:
    rows = Store(committed_only=True).committed_runs()
    for table in committed().values():
        means = table.groupby(["id", "split"], observed=True)["score"].mean()
        assert len(means) >= 6
        for (identity, split), mean in means.items():
            assert mean == pytest.approx(rows[identity][split], abs=TOLERANCE), (identity, split)


def test_committed_scores_of_problems_follow_from_predictions_and_targets() -> None:
    tables = committed()
    said, asked = (np.stack(tables["sraven"][name].to_list()) for name in ("prediction", "target"))
    assert np.array_equal((said == asked).all(1), tables["sraven"]["score"] == 1)
    fuzzy = tables["fuzzy_logic"]
    error = (fuzzy["prediction"] - fuzzy["target"]) ** 2
    assert (fuzzy.loc[error == error.min(), "score"] > 0.99).all()
    assert (fuzzy["score"] <= 1).all()


def test_committed_problems_are_those_of_the_tasks() -> None:
    for task, maker in (("sraven", SRaven(n_features=2)), ("fuzzy_logic", FuzzyLogic(heldout_fraction=0.7))):
        table = committed()[task]
        own = table[(table["seed"] == 0) & (table["split"] == "heldout") & (table["problem"] >= 500)]
        own = own[own["id"] == own["id"].iloc[0]].head(40)
        batch = maker.batch("heldout", 1, 40)
        for name, part in (("target", batch.targets), ("rules" if task == "sraven" else "terms", batch[2])):
            assert np.allclose(np.stack(own[name].to_list()).reshape(part.shape), part)


# --- how they are made -----------------------------------------------------------------------------------------


def test_predictions_are_those_that_a_run_is_scored_by(make_run: "type[Experiment]") -> None:
    run = make_run(evaluation_sequences=501)
    columns = predictions(run, weights_of(run))
    task = run.build_task()
    splits = task.evaluation_splits
    assert columns["split"].tolist() == [split for split in splits for _ in range(501)]
    assert columns["problem"].tolist() == list(range(501)) * len(splits)
    assert set(columns) == {"split", "problem", "prediction", "target", "score", "terms"}
    last = task.batch("heldout", 1, 1)
    at = 501 * splits.index("heldout") + 500
    assert columns["target"][at] == last.targets.numpy()
    assert (columns["terms"][at] == last.terms[0].numpy()).all()
    model = Transformer(run.model).initialize(run.seed).eval()
    expected = model(last.inputs, last=1)[:, :, 0].detach().numpy()
    np.testing.assert_allclose(columns["prediction"][at : at + 1], expected, atol=1e-5)


def test_a_file_has_small_types_and_names_its_runs(tmp_path: Path) -> None:
    runs = [sraven("smoke", "hyla", seed) for seed in (0, 300)]
    table = read(parquet(runs, folder_with(tmp_path, *runs)))
    assert len(table) == 2 * 2 * runs[0].evaluation_sequences
    assert table.groupby(["id", "method", "seed"], observed=True).ngroups == 2
    assert str(table["seed"].dtype) == "uint16"
    assert str(table["problem"].dtype) == "uint16"
    assert table["prediction"].iloc[0].dtype == np.uint8
    assert np.stack(table["permutations"].iloc[0]).shape == (3, 2)
    with pytest.raises(DataError, match="is not listed in"):
        parquet([sraven("smoke", "linear", 0)], DataFolder(tmp_path))


def test_the_command_writes_the_runs_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = sraven("smoke", "linear", 0)
    folder_with(tmp_path / "data", run, sraven("smoke", "softmax", 0))
    monkeypatch.setattr("hyla_repro.paths.DATA", tmp_path / "data")

    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["hyla-repro", "predictions", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    assert call("--where", "method=linear", "--output", str(tmp_path / "out")) == 0
    assert "sraven: 1 models" in capsys.readouterr().out
    assert set(read((tmp_path / "out" / "sraven.parquet").read_bytes())["id"]) == {run.id}
    assert call("--where", "method=linear") == 2
    assert "name a folder by --output" in capsys.readouterr().err
    assert call("--where", "method=hyla", "--output", str(tmp_path / "out")) == 2
    assert "unknown method 'hyla'" in capsys.readouterr().err
    assert call() == 0
    assert {"predictions/sraven.parquet"} < set(DataFolder(tmp_path / "data").manifest())
