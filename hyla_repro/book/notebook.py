"""Chapters as programs: their parameters checked, their runs trained on request, papermill called safely."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hyla_repro import paths
from hyla_repro.errors import MissingPackageError, UnfinishedError, choose
from hyla_repro.studies import find_chapter, kept_steps

if TYPE_CHECKING:
    from hyla_repro.book.shown import Shown


def check(figure: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a chapter.

    Raises: ValueError for an unknown name, a wrong type or an impossible value, with what is possible.
    """
    allowed = find_chapter(figure).parameters
    for name, value in values.items():
        rule = allowed[choose(f"parameter of {figure}", name, allowed)]
        if isinstance(rule, tuple) and isinstance(rule[0], str):
            choose(name, value, rule)
        elif isinstance(rule, tuple):
            if type(value) is not int or not rule[0] <= value <= rule[1]:
                raise ValueError(f"{name}={value!r} is not a whole number from {rule[0]} to {rule[1]}")
        elif rule is float:
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r} is not a finite number")
        elif type(value) is not rule:
            raise ValueError(f"{name}={value!r} is not a {rule.__name__}")
    if "device" in values:
        check_device(values["device"])
    return dict(values)


def check_device(device: str) -> str:
    """Return the device if it is at hand.

    Raises: ValueError naming the devices there are.
    """
    if device == "cpu":
        return device
    import torch

    numbered = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return choose("device", device, ["cpu", *(["cuda"] if numbered else []), *numbered])


def start(figure: str, namespace: Mapping[str, Any]) -> "Shown":
    """Check a chapter's parameters, given its `globals()`, and train its missing runs if it asks to.

    papermill writes every name it is given into the notebook and only warns of those that the notebook does not
    have, so whatever public name stands there before the first import is taken for a parameter.

    Raises: ValueError for a parameter that does not exist or cannot be.
    """
    ignore = {"In", "Out", "get_ipython", "exit", "quit", "open"}
    names = {n: v for n, v in namespace.items() if n[0] != "_" and n not in ignore and not isinstance(v, ModuleType)}
    values = check(figure, names)
    import pandas

    from hyla_repro.book.shown import Shown

    pandas.options.display.max_colwidth = None  # comparisons are sentences
    defaults = find_chapter(figure).defaults
    if defaults is not None:
        return Shown(figure, "laptop" if values == defaults else "custom")
    shown = Shown(figure, **values)
    if shown.train:
        from hyla_repro.ledger.data_folder import DataFolder
        from hyla_repro.training.loop import train

        committed = DataFolder().run_ids()
        train([run for run in shown.wanted if run.id not in committed], device=shown.device, keep=kept_steps)
    return shown


def page_of(figure: str) -> Path:
    """Return the notebook of a figure."""
    find_chapter(figure)
    (path,) = paths.BOOK.glob(f"{figure}-*.ipynb")
    return path


def execute(figure: str, parameters: Mapping[str, Any], output: Path) -> Path:
    """Run a chapter with papermill; the output path holds a whole, successful notebook or is left as it was.

    Raises:
        ValueError: unknown or impossible parameters, before a kernel starts.
        papermill.PapermillExecutionError: a cell failed.
        MissingPackageError: without `hyla-repro[book]`.
        UnfinishedError: the kernel died, or cells were left out.
    """
    check(figure, parameters)
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
    except ImportError:
        raise MissingPackageError("running a chapter needs papermill: `pip install hyla-repro[book]`") from None

    source, part = page_of(figure), output.with_suffix(".part.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(str(source), str(part), dict(parameters), cwd=str(paths.BOOK), kernel_name="python3")
        # papermill calls an interrupted notebook completed, so completeness is read off the cells.
        cells = [cell for cell in json.loads(part.read_text())["cells"] if cell["cell_type"] == "code"]
        if not all(map(_succeeded, cells)):
            raise UnfinishedError(f"{figure} was interrupted, or left by sys.exit: {output} is left as it was")
        part.replace(output)
    except DeadKernelError:
        raise UnfinishedError(f"the kernel of {figure} was killed, perhaps for want of memory: {output} is left as it "
                              "was") from None  # fmt: skip
    finally:
        part.unlink(missing_ok=True)
    return output


def _succeeded(cell: Mapping[str, Any]) -> bool:
    """Return whether a code cell was executed without error; papermill takes sys.exit() for a success."""
    failed = any(output["output_type"] == "error" for output in cell["outputs"])
    return not failed and (bool(cell["execution_count"]) or not "".join(cell["source"]).strip())
