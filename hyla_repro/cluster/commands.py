"""The command `submit`: check, say or print what would be started, and start it."""

import shlex
import sys
from pathlib import Path
from time import sleep as pause
from typing import TYPE_CHECKING, Annotated

import typer

from hyla_repro import paths
from hyla_repro.book.commands import Preset
from hyla_repro.studies import PRESETS, experiments
from hyla_repro.studies.study import once
from hyla_repro.training.process import program

if TYPE_CHECKING:
    from hyla_repro.cluster.submission import Submission
    from hyla_repro.experiment import Experiment

app = typer.Typer()


@app.command()
def submit(
    figure: Annotated[str, typer.Argument(help="a figure with runs, or all")],
    workers: Annotated[int, typer.Option(help="how many equal workers share the runs, as one job array")],
    time: Annotated[str, typer.Option(help="of each worker, such as 4h; it is started again while work is left")],
    preset: Preset = "smoke",
    where: Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE, as for `run`; repeat")] = None,
    again: Annotated[bool, typer.Option("--again", help="also train runs that are committed in data/")] = False,
    gpus: Annotated[int, typer.Option(help="of each worker: 0 or 1")] = 0,
    cpus: Annotated[int, typer.Option(help="of each worker; without a GPU it trains as many runs at a time")] = 1,
    partition: Annotated[str | None, typer.Option(help="of Slurm, its default one if none is given")] = None,
    option: Annotated[list[str] | None, typer.Option(help="another of sbatch: KEY=VALUE, such as mem=8G")] = None,
    margin: Annotated[str, typer.Option(help="how long before the limit a worker saves and ends")] = "5m",
    cluster: Annotated[str, typer.Option(help="slurm, local (processes here) or debug (this process)")] = "slurm",
    shared: Annotated[bool, typer.Option("--shared", help="every node sees the runs, whatever it looks like")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be submitted, and stop")] = False,
    print_sbatch: Annotated[
        bool, typer.Option("--print-sbatch", help="print a script that needs no submitit, and stop")
    ] = False,
) -> None:
    """Start workers elsewhere, which share the missing runs of FIGURE; see `status --watch`."""
    from hyla_repro.cluster.checks import require_shared, require_slurm
    from hyla_repro.cluster.launch import launch, require_submitit
    from hyla_repro.cluster.submission import Submission
    from hyla_repro.training.plan import seconds_of

    submission = Submission(
        figure=figure, preset=preset, where=tuple(where or ()), again=again, workers=workers,
        seconds=seconds_of(time, "time"), margin=seconds_of(margin, "margin"), gpus=gpus, cpus=cpus,
        partition=partition, options=tuple(option or ()), cluster=cluster,
    )  # fmt: skip
    missing = _missing(submission)
    if cluster == "slurm" and not shared:
        require_shared(paths.runs_folder())
    if dry_run:
        typer.echo(_plan(submission, missing))
        return
    if print_sbatch:
        folder = _written(submission)
        typer.echo(submission.script(folder, _program()), nl=False)
        typer.echo(f"its workers write to {folder}, so start it where that is seen", err=True)
        return
    require_submitit()
    if cluster == "slurm":
        require_slurm(partition)
    if not missing:
        typer.echo(f"nothing is missing of {figure} at preset {preset}")
        return
    folder = _written(submission)
    typer.echo(launch(submission, folder, _program()))
    typer.echo(f"logs are in {folder}; watch with: {shlex.join([*program(), 'status', '--watch'])}")


def watch(committed: set[str], every: float) -> None:
    """Show how submissions stand, every so many seconds, until all of their workers are over.

    Raises: DataError if nothing was submitted.
    """
    from hyla_repro.cluster.watch import describe, shown

    folders = shown()
    while True:
        found = [describe(folder, committed) for folder in folders]
        if sys.stdout.isatty():
            typer.echo("\x1b[H\x1b[2J", nl=False)
        typer.echo("\n".join(text for text, _ in found))
        if all(over for _, over in found):
            return
        pause(every)


def _program() -> list[str]:
    """Return how workers call this program, from whatever folder."""
    *python, called = program()
    return [*python, str(Path(called).absolute())] if Path(called).exists() else [*python, called]


def _missing(submission: "Submission") -> "list[Experiment]":
    from hyla_repro.cluster.watch import wanted
    from hyla_repro.ledger.data_folder import DataFolder
    from hyla_repro.ledger.runs import ENDED, Ledger

    runs = wanted(submission, set() if submission.again else DataFolder().run_ids())
    states = Ledger().states(runs)
    return [run for run in runs if states[run.id] not in ENDED]


def _written(submission: "Submission") -> Path:
    """Make the submission's folder, with what its runs had reached before."""
    from dataclasses import replace

    from hyla_repro.cluster.watch import flop_done, wanted
    from hyla_repro.ledger.data_folder import DataFolder
    from hyla_repro.ledger.runs import Ledger

    runs = wanted(submission, set() if submission.again else DataFolder().run_ids())
    return replace(submission, flop_before=flop_done(runs, Ledger())).write()


def _plan(submission: "Submission", missing: "list[Experiment]") -> str:
    """Return what would be submitted: runs, stacks, and hours on the devices where runs were timed."""
    from hyla_repro.book.costs import reported_hours
    from hyla_repro.results.store import timed_runs
    from hyla_repro.training.plan import minutes_per_run, total_flop

    workers, device = submission.workers, "GPU" if submission.gpus else "core"
    shapes = len({run.shape for run in missing})
    stacks = f"{shapes} stacks or more, as memory allows" if submission.gpus else f"{len(missing)} stacks of one"
    lines = [
        f"{len(missing)} runs of {submission.figure} at preset {submission.preset}, in {stacks}: "
        f"{sum(map(total_flop, missing)) / 1e15:.3g} PFLOP",
        f"{workers} workers, each with {_count(submission.cpus, 'core')} and {_count(submission.gpus, 'GPU')}, for "
        f"{submission.budget / 3600:.2f} h at a time, on {submission.partition or 'the default partition'}",
    ]
    timed = [entry for entry in timed_runs(once(run for name in PRESETS for run in experiments("all", name)))
             if entry.gpu == bool(submission.gpus)]  # fmt: skip
    for name in sorted({entry.device for entry in timed}):
        minutes = [minutes_per_run(timed, name)(run) or 0.0 for run in missing]
        lines.append(_hours(sum(minutes) / 60, workers, f"of a {device} of {name}, from runs that were timed there"))
    if not timed:
        lines.append(f"no run was timed on a {device} yet, so how long they take is unknown")
    if submission.gpus and (reported := reported_hours(missing)):
        for word, hours in zip(("least", "most"), reported, strict=True):
            lines.append(_hours(hours, workers, f"of a GPU, at {word} as the papers report"))
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _hours(hours: float, workers: int, words: str) -> str:
    return f"about {hours:.1f} h {words}; {hours / workers:.1f} h for each worker"
