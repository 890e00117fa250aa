"""Sphinx extension: the general index and the search know of the public reference only, and no name by its package.

Internals have a page, and references to them work. In a search, `hyla_repro` in front of every name would let each of
them answer to HYLA.
"""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_INTERNALS, _PACKAGE = "internals", re.compile(r"^hyla_repro(\.|$)")
_BEFORE, _AFTER = "Search.setIndex(", ")"


def leave_out(app: Sphinx, doctree: nodes.document) -> None:
    """Keep what internals define out of the general index."""
    if app.env.docname == _INTERNALS:
        app.env.domaindata["index"]["entries"][_INTERNALS] = []


def searchable(index: dict[str, Any]) -> dict[str, Any]:
    """Return Sphinx's index of the search without the objects of internals, and without the package before others.

    An entry has page, type, priority, anchor and name; a short form of the anchor, which is made of the name, is
    written out.
    """
    internals = index["docnames"].index(_INTERNALS) if _INTERNALS in index["docnames"] else None
    objects: dict[str, list[list[Any]]] = {}
    for prefix, entries in index["objects"].items():
        for page, kind, priority, anchor, name in entries:
            if page == internals:
                continue
            full = f"{prefix}.{name}" if prefix else name
            written = {"": full, "-": f"{index['objnames'][str(kind)][1]}-{full}"}.get(anchor, anchor)
            objects.setdefault(_PACKAGE.sub("", prefix), []).append([page, kind, priority, written, name])
    return {**index, "objects": objects}


def rewrite(app: Sphinx, error: Exception | None) -> None:
    """Rewrite the index that the page of the search loads."""
    path = Path(app.outdir) / "searchindex.js"
    if error or not path.exists():
        return
    index = json.loads(path.read_text(encoding="utf-8").removeprefix(_BEFORE).removesuffix(_AFTER))
    text = json.dumps(searchable(index), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    path.write_text(f"{_BEFORE}{text}{_AFTER}", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", leave_out)
    app.connect("build-finished", rewrite)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
