"""The book as one file: articles in order, links that find their place in it, and no half PDF."""

import os
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hyla_repro import paths
from hyla_repro.book import pdf
from hyla_repro.errors import DataError, MissingPackageError

PARTS = [("", ["index"]), ("One part", ["first-page"])]
HEAD = """<head><meta charset="utf-8"><title>Here — The whole</title><link rel="stylesheet" href="_static/book.css">
<link rel="canonical" href="https://example.org/book/index.html"><script>window.MathJax = {}</script>
<script src="mathjax/tex.js"></script><script src="_static/theme.js"></script></head>"""
INDEX = """<article class="bd-article"><h1 id="top">Does it <em>hold</em>?<a class="headerlink" href="#top">#</a></h1>
<a href="first-page.html">page</a><a href="first-page.html#place">place</a><a href="#top">up</a>
<a href="downloads/runs.csv">data</a><a href="https://example.org/far">far</a>
<img class="in-light" src="a.svg"><img class="in-dark" src="b.svg"><script>start()</script></article>"""
PAGE = """<article class="bd-article"><h1>First</h1><details><summary>code</summary><pre>x</pre></details>
<p id="place">There</p><a href="index.html#top">home</a><noscript><img src="still.png"></noscript></article>"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    for name, article in (("index", INDEX), ("first-page", PAGE)):
        (tmp_path / f"{name}.html").write_text(f"<html>{HEAD}<body><nav>menu</nav>{article}</body></html>")
    return tmp_path


def test_articles_stand_in_order_behind_the_contents(built: Path) -> None:
    page = BeautifulSoup(pdf.one_page(PARTS, built), "html.parser")
    contents, front, first = page.select("article")
    assert contents.h1.get_text() == "The whole"
    assert [(link["href"], link.get_text()) for link in contents.select("a")] == [
        ("#index", "Does it hold ?"), ("#first-page", "First"),
    ]  # fmt: skip
    assert "One part" in contents.get_text()
    assert (front["id"], first["id"]) == ("index", "first-page")


def test_links_lead_to_places_in_the_file_and_else_to_the_site(built: Path) -> None:
    page = BeautifulSoup(pdf.one_page(PARTS, built), "html.parser")
    links = {link.get_text(): link["href"] for link in page.select("article:not(.contents) a")}
    assert links == {
        "page": "#first-page", "place": "#first-page--place", "up": "#index--top", "home": "#index--top",
        "data": "https://example.org/book/downloads/runs.csv", "far": "https://example.org/far",
    }  # fmt: skip
    places = {part["id"] for part in page.select("[id]")}
    assert {link[1:] for link in links.values() if link[0] == "#"} <= places


def test_what_only_a_screen_needs_stays_out_and_folds_are_open(built: Path) -> None:
    page = BeautifulSoup(pdf.one_page(PARTS, built), "html.parser")
    assert [picture["src"] for picture in page.select("img")] == ["a.svg", "still.png"]
    assert not page.select("nav, article script, .headerlink, script[src*=theme]")
    assert page.select("script[src*=mathjax]")
    assert all(fold.has_attr("open") for fold in page.select("details"))


def test_the_books_own_contents_are_read() -> None:
    parts = pdf.chapters_in_order()
    names = [name for _, pages in parts for name in pages]
    assert names[0] == "index"
    assert len(names) == len(set(names)) > 30
    assert all(list(paths.BOOK.glob(f"{name}.*")) for name in names)


def test_a_page_that_is_not_built_is_named(built: Path) -> None:
    with pytest.raises(DataError, match=r"missing-page\.html is missing: build the book first, `make book`"):
        pdf.one_page([("", ["index", "missing-page"])], built)


def browser_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a Chromium of a few words first on the path."""
    program = folder / "bin" / "chromium"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nfor word; do case $word in --print-to-pdf=*) out=${{word#*=}};; esac; done\n{does}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(pdf, "chapters_in_order", lambda: PARTS)


def test_a_whole_file_takes_the_place_of_the_last(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser_that('printf "%%PDF-1.4\\n%%%%EOF\\n" > "$out"', built, monkeypatch)
    output = built / "book.pdf"
    output.write_text("the last one")
    assert pdf.print_book(output, built) == output
    assert output.read_text() == "%PDF-1.4\n%%EOF\n"
    assert {path.name for path in built.iterdir()} == {"index.html", "first-page.html", "book.pdf", "bin"}


def test_half_a_file_is_refused_and_the_last_one_stays(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser_that('printf "%%PDF-1.4" > "$out"; echo the disk is full >&2', built, monkeypatch)
    output = built / "book.pdf"
    output.write_text("the last one")
    with pytest.raises(DataError, match="printed no whole PDF: the disk is full"):
        pdf.print_book(output, built)
    assert output.read_text() == "the last one"
    assert {path.name for path in built.iterdir()} == {"index.html", "first-page.html", "book.pdf", "bin"}


def test_without_chromium_it_says_how_to_get_one(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(built))
    with pytest.raises(MissingPackageError, match="apt-get install chromium"):
        pdf.print_book(built / "book.pdf", built)
