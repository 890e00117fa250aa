"""Submissions as `status --watch` shows them: runs, rate, and the last line of workers that failed or were lost."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.cluster import commands
from hyla_repro.cluster.submission import Submission
from hyla_repro.cluster.watch import describe, flop_done, last_line, shown, workers
from hyla_repro.cluster.worker import Note, log_file, note_file
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.studies import Chapter, Study
from hyla_repro.training.loop import train
from hyla_repro.training.plan import step_flop, total_flop

MakeRun = Callable[..., Experiment]


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Two runs, those of figure fig2c, in an empty ledger."""
    runs = [make_run(seed=seed) for seed in range(2)]
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: runs),))])
    return runs


@pytest.fixture
def folder(make_submission: Callable[..., Submission], tmp_path: Path) -> Path:
    return make_submission(figure="fig2c", where=(), workers=4).write(tmp_path / "submissions")


def note(folder: Path, index: int, state: str, code: int | None = None, silent: float = 0.0, said: str = "") -> None:
    now = time.time()
    note_file(folder, str(index)).write_text(json.dumps(asdict(Note(state, "node7", now - 100, code=code))))
    os.utime(note_file(folder, str(index)), (now, now - silent))
    log_file(folder, str(index)).write_text(said)


@pytest.mark.parametrize(
    ("said", "line"),
    [("", ""), ("a\nb\n", "b"), ("b: 10%\rb: 20%\r\n\n", "b: 20%"), ("x" * 9000 + "\nend", "end"), ("ÿ\xff\n", "ÿÿ")],
)
def test_the_last_line_of_a_log_is_the_last_that_says_anything(said: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(said)
    assert last_line(tmp_path / "log") == line
    assert last_line(tmp_path / "none") == ""


def test_a_submission_shows_runs_rate_and_workers(runs: list[Experiment], folder: Path) -> None:
    train(runs[:1], Ledger(), progress=False)
    note(folder, 0, "running")
    note(folder, 1, "failed", 74, said="training\nerror: No space left on device\n")
    note(folder, 2, "running", silent=100, said="step 5\r")
    text, over = describe(folder, set())
    head, rate, counts, failed, lost = text.splitlines()
    assert head == f"{folder.name}: 1 of 2 runs finished (1 done, 1 missing)"
    assert rate == f"  {total_flop(runs[0]) / 100 / 1e9:.3g} GFLOP/s since the first start, about 0.0 h left"
    assert counts == "  workers: 1 running, 1 failed, 1 lost, 1 waiting"
    assert failed == "  worker 1 failed with code 74 on node7: error: No space left on device"
    assert lost == "  worker 2 lost on node7: step 5"
    assert not over


def test_checkpoints_count_as_far_as_they_go(runs: list[Experiment]) -> None:
    ledger = Ledger()
    ledger.save_checkpoint(runs[0], 5, b"weights")
    assert flop_done(runs, ledger) == 5 * step_flop(runs[0])


def test_it_is_over_when_all_workers_are_or_all_runs(runs: list[Experiment], folder: Path) -> None:
    assert not describe(folder, set())[1]
    for index, state in enumerate(("done", "stopped", "paused", "failed")):
        note(folder, index, state, code=0)
    assert describe(folder, set())[1]
    note(folder, 0, "requeued")
    assert not describe(folder, set())[1]
    train(runs, Ledger(), progress=False)
    assert describe(folder, set())[1]


def test_watching_goes_on_until_all_is_over(
    runs: list[Experiment], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[float] = []

    def finish(seconds: float) -> None:
        looks.append(seconds)
        train(runs, Ledger(), progress=False)

    monkeypatch.setattr(commands, "pause", finish)
    monkeypatch.setattr(sys, "argv", ["hyla-repro", "status", "--watch", "--every", "3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "0 of 2 runs finished (2 missing)" in said
    assert "2 of 2 runs finished (2 done)" in said
    assert looks == [3.0]


def test_those_that_go_on_are_shown_or_the_newest(
    runs: list[Experiment], make_submission: Callable[..., Submission], tmp_path: Path
) -> None:
    folders = [make_submission(figure="fig2c", workers=1).write(tmp_path / "submissions") for _ in range(3)]
    note(folders[1], 0, "done")
    assert set(shown()) == {folders[0], folders[2]}
    for folder in folders:
        note(folder, 0, "done")
    assert len(shown()) == 1
    assert [worker.state for worker in workers(folders[0], 2)] == ["done", "waiting"]


def test_nothing_to_watch_is_one_line(
    runs: list[Experiment], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hyla-repro", "status", "--watch"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: nothing was submitted yet: start workers with `hyla-repro submit`\n"
