"""The book's settings hold what its pages promise, and the check of the built book finds what it should."""

import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import docutils.core
import docutils.nodes
import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from pydantic import BaseModel, Field

from hyla_repro.studies.style import ON_AREA

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CHECK = Path(__file__).with_name("check_built_book.py")
PAGES = [path for path in sorted(BOOK.iterdir()) if path.suffix in (".md", ".ipynb")]
# MathJax fetches these on demand from files that are not vendored.
ON_DEMAND = re.compile(
    r"\\(boldsymbol|[bx]?cancel|(text)?color|colorbox|ce|unicode|require|bra|ket|enclose|bbox|verb)\b"
)


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load((BOOK / "_config.yml").read_text())


def prose(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


class Answer(NamedTuple):
    """What a process said."""

    stdout: str


def extension(name: str) -> ModuleType:
    specification = spec_from_file_location(name, BOOK / "_ext" / f"{name}.py")
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# --- settings --------------------------------------------------------------------------------------


def test_the_engine_is_the_one_that_reads_this_book():
    # Version 2 ignores _config.yml, builds nothing and reports success.
    assert (1, 0, 4) <= tuple(int(part) for part in re.findall(r"\d+", version("jupyter-book"))[:3]) < (2,)


def test_chapters_are_executed_and_a_failing_cell_fails_the_build(config):
    assert config["execute"]["execute_notebooks"] == "force"
    assert 0 < config["execute"]["timeout"] <= 600
    assert not config["execute"].get("allow_errors")
    assert not config["execute"].get("exclude_patterns")
    assert config["sphinx"]["config"]["nb_execution_raise_on_error"] is True
    assert config["only_build_toc_files"] is True


def test_local_extensions_exist(config):
    for name, folder in config["sphinx"]["local_extensions"].items():
        assert (BOOK / folder / f"{name}.py").is_file()


def test_the_address_of_the_repository_stands_in_one_place(config):
    address = config["repository"]["url"]
    files = [*PAGES, *(BOOK / "_ext").glob("*.py"), BOOK / "_config.yml"]
    assert sum(path.read_text(encoding="utf-8").count(address) for path in files) == 1


def test_mathjax_is_vendored_with_its_licence_outside_static(config):
    assert config["sphinx"]["config"]["html_extra_path"] == ["vendor"]
    script = config["sphinx"]["config"]["mathjax_path"]
    assert script == "../mathjax/tex-mml-chtml.js"
    folder = BOOK / "vendor" / "mathjax"
    assert (folder / "tex-mml-chtml.js").stat().st_size > 1_000_000
    assert len(list((folder / "output/chtml/fonts/woff-v2").glob("*.woff"))) == 23
    assert "Apache License" in (folder / "LICENSE").read_text()
    # jupyter-book adds every script below _static to each page.
    assert not list((BOOK / "_static").rglob("*.js"))


def test_a_chapter_does_not_ask_mathjax_for_files_that_are_not_there():
    found = {path.name: ON_DEMAND.findall(prose(path)) for path in PAGES if path.stem not in ("api", "internals")}
    assert {name: commands for name, commands in found.items() if commands} == {}


def test_every_citation_has_a_reference():
    keys = re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(keys) == len(set(keys))
    groups = [group for path in PAGES for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(path))]
    cited = {key.strip() for group in groups for key in group.split(",")}
    assert cited
    assert cited - set(keys) == set()


def test_pages_have_no_raw_html():
    tag = re.compile(r"^\s*</?(div|span|p|img|table|a|br|details|iframe)\b", re.MULTILINE)
    assert [path.name for path in PAGES if tag.search(prose(path))] == []


# --- extensions ------------------------------------------------------------------------------------


def test_a_change_of_data_or_library_changes_the_digest(tmp_path):
    digest = extension("data_dependencies").digest
    for folder in ("data", "hyla_repro/tasks", "hyla_repro/__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/runs.csv").write_text("id\n1\n")
    (tmp_path / "hyla_repro/tasks/one.py").write_text("x = 1\n")
    seen = [digest(tmp_path)]
    (tmp_path / "hyla_repro/__pycache__/one.pyc").write_bytes(b"compiled")
    (tmp_path / "README.md").write_text("prose")
    assert digest(tmp_path) == seen[0]
    (tmp_path / "data/runs.csv").write_text("id\n2\n")
    seen.append(digest(tmp_path))
    (tmp_path / "hyla_repro/tasks/one.py").write_text("x = 2\n")
    seen.append(digest(tmp_path))
    (tmp_path / "data/runs.csv").rename(tmp_path / "data/other.csv")
    seen.append(digest(tmp_path))
    assert len(set(seen)) == 4


