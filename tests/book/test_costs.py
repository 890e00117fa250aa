"""The tables on cost: hours follow from committed measurements, and measurements of several machines add up."""

import re
from pathlib import Path

import pandas as pd
import pytest

from hyla_repro.book import costs
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.paths import DATA, ROOT
from hyla_repro.results.store import Store, timed_runs
from hyla_repro.studies import PRESETS, experiments, with_runs
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.training.plan import step_flop

MACHINE = {"device": "a", "instruction_set": "AVX2", "threads": 1, "torch": "2.6"}


@pytest.fixture
def store() -> Store:
    return Store(committed_only=True)


def test_release_hours_are_steps_times_its_measured_step(store: Store) -> None:
    run = fuzzy_logic("laptop", "hyla", 0)
    assert costs.release_hours(store, [run]) == pytest.approx(10_000 * 158 / 3.6e6)
    assert costs.release_hours(store, [run] * 3) == pytest.approx(3 * 10_000 * 158 / 3.6e6)


def test_release_hours_of_other_lengths_follow_the_operations(store: Store) -> None:
    short, long = (fuzzy_logic("laptop", "softmax", 0, n_examples=n) for n in (32, 64))
    expected = 10_000 * 125 / 3.6e6 * step_flop(long) / step_flop(short)
    assert costs.release_hours(store, [long]) == pytest.approx(expected)


def test_ablations_are_counted_as_the_method_whose_value_network_they_share(store: Store) -> None:
    hours = [costs.release_hours(store, [fuzzy_logic("laptop", v, 0)]) for v in ("hyla_softmax", "linear_rms_head")]
    assert hours == pytest.approx([10_000 * 158 / 3.6e6, 10_000 * 101 / 3.6e6])


def test_hours_are_those_of_the_runs_and_marked_where_some_are_estimated(store: Store) -> None:
    device = store.runs(experiments("fig2b", "laptop"))["device"].iloc[0]
    table = costs.figures(store).set_index(["figure", "preset", "device"]).xs(device, level="device")
    minutes = {entry.run.id: entry.minutes for entry in timed_runs(experiments("all", "laptop"), store)}
    runs = experiments("fig2b", "laptop")
    shown = table.loc[("`fig2b`", "laptop"), "hours here, of a core or GPU"]
    assert shown == f"{sum(minutes[run.id] for run in runs) / 60:.1f}"
    untrained = table.loc[("`fig2b`", "paper"), "hours here, of a core or GPU"]
    assert untrained.startswith("≈ ")
    assert float(untrained[2:]) > float(shown)


def test_the_table_on_top_has_a_row_per_figure_and_the_same_hours(store: Store) -> None:
    table = costs.figures(store)
    spans = costs.spans(store, table)
    assert list(spans.columns) == list(PRESETS)
    assert set(spans.index) <= set(with_runs())
    shown = table[(table["figure"] == "`fig2b`") & (table["preset"] == "laptop")]["hours here, of a core or GPU"]
    hours = sorted(shown.str.removeprefix("≈ "), key=float)
    assert spans.loc["fig2b", "laptop"] == f"{hours[0]} to {hours[-1]} h"
    assert spans.loc["fig2b", "laptop"].replace(" h", " h of a core at laptop") in costs.rerun_times(store)["fig2b"]


def test_all_tables_but_the_first_are_folded() -> None:
    before, _, rest = (ROOT / "book" / "cost.md").read_text().partition("<!-- end of cost -->")
    assert ":::" not in before
    outside = re.sub(r"(?ms)^:::\{dropdown\}.*?^:::$", "", rest)
    assert "<!--" not in outside
    assert "|" not in outside


def test_what_was_never_measured_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    table, words = costs.described(Store(tmp_path), "step_time")
    assert table.empty
    assert words == "Not measured yet; `python benchmarks/step_time.py` does it."


def test_stacks_on_a_gpu_stay_unmeasured_until_they_are(tmp_path: Path) -> None:
    row = MACHINE | {"variant": "hyla", "runs": 4, "step_ms": 3.0, "run_steps_per_s": 9.0, "of_gemm": 0.5,
                     "of_copy": 0.1, "commit": "c", "date": "d"}  # fmt: skip
    on_cpu, on_gpu = (pd.DataFrame([row | {"instruction_set": kind}]) for kind in ("AVX2", "cuda"))
    assert (costs.stacks(on_cpu)["step, ms"] == costs.NOT_MEASURED).sum() == 1
    assert (costs.stacks(on_gpu)["step, ms"] == costs.NOT_MEASURED).sum() == 0


