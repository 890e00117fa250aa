"""Time what comes before any training: `hyla-repro status`, and a look at a ledger of ten thousand runs.

python benchmarks/start_up.py --out start_up.csv
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import typer
from conclude import conclude

from hyla_repro.ledger.runs import CURVE, MODEL, Ledger
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic


def command(*arguments: str, runs: str) -> Callable[[], object]:
    """Return a call that runs a command in a process of its own, on a folder of runs."""
    environment = os.environ | {"HYLA_REPRO_RUNS": runs}
    return lambda: subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call, after one that fills the system's caches."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def main(folders: int = 10_000, repeats: int = 5, out: Path | None = None) -> None:
    """Print the seconds of each."""
    base = fuzzy_logic("laptop", "hyla", 0)
    runs = [base.model_copy(update={"seed": seed}) for seed in range(folders)]
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        ledger = Ledger(Path(full))
        for run in runs:
            ledger.commit(run, {MODEL: b"weights", CURVE: b"step\n"}, {"scores": {"heldout": 0.5}, "minutes": 1.0})
        rows = [
            ("start Python", seconds(command("-c", "", runs=empty), repeats)),
            ("`hyla-repro status`", seconds(command("-m", "hyla_repro", "status", runs=empty), repeats)),
            ("import torch", seconds(command("-c", "import torch", runs=empty), repeats)),
            (f"states of {folders} finished runs", seconds(lambda: ledger.states(runs), repeats)),
        ]
    conclude(pd.DataFrame(rows, columns=["what", "seconds"]), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