def test_the_commit_is_unknown_outside_a_checkout(tmp_path):
    assert extension("commit_stamp").commit(tmp_path) == "unknown"


def test_every_build_has_one_stamp_in_the_footer_and_on_the_pages(tmp_path, monkeypatch):
    """git's answer changes whenever it is asked; the second build is incremental, and only the stamp is new."""
    from sphinx.application import Sphinx

    monkeypatch.syspath_prepend(BOOK / "_ext")
    (tmp_path / "index.rst").write_text("Title\n=====\n\nBuilt from {{ commit }}.\n\n.. toctree::\n\n   other\n")
    (tmp_path / "other.rst").write_text("Other\n=====\n\nAlso from {{ commit }}.\n")
    asked = []

    def answer(command, **_):
        if "show" in command:
            return Answer("2026-11-30")
        asked.append(1)
        return Answer(f"{len(asked)}a")

    monkeypatch.setattr("subprocess.run", answer)
    out = tmp_path / "out"
    for stamp in ("1a", "2a"):
        app = Sphinx(tmp_path, None, out, out, "html", {"extensions": ["commit_stamp"]}, status=None, warning=None)
        app.build()
        footer = app.config.html_theme_options["extra_footer"]
        pages = [(out / f"{name}.html").read_text() for name in ("index", "other")]
        assert [re.findall(r"from (\w+)\.", page) for page in pages] == [[stamp], [stamp]]
        assert f"<code>{stamp}</code> of 2026-11-30" in footer


def test_one_line_sections_become_fields():
    docstring = "Do it.\n\n    y = x\n\nReturns: a number: its\n    square.\nRaises: ValueError for text.\n\nEnd."
    lines = docstring.splitlines()
    extension("docstring_fields").process(None, "function", "f", None, None, lines)
    text = "\n".join(lines)
    assert ".. code-block:: text\n\n    y = x" in text
    assert "\n\n:Returns: a number: its\n    square.\n\n:raises ValueError: for text.\n\nEnd." in text


def test_words_in_quotes_are_code_and_titles_are_not():
    docstring = 'As `like="this"`, so k="sum", "a" and ("attn", 0); "On Titles" and "Zoology".'
    lines = [docstring]
    extension("docstring_fields").process(None, "function", "f", None, None, lines)
    assert lines == ['As `like="this"`, so ``k="sum"``, ``"a"`` and ``("attn", 0)``; "On Titles" and "Zoology".']


def test_a_constant_lists_its_entries():
    def two() -> int:
        """Return 2.

        Always.
        """
        return 2

    class Pair(NamedTuple):
        left: str
        right: int

    def listed(constant: object) -> list[str]:
        lines = ["What there is."]
        extension("docstring_fields").process(None, "data", "C", constant, None, lines)
        return [line for line in lines if line.startswith("- ")]

    assert listed({"a": two, "b": Pair("x", 1)}) == ["- ``'a'``: Return 2.", "- ``'b'``: left ``'x'``, right ``1``"]
    assert listed({"a": {1: ("x", "y")}, "b": Pair}) == ["- ``'a'``, ``1``: ``'x'``, ``'y'``", "- ``'b'``: ``Pair``"]
    assert listed(["x", "y"]) == ["- ``'x'``", "- ``'y'``"]
    assert listed(5) == []


def test_signatures_show_what_a_named_default_is():
    from sphinx.ext.autodoc.preserve_defaults import DefaultValue

    def f(size: float = 1e-5, n: int = 10, *, where: object = Path("here")) -> None: ...

    names = {"size": "1e-5", "n": "PROBLEMS", "where": "HERE"}
    signature = inspect.signature(f)
    f.__signature__ = signature.replace(
        parameters=[p.replace(default=DefaultValue(names[p.name])) for p in signature.parameters.values()]
    )
    extension("docstring_fields").show_values(None, f, False)
    assert str(f.__signature__) == "(size: float = 1e-5, n: int = 10, *, where: object = HERE) -> None"


