"""Promise 6: of processes that race for a run one trains it, the others say who, and leave with a code of their own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]
Count = Callable[[bool], None]

RACER = """
import json, sys, time
from hyla_repro.studies import STUDIES, Chapter, Study
from hyla_repro.training import loop
from hyla_repro.cli import main
from hyla_repro.experiment import Experiment
from hyla_repro.training.stack import Stack
run = [Experiment.model_validate(json.loads(sys.argv[1]))]
STUDIES[:] = [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: run),))]
advance, until = Stack.advance, float(sys.argv[2])

def slowly(self):
    time.sleep(0.1)
    advance(self)

Stack.advance = slowly
time.sleep(max(0.0, until - time.time()))
sys.argv[:] = ["hyla-repro", "run", "fig2c", "--processes", "1"]
main()
"""


def test_promise_06_of_eight_racers_one_trains(run: Experiment, ledger: Ledger, count: Count) -> None:
    command = [sys.executable, "-c", RACER, json.dumps(run.model_dump(mode="json")), str(time.time() + 20)]
    environment = os.environ | {"HYLA_REPRO_RUNS": str(ledger.root), "OMP_NUM_THREADS": "1"}
    # Groups of their own, as started from eight terminals.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
    racers = [subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) for _ in range(8)]
    said = [racer.communicate(timeout=240)[0] for racer in racers]
    codes = [racer.returncode for racer in racers]
    (winner,) = [index for index, code in enumerate(codes) if code == 0]
    assert ledger.state(run) == "done"
    for index, words in enumerate(said):
        named = re.search(rf"{run.id}\) is being trained by process {racers[winner].pid} on \S+ since \d", words)
        count(index == winner or (codes[index] == 75 and named is not None))
