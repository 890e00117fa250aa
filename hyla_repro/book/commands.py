"""Commands that go over results and chapters: collect, compute, verify, report, pictures, pdf, lock, and others."""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hyla_repro.book.notebook import check_device, execute
from hyla_repro.errors import choose
from hyla_repro.ledger.data_folder import DataFolder, require_project
from hyla_repro.studies import pages

app = typer.Typer()
Preset = Annotated[str, typer.Option(help="smoke (seconds), laptop (CPU hours) or paper (the paper's settings)")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N")]


def _command(name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a command that works on the folders of the book, and says so where there are none."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        called = name or function.__name__

        @wraps(function)
        def checked(*arguments: Any, **options: Any) -> None:
            require_project(f"`hyla-repro {called}`")
            function(*arguments, **options)

        return app.command(called)(checked)

    return add


@_command()
def collect(device: Device = "cpu") -> None:
    """Add finished laptop and paper runs to the tables in data/."""
    from hyla_repro.book.collect import collect as collect_runs

    typer.echo(collect_runs(device=check_device(device)))


@_command("compute")
def compute_command(
    figure: Annotated[str, typer.Argument(help="a figure with tables that need no trained run")],
    again: Annotated[bool, typer.Option("--again", help="also what is in data/ already")] = False,
) -> None:
    """Add what FIGURE's tables in data/ lack, of those that need no trained run; stop at any time and go on later."""
    import torch

    from hyla_repro.book.compute import compute

    torch.set_num_threads(1)
    typer.echo(compute(figure, again=again))


@_command("predictions")
def predictions_command(
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE, such as task=sraven or method=hyla: only these runs; repeat")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder of TASK.parquet; those of the main comparisons go into data/ without it")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Write what models with committed weights say on every problem that they were scored on, a file per task."""
    from hyla_repro.files import write_atomically
    from hyla_repro.results.predictions import parquet, with_weights
    from hyla_repro.studies import PRESETS, STUDIES, experiments
    from hyla_repro.studies.study import once
    from hyla_repro.training.plan import with_values

    if where and output is None:
        raise ValueError("where without output: data/ holds whole main comparisons, so name a folder by --output")
    folder = DataFolder()
    if output is None:
        runs = [run for study in STUDIES if study.main for preset in PRESETS for run in study.main(preset)]
        runs = [
            run for run in runs if run.task_name in ("fuzzy_logic", "sraven")
        ]  # of texts, there is nothing to share
    else:
        runs = [run for preset in PRESETS for run in experiments("all", preset)]
    held = with_weights(once(runs), folder)
    chosen = with_values([run for runs in held.values() for run in runs], where or [])
    for task, runs in with_weights(chosen, folder).items():
        content, name = parquet(runs, folder, check_device(device)), f"{task}.parquet"
        if output is None:
            folder.write({f"predictions/{name}": content})
        else:
            write_atomically(output / name, content)
        typer.echo(f"{task}: {len(runs)} models, {len(content) / 1e6:.2f} MB")


@_command()
def verify() -> None:
    """Check every file of data/ against its digest."""
    typer.echo(f"{DataFolder().verify()} files are as they were collected")


@_command()
def report() -> None:
    """Write book/report.md and the README's verdict table from the committed results."""
    from hyla_repro.book.report import write

    for path in write():
        typer.echo(f"wrote {path}")


@_command()
def leaderboard(
    action: Annotated[str, typer.Argument(help="add")],
    files: Annotated[list[Path], typer.Argument(help="written by save() of what hyla_repro.benchmark returned")],
) -> None:
    """Add the runs of FILES to data/leaderboard.csv, and write its page, book/leaderboard.md."""
    from hyla_repro.book.report import leaderboard_page, write_pages
    from hyla_repro.results.store import Store
    from hyla_repro.studies.mixers.leaderboard import add

    choose("action", action, ["add"])
    store = Store(committed_only=True)
    for path in files:
        typer.echo(add(path, store))
    for path in write_pages(leaderboard_page(store)):
        typer.echo(f"wrote {path}")


@_command()
def lock(
    why: Annotated[str, typer.Option(help="a sentence: what is locked, or why a rule changes")],
    known: Annotated[bool, typer.Option(help="whether runs that decide these rules are finished")] = True,
) -> None:
    """Write new and changed rules of claims into data/rules.lock; no claim may vanish."""
    from hyla_repro.book.lock import add, reported
    from hyla_repro.book.verdicts import claims
    from hyla_repro.paths import BOOK

    added = add(claims(), DataFolder(), reported((BOOK / "report.md").read_text()), known, why)
    typer.echo(f"locked {', '.join(added) or 'nothing new'}")


@_command()
def pictures(check: Annotated[bool, typer.Option("--check", help="compare only")] = False) -> None:
    """Copy over figures/ what the book drew and looks different; with --check, exit 1 if there is any."""
    from hyla_repro.book.pictures import differences, refresh

    found = differences() if check else dict.fromkeys((path.name for path in refresh()), "written")
    for name, words in found.items() or [("figures/", "every picture looks as it did")]:
        typer.echo(f"{name}: {words}", err=bool(check and found))
    raise typer.Exit(bool(check and found))


Parameters = Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE")]
Output = Annotated[Path, typer.Option(help="folder of the executed notebooks")]


@_command("pdf")
def pdf_command() -> None:
    """Print the built book into one file, book/_build/hyla-repro.pdf; needs Chromium."""
    from hyla_repro.book.pdf import print_book

    typer.echo(print_book())


@_command("notebook")
def notebook_command(
    figure: Annotated[str, typer.Argument(help="a figure")],
    parameter: Parameters = None,
    output: Output = Path("reproduced"),
) -> None:
    """Run the notebook of FIGURE with papermill, on the committed results unless -p says otherwise."""
    typer.echo(execute(figure, dict(_parse(text) for text in parameter or []), output / f"{figure}.ipynb"))


@_command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="a figure, or all")] = "all",
    preset: Preset = "smoke",
    device: Device = "cpu",
    parameter: Parameters = None,
    train: Annotated[bool, typer.Option(help="train missing runs")] = True,
    output: Output = Path("reproduced"),
) -> None:
    """Run the notebook of FIGURE with papermill, training what it needs."""
    figures = list(pages()) if choose("figure", figure, ["all", *pages()]) == "all" else [figure]
    extra = dict(_parse(text) for text in parameter or [])
    scale: dict[str, Any] = {"preset": preset, "train": train, "device": device}
    for name in figures:
        values = {k: v for k, v in scale.items() if k in pages()[name].parameters} | extra
        started = time.monotonic()
        path = execute(name, values, output / f"{name}.ipynb")
        typer.echo(f"{name}: {path} ({time.monotonic() - started:.0f} s)")


def _parse(text: str) -> tuple[str, Any]:
    import json

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"parameter {text!r} has no value: write NAME=VALUE")
    try:
        # papermill's own -p takes Python's words.
        return name, json.loads({"True": "true", "False": "false"}.get(value, value))
    except ValueError:
        return name, value
