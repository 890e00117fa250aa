"""The command line: run, status, collect, verify, report, reproduce."""

import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hyla_repro.errors import DataError, DivergedError, choose
from hyla_repro.notebook import PARAMETERS, check_device, execute

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
Preset = Annotated[str, typer.Option(help="smoke (seconds), laptop (CPU hours) or paper (the paper's settings)")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        raise ValueError(f"budget={budget!r} is not a time: write a number and s, m or h, such as 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def run(
    figure: Annotated[str, typer.Argument(help="a figure, or all")],
    preset: Preset = "smoke",
    device: Device = "cpu",
    budget: Annotated[str | None, typer.Option(help="stop after this time, such as 30m, and say what is left")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; one, and a second process, is usually fastest")] = 1,
) -> None:
    """Train the runs of FIGURE that are missing; stop at any time and go on later."""
    from hyla_repro.presets import experiments

    wanted, seconds = experiments(figure, preset), _seconds(budget)
    check_device(device)
    if threads < 1:
        raise ValueError(f"threads={threads} is too small: use at least 1")
    import torch

    from hyla_repro.runs import Ledger
    from hyla_repro.training import train

    torch.set_num_threads(threads)
    again = f"hyla-repro run {figure} --preset {preset} --device {device}"
    try:
        left = train(wanted, device=device, budget_seconds=seconds)
    except (KeyboardInterrupt, SystemExit):
        typer.echo(f"stopped; saved in {Ledger().root}. Go on with: {again}", err=True)
        raise
    typer.echo(f"{len(wanted) - len(left)} of {len(wanted)} runs of {figure} at preset {preset} are finished")
    if left:
        typer.echo(f"left: {', '.join(run.label for run in left[:5])}{' ...' if len(left) > 5 else ''}")
        typer.echo(f"Go on with: {again}")


@app.command()
def status(preset: Preset = "laptop") -> None:
    """Show how many runs of each figure are finished, committed, paused, in training, damaged or missing."""
    from collections import Counter

    from hyla_repro.data_folder import DataFolder
    from hyla_repro.presets import FIGURES, experiments
    from hyla_repro.runs import Ledger

    ledger, committed = Ledger(), DataFolder().run_ids()
    typer.echo(f"runs in {ledger.root}, preset {preset}")
    for figure in FIGURES:
        runs = experiments(figure, preset)
        states = Counter("committed" if run.id in committed else ledger.state(run) for run in runs)
        typer.echo(f"  {figure:8} {len(runs):4} runs: " + ", ".join(f"{n} {state}" for state, n in states.items()))


@app.command()
def collect() -> None:
    """Add finished laptop and paper runs to the tables in data/."""
    from hyla_repro.results import collect as collect_runs

    typer.echo(collect_runs())


@app.command()
def verify() -> None:
    """Check every file of data/ against its digest."""
    from hyla_repro.data_folder import DataFolder

    typer.echo(f"{DataFolder().verify()} files are as they were collected")


@app.command()
def report() -> None:
    """Write book/report.md and the README's verdict table from the committed results."""
    from hyla_repro.report import write

    for path in write():
        typer.echo(f"wrote {path}")


@app.command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="a figure, or all")] = "all",
    preset: Preset = "smoke",
    device: Device = "cpu",
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="further NAME=VALUE")] = None,
    train: Annotated[bool, typer.Option(help="train missing runs")] = True,
    output: Annotated[Path, typer.Option(help="folder of the executed notebooks")] = Path("reproduced"),
) -> None:
    """Run the notebook of FIGURE with papermill, training what it needs."""
    figures = list(PARAMETERS) if figure == "all" else [choose("figure", figure, ["all", *PARAMETERS])]
    extra = dict(_parse(text) for text in parameter or [])
    scale: dict[str, Any] = {"preset": preset, "train": train, "device": device}
    for name in figures:
        values = {k: v for k, v in scale.items() if k in PARAMETERS[name]} | extra
        started = time.monotonic()
        path = execute(name, values, output / f"{name}.ipynb")
        typer.echo(f"{name}: {path} ({time.monotonic() - started:.0f} s)")


def _parse(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"parameter {text!r} has no value: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    """Run the command line; errors that a user can mend are one line on stderr and exit code 2 (65 for NaN)."""
    try:
        app()
    except (ValueError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except DivergedError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(65)


if __name__ == "__main__":
    main()
