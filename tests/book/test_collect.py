"""Committed results: digests, collecting, and clear words for whatever is missing or altered."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

from hyla_repro import studies
from hyla_repro.book import collect as collecting
from hyla_repro.book.collect import collect
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import RUNS
from hyla_repro.ledger.runs import ALONG, Ledger
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.store import CURVES, Store, cost, require
from hyla_repro.results.summary import summarize
from hyla_repro.studies.fuzzy_logic.runs import DECODING, EMBEDDING, fuzzy_logic
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.studies.study import Chapter, Study
from hyla_repro.training.loop import train


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.write({"a.csv": b"id,value\nx,1\n", "models/b.bin": b"weights"})
    return store


def test_written_files_are_read_back_and_verified(store: Store) -> None:
    assert store.read("models/b.bin") == b"weights"
    assert store.table("a.csv").to_dict("list") == {"id": ["x"], "value": [1]}
    assert store.verify() == 2


def test_numeric_looking_ids_stay_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write({"a.csv": b"id,value\n012345678901,1\n"})
    assert store.table("a.csv")["id"].tolist() == ["012345678901"]


@pytest.mark.parametrize("position", [0, 3, 6])
def test_altered_file_is_refused(store: Store, position: int) -> None:
    path = store.folder / "models/b.bin"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.bin was altered since it was collected.*git checkout data"):
        store.read("models/b.bin")
    with pytest.raises(DataError, match=r"b\.bin"):
        store.verify()


def test_missing_file_is_named(store: Store) -> None:
    (store.folder / "a.csv").unlink()
    with pytest.raises(DataError, match=r"a\.csv cannot be read.*git checkout data/a\.csv"):
        store.table("a.csv")


def test_file_that_the_manifest_does_not_list_is_refused(store: Store) -> None:
    (store.folder / "stray.csv").write_text("id\n")
    with pytest.raises(DataError, match=r"stray\.csv"):
        store.verify()
    with pytest.raises(DataError, match=r"stray\.csv is not listed.*a\.csv, models/b\.bin"):
        store.read("stray.csv")


@pytest.mark.parametrize("text", [None, "{", "[1"])
def test_damaged_manifest_is_named(store: Store, text: str | None) -> None:
    path = store.folder / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        store.read("a.csv")


def test_nothing_to_show_says_how_to_train() -> None:
    with pytest.raises(DataError, match=r"no finished runs of fig2c at preset 'paper'.*hyla-repro run fig2c"):
        require(pd.DataFrame(), "fig2c", "paper")


def test_cost_adds_hours_by_machine() -> None:
    machine = {"device": "A", "instruction_set": "AVX2", "threads": 1, "torch": "2.6", "steps": 10}
    rows = [{**machine, "minutes": 30.0, "date": "2026-01-02"}, {**machine, "minutes": 90.0, "date": "2026-01-01"}]
    table = cost(pd.DataFrame([*rows, {**rows[0], "device": "B"}]))
    assert table["runs"].tolist() == [2, 1]
    assert table["hours"].tolist() == [2.0, 0.5]
    assert table.loc[0, ["since", "until"]].tolist() == ["2026-01-01", "2026-01-02"]


@pytest.fixture
def tiny_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Experiment]:
    """Two finished runs, as if they were all that laptop has; the first one's codes are shown."""
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    base = fuzzy_logic("smoke", "hyla", 0, n_examples=5)
    model = base.model.model_copy(update={"d_model": 16, "d_ff": 16})
    small = base.model_copy(update={"model": model, "steps": 4, "warmup_steps": 1, "evaluation_sequences": 40})
    runs = [small.model_copy(update={"seed": seed}) for seed in (0, 1)]
    shown = Chapter("fig2b", lambda preset: runs[:1] if preset == "laptop" else [], (DECODING, EMBEDDING))
    every = Chapter("fig2c", lambda preset: runs if preset == "laptop" else [])
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (shown, every), kept=lambda preset: runs[1:2])])
    train(runs, progress=False)
    return runs


