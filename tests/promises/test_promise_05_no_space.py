"""Promise 5: where nothing can be written, a clear message, an exit code, what was saved before, and no litter."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import RESULT, Ledger

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]
Count = Callable[[bool], None]

# The command line on runs of this test's own; a checkpoint after every step.
COMMAND = """
import json, sys
from hyla_repro.studies import STUDIES, Chapter, Study
from hyla_repro.training import loop
from hyla_repro.experiment import Experiment
runs = [Experiment.model_validate(run) for run in json.loads(sys.argv[1])]
STUDIES[:] = [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: runs),))]
loop._CHECKPOINT_SECONDS = 0.0
sys.argv[:] = ["hyla-repro", "run", "fig2c", "--processes", "1"]
from hyla_repro.cli import main
main()
"""


def command(root: Path, runs: list[Experiment]) -> subprocess.CompletedProcess[str]:
    settings = json.dumps([run.model_dump(mode="json") for run in runs])
    environment = os.environ | {"HYLA_REPRO_RUNS": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, settings], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of a few kilobytes."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"{kilobytes}k"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True
        )
        if done.returncode:
            pytest.skip("only root may mount a small file system")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "sizes", [[28, 48], pytest.param([4, 8, 16, 24, 32, 40, 48, 56, 64, 72], marks=pytest.mark.promises)], ids=len
)
def test_promise_05_a_full_disk_is_named_and_leaves_what_was_saved(
    sizes: list[int], small_disk: Callable[[int], Path], make_run: Make, count: Count
) -> None:
    run = make_run()
    for size in sizes:
        root = small_disk(size)
        full = command(root, [run])
        folder = Ledger(root).folder(run)
        sound, damaged = Ledger(root).load_checkpoints(run)
        litter = [path.name for path in folder.glob(".*")] if folder.exists() else []
        named = "No space left on device" in full.stderr and len(full.stderr.strip().splitlines()[-1]) < 600
        kept = full.returncode == 74 and named and not damaged and not litter and not (folder / RESULT).exists()
        # With space again the same command goes on from what was saved.
        subprocess.run(["mount", "-o", "remount,size=8m", root], check=True)
        count(kept and command(root, [run]).returncode == 0 and Ledger(root).state(run) == "done" and len(sound) <= 2)


def test_promise_05_a_folder_that_cannot_be_written_is_named(make_run: Make, tmp_path: Path, count: Count) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path / "file" / "runs", [make_run()])
    count(done.returncode != 0 and str(tmp_path / "file") in done.stderr and "Traceback" not in done.stderr)
