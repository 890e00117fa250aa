"""Check a built book: `python tests/book/check_built_book.py book/_build/html`; standard library only.

A build can succeed and still lack a page, show a traceback or point at a file that is not there. Prints one line per
fault and exits 1, or prints the number of pages checked.
"""

import argparse
import json
import re
import sys
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOC = Path(__file__).resolve().parents[2] / "book" / "_toc.yml"
MIN_CHARACTERS = 200
_EXTERNAL = re.compile(r"(https?:)?//", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)
_CSS_ADDRESS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
# A link element with one of these relations names an address; every other one loads it.
_NAMING = {"canonical", "next", "prev", "search", "index", "author", "copyright", "license"}
# What myst-nb and docutils put around a failed cell, what a failed cell wrote, and a source they could not read.
_FAILED = {"traceback", "error", "stderr", "system-message", "problematic"}


class Page(HTMLParser):
    """What the checks need of one HTML file: text of its article, ids, images, addresses, marks of failure."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.ids, self.images, self.links = path, set(), [], []
        self.assets, self.failed, self.words, self.article, self.skipped = [], set(), [], [], 0
        self.depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        classes = set(given.get("class", "").split())
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "img":
            self.images.append((given.get("src", ""), given.get("alt", "").strip()))
            self.assets.append(given.get("src", ""))
        elif tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "link":
            (self.links if set(given.get("rel", "").split()) & _NAMING else self.assets).append(given.get("href", ""))
        elif given.get("src"):
            self.assets.append(given["src"])
        if "system-message" in classes or "problematic" in classes or ("output" in classes and classes & _FAILED):
            self.failed |= classes & _FAILED
        if tag in ("script", "style"):
            self.skipped += 1
        if tag == "article":
            self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.skipped -= 1
        if tag == "article":
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.words.append(data)
            if self.depth:
                self.article.append(data)

    @cached_property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @cached_property
    def content(self) -> str:
        return " ".join("".join(self.article or self.words).split())


def toc_pages(toc: Path) -> list[str]:
    """Return the page names of a _toc.yml, without suffix, in order."""
    entries = re.findall(r"^\s*(?:-\s*)?(?:root|file):\s*([^\s#]+)", toc.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"\.(ipynb|md|rst)$", "", entry.strip("'\"")) for entry in entries]


def _content_faults(page: Page, in_toc: bool) -> list[str]:
    faults = []
    if page.failed or "Traceback (most recent call last)" in page.text:
        faults.append(f"shows an error ({', '.join(sorted(page.failed)) or 'traceback'})")
    if in_toc and len(page.content) < MIN_CHARACTERS:
        faults.append(f"has only {len(page.content)} characters of text, expected at least {MIN_CHARACTERS}")
    for source, alt in page.images:
        if not alt or _IMAGE_NAME.search(alt):
            faults.append(f"image {source} has {f'the file name {alt!r} as' if alt else 'no'} alternative text")
    return faults


def _address_faults(page: Page, root: Path, pages: dict[Path, Page]) -> list[str]:
    faults = [f"loads {asset} from outside" for asset in page.assets if _EXTERNAL.match(asset)]
    for address in dict.fromkeys(page.links + page.assets):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or not address:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            faults.append(f"points at {address}, which does not exist")
        elif not target.is_relative_to(root):
            faults.append(f"points at {address}, outside the book")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            faults.append(f"points at {address}, but that page has no such place")
    return faults


def _figure_faults(page: Page, notebook: Path) -> list[str]:
    """Name the figures that a notebook promises and the page lacks; a cell that draws nothing fails no build."""
    if not notebook.is_file():
        return []
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}) for cell in cells]
    names = [figure["name"] for figure in figures if "name" in figure]
    return [f"lacks the figure {name} of {notebook.name}" for name in names if name not in page.ids]


def check(root: Path, toc: Path = TOC) -> tuple[int, list[str]]:
    """Return the number of pages of a built book and its faults, a line each."""
    root = root.resolve()
    files = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    pages = {path: Page(path) for path in files}
    expected = [root / f"{name}.html" for name in toc_pages(toc)]
    faults = [f"{path.relative_to(root)}: is in {toc.name} but was not built" for path in expected if path not in pages]
    for path, page in pages.items():
        found = _content_faults(page, path in expected) + _address_faults(page, root, pages)
        found += _figure_faults(page, toc.parent / path.relative_to(root).with_suffix(".ipynb"))
        faults += [f"{path.relative_to(root)}: {fault}" for fault in found]
    for path in sorted(root.rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        if any(output.get("name") == "stderr" for cell in cells for output in cell.get("outputs", [])):
            faults.append(f"{path.relative_to(root)}: holds warnings of the machine that built it")
    for path in sorted(root.rglob("*.css")):
        outside = _CSS_ADDRESS.findall(path.read_text(encoding="utf-8", errors="replace"))
        faults += [f"{path.relative_to(root)}: loads {address} from outside" for address in outside]
    return len(pages), faults


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a built book.")
    parser.add_argument("path", type=Path, help="the folder of HTML pages, for example book/_build/html")
    parser.add_argument("--toc", type=Path, default=TOC, help="the table of contents (default: the book's own)")
    options = parser.parse_args(arguments)
    if not options.path.is_dir():
        print(f"{options.path} is not a folder: build the book first (make book)", file=sys.stderr)
        return 1
    n_pages, faults = check(options.path, options.toc)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{n_pages} pages checked" + (f", {len(faults)} faults" if faults else ""))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
