"""The command line: every bad word is one clear line and exit code 2; runs stop and go on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hyla_repro
from hyla_repro import cli, paths
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


@pytest.mark.parametrize(
    ("called", "again"),
    [
        ("/bin/hyla-repro", ["/bin/hyla-repro"]),
        ("/lib/hyla_repro/__main__.py", [sys.executable, "-m", "hyla_repro"]),
        ("my_study.py", [sys.executable, "my_study.py"]),
    ],
)
def test_processes_are_called_as_this_one_was(monkeypatch: pytest.MonkeyPatch, called: str, again: list[str]) -> None:
    """Otherwise they would not know the studies of a file that calls `main` itself."""
    commands: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", [called, "run", "fig2c"])
    monkeypatch.setattr(cli, "run_siblings", lambda command, count: commands.append(command) or [0])
    cli._in_processes(2)
    assert commands == [[*again, "run", "fig2c", "--processes", "1"]]


def test_verify_checks_the_committed_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "verify") == 0
    assert "files are as they were collected" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["status"], ["report"], ["verify"], ["collect"], ["run", "fig2c", "--plan"]])
def test_without_a_manifest_the_advice_is_what_brings_it_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    """And no other command of these, which would only say the same."""
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    assert call(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "data" / "manifest.json") in line
    assert line.endswith("restore it with `git checkout data/manifest.json`")


@pytest.mark.parametrize("words", [["notebook", "fig1"], ["reproduce", "fig1"]])
def test_a_chapter_without_papermill_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert call(monkeypatch, *words, "--output", str(tmp_path)) == 2
    assert capsys.readouterr().err == "error: running a chapter needs papermill: `pip install hyla-repro[book]`\n"


def test_an_export_of_nothing_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    assert call(monkeypatch, "export", str(tmp_path / "out"), "--figure", "fig2c") == 1
    captured = capsys.readouterr()
    assert captured.err == f"nothing to export: {tmp_path / 'runs'} has no runs of fig2c at preset paper\n"
    assert not captured.out
    assert not (tmp_path / "out").exists()


def test_version_tells_the_commit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"hyla-repro {hyla_repro.__version__}, commit {paths.commit()}\n"


def test_budget_stops_saves_and_says_what_is_left(tmp_path: Path) -> None:
    first = run("run", "tablea1", "--budget", "0.2s", runs=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "0 of 26 runs of tablea1 at preset smoke are finished" in first.stdout
    assert f"Go on with: {sys.executable} -m hyla_repro run tablea1 --budget 0.2s" in first.stdout
    # Cheapest first: HYLA's value networks cost more than linear ones.
    assert first.stdout.index("left: softmax") < first.stdout.index("linear") < first.stdout.index("Go on")
    assert list(tmp_path.glob("*/checkpoint-*.safetensors"))
    status = run("status", "--preset", "smoke", runs=tmp_path)
    assert "smoke  tablea1    26 runs: 25 missing, 1 paused" in status.stdout


def test_a_chapter_without_runs_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "run", "fig1") == 2
    assert "fig1 has no runs to train: make its chapter with `hyla-repro reproduce fig1`" in capsys.readouterr().err


def test_plan_says_what_it_costs_and_trains_nothing(tmp_path: Path) -> None:
    done = run("run", "fig2b", "--preset", "paper", "--plan", runs=tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" x ")[1].split()[0] for line in lines[:3]] == ["softmax", "linear", "hyla"]
    assert lines[3].startswith("36 runs, ")
    assert not (tmp_path / "runs").exists()


def test_committed_runs_are_trained_again_only_when_asked(tmp_path: Path) -> None:
    words = ("run", "fig2b", "--preset", "laptop", "--plan")
    first, again = run(*words, runs=tmp_path), run(*words, "--again", runs=tmp_path)
    assert "9 of 9 runs are committed in data/; --again trains those too" in first.stdout
    assert "\n0 runs" in first.stdout
    assert "\n9 runs, " in again.stdout


def test_a_damaged_run_is_trained_again(tmp_path: Path) -> None:
    first = run("run", "fig2b", runs=tmp_path)
    assert "3 of 3 runs" in first.stdout
    model = next(iter(tmp_path.glob("*linear*/model.safetensors")))
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    again = run("run", "fig2b", runs=tmp_path)
    assert again.returncode == 0, again.stderr
    assert model.read_bytes() == good


def test_processes_share_the_runs(tmp_path: Path) -> None:
    done = run("run", "fig2b", "--processes", "2", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 runs of fig2b at preset smoke are finished" in done.stdout
    # Each process says what it trains, and none of it twice.
    bars = set(re.findall(r"^(.*) \([0-9a-f]{12}\): 100%", done.stderr.replace("\r", "\n"), re.MULTILINE))
    assert len(bars) == 3
    assert "is being trained by" not in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_reach_every_process(number: int, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hyla_repro", "run", "fig2c", "--processes", "2"]
    environment = os.environ | {"HYLA_REPRO_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*/lock"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert f"stopped; what was trained is in {tmp_path}" in errors
    assert "run fig2c --processes 2" in errors


def test_looking_at_runs_needs_no_torch() -> None:
    """It takes seconds to import, and `status` should answer at once."""
    code = "import sys; from hyla_repro.cli import main; sys.argv[1:] = ['status']\ntry: main()\nfinally: " \
           "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "laptop" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
