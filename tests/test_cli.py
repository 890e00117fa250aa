"""The command line: every bad word is one clear line and exit code 2; runs stop and go on."""

import subprocess
import sys
from pathlib import Path

import pytest

from hyla_repro.cli import main


def run(*words: str, runs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hyla_repro", *words]
    environment = {"HYLA_REPRO_RUNS": str(runs), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent)


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hyla-repro", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "fig2z"], "unknown figure 'fig2z': did you mean 'fig2"),
        (["run", "fig2c", "--preset", "laptp"], "unknown preset 'laptp': did you mean 'laptop'"),
        (["run", "fig2c", "--device", "cuda:99"], "unknown device 'cuda:99'"),
        (["run", "fig2c", "--budget", "5"], "budget='5' is not a time: write a number and s, m or h"),
        (["run", "fig2c", "--threads", "0"], "threads=0 is too small"),
        (["status", "--preset", "big"], "unknown preset 'big'"),
        (["reproduce", "fig9"], "unknown figure 'fig9'"),
        (["reproduce", "fig1", "-p", "n_heads"], "parameter 'n_heads' has no value: write NAME=VALUE"),
        (["reproduce", "fig1", "-p", "n_heads=zero"], "n_heads='zero' is not a whole number"),
        (["reproduce", "fig1", "-p", "heads=2"], "unknown parameter of fig1 'heads': did you mean 'n_heads'"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    assert call(monkeypatch, *words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_verify_checks_the_committed_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "verify") == 0
    assert "files are as they were collected" in capsys.readouterr().out


def test_budget_stops_saves_and_says_what_is_left(tmp_path: Path) -> None:
    first = run("run", "tablea1", "--budget", "0.2s", runs=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "0 of 10 runs of tablea1 at preset smoke are finished" in first.stdout
    assert "Go on with: hyla-repro run tablea1 --preset smoke" in first.stdout
    assert list(tmp_path.glob("*/checkpoint-*.safetensors"))
    status = run("status", "--preset", "smoke", runs=tmp_path)
    assert "tablea1    10 runs: 1 paused, 9 missing" in status.stdout
