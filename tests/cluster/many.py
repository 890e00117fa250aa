"""A study of runs so small that dozens train in seconds, which writes down what it does; its file is a command line.

SLOWLY makes every step take so many seconds. With MANY_TRACE, a file, each step and each result is a line of it: pid,
host, what, run, step.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from toy_study import runs as toys

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger

STEPS = {"forty": 20, "four": 40, "one": 40}


def of(figure: str) -> list[Experiment]:
    """Return as many runs as the figure's name says."""
    count = {"forty": 40, "four": 4, "one": 1}[figure]
    return [toys("smoke")[0].model_copy(update={"seed": 100 + seed, "steps": STEPS[figure]}) for seed in range(count)]


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


studies.add(
    studies.Study("many", "Many", tuple(studies.Chapter(name, lambda preset, name=name: of(name)) for name in STEPS))
)

if __name__ == "__main__":
    if "run" in sys.argv[:2]:
        watched()
    main()
