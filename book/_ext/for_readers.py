"""Sphinx extension: what is written for code becomes what is written for readers, once a page is HTML.

A number never stands on another line than its unit, its thousands or its sign. Tables that a cell computes say in words
what the code calls a column, name their rows in the line of the header, and have no column that only counts.
"""

import re
from collections.abc import Callable
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

from hyla_repro.results.methods import NAMES

# What a page has in tags, and where its text is code or a formula, is left alone.
_LEFT_ALONE = re.compile(
    r"<(pre|code|dt|script|style|svg)\b.*?</\1>" r"|<(span|div) class=\"math\b.*?</\2>" r"|<[^>]*>", re.DOTALL
)
_UNITS = (
    "%|h|min|s|ms|MB|GB|kB|MiB|GiB|px|nats|bits|points?|seeds?|steps|layers?|heads?|features?|runs?|terms?|draws?|"
    "pairs?|tokens?|rows?|problems|clear"
)
_STUCK = [
    (re.compile(r"(?<=\d)%"), "\N{NO-BREAK SPACE}%"),
    (re.compile(rf"(?<=\d) (?=(?:{_UNITS})\b|%)"), "\N{NO-BREAK SPACE}"),
    (re.compile(r"(?<=\d) (?=\d{3}\b)"), "\N{NO-BREAK SPACE}"),
    (re.compile(r"(?<=[×±]) (?=\d)|(?<=&lt;) (?=\d)"), "\N{NO-BREAK SPACE}"),
    # Powers of ten and dates.
    (
        re.compile(r"(?<=\de)-(?=\d)|(?<=\b\d{4})-(?=\d\d-\d\d\b)|(?<=\b\d{4}-\d\d)-(?=\d\d\b)"),
        "\N{NON-BREAKING HYPHEN}",
    ),
    (re.compile(r"\b([A-Z]) = (?=\d)"), "\\1\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"),
    (re.compile(r" (?=[✓✗~○]\s*$)"), "\N{NO-BREAK SPACE}"),
]
# Numbers of five digits and more are read in groups of three.
_LONG = re.compile(r"(?<![\w.,/#-])\d{5,}(?![\w/-]|\.\d)")
_TABLE = re.compile(r'<table [^>]*class="dataframe".*?</table>', re.DOTALL)
_WORDS = NAMES | {
    "auc": "AUC", "d_model": "width", "f1": "F1", "fuzzy_logic": "fuzzy logic", "heldout": "held-out tasks",
    "heldout_fraction": "held out", "instruction_set": "instruction set", "n_features": "features", "n_heads": "heads",
    "n_layers": "layers", "n_parameters": "parameters", "normalizer": "normaliser", "rms_head": "RMSHead",
    "sraven": "SRAVEN", "term_value": "value of the term", "test": "training tasks", "train_auc": "AUC, training",
    "train_f1": "F1, training", "variant": "method",
}  # fmt: skip


def unbroken(html: str) -> str:
    """Return the page with spaces that no line may break at between numbers and what belongs to them."""

    def outside(text: str) -> str:
        for pattern, replacement in _STUCK:
            text = pattern.sub(replacement, text)
        return _LONG.sub(lambda number: f"{int(number[0]):,}".replace(",", "\N{NO-BREAK SPACE}"), text)

    return _between_tags(html, outside)


def _between_tags(html: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for tag in _LEFT_ALONE.finditer(html):
        parts += [change(html[end : tag.start()]), tag[0]]
        end = tag.end()
    return "".join([*parts, change(html[end:])])


def in_words(html: str) -> str:
    """Return the page with the tables that cells computed as a reader wants them."""
    return _TABLE.sub(lambda table: _table(table[0]), html)


def _table(html: str) -> str:
    table = BeautifulSoup(html, "html.parser")
    _name_rows_in_one_line(table)
    _drop_counts(table)
    for cell in table.find_all("th"):
        if (text := cell.get_text()) in _WORDS:
            cell.string = _WORDS[text]
    return str(table)


def _cells(row: Tag) -> list[Tag]:
    return row.find_all(["th", "td"])


def _name_rows_in_one_line(table: BeautifulSoup) -> None:
    """Put the names of the rows' levels, which pandas gives a line of their own, into the line above."""
    *above, names = table.select("thead tr") or [None]
    first = table.select_one("tbody tr")
    if not above or names is None or first is None:
        return
    levels = len(first.find_all("th"))
    if any(cell.get_text() for cell in _cells(names)[levels:]):
        return
    columns = _cells(above[-1])
    of_columns = columns[levels - 1].get_text()
    if len(above) == 1 and of_columns:
        shown = columns[levels:]
        if all(cell.get_text().replace(".", "").isdigit() for cell in shown):
            for cell in shown:
                cell.string = f"{_WORDS.get(of_columns, of_columns)} {cell.get_text()}"
        columns[levels - 1].string = ""
    for cell, name in zip(columns[:levels], _cells(names), strict=False):
        if not cell.get_text():
            cell.string = name.get_text()
    names.decompose()


def _drop_counts(table: BeautifulSoup) -> None:
    """Drop a first column that has no name and counts rows from 0."""
    rows, heads = table.select("tbody tr"), table.select("thead tr")
    counts = [cell.get_text() for row in rows for cell in row.find_all("th")]
    if rows and counts == list(map(str, range(len(rows)))) and not _cells(heads[0])[0].get_text():
        for row in [*heads, *rows]:
            _cells(row)[0].decompose()


def for_readers(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Change the page, and the titles of its neighbours, before they are written."""
    if "body" in context:
        context["body"] = unbroken(in_words(context["body"]))
    for neighbour in ("prev", "next"):
        if context.get(neighbour):
            context[neighbour] = {**context[neighbour], "title": unbroken(context[neighbour]["title"])}


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", for_readers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
