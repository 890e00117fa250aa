"""What is submitted: bad words are one line, the script is plain, and nothing but strings travels to the workers."""

import pickletools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.cluster.checks import file_system, require_shared
from hyla_repro.cluster.launch import launch
from hyla_repro.cluster.submission import Submission, read, submitted
from hyla_repro.cluster.worker import read_note
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.studies import Chapter, Study

Make = Callable[..., Submission]
Put = Callable[[str, str], Path]
SUBMITIT_LEAVES = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=hyla-repro-fig2b
#SBATCH --array=0-1
#SBATCH --time=240
#SBATCH --cpus-per-task=1
#SBATCH --gpus-per-node=1
#SBATCH --partition=gpu
#SBATCH --signal=B:USR1@150
#SBATCH --open-mode=append
#SBATCH --output=/shared/submissions/first/slurm-%A_%a.out
#SBATCH --account=physics
#SBATCH --requeue

# The worker's number comes from Slurm, PBS, LSF or Kubernetes, or is the first argument. Slurm starts it
# again by itself; elsewhere, start it again while it leaves with code 75.
index="${SLURM_ARRAY_TASK_ID:-${PBS_ARRAY_INDEX:-${LSB_JOBINDEX:-${JOB_COMPLETION_INDEX:-$1}}}}"
exec PYTHON -m hyla_repro.cluster.worker /shared/submissions/first "$index" env HYLA_REPRO_RUNS=/shared/runs \
HYLA_REPRO_TEXTS=/shared/texts hyla-repro run fig2b --preset smoke --device cuda --processes 1 --budget 14100s --share \
--where method=hyla --again
"""


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hyla-repro", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "workers=0 is out of range: use 1 or more"),
        (["--cpus", "0"], "cpus=0 is out of range: use 1 or more"),
        (["--gpus", "2"], "gpus=2 is out of range: use 0 to 1; a worker trains on one GPU, so ask for more workers"),
        (["--time", "4:00:00"], "time='4:00:00' is not a time: write a number and s, m or h"),
        (["--margin", "five"], "margin='five' is not a time"),
        (["--time", "4m"], "time of 240 s leaves no budget: it must be a minute at least, and longer than the margin"),
        (["--time", "30s", "--margin", "1s"], "time of 30 s leaves no budget"),
        (["--cluster", "slrm"], "unknown cluster 'slrm': did you mean 'slurm'?"),
        (["--option", "account"], "option 'account' is none of sbatch: write KEY=VALUE"),
        (["--where", "method=hila"], "unknown method 'hila': did you mean 'hyla'?"),
        ([], "workers cannot share"),
        (["--shared"], "no Slurm here (sbatch is not on PATH): submit from a login node, or choose --cluster local"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(
    words: list[str], message: str, runs: Path, program: Put, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", "")
    assert call(monkeypatch, "submit", "fig2b", "--workers", "2", "--time", "4h", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not runs.exists()
    assert not list(submitted())


def test_an_unknown_partition_is_named_with_those_that_there_are(
    runs: Path, program: Put, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program("sbatch", "exit 1")
    words = ("submit", "fig2b", "--workers", "2", "--time", "4h", "--shared", "--partition", "gpuu")
    program("sinfo", "printf 'cpu\\ngpu\\ngpu\\n'")
    assert call(monkeypatch, *words) == 2
    expected = "error: unknown partition 'gpuu': did you mean 'gpu'? allowed are cpu, gpu\n"
    assert capsys.readouterr().err == expected
    program("sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    assert call(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("error: Slurm does not answer (sinfo: slurm_load_partitions: Unable to ")


def test_without_submitit_the_extra_is_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call(monkeypatch, "submit", "fig2b", "--workers", "2", "--time", "4h", "--shared") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`pip install hyla-repro[cluster]`; the script of --print-sbatch works without it" in line


@pytest.mark.parametrize(
    ("path", "system"), [("/home/me/runs", "ext4"), ("/scratch/me", "nfs4"), ("/scratch/fast lane/x", "tmpfs")]
)
def test_the_file_system_of_a_folder_is_that_of_the_closest_mount(path: str, system: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    lines = [
        "/dev/sda / overlay rw",
        "/dev/sdb / ext4 rw",
        "server:/x /scratch nfs4 rw",
        "x /scratch/fast\\040lane tmpfs rw",
    ]
    mounts.write_text("\n".join(lines))
    assert file_system(Path(path), mounts) == system
    if system == "tmpfs":
        with pytest.raises(ValueError, match="a file system of type tmpfs is each node's own"):
            require_shared(Path(path), mounts)
    else:
        require_shared(Path(path), mounts)
    assert file_system(Path(path), tmp_path / "none") is None


@pytest.mark.parametrize("path", ["/tmp/runs", "/var/tmp/x/runs", "/dev/shm/runs"])
def test_folders_that_every_node_has_for_itself_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"workers cannot share .*: every node has a /\S+ of its own.*HYLA_REPRO_RUNS"):
        require_shared(Path(path))


def test_the_script_is_plain(make_submission: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", "/shared/runs")
    monkeypatch.setenv("HYLA_REPRO_TEXTS", "/shared/texts")
    monkeypatch.delenv("HYLA_REPRO_ROOT", raising=False)
    submission = make_submission(gpus=1, partition="gpu", options=("account=physics",))
    script = submission.script(Path("/shared/submissions/first"), ["hyla-repro"])
    assert script == SCRIPT.replace("PYTHON", sys.executable)


@pytest.mark.parametrize("variable", ["SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX", "LSB_JOBINDEX", "JOB_COMPLETION_INDEX"])
def test_other_schedulers_give_the_number_of_a_worker(
    variable: str, make_submission: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_submission().write(tmp_path / "submissions")
    monkeypatch.setenv(variable, "3")
    script = make_submission(where=("method=hyla deep",)).script(folder, ["echo"])
    subprocess.run(["bash", "-c", script], check=True)
    said = (
        "run fig2b --preset smoke --device cpu --processes 1 --budget 14100s --share --where method=hyla deep --again\n"
    )
    assert (folder / "worker-3.log").read_text() == said


def test_a_record_is_read_as_it_was_written(make_submission: Make, tmp_path: Path) -> None:
    submission = make_submission(options=("mem=8G",), flop_before=3.0)
    folders = [submission.write(tmp_path / "submissions") for _ in range(3)]
    assert len(set(folders)) == 3
    assert [read(folder) for folder in folders] == [submission] * 3
    assert sorted(submitted(tmp_path / "submissions")) == sorted(folders)


def test_a_dry_run_says_what_it_would_be_and_starts_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("submit", "fig4", "--preset", "paper", "--workers", "8", "--time", "4h", "--gpus", "1", "--shared")
    assert call(monkeypatch, *words, "--dry-run") == 0
    first, second, *hours = capsys.readouterr().out.splitlines()
    assert first.startswith("1080 runs of fig4 at preset paper, in ")
    assert second == "8 workers, each with 1 core and 1 GPU, for 3.92 h at a time, on the default partition"
    assert "about 360.0 h of a GPU, at least as the papers report; 45.0 h for each worker" in hours
    assert not list(submitted())


def test_one_array_is_submitted_and_only_strings_travel(
    make_submission: Make, program: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    program("srun", "")
    called = program("sbatch", 'cp "$1" "$0.script"; echo Submitted batch job 7')
    submission = make_submission(gpus=1, partition="gpu", options=("mem=8G",))
    folder = submission.write(tmp_path / "submissions")
    assert launch(submission, folder, ["hyla-repro"]) == "submitted job 7, an array of 2"
    assert len(called.read_text().splitlines()) == 1
    script = (called.parent / "sbatch.script").read_text()
    for option in (
        "array=0-1%2",
        "time=240",
        "signal=USR2@150",
        "requeue",
        "partition=gpu",
        "gpus-per-node=1",
        "mem=8G",
    ):
        assert f"#SBATCH --{option}\n" in script
    pickles = sorted(folder.glob("submitit/*.pkl"))
    assert [path.name for path in pickles] == ["7_0_submitted.pkl", "7_1_submitted.pkl"]
    for path in pickles:
        named = [argument for operation, argument, _ in pickletools.genops(path.read_bytes())
                 if operation.name in ("SHORT_BINUNICODE", "BINUNICODE", "GLOBAL")]  # fmt: skip
        modules = {word for word in named if word.startswith(("hyla_repro", "submitit"))}
        assert modules == {"submitit.core.utils", "hyla_repro.cluster.worker"}
        assert "--budget" in named


def test_what_sbatch_refuses_is_one_line(make_submission: Make, program: Put, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    program("srun", "")
    program("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(ValueError, match=r"^sbatch refused: .*Invalid account"):
        launch(make_submission(), make_submission().write(tmp_path / "submissions"), ["hyla-repro"])


# submitit leaves its processes alone, as it should: they outlive the command that started them.
@SUBMITIT_LEAVES
def test_local_workers_are_processes_of_this_machine(make_submission: Make, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    submission = make_submission(cluster="local")
    folder = submission.write(tmp_path / "submissions")
    assert launch(submission, folder, ["echo"]) == "started 2 processes"
    deadline = time.monotonic() + 120
    while not all((note := read_note(folder, index)) and note.state == "done" for index in ("0", "1")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (folder / "worker-1.log").read_text().startswith("run fig2b --preset smoke")


# And the log files of this executor open.
@SUBMITIT_LEAVES
def test_a_worker_for_the_debugger_trains_in_this_very_process(
    run: Experiment, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: [run]),))])
    words = ("submit", "fig2c", "--workers", "2", "--time", "10m", "--cluster", "debug")
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert said.count("1 of 1 runs of fig2c at preset smoke are finished") == 2
    assert "2 workers ran here, one after the other, and left with 0, 0" in said
    assert Ledger().state(run) == "done"
    assert call(monkeypatch, *words) == 0
    assert capsys.readouterr().out == "nothing is missing of fig2c at preset smoke\n"
