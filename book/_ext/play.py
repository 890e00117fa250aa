"""Sphinx extension: `{play} PIECE` puts a piece that can be played with into a page, with what stands there until then.

Its content, a picture or a sentence, is shown where no script runs. Pages without a piece load nothing. The scripts and
the weights lie beside the pages, in play/, and not below _static: jupyter-book loads every script there on each page.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

PIECES = ("network", "fuzzy-logic", "sraven")
# In the order in which they are run.
SCRIPTS = ("facts.js", "model.js", "dom.js", *(f"{piece}.js" for piece in PIECES), "start.js")


class piece(nodes.General, nodes.Element):
    """A place for a piece; its children are what stands there without a script."""


class Play(SphinxDirective):
    """`{play} PIECE`, one of PIECES."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in PIECES:
            raise self.error(f"{name!r} cannot be played with: there are {', '.join(PIECES)}")
        place = piece(name=name)
        self.state.nested_parse(self.content, self.content_offset, place)
        return [place]


def open_place(translator: HTML5Translator, node: piece) -> None:
    translator.body.append(f'<div class="hyla-play" data-play="{node["name"]}"><div class="play-static">\n')


def close_place(translator: HTML5Translator, node: piece) -> None:
    translator.body.append("</div></div>\n")


def nothing(translator: nodes.NodeVisitor, node: piece) -> None:
    """Other formats have the content alone."""


def write_scripts(app: Sphinx) -> None:
    """Write play/; before the pages, whose links to it carry a checksum."""
    if app.builder.format == "html":
        from hyla_repro.book.play import write

        write(Path(app.outdir) / "play")


def load_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """Let a page load the scripts if it has a piece."""
    if tree is None or next(tree.findall(piece), None) is None:
        return
    app.add_css_file("../play/play.css")
    for script in SCRIPTS:
        app.add_js_file(f"../play/{script}", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    pair, empty = (open_place, close_place), (nothing, nothing)
    app.add_node(piece, html=pair, latex=empty, text=empty, man=empty, texinfo=empty)
    app.add_directive("play", Play)
    app.connect("builder-inited", write_scripts)
    app.connect("html-page-context", load_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
