"""Train committed runs again where arithmetic rounds differently, and put their scores beside the committed ones.

Settings, seed, data and dropout masks are the same bits; what differs is the order of sums that an instruction set or
the compiler chooses, and what training makes of it. Every kind of rounding has runs and a compiler's cache of its own
in `--folder`; runs go on where they stopped, and nothing is read from or written to the folder of runs.

    python benchmarks/reruns.py 8089efe56ba4 25045066d752 --instruction-set avx2 --out reruns.csv
    python benchmarks/reruns.py 8089efe56ba4 --eager --out reruns.csv

With `--steps` only that many are taken, which a twentieth of a run must divide, and scores are compared with those of
the committed curve at that step.
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import pandas as pd
import torch
import typer
from conclude import FACTS

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import table_name
from hyla_repro.ledger.runs import Ledger
from hyla_repro.results.store import CURVES, Store
from hyla_repro.studies import PRESETS, experiments
from hyla_repro.training import loop
from hyla_repro.training.process import keep_freed_memory
from hyla_repro.training.provenance import compiler_available, provenance
from hyla_repro.training.stack import Stack

# What torch can be told to use, for its kernels and for what its compiler writes; MKL's products choose by themselves.
INSTRUCTION_SETS = ("default", "avx2", "avx512")
_TOLD = "ATEN_CPU_CAPABILITY"
_SETTINGS = ("id", "task", "variant", "seed", "n_examples", "heldout_fraction")
_SCORES = ("test", "heldout")
_KEY = ("id", "steps", "instruction_set", "compiled", "torch", "commit")
_CURVE_SEQUENCES = 1000


def chosen(ids: list[str]) -> list[Experiment]:
    """Return the runs of these identities.

    Raises: typer.BadParameter for one that no preset has, or that has no committed result.
    """
    runs = {run.id: run for preset in PRESETS for run in experiments("all", preset)}
    rows = Store(committed_only=True).committed_runs()
    for identity in ids:
        if identity not in runs or identity not in rows:
            where = "among the runs of the presets" if identity in rows else "committed"
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


def committed(run: Experiment, steps: int) -> dict[str, Any]:
    """Return the committed scores of a run after so many steps, with the instruction set and commit they are of.

    Raises: typer.BadParameter for a step that its curve has no point at.
    """
    store = Store(committed_only=True)
    scores = whole = store.committed_runs()[run.id]
    if steps != run.steps:
        curve = store.table(table_name(CURVES, run.task_name))
        points = curve[(curve["id"] == run.id) & (curve["step"] == steps)]
        if points.empty:
            raise typer.BadParameter(f"--steps {steps} is no point of the committed curve of {run.id}")
        scores = points.iloc[0].to_dict()
    facts = {name: scores[name] for name in _SCORES} | {name: whole[name] for name in ("instruction_set", "commit")}
    return {f"committed_{name}": value for name, value in facts.items()}


def in_part(run: Experiment, steps: int, compiled: bool) -> dict[str, Any]:
    """Take the first steps of a run, and return what `Ledger.result` tells of a whole one."""
    keep_freed_memory()
    torch.set_float32_matmul_precision("highest")
    started, stack = time.monotonic(), Stack([run], use_compiler=compiled)
    for _ in range(steps):
        stack.advance()
    minutes = round((time.monotonic() - started) / 60, 2)
    (scores,) = stack.evaluate(min(_CURVE_SEQUENCES, run.evaluation_sequences))
    return {"scores": scores, "minutes": minutes, "provenance": provenance("cpu", compiled)}


def in_whole(run: Experiment, ledger: Ledger, compiled: bool) -> dict[str, Any]:
    """Train a run, or go on where it stopped, and return its result."""
    with patch.object(loop, "compiler_available", lambda device: compiled):
        loop.train([run], ledger, progress=sys.stderr.isatty())
    return ledger.result(run)


def row(run: Experiment, steps: int, result: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the table: the run, how it was rounded, its scores, and the committed ones."""
    facts = result["provenance"]
    settings = {name: value for name, value in run.row().items() if name in _SETTINGS}
    scores = {name: result["scores"][name] for name in _SCORES}
    machine = {name: facts[name] for name in FACTS}
    return (
        settings | {"steps": steps, "compiled": facts["compiled"]} | scores | committed(run, steps)
        | {"minutes": result["minutes"]} | machine
    )  # fmt: skip


def merged(before: pd.DataFrame, new: dict[str, Any]) -> pd.DataFrame:
    """Return the table with this line, in the place of one of the same run, steps, rounding and commit."""
    same = [list(map(str, values)) == [str(new[name]) for name in _KEY] for values in before[list(_KEY)].to_numpy()]
    return pd.concat([before[[not is_same for is_same in same]], pd.DataFrame([new])], ignore_index=True)


def main(
    ids: Annotated[list[str], typer.Argument(help="identities of committed runs")],
    instruction_set: Annotated[str | None, typer.Option(help=f"one of {', '.join(INSTRUCTION_SETS)}")] = None,
    eager: Annotated[bool, typer.Option("--eager", help="do not compile the step")] = False,
    steps: Annotated[int | None, typer.Option(help="take only so many")] = None,
    folder: Path = Path("reruns"),
    out: Path | None = None,
) -> None:
    """Train the runs one after the other on one thread, printing and storing a line for each as it ends."""
    runs = chosen(ids)
    for run in runs:
        committed(run, steps or run.steps)
    retold(instruction_set)
    torch.set_num_threads(1)
    compiled = not eager and compiler_available("cpu")
    own = folder / f"{torch.backends.cpu.get_cpu_capability()}-{'compiled' if compiled else 'eager'}".lower()
    # The compiler takes what it finds in its cache for its own, also what it wrote for another instruction set: the
    # loss of the first step is then infinite (torch 2.13).
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str((own / "compiler").absolute())
    ledger = Ledger(own / "runs")
    for run in runs:
        result = in_part(run, steps, compiled) if steps else in_whole(run, ledger, compiled)
        line = row(run, steps or run.steps, result)
        print("  ".join(f"{name}={line[name]}" for name in ("id", "variant", "seed", *_SCORES)), flush=True)
        if out is not None:
            table = merged(pd.read_csv(out, dtype={"id": str}), line) if out.exists() else pd.DataFrame([line])
            table.to_csv(out, index=False)


if __name__ == "__main__":
    typer.run(main)