def test_a_validated_class_is_shown_by_its_fields():
    class Sizes(BaseModel):
        n: int = Field(ge=1)
        name: str = Field(default="x", pattern=r"^\w*$")

    shown = extension("docstring_fields").of_fields(None, "class", "Sizes", Sizes, None, "(garbled)", None)
    assert shown == ("(*, n: int, name: str = 'x')", None)


# --- the check of the built book -------------------------------------------------------------------

GOOD = """<html><head><link rel="stylesheet" href="_static/a.css"><link rel="canonical" href="https://example.org/">
</head><body><article><h1 id="top">Title</h1><p>{words}</p><img src="_static/a.png" alt="A rising line.">
<a href="{other}.html#top">other</a> <a href="https://example.org">elsewhere</a>
<a href="#top">up</a>{extra}</article></body></html>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A tiny book of two pages without faults."""
    root = tmp_path / "html"
    (root / "_static").mkdir(parents=True)
    (root / "_static/a.css").write_text("body { background: url(a.png) }")
    (root / "_static/a.png").write_bytes(b"")
    for name, other in (("index", "one"), ("one", "index")):
        (root / f"{name}.html").write_text(GOOD.format(words="word " * 60, other=other, extra=""))
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nparts:\n  - chapters:\n      - file: one.ipynb\n")
    return root


def run_check(root: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(CHECK), str(root), "--toc", str(root.parent / "_toc.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_passes_a_book_without_faults(built):
    result = run_check(built)
    assert (result.returncode, result.stdout, result.stderr) == (0, "2 pages checked\n", "")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("<pre>Traceback (most recent call last)\n<b>ValueError</b></pre>", "shows an error"),
        ('<div class="output traceback highlight-ipythontb">ValueError: no</div>', "shows an error"),
        ('<div class="output stderr highlight">a warning</div>', "shows an error"),
        ('<span class="problematic">{numref}</span>', "shows an error"),
        ('<img src="_static/a.png">', "no alternative text"),
        ('<img src="_static/a.png" alt="_images/fig2c.png">', "the file name"),
        ('<a href="two.html">two</a>', "points at two.html, which does not exist"),
        ('<a href="index.html#nowhere">up</a>', "no such place"),
        ('<img src="_images/gone.png" alt="A falling line.">', "points at _images/gone.png"),
        ('<script src="https://cdn.example.org/a.js"></script>', "loads https://cdn.example.org/a.js from outside"),
        ('<link rel="stylesheet" href="//cdn.example.org/a.css">', "from outside"),
        ('<link rel="preload" as="font" href="https://cdn.example.org/a.woff2">', "from outside"),
    ],
)
def test_check_finds_a_fault_on_a_page(built, extra, message):
    (built / "one.html").write_text(GOOD.format(words="word " * 60, other="index", extra=extra))
    result = run_check(built)
    assert result.returncode == 1
    assert "one.html" in result.stderr
    assert message in result.stderr


def test_check_finds_a_figure_that_a_page_lacks(built):
    """A cell that draws nothing is no error to a build."""
    figures = [{"metadata": {"mystnb": {"figure": {"name": name}}}} for name in ("top", "fig-2")]
    (built.parent / "one.ipynb").write_text(json.dumps({"cells": figures}))
    result = run_check(built)
    assert result.returncode == 1
    assert "one.html: lacks the figure fig-2 of one.ipynb" in result.stderr
    assert "lacks the figure top" not in result.stderr


