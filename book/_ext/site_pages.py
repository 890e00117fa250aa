"""Sphinx extension: what the site needs beside its pages: a page for addresses that lead nowhere, and no Thebe.

jupyter-book puts the settings of Thebe, which would run code in the page through a server, on every page twice, so
that every page reports an error. The book does not use it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from hyla_repro import paths

_THEBE = ("thebe", "THEBE")


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Leave the scripts of Thebe, and second copies of any script, off the page."""
    kept, seen = [], set()
    for script in context.get("script_files", []):
        content = f"{script}{getattr(script, 'attributes', {}).get('body', '')}"
        if not any(name in content for name in _THEBE) and content not in seen:
            kept.append(script)
            seen.add(content)
    context["script_files"] = kept


def lost(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return the page that a web server shows for an address that leads nowhere."""
    home = app.config.html_baseurl
    body = (f'<h1>There is no such page</h1><p>It may have moved. The <a href="{home}index.html">front page</a> leads '
            f'everywhere, and the <a href="{home}search.html">search</a> finds words.</p>')  # fmt: skip
    yield "404", {"title": "There is no such page", "body": body}, "page.html"


def copy_social_picture(app: Sphinx, error: Exception | None) -> None:
    """Put the picture that links to the site show beside the pages: the answer in one figure."""
    if not error and app.builder.format == "html":
        shutil.copyfile(paths.FIGURES / "front.png", Path(app.outdir) / "front.png")


def setup(app: Sphinx) -> dict[str, Any]:
    # After the extensions that add scripts page by page.
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-collect-pages", lost)
    app.connect("build-finished", copy_social_picture)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
