"""The whole book as one PDF: the articles of the built pages on one page, in their order, printed by Chromium.

The pages are taken as they were built, so nothing is executed again. Links between them lead to places in the file.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from hyla_repro import paths
from hyla_repro.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

BUILT = paths.BOOK / "_build" / "html"
PDF = paths.BOOK / "_build" / "hyla-repro.pdf"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_EXTERNAL = re.compile(r"[a-z]+:|//")
# What only a screen with a mouse has a use for.
_ON_SCREEN = "script, .headerlink, .copybtn, .in-dark, .if-narrow"
_STYLE = """
@page { size: A4; margin: 18mm 16mm; @bottom-center { content: counter(page); font: 9pt sans-serif; } }
html { font-size: 10pt; }
body { background: #fff; display: block; }
article { break-before: page; }
article.contents { break-before: auto; }
.contents { font-size: 9pt; }
.contents li { list-style: none; margin: 0; }
.contents > ul > li { break-inside: avoid; margin-top: 0.4rem; }
h1, h2, h3, h4 { break-after: avoid; }
figure, tr, .figure-line, div.math { break-inside: avoid; }
img, svg { max-width: 100%; }
pre, code { overflow-wrap: anywhere; white-space: pre-wrap !important; }
/* The file has no width to scroll in. */
div.cell_output, div.highlight, div.pst-scrollable-table-container, .output { overflow: visible !important; }
table { display: table !important; font-size: 8pt; max-width: 100%; width: 100%; }
.bd-article table :is(td, th) { overflow-wrap: break-word; padding: 2pt 4pt !important; }
"""


def chapters_in_order() -> list[tuple[str, list[str]]]:
    """Return the parts of the book, each with the names of its pages; the front page has no part."""
    from yaml import safe_load

    contents = safe_load((paths.BOOK / "_toc.yml").read_text())
    parts = [(part["caption"], [Path(page["file"]).stem for page in part["chapters"]]) for part in contents["parts"]]
    return [("", [contents["root"]]), *parts]


def one_page(parts: Sequence[tuple[str, Sequence[str]]], built: Path = BUILT) -> str:
    """Return HTML that has the articles of these pages one after the other, behind a table of contents.

    Names within a page get the page's before them, so that every link finds its place; what is not in the file, such
    as downloads, leads to the site.

    Args:
        parts: captions with the names of pages, in order.
        built: folder of the built pages.

    Raises: DataError naming a page that is not built.
    """
    from bs4 import BeautifulSoup

    names = [name for _, pages in parts for name in pages]
    pages = {}
    for name in names:
        path = built / f"{name}.html"
        if not path.exists():
            raise DataError(f"{path} is missing: build the book first, `make book`")
        pages[name] = BeautifulSoup(path.read_text(), "html.parser")
    front = pages[names[0]]
    canonical = front.select_one("link[rel=canonical]")
    site = urljoin(canonical["href"], ".") if canonical else ""
    whole = BeautifulSoup(
        '<!DOCTYPE html><html lang="en" data-theme="light"><head></head><body></body></html>', "html.parser"
    )
    for part in front.select('meta[charset], title, link[rel=stylesheet], script:-soup-contains("window.MathJax"), '
                             "script[src*=mathjax]"):  # fmt: skip
        whole.head.append(part.extract())
    whole.head.append(whole.new_tag("style", string=_STYLE))
    articles = {name: _article(page, name, set(names), site) for name, page in pages.items()}
    whole.body.append(_contents(whole, parts, articles))
    for article in articles.values():
        whole.body.append(article)
    return str(whole)


def _article(page: "BeautifulSoup", name: str, names: set[str], site: str) -> "Tag":
    """Return what a page says, its folds open and its links made for one file."""
    article = page.select_one("article.bd-article")
    for part in article.select(_ON_SCREEN):
        part.decompose()
    for fold in article.select("details"):
        fold["open"] = ""
    for hidden in article.select("noscript"):
        hidden.unwrap()
    for part in article.select("[id]"):
        part["id"] = f"{name}--{part['id']}"
    for picture in article.select("img[loading]"):
        del picture["loading"]
    for link in article.select("a[href]"):
        target, _, place = link["href"].partition("#")
        other = target.removesuffix(".html") if target else name
        if _EXTERNAL.match(target):
            continue
        link["href"] = f"#{other}--{place}" if place else f"#{other}"
        if other not in names:
            link["href"] = urljoin(site, f"{target}#{place}" if place else target)
    article["id"] = name
    return article


def _contents(whole: "BeautifulSoup", parts: Sequence[tuple[str, Sequence[str]]], articles: dict[str, "Tag"]) -> "Tag":
    """Return the first page: the title of the book, and its parts with the titles of their pages."""
    contents = whole.new_tag("article", attrs={"class": "bd-article contents"})
    contents.append(whole.new_tag("h1", string=whole.title.get_text().rpartition(" — ")[2]))
    listed = whole.new_tag("ul")
    for caption, names in parts:
        part = whole.new_tag("li", string=caption)
        titles = whole.new_tag("ul")
        for name in names:
            entry = whole.new_tag("li")
            title = articles[name].h1.get_text(" ", strip=True)
            entry.append(whole.new_tag("a", href=f"#{name}", string=title))
            titles.append(entry)
        part.append(titles)
        listed.append(part)
    contents.append(listed)
    return contents


def print_book(output: Path = PDF, built: Path = BUILT) -> Path:
    """Print the built book into one PDF of A4 pages; a file that was there before is replaced only by a whole one.

    Raises:
        DataError: a page is not built, or Chromium wrote no PDF, with what it said.
        MissingPackageError: there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise MissingPackageError(f"printing needs one of {', '.join(_BROWSERS)}: `apt-get install chromium`")
    page, part = built / "whole-book.html", output.with_suffix(".part.pdf")
    page.write_text(one_page(chapters_in_order(), built))
    try:
        with tempfile.TemporaryDirectory() as profile:
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
                       "--allow-file-access-from-files", "--no-pdf-header-footer", "--generate-pdf-document-outline",
                       # Formulas are set by a script, for as long as there are any.
                       "--virtual-time-budget=120000", f"--print-to-pdf={part}"]  # fmt: skip
            done = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True, timeout=900)
        if not part.exists() or not part.read_bytes().rstrip().endswith(b"%%EOF"):
            raise DataError(f"{browser} printed no whole PDF: {done.stderr.strip()[-500:]}")
        part.replace(output)
    finally:
        page.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return output