def test_every_benchmark_has_its_place_in_the_book() -> None:
    page = (ROOT / "book" / "cost.md").read_text()
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"conclude", "record"}
    # On the page *Use it in your model*, in the chapters on neighbours, and on the leaderboard.
    scripts -= {"key_reduction", "scaled_head", "streaming", "guests"}
    assert scripts | {"faults", "slurm_faults"} == set(costs.MEASUREMENTS)
    for name in costs.MEASUREMENTS:
        assert f"<!-- {name}: written" in page


def test_committed_measurements_are_whole_and_of_clean_commits() -> None:
    for path in (DATA / "measurements").glob("*.csv"):
        table = Store(committed_only=True).table(f"measurements/{path.name}")
        assert len(table)
        if path.stem in costs.MEASUREMENTS:
            assert not table["commit"].str.contains("dirty|unknown").any()


def test_faults_were_all_survived_and_every_promise_was_tried() -> None:
    table = Store(committed_only=True).table("measurements/faults.csv")
    if len(table):
        assert (table["tried"] == table["survived"]).all()
        assert set(table["promise"]) == {int(path.stem.split("_")[2]) for path in ROOT.glob("tests/promises/test_*.py")}


class TestRecord:
    @pytest.fixture
    def record(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        import record

        return record

    @pytest.fixture
    def folder(self, record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
        folder = DataFolder(tmp_path / "data")
        folder.write({"a.csv": b"id\n"})
        monkeypatch.setattr(record, "DataFolder", lambda: folder)
        return folder

    @staticmethod
    def measured(tmp_path: Path, seconds: float, **facts: object) -> Path:
        row = {"what": "w", "seconds": seconds, **MACHINE, "commit": "c", "date": "d"} | facts
        pd.DataFrame([row]).to_csv(tmp_path / "start_up.csv", index=False)
        return tmp_path / "start_up.csv"

    def test_the_same_machine_is_replaced_and_others_stay(self, record, folder: DataFolder, tmp_path: Path) -> None:
        for seconds, device in ((1.0, "a"), (2.0, "b"), (3.0, "a")):
            record.main([self.measured(tmp_path, seconds, device=device)])
        table = Store(folder.folder).table("measurements/start_up.csv")
        assert dict(zip(table["device"], table["seconds"], strict=True)) == {"b": 2.0, "a": 3.0}
        assert folder.verify() == 2

    def test_a_changed_benchmark_replaces_its_old_numbers(self, record, folder: DataFolder, tmp_path: Path) -> None:
        record.main([self.measured(tmp_path, 1.0)])
        record.main([self.measured(tmp_path, 2.0, device="b", rounds=3)])
        assert Store(folder.folder).table("measurements/start_up.csv")["seconds"].tolist() == [2.0]

    def test_unknown_names_and_tables_without_a_machine_are_refused(
        self, record, folder: DataFolder, tmp_path: Path
    ) -> None:
        stray = self.measured(tmp_path, 1.0).rename(tmp_path / "speed.csv")
        with pytest.raises(record.typer.BadParameter, match=r"speed\.csv is none of step_time"):
            record.main([stray])
        (tmp_path / "start_up.csv").write_text("what,seconds\nw,1\n")
        with pytest.raises(record.typer.BadParameter, match=r"lacks \['commit'"):
            record.main([tmp_path / "start_up.csv"])
        assert folder.verify() == 1


def test_reruns_are_named_after_their_task_and_signed() -> None:
    rows = pd.DataFrame({
        "variant": ["hyla", "hyla"], "n_examples": [32, float("nan")], "seed": [0, 1], "steps": 8000,
        "instruction_set": "AVX2", "compiled": [True, False], "test": 0.5, "committed_test": [0.48, 0.5],
        "heldout": 0.2, "committed_heldout": 0.21, "commit": "now", "committed_commit": ["then", "now"],
    })  # fmt: skip
    table = costs.reruns(rows)
    assert table["run"].tolist() == ["HYLA, N = 32, seed 0", "HYLA, SRAVEN, seed 1"]
    assert table["trained again with"].tolist() == ["AVX2, compiled", "AVX2, eager, same commit"]
    assert table["training tasks, points"].tolist() == ["+2.00", "+0.00"]
    assert table["held-out, points"].tolist() == ["−1.00", "−1.00"]
