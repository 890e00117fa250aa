"""Chapters as programs: impossible parameters stop at once, interrupted ones leave nothing behind."""

import json
import time
from pathlib import Path

import nbformat
import papermill
import pytest

from hyla_repro import paths
from hyla_repro.book import notebook
from hyla_repro.book.notebook import check, execute, page_of, start
from hyla_repro.studies import chapters, pages

BAD = [
    ("fig2c", {"presett": "smoke"}, "unknown parameter of fig2c 'presett': did you mean 'preset'"),
    ("fig2c", {"seed": 1}, "unknown parameter of fig2c 'seed'.*allowed are preset, train, device"),
    ("fig2c", {"preset": "lapto"}, "unknown preset 'lapto': did you mean 'laptop'.*smoke, laptop, paper"),
    ("fig2c", {"preset": 1}, "unknown preset 1"),
    ("fig2c", {"train": "True"}, "train='True' is not a bool"),
    ("fig2c", {"train": 1}, "train=1 is not a bool"),
    ("fig2c", {"device": 0}, "device=0 is not a str"),
    ("fig2c", {"device": "gpu"}, "unknown device 'gpu'.*cpu"),
    ("fig2b", {"lr": 1e-3}, "unknown parameter of fig2b 'lr'"),
    ("fig2d", {"preset": None}, "unknown preset None"),
    ("figa3", {"preset": "PAPER"}, "unknown preset 'PAPER'"),
    ("tablea1", {"figure": "x"}, "unknown parameter of tablea1 'figure'"),
    ("fig1", {"n_heads": 0}, "n_heads=0 is not a whole number from 1 to 64"),
    ("fig1", {"n_heads": 2.0}, "n_heads=2.0 is not a whole number"),
    ("fig1", {"n_tokens": "7"}, "n_tokens='7' is not a whole number"),
    ("fig1", {"seed": -1}, "seed=-1 is not a whole number from 0"),
    ("fig1", {"seed": True}, "seed=True is not a whole number"),
    ("figa1", {"d_model": 8}, "d_model=8 is not a whole number from 16"),
    ("fig2a", {"heldout_fraction": float("nan")}, "heldout_fraction=nan is not a finite number"),
    ("fig2a", {"heldout_fraction": "1e-1"}, "heldout_fraction='1e-1' is not a finite number"),
]


@pytest.mark.parametrize(("figure", "values", "message"), BAD)
def test_impossible_parameters_are_refused(figure: str, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(figure, values)


def test_refusal_starts_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a kernel was started"))
    started = time.monotonic()
    for figure, values, message in BAD:
        with pytest.raises(ValueError, match=message):
            execute(figure, values, tmp_path / "out.ipynb")
    assert time.monotonic() - started < len(BAD)
    assert not list(tmp_path.iterdir())


def test_every_chapter_has_a_notebook_whose_parameters_are_known_and_valid() -> None:
    assert {path.name.split("-")[0] for path in paths.BOOK.glob("*.ipynb")} == {
        name for name, chapter in chapters().items() if chapter.page
    }
    for figure, chapter in pages().items():
        cells = nbformat.read(page_of(figure), as_version=4).cells
        (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        namespace: dict = {}
        exec(cell.source, namespace)  # our own file: literals only
        namespace.pop("__builtins__")
        assert set(namespace) == set(chapter.parameters)
        assert namespace == (chapter.defaults or namespace)
        check(figure, namespace)


def test_start_finds_names_that_papermill_only_warns_about() -> None:
    known = {"preset": "smoke", "train": False, "device": "cpu", "notebook": notebook, "_i1": "", "In": [""]}
    shown = start("fig2c", known)
    assert (shown.figure, shown.preset, shown.train, shown.device) == ("fig2c", "smoke", False, "cpu")
    with pytest.raises(ValueError, match="unknown parameter of fig2c 'n_step'"):
        start("fig2c", {**known, "n_step": 5})


def test_plain_papermill_stops_in_the_first_cells(tmp_path: Path) -> None:
    with pytest.raises(
        papermill.PapermillExecutionError, match="unknown parameter of fig1 'n_head': did you mean 'n_heads'"
    ):
        papermill.execute_notebook(
            page_of("fig1"), tmp_path / "out.ipynb", {"n_head": 2}, cwd=paths.BOOK, progress_bar=False
        )
    executed = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    reached = [
        cell
        for cell in executed
        if cell["cell_type"] == "code" and cell["execution_count"] and "import torch" in "".join(cell["source"])
    ]
    assert not reached


def test_execute_writes_a_whole_notebook_and_the_parameters_take_effect(tmp_path: Path) -> None:
    committed = (paths.FIGURES / "fig1.png").read_bytes()
    output = execute("fig1", {"n_heads": 2}, tmp_path / "sub" / "out.ipynb")
    cells = [cell for cell in json.loads(output.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert any("n_heads = 2" in "".join(cell["source"]) for cell in cells)
    assert (paths.FIGURES / "fig1.png").read_bytes() == committed
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("fault", ["raise", "interrupt"])
def test_a_failed_or_interrupted_notebook_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    output = tmp_path / "out.ipynb"
    output.write_text("the complete file of last time")

    def broken(source: str, part: str, *arguments: object, **options: object) -> None:
        cells = [nbformat.v4.new_code_cell("1", execution_count=1), nbformat.v4.new_code_cell("2")]
        Path(part).write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
        if fault == "raise":
            raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", broken)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        execute("fig1", {}, output)
    assert output.read_text() == "the complete file of last time"
    assert list(tmp_path.iterdir()) == [output]
