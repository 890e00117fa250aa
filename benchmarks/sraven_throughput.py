"""Count how many SRAVEN problems are drawn and solved in a second, at the paper's K = 4 and F = 8.

With one thread, `--cpu-time` counts the process's own time, which waiting for a busy core does not lengthen.

    python benchmarks/sraven_throughput.py --threads 2
"""

import os
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from conclude import conclude
from torch import Tensor

from hyla_repro.tasks import SRaven
from hyla_repro.tasks.sraven import answer_sets
from hyla_repro.training.process import keep_freed_memory
from hyla_repro.training.provenance import compiler_available

BATCH, LARGE, SOLVED = 128, 4096, 512


def make_draw(task: SRaven, size: int, compiled: bool) -> Callable[[], object]:
    """Return a call that draws the next batch, compiled by itself as it is compiled into the step."""
    tables, clock = task.tables("train"), torch.zeros((), dtype=torch.int64)

    def draw(clock: Tensor) -> object:
        return task.draw("train", tables, clock, size)

    program = torch.compile(draw) if compiled else draw
    return lambda: program(clock.add_(1))


def milliseconds(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Return the median time of a call, after three that compile and fill caches."""
    seconds = []
    for _ in range(repeats + 3):
        start = clock()
        call()
        seconds.append(clock() - start)
    return 1e3 * median(seconds[3:])


def main(threads: int = 1, repeats: int = 20, cpu_time: bool = False, out: Path | None = None) -> None:
    """Print one line per call that is timed; `--threads 0` uses all cores."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if cpu_time and torch.get_num_threads() > 1:
        raise typer.BadParameter("--cpu-time adds up all threads: use it with --threads 1")
    clock = time.process_time if cpu_time else time.perf_counter
    keep_freed_memory()
    task = SRaven()
    inputs = task.batch("test", 0, SOLVED).inputs
    modes = ["eager", "compiled"] if compiler_available("cpu") else ["eager"]
    calls = [(f"draw, {mode}", size, make_draw(task, size, mode == "compiled"))
             for mode, size in product(modes, (BATCH, LARGE))]  # fmt: skip
    calls.append(("find all answers", SOLVED, lambda: answer_sets(task, inputs)))
    rows = []
    for name, size, call in calls:
        time_ms = milliseconds(call, repeats, clock)
        rows.append({"call": name, "problems": size, "ms": time_ms, "problems_per_s": 1e3 * size / time_ms})
    conclude(pd.DataFrame(rows).assign(clock=clock.__name__), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