def test_collect_adds_what_is_finished_and_only_once(tiny_figures: list[Experiment], tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    assert collect(store) == "added 2 runs; 2 of 2 are committed"
    runs = store.table(RUNS)
    assert runs["id"].tolist() == [run.id for run in tiny_figures]
    assert runs["preset"].tolist() == ["laptop", "laptop"]
    for run, row in zip(tiny_figures, runs.itertuples(), strict=True):
        assert row.heldout == pytest.approx(Ledger().result(run)["scores"]["heldout"], abs=0, rel=1e-15)
    assert set(store.table(CURVES)["id"]) == set(runs["id"])
    assert store.model(tiny_figures[0]) == Ledger().read(tiny_figures[0], "model.safetensors")
    # The second run's codes are not shown, but its weights are kept.
    assert store.model(tiny_figures[1]) == Ledger().read(tiny_figures[1], "model.safetensors")
    assert set(store.table(EMBEDDING.table)["id"]) == {tiny_figures[0].id}
    assert store.table(DECODING.table)["f1"].between(0, 1).all()

    before = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    assert collect(store) == "nothing new: 2 runs are committed"
    assert before == {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    assert store.verify() == len(before) - 1


def test_a_committed_run_that_is_shown_only_now_gets_its_tables(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    monkeypatch.setattr(studies, "STUDIES", [replace(studies.STUDIES[0], kept=None)])
    collect(store)
    first, runs = store.table(DECODING.table), store.read(RUNS)
    chapter = Chapter("fig2b", lambda preset: tiny_figures if preset == "laptop" else [], (DECODING,))
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (chapter,))])

    # What the ledger has is another training than the committed row tells of, so its weights are not taken.
    altered = store.table(RUNS)
    altered["train_loss"] += 1e-6
    store.write({RUNS: altered.to_csv(index=False).encode()})
    assert collect(store) == "nothing new: 2 runs are committed"

    store.write({RUNS: runs})
    assert collect(store).startswith(f"added {DECODING.table}, models/{tiny_figures[1].id}")
    table = store.table(DECODING.table)
    assert set(table["id"]) == {run.id for run in tiny_figures}
    pd.testing.assert_frame_equal(table[table["id"] == tiny_figures[0].id], first)
    assert store.read(RUNS) == runs
    assert collect(store) == "nothing new: 2 runs are committed"


def test_committed_weights_are_enough_for_tables_that_are_shown_only_now(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    collect(store)
    chapter = Chapter("fig2b", lambda preset: tiny_figures if preset == "laptop" else [], (DECODING,))
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (chapter,))])
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "empty"))
    assert collect(store) == f"added {DECODING.table}, of runs that were committed"
    assert set(store.table(DECODING.table)["id"]) == {run.id for run in tiny_figures}


def test_weights_along_training_reach_the_analysis(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run.model_copy(update={"seed": run.seed + 2}) for run in tiny_figures)
    train([first], progress=False, keep=lambda run: (1, 3))
    train([second], progress=False)
    seen: dict[str, list[int]] = {}

    def make(runs: list[Experiment], weights: list[dict[int, bytes]], device: str = "cpu") -> pd.DataFrame:
        for run, by_step in zip(runs, weights, strict=True):
            seen[run.id] = list(by_step)
            assert all(set(safetensors.torch.load(by_step[step])) == set(safetensors.torch.load(by_step[4]))
                       for step in by_step)  # fmt: skip
        return pd.DataFrame({"id": [run.id for run in runs]})

    analysis = Analysis("along.csv", make, along=True)
    chapter = Chapter("along", lambda preset: [first, second] if preset == "laptop" else [], (analysis,))
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (chapter,))])
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    collect(store)
    assert seen == {first.id: [1, 3, 4], second.id: [4]}
    assert set(store.table("along.csv")["id"]) == set(seen)
    assert store.steps_of(first) == []


