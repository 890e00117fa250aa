"""Time a step of stacks of runs, and hold it against what the device can copy and multiply.

For every stack size: milliseconds a step, runs x steps a second, and which part of the device's rates is used. The
ceilings are measured in the same process: a large product in the stacks' own precision, and a large copy. Traffic
counts the weights, moments and gradients that AdamW reads and writes, without activations: a lower bound.

    python benchmarks/stack_size.py --device cuda --sizes 1,4,12,36 --out stack_size.csv
"""

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from conclude import conclude

from hyla_repro.experiment import Experiment
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.training.plan import step_flop
from hyla_repro.training.process import keep_freed_memory
from hyla_repro.training.provenance import compiler_available
from hyla_repro.training.stack import Stack

_PASSES_OVER_WEIGHTS = 8  # AdamW: weights and both moments read and written, gradients written and read


def timer(device: str) -> Callable[[Callable[[], object], int], float]:
    """Return a function that gives the seconds of one of `count` calls, after the device has finished them."""

    def measure(call: Callable[[], object], count: int) -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        for _ in range(count):
            call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) / count

    return measure


def ceilings(device: str) -> dict[str, float]:
    """Return what the device multiplies (GFLOP/s, float32) and copies (GB/s, read and write counted)."""
    side, words, measure = (8192, 1 << 28, timer(device)) if device != "cpu" else (2048, 1 << 24, timer(device))
    left, right = (torch.randn(side, side, device=device) for _ in range(2))
    source, target = (torch.zeros(words, device=device) for _ in range(2))
    calls = {"gemm": lambda: torch.mm(left, right), "copy": lambda: target.copy_(source)}
    seconds = {name: min(measure(call, 3) for _ in range(5)) for name, call in calls.items()}
    return {"gemm_gflops": 2 * side**3 / seconds["gemm"] / 1e9, "copy_gbs": 8 * words / seconds["copy"] / 1e9}


def runs_of(variant: str, count: int) -> list[Experiment]:
    """Return runs as the paper's grid has them: fractions held out, learning rates, decays and seeds."""
    seeds = range(-(-count // 12))
    settings = list(product(seeds, (0.3, 0.5, 0.7), (1e-3, 3e-3), (0.1, 0.03)))[:count]
    return [fuzzy_logic("paper", variant, seed, 32, heldout, (rate, decay))
            for seed, heldout, rate, decay in settings]  # fmt: skip


def main(
    device: str = "cpu", sizes: str = "1,2,4", steps: int = 20, rounds: int = 5, compiled: bool = True,
    variants: str = "softmax,linear,hyla", out: Path | None = None,
) -> None:  # fmt: skip
    """Print one line per method and stack size."""
    torch.set_num_threads(1)
    keep_freed_memory()
    compiled = compiled and compiler_available(device)
    limits, measure, rows = ceilings(device), timer(device), []
    for variant in variants.split(","):
        stacks = {size: Stack(runs_of(variant, size), device, compiled) for size in map(int, sizes.split(","))}
        for stack in stacks.values():
            measure(stack.advance, 3)  # compiles, and captures
        # In turn, so that a busy machine slows all sizes alike.
        seconds: dict[int, list[float]] = {size: [] for size in stacks}
        for _, (size, stack) in product(range(rounds), stacks.items()):
            seconds[size].append(measure(stack.advance, steps))
        for size, stack in stacks.items():
            second = median(seconds[size])
            gflops = size * step_flop(stack.runs[0]) / second / 1e9
            traffic = 4 * _PASSES_OVER_WEIGHTS * stack.weights.numel() / second / 1e9
            rows.append({
                "variant": variant, "runs": size, "step_ms": 1e3 * second, "run_steps_per_s": size / second,
                "of_gemm": gflops / limits["gemm_gflops"], "of_copy": traffic / limits["copy_gbs"],
            })  # fmt: skip
    conclude(pd.DataFrame(rows).assign(**limits, compiled=compiled), device, out)


if __name__ == "__main__":
    typer.run(main)
