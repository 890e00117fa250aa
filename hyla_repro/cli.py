"""The command line: run, status, export, import, and the commands of `hyla_repro.book.commands`."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyla_repro import paths
from hyla_repro.book import commands
from hyla_repro.book.commands import Device, Preset
from hyla_repro.book.notebook import check_device
from hyla_repro.cluster import commands as cluster_commands
from hyla_repro.errors import DataError, DivergedError, MissingPackageError, UnfinishedError, choose
from hyla_repro.studies import PRESETS, experiments, kept_steps, trainable, with_runs
from hyla_repro.studies.study import once
from hyla_repro.training.process import STOPPED, exit_on_signal, program, run_siblings
from hyla_repro.version import __version__

if TYPE_CHECKING:
    from hyla_repro.experiment import Experiment

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Train the runs behind every figure, and make the book of them.",
    pretty_exceptions_enable=False,
)
app.add_typer(commands.app)
app.add_typer(cluster_commands.app)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="say which version and commit this is")] = False,
) -> None:
    if version:
        typer.echo(f"hyla-repro {__version__}" + (f", commit {paths.commit()}" if paths.CHECKOUT else ""))
        raise typer.Exit


def _committed() -> set[str]:
    """Return the identities of committed runs; an installed package has none, and says so."""
    from hyla_repro.ledger.data_folder import DataFolder

    if not paths.PROJECT:
        typer.echo(f"an installed package has no results; those of the book come with `git clone {paths.REPOSITORY}`")
    return DataFolder().run_ids()


@app.command()
def run(
    figure: Annotated[str, typer.Argument(help="a figure with runs, or all")],
    preset: Preset = "smoke",
    device: Device = "cpu",
    budget: Annotated[str | None, typer.Option(help="stop after this time, such as 30m, and say what is left")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would be trained and what it costs, and stop")] = False,
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE, such as method=hyla or steps=78125: only these runs; repeat")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="also train runs whose results are committed in data/")
    ] = False,
    processes: Annotated[int, typer.Option(help="0: one per core where that pays, 1 on a GPU")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of each process; one is fastest")] = 1,
    share: Annotated[
        bool, typer.Option("--share", help="as one of many: also what others leave; 75 if the budget ends before that")
    ] = False,
) -> None:
    """Train the runs of FIGURE that are missing; stop at any time and go on later."""
    from hyla_repro.training.plan import seconds_of, total_flop, with_values

    wanted, seconds = with_values(trainable(figure, preset), where or []), seconds_of(budget) if budget else None
    check_device(device)
    for name, value, least in (("threads", threads, 1), ("processes", processes, 0)):
        if value < least:
            raise ValueError(f"{name}={value} is too small: use at least {least}")
    from hyla_repro.ledger.runs import ENDED, Ledger

    committed = set() if again else _committed()
    states = Ledger().states(wanted)
    candidates = [run for run in wanted if run.id not in committed]
    missing = [run for run in candidates if states[run.id] not in ENDED]
    if len(committed.intersection(states)):
        typer.echo(f"{len(committed.intersection(states))} of {len(wanted)} runs are committed in data/; "
                   "--again trains those too")  # fmt: skip
    if seconds is not None:
        candidates.sort(key=total_flop)
    if not processes:
        long = sum(map(total_flop, missing)) > _WORTH_PROCESSES and device == "cpu"
        processes = min(os.cpu_count() or 1, len(missing)) if long else 1
    if plan:
        typer.echo(_plan(missing, device, processes))
        return
    if processes > 1:
        _in_processes(processes)
    elif share:
        from hyla_repro.training.others import train_with_others

        train_with_others(lambda rest: _train(candidates, device, rest, threads), candidates, Ledger(), seconds)
    else:
        _train(candidates, device, seconds, threads)
    states = Ledger().states(wanted)
    left = [run for run in candidates if states[run.id] not in ENDED]
    done = sum(run.id in committed or states[run.id] == "done" for run in wanted)
    typer.echo(f"{done} of {len(wanted)} runs of {figure} at preset {preset} are finished")
    if left:
        typer.echo(f"left: {', '.join(run.label for run in left[:5])}{' ...' if len(left) > 5 else ''}")
        typer.echo(f"Go on with: {_this_command()}")
    taken = all(states[run.id] == "training" for run in left)
    if left and taken:
        typer.echo("others are training all of it", err=True)
    if left and taken != share:
        raise typer.Exit(75)


def _this_command() -> str:
    return shlex.join([*program(), *sys.argv[1:]])


# Floating-point operations (some minutes of a core) from which starting more processes costs less than it saves.
_WORTH_PROCESSES = 2e13


def _train(candidates: "list[Experiment]", device: str, seconds: float | None, threads: int) -> None:
    """Train what is missing; unlike a look at the ledger, `train` reads finished runs and redoes damaged ones."""
    if not candidates:
        return
    import torch

    from hyla_repro.training.loop import train

    torch.set_num_threads(threads)
    try:
        train(candidates, device=device, budget_seconds=seconds, keep=kept_steps)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # typer has an answer of its own to the other


def _in_processes(count: int) -> None:
    """Run this same command in several processes, which share its runs by their locks; signals reach them all."""
    for code in run_siblings([*program(), *sys.argv[1:], "--processes", "1"], count):
        if code not in (0, 75):  # a process is done when the others train all that is left
            raise SystemExit(code)


def _plan(missing: "list[Experiment]", device: str, processes: int) -> str:
    from hyla_repro.results.store import timed_runs
    from hyla_repro.training.plan import describe, minutes_per_run
    from hyla_repro.training.provenance import device_name

    name = device_name(device)
    every = (run for preset in PRESETS for run in experiments("all", preset))
    return describe(missing, minutes_per_run(timed_runs(once(every)), name), name, processes)


@app.command()
def status(
    preset: Annotated[str, typer.Option(help="smoke, laptop, paper or all")] = "all",
    watch: Annotated[bool, typer.Option("--watch", help="how submitted workers stand, again and again")] = False,
    every: Annotated[float, typer.Option(help="seconds between two looks")] = 10.0,
) -> None:
    """Show how many runs of each figure are finished, committed, paused, in training, damaged or missing."""
    if watch:
        cluster_commands.watch(_committed(), every)
        return
    from collections import Counter

    from hyla_repro.ledger.runs import Ledger

    presets = PRESETS if choose("preset", preset, ["all", *PRESETS]) == "all" else [preset]
    ledger, committed = Ledger(), _committed()
    typer.echo(f"runs in {ledger.root}")
    for name in presets:
        states = ledger.states(experiments("all", name))
        for identity in committed.intersection(states):
            if states[identity] in ("done", "missing"):
                states[identity] = "committed"
        for figure in with_runs():
            runs = experiments(figure, name)
            counts = Counter(states[run.id] for run in runs)
            text = ", ".join(f"{count} {state}" for state, count in counts.items())
            typer.echo(f"  {name:6} {figure:8} {len(runs):4} runs: {text}")


@app.command("export")
def export_command(
    folder: Annotated[Path, typer.Argument(help="where to write runs-000.tar, runs-001.tar, ...")],
    preset: Preset = "paper",
    figure: Annotated[str, typer.Option(help="a figure with runs, or all")] = "all",
    part: Annotated[float, typer.Option(help="close a part at this size in MiB")] = 15.0,
) -> None:
    """Write finished runs and the newest checkpoints of others as a few files, for another machine."""
    from hyla_repro.ledger.archive import export_runs
    from hyla_repro.ledger.runs import Ledger

    ledger = Ledger()
    written = export_runs(trainable(figure, preset), ledger, folder, int(part * 2**20))
    if not written:
        typer.echo(f"nothing to export: {ledger.root} has no runs of {figure} at preset {preset}", err=True)
        raise typer.Exit(1)
    typer.echo(f"wrote {len(written)} files to {folder}; there, `hyla-repro import` takes them in")


@app.command("import")
def import_command(paths: Annotated[list[Path], typer.Argument(help="files written by `hyla-repro export`")]) -> None:
    """Add runs from another machine to the ledger; finished runs stay as they are."""
    from hyla_repro.ledger.archive import import_runs
    from hyla_repro.ledger.runs import Ledger

    added = import_runs(paths, Ledger())
    typer.echo(f"added {added.finished} runs that have ended and {added.checkpoints} checkpoints; {added.left} were "
               "here already")  # fmt: skip


@app.command("text")
def text_command(
    name: Annotated[str, typer.Argument(help="c4 or wikitext_103")],
    tokens: Annotated[int, typer.Option(help="of the training split to keep at most; two bytes each")] = 10**9,
) -> None:
    """Fetch a large text, tokenise it, and keep it in texts/; needs a network and `hyla-repro[language]`."""
    from hyla_repro.tasks.language.prepare import prepare_text

    folder = prepare_text(name, tokens)
    typer.echo(f"{name} is in {folder}")


def main() -> None:
    """Run the command line; errors that a user can mend are one line on stderr and an exit code.

    1: a chapter did not run to its end, or there is nothing to export. 2: a wrong word, damaged files, or no repository
    for a command that needs it. 65: a loss was not finite. 74: a file or folder cannot be read or written. 75: others
    are training all that is missing. 130, 143: stopped by SIGINT, SIGTERM.
    """
    try:
        with exit_on_signal():
            app()
    except SystemExit as stopped:
        if stopped.code in STOPPED:
            where = paths.runs_folder()
            typer.echo(f"stopped; what was trained is in {where}. Go on with: {_this_command()}", err=True)
        raise
    except UnfinishedError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except (ValueError, DataError, FileExistsError, MissingPackageError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except DivergedError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(65)
    except OSError as error:
        typer.echo(f"error: {error}. What was finished or saved before is intact; once there is space, or the right to "
                   f"write, go on with: {_this_command()}", err=True)  # fmt: skip
        sys.exit(74)


if __name__ == "__main__":
    main()
