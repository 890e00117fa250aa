"""Sphinx extension: every deviation and claim has an anchor, and wherever a page names one it leads there.

A word that leads to the glossary shows its explanation where the mouse rests on it.

D18 is a term of the list on the page of deviations, `2c-main` a row of the report. Pages only name them.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

from hyla_repro.book.verdicts import claims

_DEVIATION = re.compile(r"\bD(\d+)\b")
_DEVIATIONS, _GLOSSARY, _REPORT = "deviations", "glossary", "report"


def add_targets(app: Sphinx, doctree: nodes.document) -> None:
    """Give the deviations and the rows of the report their anchors."""
    if app.env.docname == _DEVIATIONS:
        for term in doctree.findall(nodes.term):
            if match := _DEVIATION.match(term.astext()):
                term["ids"].append(f"d{match[1]}")
    if app.env.docname == _REPORT:
        known = {claim.id for claim in claims()}
        for row in doctree.findall(nodes.row):
            table = row.parent.parent.parent
            # Sets of runs have names, too, and some are those of claims.
            if (name := row[0].astext()) not in known or table.next_node(nodes.entry).astext() != "claim":
                continue
            # Rules stand in a second table, whose rows have no link to a chapter.
            compared = any(isinstance(node, nodes.reference | pending_xref) for node in row[0].findall())
            if compared:
                row["ids"].append(f"claim-{name}")
            table["classes"] = [*table["classes"], *({"comparison" if compared else "rules"} - set(table["classes"]))]


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Lead from names to their anchors, but in headings, code and other links."""
    known = {claim.id for claim in claims()}
    for text in list(doctree.findall(nodes.Text)):
        if _inside(text, nodes.reference, nodes.title, nodes.literal_block, nodes.term, nodes.raw):
            continue
        if _inside(text, nodes.literal):
            if text.astext() in known:
                literal = text.parent
                literal.replace_self(_reference(literal.deepcopy(), f"{_REPORT}.html#claim-{text.astext()}"))
        elif _DEVIATION.search(text.astext()):
            text.parent.replace(text, _linked(text.astext()))
    for reference in doctree.findall(nodes.reference):
        if reference.get("refuri") == f"{_DEVIATIONS}.html" and (match := _DEVIATION.fullmatch(reference.astext())):
            reference["refuri"] += f"#d{match[1]}"


def explain(app: Sphinx, doctree: nodes.document) -> None:
    """Give the words of the glossary their anchors, and remember what it says of each."""
    if app.env.docname != _GLOSSARY:
        return
    known = app.env.explanations = {}  # type: ignore[attr-defined]
    for item in doctree.findall(nodes.definition_list_item):
        term, text = item[0], " ".join(item[-1].astext().split())
        term["ids"].append("term-" + re.sub(r"\W+", "-", term.astext().lower()).strip("-"))
        known |= {word.strip(): (term["ids"][-1], text) for word in term.astext().lower().split(",")}


def _explained(app: Sphinx, word: str) -> tuple[str, str] | None:
    """Return anchor and explanation of a word, or of the word that it is the plural of."""
    known = getattr(app.env, "explanations", {})
    return known.get(word.lower()) or known.get(word.lower().removesuffix("s"))


def _inside(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _linked(text: str) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    end = 0
    for match in _DEVIATION.finditer(text):
        parts.append(nodes.Text(text[end : match.start()]))
        parts.append(_reference(nodes.Text(match[0]), f"{_DEVIATIONS}.html#d{match[1]}"))
        end = match.end()
    return [*parts, nodes.Text(text[end:])]


def _reference(content: nodes.Node, target: str) -> nodes.reference:
    return nodes.reference("", "", content, refuri=target, internal=True)


def resolved(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link once the references of the page are resolved, so that `[D18](deviations.md)` is known for what it is."""
    link(app, doctree)
    for reference in doctree.findall(nodes.reference):
        if reference.get("refuri") == f"{_GLOSSARY}.html" and (found := _explained(app, reference.astext())):
            reference["refuri"] += f"#{found[0]}"
            reference["reftitle"] = found[1]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_targets)
    app.connect("doctree-read", explain)
    app.connect("doctree-resolved", resolved)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