@pytest.mark.parametrize(("limit", "kept"), [(2_000_000, [1, 3]), (10, [])])
def test_weights_along_training_of_the_first_seed_are_committed_where_small(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, kept: list[int]
) -> None:
    both = [run.model_copy(update={"learning_rate": 2e-3}) for run in tiny_figures]
    train(both, progress=False, keep=lambda run: (1, 3))
    # This analysis has rows for the first seed alone, so that the other run is looked at again each time.
    of_first = Analysis("first.csv", lambda runs, *_: pd.DataFrame({"id": [run.id for run in runs if run.seed == 0]}))
    chapter = Chapter("along", lambda preset: both if preset == "laptop" else [], (of_first,))
    study = Study("tiny", "Tiny", (chapter,), along=lambda run: (1, 3) if run in both else ())
    monkeypatch.setattr(studies, "STUDIES", [study])
    monkeypatch.setattr(collecting, "_LARGEST_MODEL", limit)
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    collect(store)
    first, second = both
    assert first.seed == 0
    assert store.steps_of(first) == kept
    assert store.steps_of(second) == []
    held, trained = Store(store.folder, committed_only=True), safetensors.torch.load(Ledger().read(first, ALONG))
    assert list(held.along(first)) == kept
    for step, content in held.along(first).items():
        for name, weight in safetensors.torch.load(content).items():
            assert torch.equal(weight, trained[f"{step}/{name}"])
    assert collect(store).startswith("nothing new")


def test_collected_runs_need_no_ledger_any_more(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    fresh = store.runs(tiny_figures)
    collect(store)
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "empty"))
    pd.testing.assert_frame_equal(store.runs(tiny_figures)[sorted(fresh)], fresh[sorted(fresh)], check_dtype=False)
    assert len(store.curves(tiny_figures)) > 0


def test_committed_only_ignores_the_ledger(tiny_figures: list[Experiment], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    Store(folder).write({"paper_values.csv": b"figure\n"})
    assert len(Store(folder).runs(tiny_figures)) == 2
    assert Store(folder, committed_only=True).runs(tiny_figures).empty


def test_runs_of_another_task_have_tables_of_their_own(
    tiny_figures: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzy = tiny_figures[0]
    sizes = {"n_positions": 18, "n_inputs": 5, "n_outputs": 5, "n_layers": 1}
    task = {"n_features": 2, "n_values": 5, "grid_size": 3, "heldout_fraction": 0.25}
    fields = fuzzy.model_dump() | {"task_name": "sraven", "task": task, "model": fuzzy.model.model_dump() | sizes}
    sraven = [Experiment.model_validate(fields | {"seed": seed}) for seed in (0, 1)]
    train(sraven, progress=False)
    known = [*tiny_figures, *sraven]
    every = Chapter("fig2c", lambda preset: known if preset == "laptop" else [])
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (every,))])
    store = Store(tmp_path / "data")
    store.write({"paper_values.csv": b"figure\n"})
    assert collect(store) == "added 4 runs; 4 of 4 are committed"
    assert store.run_ids() == {run.id for run in known}
    assert "unknown_terms" not in store.table("sraven_runs.csv")
    assert "n_layers" not in store.table(RUNS)
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "empty"))
    assert store.runs(sraven)["id"].tolist() == [run.id for run in sraven]
    assert set(store.curves(sraven)) == {"id", "step", "train_loss", "test", "heldout", "variant", "seed"}
    (row,) = summarize(store.runs(sraven)).itertuples()
    assert (row.n_layers, row.n_features, row.n) == (1, 2, 2)
    assert row.heldout == pytest.approx(100 * store.runs(sraven)["heldout"].mean())


def test_committed_rows_have_the_settings_of_their_runs() -> None:
    presets = {preset: {run.id: run for run in studies.experiments("all", preset)} for preset in ("laptop", "paper")}
    rows = Store(committed_only=True).committed_runs()
    assert len(rows) >= 243
    for name, row in rows.items():
        preset = next(preset for preset, runs in presets.items() if name in runs)
        expected = presets[preset][name].row() | {"preset": preset}
        assert {key: row[key] for key in expected} == expected, name


def test_codes_are_collected_in_stacks_of_one_shape_but_alone_on_a_cpu() -> None:
    runs = [sraven("smoke", method, seed) for seed in (0, 1) for method in ("hyla", "linear")]
    models = [(run, run.id.encode()) for run in runs]
    hyla, linear, hyla_1, linear_1 = models
    assert collecting._by_shape(models, "cpu") == [[model] for model in models]
    assert collecting._by_shape(models, "cuda") == [[hyla, hyla_1], [linear, linear_1]]
