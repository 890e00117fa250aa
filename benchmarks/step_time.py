"""Time a training step as it is run, against its own matrix products alone and against drawing its batch.

The products are those that the model cannot do without: for each one of the forward pass also the two of the backward
pass (one where the input needs no gradient), with the model's own shapes. They are timed as plain torch.mm and
torch.bmm on random data, in turn with the steps, so that a busy machine slows both alike. The ratio says what is paid
on top. With one thread, `--cpu-time` counts the process's own time, which waiting for a busy core does not lengthen.

Two shapes: the fuzzy-logic runs of the book at N = 32, and the paper's smallest model on SRAVEN (4 layers, 36 tokens,
16 heads).

    python benchmarks/step_time.py --threads 1 --out step_time.csv
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

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import METHODS
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.studies.sraven.runs import sraven
from hyla_repro.training.plan import forward_products, step_flop
from hyla_repro.training.process import keep_freed_memory
from hyla_repro.training.provenance import compiler_available
from hyla_repro.training.stack import Stack


def make_products(run: Experiment) -> Callable[[], None]:
    """Return a call that does all products of one training step, forward and backward, and nothing else."""

    def multiply(left: Tensor, right: Tensor) -> Callable[[], Tensor]:
        return lambda: torch.mm(left[0], right[0]) if len(left) == 1 else torch.bmm(left, right)

    calls = []
    for b, m, k, n in forward_products(run):
        left, right, gradient = torch.randn(b, m, k), torch.randn(b, k, n), torch.randn(b, m, n)
        calls += [multiply(left, right), multiply(left.mT, gradient)]
        if k != run.model.n_inputs:  # the embedding's input needs no gradient
            calls.append(multiply(gradient, right.mT))

    def all_products() -> None:
        for call in calls:
            call()

    return all_products


def make_batches(run: Experiment, compiled: bool) -> Callable[[], object]:
    """Return a call that draws the next batch, compiled by itself as it is compiled into the step."""
    task = run.build_task()
    tables, clock = task.tables("train"), torch.zeros((), dtype=torch.int64)

    def draw(clock: Tensor) -> object:
        return task.draw("train", tables, clock, run.batch_size)

    program = torch.compile(draw) if compiled else draw
    return lambda: program(clock.add_(1))


SHAPES: dict[str, Callable[[str], Experiment]] = {
    "fuzzy logic, N = 32": lambda variant: fuzzy_logic("laptop", variant, 0, n_examples=32),
    "SRAVEN, 4 layers": lambda variant: sraven("paper", variant, 0),
}


def measure(
    shape: str, variant: str, repeats: int, compiled: bool, clock: Callable[[], float]
) -> dict[str, float | str]:
    """Return medians in milliseconds over `repeats` rounds of step, products and batch in turn."""
    run = SHAPES[shape](variant)
    modes = {"eager": Stack([run], use_compiler=False)}
    if compiled:
        modes["compiled"] = Stack([run], use_compiler=True)
    calls: dict[str, Callable[[], object]] = {name: stack.advance for name, stack in modes.items()}
    calls["products"] = make_products(run)
    calls["batch"] = make_batches(run, compiled)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 5):
        for name, call in calls.items():
            start = clock()
            call()
            if round_ >= 5:  # the first rounds compile and fill caches
                seconds[name].append(clock() - start)
    times = {f"{name}_ms": 1e3 * median(values) for name, values in seconds.items()}
    best = min(times[f"{mode}_ms"] for mode in modes)
    ratios = {f"{mode}_per_products": times[f"{mode}_ms"] / times["products_ms"] for mode in modes}
    gflop = {"gflop": step_flop(run) / 1e9}
    share = {"batch_per_step": times["batch_ms"] / best}
    return {"shape": shape, "variant": variant, **times, **ratios, **share, **gflop}


def main(
    threads: int = 1, repeats: int = 40, compiled: bool = True, cpu_time: bool = False, out: Path | None = None
) -> None:
    """Print one line per method; `--threads 0` uses all cores."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    compiled = compiled and compiler_available("cpu")
    keep_freed_memory()
    if cpu_time and torch.get_num_threads() > 1:
        raise typer.BadParameter("--cpu-time adds up all threads: use it with --threads 1")
    clock = time.process_time if cpu_time else time.perf_counter
    rows = []
    for shape, variant in product(SHAPES, METHODS):
        rows.append(measure(shape, variant, repeats, compiled, clock))
        torch.compiler.reset()
    conclude(pd.DataFrame(rows).assign(clock=clock.__name__), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
