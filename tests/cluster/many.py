"""A study of runs so small that dozens train in seconds, which writes down what it does; its file is a command line.

SLOWLY makes every step take so many seconds. With MANY_TRACE, a file, each step and each result is a line of it: pid,
host, what, run, step.
"""

import os
import socket
import sys
import time
from typing import Any

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic

# Runs and steps of each figure.
FIGURES = {"forty": (40, 20), "four": (4, 40), "one": (1, 40)}


def of(figure: str) -> list[Experiment]:
    """Return as many runs as the figure's name says."""
    count, steps = FIGURES[figure]
    run = fuzzy_logic("smoke", "linear", 0)
    sizes = {
        "n_layers": 1,
        "d_model": 8,
        "n_heads": 2,
        "qk_dim": 4,
        "v_dim": 4,
        "d_ff": 8,
        "n_positions": 7,
        "n_inputs": 4,
    }
    small = {
        "task": {"n_variables": 3, "n_terms": 2, "n_examples": 7, "heldout_fraction": 0.5},
        "model": run.model.model_copy(update=sizes), "steps": steps, "batch_size": 5, "warmup_steps": 3,
        "evaluation_sequences": 23,
    }  # fmt: skip
    return [
        Experiment.model_validate(run.model_copy(update=small | {"seed": seed}).model_dump()) for seed in range(count)
    ]


def trace(what: str, run: Experiment, step: int) -> None:
    if "MANY_TRACE" in os.environ:
        # One write to a file that is only appended to: lines of several processes do not mix.
        with open(os.environ["MANY_TRACE"], "ab", buffering=0) as file:
            file.write(f"{os.getpid()} {socket.gethostname()} {what} {run.id} {step}\n".encode())


def watched() -> None:
    """Trace training, and slow it down. torch is imported here: `submit` and `status` do without it."""
    from hyla_repro.training.stack import Stack

    advance, commit = Stack.advance, Ledger.commit

    def slowly(stack: Stack) -> None:
        time.sleep(float(os.environ.get("SLOWLY", "0")))
        advance(stack)
        for run in stack.runs:
            trace("step", run, stack.step)

    def traced(ledger: Ledger, run: Experiment, *arguments: Any) -> None:
        commit(ledger, run, *arguments)
        trace("result", run, run.steps)

    Stack.advance, Ledger.commit = slowly, traced


if __name__ == "__main__":
    chapters = [studies.Chapter(name, lambda preset, name=name: of(name)) for name in FIGURES]
    studies.add(studies.Study("many", "Many", tuple(chapters)))
    if sys.argv[1] == "run":
        watched()
    main()
