"""Count how many SRAVEN problems are drawn and solved in a second, and what a batch costs of a training step.

With one thread, `--cpu-time` counts the process's own time, which waiting for a busy core does not lengthen.

    python benchmarks/sraven_throughput.py --threads 2
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from torch import Tensor

from hyla_repro.experiment import Experiment
from hyla_repro.process import keep_freed_memory
from hyla_repro.provenance import compiler_available, device_name
from hyla_repro.settings import TransformerConfig
from hyla_repro.stack import Stack
from hyla_repro.tasks import SRaven
from hyla_repro.tasks.sraven import answer_sets

BATCH, LARGE, SOLVED = 128, 4096, 512


def training_run(variant: str) -> Experiment:
    """Return the paper's smallest SRAVEN model: four layers, width 128, 16 heads."""
    model = TransformerConfig(
        variant=variant, n_layers=4, d_model=128, n_heads=16, qk_dim=64, v_dim=64, d_ff=256, n_positions=36,
        n_inputs=8, n_outputs=8,
    )  # fmt: skip
    task = {"n_features": 4, "n_values": 8, "grid_size": 3, "heldout_fraction": 0.25}
    return Experiment(
        task_name="sraven", task=task, model=model, steps=156_250, batch_size=BATCH, learning_rate=1e-3,
        weight_decay=0.1, warmup_steps=1000, attention_dropout=0.1, evaluation_sequences=1000, seed=0,
    )  # fmt: skip


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


def main(
    threads: int = 1,
    repeats: int = 20,
    compiled: bool = True,
    steps: bool = True,
    compiled_steps: bool = False,
    cpu_time: bool = False,
    out: Path | None = None,
) -> None:
    """Print one line per call that is timed; `--threads 0` uses all cores, `--no-steps` leaves training out."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if cpu_time and torch.get_num_threads() > 1:
        raise typer.BadParameter("--cpu-time adds up all threads: use it with --threads 1")
    compiled, clock = compiled and compiler_available("cpu"), time.process_time if cpu_time else time.perf_counter
    keep_freed_memory()
    task = SRaven()
    inputs = task.batch("test", 0, SOLVED).inputs
    rows = []
    for mode in ("eager", "compiled")[: 1 + compiled]:
        for size in (BATCH, LARGE):
            time_ms = milliseconds(make_draw(task, size, mode == "compiled"), repeats, clock)
            rows.append({"call": f"draw {size}, {mode}", "ms": time_ms, "problems_per_s": 1e3 * size / time_ms})
    time_ms = milliseconds(lambda: answer_sets(task, inputs), repeats, clock)
    rows.append({"call": f"solve {SOLVED}", "ms": time_ms, "problems_per_s": 1e3 * SOLVED / time_ms})
    batch_ms = rows[2 if compiled else 0]["ms"]
    for variant in ("softmax", "linear", "hyla") if steps else ():
        stack = Stack([training_run(variant)], use_compiler=compiled_steps)
        time_ms = milliseconds(stack.advance, repeats, clock)
        rows.append({"call": f"step, {variant}", "ms": time_ms, "batch_per_step": batch_ms / time_ms})
    table = pd.DataFrame(rows).assign(threads=torch.get_num_threads(), clock=clock.__name__, device=device_name("cpu"))
    print(table.drop(columns="device").to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    if out is not None:
        table.to_csv(out, index=False)


if __name__ == "__main__":
    typer.run(main)
