"""Sphinx extension: show a chapter's pictures as curves, in the light and in the dark, and say where all of it is.

A chapter saves its pictures below book/_build/figures while it is executed. Its page shows those files instead of the
pixels that the notebook has: sharp at every size, on the page's own ground, with twins for dark pages and for phones.
Below the first picture a line leads to data, files, the notebook with outputs and the code. Plain notebooks need none
of this.
"""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from hyla_repro import paths
from hyla_repro.book.costs import rerun_times
from hyla_repro.results.store import Store
from hyla_repro.studies import chapters

_SAVED = re.compile(r"""(?:shown|front)\.save\(\w+(?:, "([\w-]+)")?\)""")
_GREY = re.compile(r"#([0-9a-f]{2})\1\1\b")
_OPACITY = re.compile(r"(?<=opacity: )(0?\.\d+)")
# Grey from black to white becomes grey from the dark page's text to its ground, light greys less dark than their number
# says, and what is faint less faint: on a dark ground eyes see less of both.
_DARK_TEXT, _DARK_GROUND, _GAMMA, _FAINTNESS = 0xE0, 0x16, 1.6, 0.6
# Matplotlib gives black text no colour of its own.
_ROOT = "<svg xmlns:xlink="


def dark(svg: str) -> str:
    """Return the picture for a dark page: greys are turned around, colours and areas of colour stay as they are."""

    def inverted(match: re.Match[str]) -> str:
        level = round(_DARK_TEXT - (_DARK_TEXT - _DARK_GROUND) * (int(match[1], 16) / 0xFF) ** _GAMMA)
        return f"#{level:02x}{level:02x}{level:02x}"

    text = f"#{_DARK_TEXT:02x}{_DARK_TEXT:02x}{_DARK_TEXT:02x}"
    svg = _OPACITY.sub(lambda match: f"{float(match[1]) ** _FAINTNESS:.2f}", svg)
    return _GREY.sub(inverted, svg).replace(_ROOT, f'<svg fill="{text}" xmlns:xlink=', 1)


def figure_of(docname: str) -> str:
    """Return the figure of a page: what its name has before the first dash, and the front page's own."""
    return "front" if docname == "index" else docname.partition("-")[0]


def show_curves(app: Sphinx, doctree: nodes.document) -> None:
    """Put the saved curves in the place of each picture that a cell shows and saves, and add the line of links."""
    name, first = figure_of(app.env.docname), True
    for cell in _containers(doctree, "cell"):
        code = "\n".join(block.astext() for block in _containers(cell, "cell_input"))
        saved, picture = _SAVED.search(code), next(iter(cell.findall(nodes.image)), None)
        if picture is None or (code and not saved):
            continue
        frame: nodes.Node = picture
        while frame.parent and not isinstance(frame, nodes.figure) and "cell_output" not in frame["classes"]:
            frame = frame.parent
        if first:
            frame.parent.insert(frame.parent.index(frame) + 1, nodes.raw("", line(name, app), format="html"))
            first = False
        # The front page shows no code, so its figures are called as their files are.
        own = saved[1] if saved else frame["names"][0].removeprefix("fig-")
        _replace(picture, own or name)


def _containers(node: nodes.Node, name: str) -> list[nodes.container]:
    return [part for part in node.findall(nodes.container) if name in part["classes"]]


def _replace(picture: nodes.image, name: str) -> None:
    """Put the curves there: for wide and for narrow windows, and each for light and dark pages."""
    narrow = paths.DRAWN / f"{name}-narrow.svg"
    shapes = {name: "if-wide", narrow.stem: "if-narrow"} if narrow.exists() else {name: ""}
    twins = [_twin(picture, saved, [shape] if shape else []) for saved, shape in shapes.items()]
    picture.replace_self([image for images in twins for image in images])


def _twin(picture: nodes.image, name: str, classes: list[str]) -> list[nodes.image]:
    curves = paths.DRAWN / f"{name}.svg"
    # The theme's own only-light and only-dark would hide the caption, too; dark-light keeps its filter off.
    (path := curves.with_name(f"{name}-dark.svg")).write_text(dark(curves.read_text()))
    return [
        _image(picture, curves, [*classes, "in-light", "dark-light"]),
        _image(picture, path, [*classes, "in-dark", "dark-light"]),
    ]


def _image(picture: nodes.image, path: Path, classes: list[str]) -> nodes.image:
    image = picture.deepcopy()
    image["uri"], image["candidates"], image["classes"] = f"_build/figures/{path.name}", {}, classes
    return image


def line(figure: str, app: Sphinx) -> str:
    """Return the links below a chapter's first picture, as HTML."""
    repository, stamp = app.config.html_theme_options.get("repository_url"), app.config.commit_stamp
    links = [("data (CSV)", f"downloads/{figure}.csv")] if (paths.DRAWN / f"{figure}.csv").exists() else []
    links += [("figure (SVG)", f"downloads/{figure}.svg"), ("PNG", f"downloads/{figure}.png")]
    if figure in chapters():
        links.append(("notebook with outputs", f"downloads/{app.env.docname}.ipynb"))
    if repository and re.fullmatch("[0-9a-f]+", stamp):
        links.append(("code at this commit", f"{repository}/tree/{stamp}"))
    shown = [f'<a href="{target}">{text}</a>' for text, target in links]
    if times := _times().get(figure):
        shown.append(f'<a href="rerun.html">to run again</a>: {times}')
    return f'<p class="figure-line">{" · ".join(shown)}</p>'


@cache
def _times() -> dict[str, str]:
    return rerun_times(Store(committed_only=True))


def copy_downloads(app: Sphinx, error: Exception | None) -> None:
    """Put what the lines lead to beside the pages."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "downloads"
    folder.mkdir(exist_ok=True)
    executed = Path(app.outdir).parent / "jupyter_execute"
    for path in (path for path in paths.DRAWN.iterdir() if path.is_file()):
        shutil.copyfile(path, folder / path.name)
    for path in executed.glob("*.ipynb"):
        (folder / path.name).write_text(_quiet(path), encoding="utf-8")
    for path in (Path(app.outdir) / "_sources").glob("*.ipynb"):
        path.write_text(_quiet(path), encoding="utf-8")


def _quiet(notebook: Path) -> str:
    """Return a notebook without what cells wrote to stderr, as pages show it: warnings name folders of the builder."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def setup(app: Sphinx) -> dict[str, Any]:
    # Before Sphinx collects the images of a page, which is at 500.
    app.connect("doctree-read", show_curves, priority=400)
    app.connect("build-finished", copy_downloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