def test_check_finds_warnings_in_a_notebook_to_download(built):
    (built / "downloads").mkdir()
    for name in ("stdout", "stderr"):
        cells = [{"outputs": [{"name": name, "text": ["/home/me/lib.py: a warning"]}]}]
        (built / "downloads" / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    result = run_check(built)
    assert result.returncode == 1
    assert result.stderr == "downloads/stderr.ipynb: holds warnings of the machine that built it\n"


def test_check_finds_a_missing_page_an_empty_page_and_a_font_from_outside(built):
    (built / "one.html").unlink()
    (built / "index.html").write_text(GOOD.format(words="few", other="index", extra=""))
    (built / "_static/a.css").write_text("@font-face { src: url('https://cdn.example.org/a.woff2') }")
    result = run_check(built)
    assert result.returncode == 1
    assert "one.html: is in _toc.yml but was not built" in result.stderr
    assert "index.html: has only" in result.stderr
    assert "a.css: loads https://cdn.example.org/a.woff2 from outside" in result.stderr


def test_check_of_a_folder_that_is_not_there_says_what_to_do(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: index\n")
    result = run_check(tmp_path / "html")
    assert result.returncode == 1
    assert "make book" in result.stderr


# --- pictures and anchors --------------------------------------------------------------------------


GRID, TEXT = '<path style="fill: none; stroke: #e6e6e6"/>', '<path d="text"/>'
SVG = f'<svg xmlns:xlink="x">{GRID}{TEXT}<path style="fill: #029e73"/></svg>'


def test_dark_pictures_turn_grey_around_and_keep_colours():
    dark = extension("chapter_figures").dark
    found = dark(SVG)
    assert found.startswith('<svg fill="#e0e0e0"')
    assert "#029e73" in found
    assert "#e6e6e6" not in found
    assert dark(SVG.replace("#e6e6e6", "#ffffff")).count("#161616") == 1


def test_dark_pictures_keep_what_stands_on_areas_of_colour():
    on_areas = "".join(f'<path style="fill: {color}"/>' for color in ON_AREA.values())
    assert on_areas in extension("chapter_figures").dark(SVG.replace("</svg>", f"{on_areas}</svg>"))


def test_faint_marks_are_less_faint_on_a_dark_page():
    faint = '<path style="fill: #029e73; opacity: 0.35"/><path style="opacity: 0"/>'
    found = extension("chapter_figures").dark(SVG.replace("</svg>", f"{faint}</svg>"))
    assert "opacity: 0.53" in found
    assert 'opacity: 0"' in found


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<p>70 % of 8 000 steps</p>", "<p>70_% of 8_000_steps</p>"),
        ("<td>30%</td>", "<td>30_%</td>"),
        ("<p>N = 32, 1.4 ± 0.2 and × 100</p>", "<p>N_=_32, 1.4 ±_0.2 and ×_100</p>"),
        ("<h1>Does it? ✓</h1>", "<h1>Does it?_✓</h1>"),
        ("<td>10000 to 6932616 h, in 2024</td>", "<td>10_000 to 6_932_616_h, in 2024</td>"),
        ("<p>arXiv 2406.05816, 0.00071</p>", "<p>arXiv 2406.05816, 0.00071</p>"),
        (
            "<td>below 1e-12, &lt; 5 draws (2026-11-23), 3-10</td>",
            "<td>below 1e~12, &lt;_5_draws (2026~11~23), 3-10</td>",
        ),
        ("<p>9 of 10 cells</p>", "<p>9 of 10 cells</p>"),
        ("<pre>70 % of 8 000</pre><code>N = 3</code>", "<pre>70 % of 8 000</pre><code>N = 3</code>"),
        (
            '<span class="math notranslate">\\(N = 3\\)</span> 1 %',
            '<span class="math notranslate">\\(N = 3\\)</span> 1_%',
        ),
        ('<a title="70 %" href="#">x</a>', '<a title="70 %" href="#">x</a>'),
    ],
)
def test_numbers_stay_with_what_belongs_to_them(written, read):
    assert extension("for_readers").unbroken(written) == (
        read.replace("_", "\N{NO-BREAK SPACE}").replace("~", "\N{NON-BREAKING HYPHEN}")
    )


def rows_of(html):
    return [
        [cell.get_text() for cell in row.find_all(["th", "td"])] for row in BeautifulSoup(html, "html.parser")("tr")
    ]


