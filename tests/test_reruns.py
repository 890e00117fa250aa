"""The benchmark of reruns: what it refuses, how it has torch change its instruction set, and what it writes."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.paths import ROOT
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic


@pytest.fixture
def reruns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reruns

    return reruns


class Restarted(Exception):
    """What takes the place of a process that starts anew."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which torch has AVX2 and that says so instead of starting anew."""

    def restart(*_: object) -> None:
        raise Restarted

    monkeypatch.setattr(os, "execv", restart)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)


def test_only_committed_runs_are_trained_again_each_once(reruns) -> None:
    first, second = (fuzzy_logic("laptop", "hyla", seed).id for seed in (1, 0))
    assert [run.seed for run in reruns.chosen([first, second, first])] == [1, 0]
    for unknown in ("0123456789ab", fuzzy_logic("smoke", "hyla", 0).id):
        with pytest.raises(reruns.typer.BadParameter, match=f"{unknown} is not committed"):
            reruns.chosen([first, unknown])


@pytest.mark.usefixtures("told")
class TestRetold:
    def test_torch_is_told_once(self, reruns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
        with pytest.raises(Restarted):
            reruns.retold("avx2")
        assert os.environ["ATEN_CPU_CAPABILITY"] == "avx2"
        reruns.retold("avx2")

    def test_without_a_wish_nothing_changes(self, reruns) -> None:
        reruns.retold(None)
        assert "ATEN_CPU_CAPABILITY" not in os.environ

    def test_unknown_and_missing_instruction_sets_are_refused(self, reruns, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(reruns.typer.BadParameter, match="'sse' is none of default, avx2, avx512"):
            reruns.retold("sse")
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
        with pytest.raises(reruns.typer.BadParameter, match="takes AVX2 on this machine, not avx512"):
            reruns.retold("avx512")


def test_a_line_replaces_that_of_the_same_run_rounding_and_commit(reruns) -> None:
    line = {
        "id": "a",
        "steps": 5,
        "instruction_set": "AVX2",
        "compiled": True,
        "torch": "2",
        "commit": "c",
        "heldout": 0.5,
    }
    table = pd.DataFrame([line, line | {"compiled": False}, line | {"id": "b"}, line | {"commit": "d"}])
    merged = reruns.merged(table, line | {"heldout": 0.7})
    assert merged["heldout"].tolist() == [0.5, 0.5, 0.5, 0.7]
    assert merged.iloc[-1]["id"] == "a"


def test_a_table_grows_by_a_line_for_every_run(
    reruns, make_run: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(seed=seed) for seed in (0, 1)]
    before = {"test": 0.25, "heldout": 0.5, "instruction_set": "AVX512", "commit": "c"}
    curves = pd.DataFrame([{"id": run.id, "step": 7, "test": 0.5, "heldout": 0.25} for run in runs])
    store = SimpleNamespace(committed_runs=lambda: {run.id: before for run in runs}, table=lambda name: curves)
    monkeypatch.setattr(reruns, "Store", lambda committed_only: store)
    monkeypatch.setattr(reruns, "chosen", lambda ids: [run for run in runs if run.id in ids])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is set back to what it was
    for run in runs:
        reruns.main([run.id], eager=True, folder=tmp_path / "runs", out=tmp_path / "reruns.csv")
    reruns.main([runs[0].id], eager=True, steps=7, folder=tmp_path / "runs", out=tmp_path / "reruns.csv")
    table = pd.read_csv(tmp_path / "reruns.csv")
    assert table["id"].tolist() == [runs[0].id, runs[1].id, runs[0].id]
    assert table["steps"].tolist() == [37, 37, 7]
    assert table["committed_heldout"].tolist() == [0.5, 0.5, 0.25]
    assert not table["compiled"].any()
    with pytest.raises(reruns.typer.BadParameter, match="--steps 8 is no point of the committed curve"):
        reruns.main([runs[0].id], eager=True, steps=8, folder=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-eager")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "compiler")
