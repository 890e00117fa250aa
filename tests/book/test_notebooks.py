"""Every chapter is a clean, short, parameterised notebook that says how to run it."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from hyla_repro.book.notebook import check
from hyla_repro.studies import pages

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
# What a chapter shows unless it is told otherwise.
SCALE = {"preset": "laptop", "train": False, "device": "cpu"}
MAX_CELL_LINES, MAX_CODE_LINES = 12, 60
# Installing, changing paths or hiding warnings would make a chapter depend on more than its environment.
FORBIDDEN = re.compile(r"\bpip\b|sys\.path|filterwarnings|simplefilter|^\s*[%!]", re.MULTILINE)


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> tuple[Path, nbformat.NotebookNode]:
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: nbformat.NotebookNode) -> dict[str, object]:
    values = {}
    for node in ast.parse(code_cells(notebook)[0].source).body:
        assert isinstance(node, ast.Assign | ast.AnnAssign), "parameters are plain assignments"
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        values[target.id] = ast.literal_eval(node.value)
    return values


def figure_of(path: Path) -> str:
    return path.stem.split("-")[0]


def calls(source: str, function: str) -> bool:
    called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return function in {getattr(node, "id", getattr(node, "attr", None)) for node in called}


def test_there_are_chapters():
    assert CHAPTERS


def test_every_chapter_is_in_the_table_of_contents_and_no_other():
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    entries = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert len(entries) == len(set(entries))
    assert {entry for entry in entries if entry.endswith(".ipynb")} == {path.name for path in CHAPTERS}
    missing = [entry for entry in entries if not (BOOK / entry).is_file()]
    assert not missing


def test_page_names_have_dashes_and_capitals_nowhere():
    # Other engines turn underscores into dashes, which would break links to the book.
    assert [path.name for path in CHAPTERS if not re.fullmatch(r"[a-z0-9-]+\.ipynb", path.name)] == []


def test_valid_and_stored_without_results(chapter):
    path, notebook = chapter
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs, f"{path.name} stores outputs: run nbstripout on it"
        assert cell.execution_count is None, f"{path.name} stores an execution count: run nbstripout on it"
    assert "papermill" not in notebook.metadata


def test_parameters_come_first_and_once(chapter):
    path, notebook = chapter
    cells = code_cells(notebook)
    tagged = [number for number, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [0], f"{path.name}: the first code cell, and no other, has the tag `parameters`"
    values = parameters(notebook)
    assert check(figure_of(path), values) == values
    assert set(values) == set(pages()[figure_of(path)].parameters)
    if "preset" in values:
        assert values == SCALE


def test_parameters_are_checked_before_anything_else(chapter):
    path, notebook = chapter
    second = ast.unparse(ast.parse(code_cells(notebook)[1].source))
    assert second == f"from hyla_repro.book import notebook\nshown = notebook.start('{figure_of(path)}', globals())"


def test_every_parameter_is_used(chapter):
    path, notebook = chapter
    nodes = [node for cell in code_cells(notebook)[1:] for node in ast.walk(ast.parse(cell.source))]
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    if "preset" in parameters(notebook):
        # notebook.start takes all three and trains; the chapter goes on with what it returns.
        assert "shown" in names
    else:
        unused = sorted(set(parameters(notebook)) - names)
        assert not unused, f"{path.name} never uses {unused}"


def test_code_is_short(chapter):
    path, notebook = chapter
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    written = [line for cell in code_cells(notebook) for line in cell.source.splitlines() if line.strip()]
    assert max(lengths) <= MAX_CELL_LINES, f"{path.name}: a cell has {max(lengths)} lines; move code to the library"
    assert len(written) <= MAX_CODE_LINES, f"{path.name} has {len(written)} lines of code; move code to the library"


def test_code_leaves_the_environment_alone(chapter):
    path, notebook = chapter
    for cell in code_cells(notebook):
        found = FORBIDDEN.search(cell.source)
        assert not found, f"{path.name}: {found.group()!r} does not belong in a chapter"


def test_output_is_the_same_every_time(chapter):
    path, notebook = chapter
    # pandas gives every styled table a random id, so no two builds of the page would be equal.
    for cell in code_cells(notebook):
        assert ".style" not in cell.source, f"{path.name}: format the numbers of a table instead of styling it"


def test_every_figure_has_name_caption_and_alternative_text(chapter):
    path, notebook = chapter
    drawn = [cell for cell in code_cells(notebook) if calls(cell.source, "save")]
    assert drawn, f"{path.name} saves no figure"
    for cell in drawn:
        settings = cell.metadata.get("mystnb", {})
        figure, alt = settings.get("figure", {}), settings.get("image", {}).get("alt", "")
        assert re.fullmatch(r"[a-z0-9-]+", figure.get("name", "")), f"{path.name}: a figure has no kebab-case name"
        assert len(figure.get("caption", "").split()) >= 8, f"{path.name}: a caption does not stand alone"
        assert len(alt.split()) >= 4, f"{path.name}: alternative text says what the figure shows"
        assert not alt.endswith(".png")


def test_cells_have_names_of_their_chapter(chapter):
    """A chapter's file begins with its figure, and so do its cells: mystmd wants names unique in the whole book."""
    path, notebook = chapter
    names = [cell.id for cell in notebook.cells]
    assert len(names) == len(set(names))
    assert [name for name in names if not name.startswith(f"{figure_of(path)}-")] == []


def test_figure_names_are_unique():
    cells = [cell for path in CHAPTERS for cell in code_cells(nbformat.read(path, as_version=4))]
    names = [cell.metadata["mystnb"]["figure"]["name"] for cell in cells if "figure" in cell.metadata.get("mystnb", {})]
    assert len(names) == len(set(names))


def test_last_section_says_how_to_run_it_and_where_deviations_and_cost_stand(chapter):
    path, notebook = chapter
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    outside_code = re.sub(r"```.*?```", "", prose, flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?)\s*$", outside_code, re.MULTILINE)
    assert headings[-1] == "Run it yourself"
    assert not {"Deviations", "Cost"}.intersection(headings)
    last = prose.rsplit("Run it yourself", 1)[1]
    assert f"papermill book/{path.name} " in last
    assert "(deviations.md)" in last
    assert "(cost.md)" in last


def test_cost_is_folded(chapter):
    path, notebook = chapter
    shown = [cell for cell in code_cells(notebook) if "shown.cost(" in cell.source]
    assert all("hide-cell" in cell.metadata["tags"] for cell in shown), f"{path.name}: tag the table hide-cell"