def test_tables_name_their_rows_in_one_line_and_in_words():
    table = pd.DataFrame({"variant": ["hyla", "softmax"] * 2, "n_layers": [2, 2, 4, 4], "test": [1.0, 2.0, 3.0, 4.0]})
    in_words = extension("for_readers").in_words
    pivot = table.pivot_table("test", index="n_layers", columns="variant")
    assert rows_of(in_words(pivot.to_html()))[0] == ["layers", "HYLA", "softmax attention"]
    assert len(rows_of(in_words(pivot.to_html()))) == 3
    by_number = table.pivot_table("test", index="variant", columns="n_layers")
    assert rows_of(in_words(by_number.to_html()))[0] == ["method", "layers 2", "layers 4"]
    assert rows_of(in_words(table.to_html())) == [
        ["method", "layers", "training tasks"], ["hyla", "2", "1.0"], ["softmax", "2", "2.0"], ["hyla", "4", "3.0"],
        ["softmax", "4", "4.0"],
    ]  # fmt: skip


def test_tables_keep_rows_and_columns_that_have_names():
    in_words = extension("for_readers").in_words
    named = pd.DataFrame({"a": [1, 2]}, index=["one", "two"])
    assert rows_of(in_words(named.to_html())) == rows_of(named.to_html())
    levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["all"], ["x", "y"]], names=["of", "part"]))
    levels.index = pd.Index(["first"], name="row")
    assert rows_of(in_words(levels.to_html()))[:2] == [["of", "all"], ["part", "x", "y"]]


def test_deviations_link_to_their_anchors_and_names_in_code_to_claims():
    anchors = extension("anchors")
    document = docutils.core.publish_doctree(
        "See D18, not D\\ x. ``2c-main`` and ``other``.\n\nTitle D2\n========\n\ntext"
    )
    anchors.link(None, document)
    targets = [node["refuri"] for node in document.findall(docutils.nodes.reference)]
    assert targets == ["deviations.html#d18", "report.html#claim-2c-main"]


def test_texts_with_cells_are_read_again_like_notebooks(tmp_path):
    runs_code = extension("data_dependencies").runs_code
    for name, text, expected in (
        ("a.ipynb", "{}", True),
        ("b.md", "---\nfile_format: mystnb\n---\n", True),
        ("c.md", "# Title\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert runs_code(tmp_path / name) is expected


def test_scripts_of_thebe_and_second_copies_are_left_off():
    class Script(str):
        def __new__(cls, body):
            script = super().__new__(cls)
            script.attributes = {"body": body}
            return script

    inline = [Script(body) for body in ("let hint = 1", "const THEBE_JS_URL = 1", "let hint = 1")]
    context = {"script_files": ["_static/doctools.js", "_static/sphinx-thebe.js", *inline]}
    extension("site_pages").drop_thebe(None, "index", "page.html", context, None)
    assert context["script_files"] == ["_static/doctools.js", inline[0]]


def test_the_search_knows_public_names_without_their_package_and_no_internals():
    index = {
        "docnames": ["api", "internals"],
        "objnames": {"0": ["py", "module", "Python module"], "1": ["py", "class", "Python class"]},
        "objects": {
            "": [[0, 0, 0, "-", "hyla_repro"]],
            "hyla_repro": [[0, 0, 0, "-", "tasks"], [1, 0, 0, "-", "ledger"]],
            "hyla_repro.tasks": [[0, 1, 1, "", "SRaven"], [0, 1, 1, "there", "Batch"]],
        },
    }
    assert extension("reference_index").searchable(index)["objects"] == {
        "": [[0, 0, 0, "module-hyla_repro", "hyla_repro"], [0, 0, 0, "module-hyla_repro.tasks", "tasks"]],
        "tasks": [[0, 1, 1, "hyla_repro.tasks.SRaven", "SRaven"], [0, 1, 1, "there", "Batch"]],
    }


def test_the_quick_start_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (BOOK / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["answers"].shape == names["problems"].targets.shape
    assert (names["answers"] == names["problems"].targets).float().mean() > 1 / 8


def test_errors_of_mystmd_are_found_and_addresses_outside_forgiven():
    spec = spec_from_file_location("check_myst", Path(__file__).with_name("check_myst.py"))
    check_myst = module_from_spec(spec)
    spec.loader.exec_module(check_myst)
    output = "\n".join([
        "📚 Built 2 pages for project in 3 s.", "index.md", '  - ⛔ Link for "https://a.b" did not resolve.',
        "  - ⚠️  a warning", "one.ipynb", "  - ⛔ No such directive", "  - ⛔ No such directive",
    ])  # fmt: skip
    assert check_myst.errors(output) == ["one.ipynb: No such directive"]
