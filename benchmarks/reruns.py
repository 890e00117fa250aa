"""Train committed runs again where arithmetic rounds differently, and put their scores beside the committed ones.

Settings, seed, data and dropout masks are the same bits; what differs is the order of sums that an instruction set or
the compiler chooses, and what training makes of it. Every kind of rounding has runs of its own in `--folder`, which go
on where they stopped; nothing is read from or written to the folder of runs.

    python benchmarks/reruns.py 8089efe56ba4 25045066d752 --instruction-set avx2 --out reruns.csv
    python benchmarks/reruns.py 8089efe56ba4 --eager --out reruns.csv
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import pandas as pd
import torch
import typer
from conclude import FACTS

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.presets import PRESETS, experiments
from hyla_repro.results import Store
from hyla_repro.training import loop

# What torch can be told to use, for its kernels and for what its compiler writes; MKL's products choose by themselves.
INSTRUCTION_SETS = ("default", "avx2", "avx512")
_TOLD = "ATEN_CPU_CAPABILITY"
_SETTINGS = ("id", "task", "variant", "seed", "n_examples", "heldout_fraction", "steps")
_KEY = ("id", "instruction_set", "compiled", "torch", "commit")


def chosen(ids: list[str]) -> list[Experiment]:
    """Return the runs of these identities.

    Raises: typer.BadParameter for one that no preset has, or that has no committed result.
    """
    runs = {run.id: run for preset in PRESETS for run in experiments("all", preset)}
    committed = Store(committed_only=True).committed_runs()
    for identity in ids:
        if identity not in runs or identity not in committed:
            where = "among the runs of the presets" if identity in committed else "committed"
            raise typer.BadParameter(f"{identity} is not {where}: take the id of a row of data/runs.csv")
    return [runs[identity] for identity in dict.fromkeys(ids)]


def retold(instruction_set: str | None) -> None:
    """Start this process anew if torch was not told this instruction set, which it reads only once.

    Raises: typer.BadParameter for one that torch does not know, or that it did not take.
    """
    if instruction_set is None:
        return
    if instruction_set not in INSTRUCTION_SETS:
        raise typer.BadParameter(f"{instruction_set!r} is none of {', '.join(INSTRUCTION_SETS)}")
    if os.environ.get(_TOLD) != instruction_set:
        os.environ[_TOLD] = instruction_set
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if (taken := torch.backends.cpu.get_cpu_capability()).lower() != instruction_set:
        raise typer.BadParameter(f"torch takes {taken} on this machine, not {instruction_set}")


def row(run: Experiment, result: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the table: the run, how it was rounded, its scores, and the committed ones."""
    facts, committed = result["provenance"], Store(committed_only=True).committed_runs()[run.id]
    settings = {name: value for name, value in run.row().items() if name in _SETTINGS}
    scores = {"test": result["scores"]["test"], "heldout": result["scores"]["heldout"]}
    before = {f"committed_{name}": committed[name] for name in (*scores, "instruction_set", "commit")}
    return settings | {"compiled": facts["compiled"]} | scores | before | {"minutes": result["minutes"]} | {
        name: facts[name] for name in FACTS
    }  # fmt: skip


def merged(before: pd.DataFrame, new: dict[str, Any]) -> pd.DataFrame:
    """Return the table with this line, in the place of one of the same run, rounding and commit."""
    same = [list(map(str, values)) == [str(new[name]) for name in _KEY] for values in before[list(_KEY)].to_numpy()]
    return pd.concat([before[[not is_same for is_same in same]], pd.DataFrame([new])], ignore_index=True)


def main(
    ids: Annotated[list[str], typer.Argument(help="identities of committed runs")],
    instruction_set: Annotated[str | None, typer.Option(help=f"one of {', '.join(INSTRUCTION_SETS)}")] = None,
    eager: Annotated[bool, typer.Option("--eager", help="do not compile the step")] = False,
    folder: Path = Path("reruns"),
    out: Path | None = None,
) -> None:
    """Train the runs one after the other on one thread, printing and storing a line for each as it ends."""
    runs = chosen(ids)
    retold(instruction_set)
    torch.set_num_threads(1)
    available = loop.compiler_available
    name = f"{torch.backends.cpu.get_cpu_capability()}-{'eager' if eager else 'compiled'}".lower().replace(" ", "-")
    ledger = Ledger(folder / name)
    for run in runs:
        with patch.object(loop, "compiler_available", lambda device: not eager and available(device)):
            loop.train([run], ledger, progress=sys.stderr.isatty())
        line = row(run, ledger.result(run))
        print("  ".join(f"{name}={line[name]}" for name in ("id", "variant", "seed", "test", "heldout")), flush=True)
        if out is not None:
            table = merged(pd.read_csv(out, dtype={"id": str}), line) if out.exists() else pd.DataFrame([line])
            table.to_csv(out, index=False)


if __name__ == "__main__":
    typer.run(main)
