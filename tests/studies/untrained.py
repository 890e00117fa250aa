"""Score the initial weights of committed runs that untrained_scores.csv lacks: `python tests/studies/untrained.py`.

Scores are means over 500 sequences of each evaluation split, the loss of the paper's two tasks one of 512 training
sequences, both to four digits.
"""

import io
from pathlib import Path

import pandas as pd
import torch

from hyla_repro.experiment import Experiment
from hyla_repro.files import write_atomically
from hyla_repro.results.store import Store
from hyla_repro.studies import experiments
from hyla_repro.training.stack import CHUNK, Stack

TABLE = Path(__file__).parent / "untrained_scores.csv"
_SEQUENCES = 512


def untrained(run: Experiment) -> dict[str, float]:
    """Return the scores of a run's initial weights, and on synthetic tasks their loss on training sequences."""
    stack = Stack([run], "cpu")
    (scores,) = stack.evaluate(CHUNK)
    if run.task_name in ("fuzzy_logic", "sraven"):
        named, task = stack._named(stack.weights[0]), stack.task
        tables = {name: table[0] for name, table in stack.tables("train").items()}
        with torch.no_grad():
            batch = task.draw("train", tables, 0, _SEQUENCES)
            scores["train_loss"] = task.loss(stack._read_out(named, batch), batch).item()
    return {name: float(f"{value:.4g}") for name, value in scores.items()}


def main() -> None:
    """Add the rows that are missing, in the order of the tables of runs."""
    table = pd.read_csv(TABLE, dtype=str)  # rows that are there keep their digits
    committed = Store(committed_only=True).committed_runs()
    runs = {run.id: run for preset in ("laptop", "paper") for run in experiments("all", preset)}
    new = [name for name in runs if name in committed and name not in set(table["id"])]
    rows = [pd.DataFrame([{"id": name, **untrained(runs[name])}]) for name in new]
    with io.StringIO() as text:
        pd.concat([table, *rows], ignore_index=True).to_csv(text, index=False)
        write_atomically(TABLE, text.getvalue().encode())
    print(f"{len(rows)} rows added to {TABLE.name}")


if __name__ == "__main__":
    main()
