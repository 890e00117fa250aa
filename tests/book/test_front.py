"""The front page: its comparison, its sheet of verdicts, and titles that carry theirs."""

import re
from pathlib import Path

import pytest

from hyla_repro import paths
from hyla_repro.book import front
from hyla_repro.book.lock import entries
from hyla_repro.book.notebook import page_of
from hyla_repro.book.report import documents, verdicts
from hyla_repro.book.verdicts import MARKS, Verdict
from hyla_repro.results.effects import REPRODUCED, UNDECIDED, Effect
from hyla_repro.results.store import PAPER, Store
from hyla_repro.studies import chapters


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(committed_only=True)


@pytest.fixture(scope="module")
def found(store: Store) -> list[Verdict]:
    return verdicts(store)


# --- the figure ----------------------------------------------------------------------------------------------------


def test_leads_are_those_that_decide_the_headlines(store: Store, found: list[Verdict]) -> None:
    shown = {row.label: row.ours["laptop"] for row in front.rows(store)}
    for label, claim in (("Fuzzy logic", "2c-main"), ("SRAVEN", "a1-sraven-main")):
        decided = next(entry for entry in found if entry.claim.id == claim).outcome.effects[0]
        assert decided.name == "HYLA minus softmax attention"
        assert shown[label] == decided._replace(name="")


def test_published_leads_are_differences_of_printed_numbers(store: Store) -> None:
    table = store.table(PAPER).set_index(["task", "variant"])["value"]
    for row, task in zip(front.rows(store)[::2], ("fuzzy_logic", "sraven"), strict=False):
        assert row.paper is not None
        assert row.paper.value == round(table[task, "hyla"] - table[task, "softmax"], 2)
        assert row.paper.low < row.paper.value < row.paper.high


def test_without_runs_the_paper_stands_alone(tmp_path: Path, store: Store) -> None:
    empty = Store(tmp_path, committed_only=True)
    empty.write({PAPER: store.read(PAPER)})
    rows = front.rows(empty)
    assert [(row.label, bool(row.paper), row.ours) for row in rows] == [("Fuzzy logic", True, {}), ("SRAVEN", True, {})]
    assert len(front.forest(rows).axes) == 1


def test_units_have_axes_of_their_own_and_every_effect_its_numbers() -> None:
    effect = Effect("", 1.0, -2.0, 4.0, 0.5, 3)
    one = effect._replace(value=5.0, low=float("nan"), high=float("nan"), n=1)
    rows = [front.Row("first", effect, {"laptop": one}), front.Row("second", None, {"laptop": effect}, "bits")]
    figure = front.forest(rows)
    words = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert words == [["first", str(effect), "5.0 (one seed)"], ["second", str(effect)]]
    assert [ax.get_xlabel().endswith(unit) for ax, unit in zip(figure.axes, (rows[0].unit, "bits"), strict=True)]


# --- the sheet -----------------------------------------------------------------------------------------------------


def test_every_verdict_is_a_cell_with_sign_words_and_links(found: list[Verdict]) -> None:
    html = front.Matrix(found)._repr_html_()
    buttons = re.findall(r'<button [^>]*popovertarget="verdict-([\w-]+)"[^>]*>(.)</button>', html)
    assert sorted(buttons) == sorted((entry.claim.id, MARKS[entry.answer]) for entry in found)
    for entry in found:
        card = html.partition(f'<div popover id="verdict-{entry.claim.id}"')[2].partition("</div>")[0]
        assert f"report.html#claim-{entry.claim.id}" in card
        assert page_of(entry.claim.figure).with_suffix(".html").name in card
    assert "<script" not in html


def test_words_of_a_claim_cannot_break_the_page(found: list[Verdict]) -> None:
    claim = found[0].claim.__class__(**{**vars(found[0].claim), "statement": 'a < b & "c"'})
    html = front.Matrix([found[0]._replace(claim=claim)])._repr_html_()
    assert "a < b" not in html
    assert "a &lt; b &amp; &quot;c&quot;" in html


def test_what_failed_is_undecided_or_changed_is_listed(store: Store, found: list[Verdict]) -> None:
    html, locked = front.Open(found, entries(store))._repr_html_(), entries(store)
    counts = dict(re.findall(r"<summary>([^:]+): (\d+)</summary>", html))
    assert counts["Undecided"] == str(sum(entry.answer == UNDECIDED for entry in found))
    rules = [{locked_then.rule for locked_then in locked[entry.claim.id]} for entry in found]
    assert counts["Rules that changed"] == str(sum(len(of_claim) > 1 for of_claim in rules))
    assert "the first rule (2026-11-23) said: not reproduced" in html


# --- titles --------------------------------------------------------------------------------------------------------


def test_titles_that_ask_carry_the_verdict_that_answers(found: list[Verdict]) -> None:
    asking = {name for name, chapter in chapters().items() if chapter.answered_by}
    assert len(asking) > 15
    for name in asking:
        title = re.search(r'"# ([^"\\]*)', page_of(name).read_text())
        assert title is not None
        assert title[1].endswith(f"? {front.mark_of(name, found)}"), name


def test_a_stale_mark_is_mended_and_a_title_without_question_refused(tmp_path: Path, store: Store) -> None:
    from hyla_repro.book.report import _marked

    page = tmp_path / "fig2c-x.ipynb"
    for before in ("? ✗", "?", "? ~"):
        page.write_text(f'{{"source": ["(x)=\\n", "# Does it{before}\\n", "text"]}}')
        assert '"# Does it? ✓\\n"' in _marked(page, MARKS[REPRODUCED])
    page.write_text('{"source": ["# It does\\n"]}')
    with pytest.raises(ValueError, match="its title asks nothing"):
        _marked(page, MARKS[REPRODUCED])


def test_claims_that_answer_are_of_their_chapter(found: list[Verdict]) -> None:
    figures = {entry.claim.id: entry.claim.figure for entry in found}
    answered = {name: chapter.answered_by for name, chapter in chapters().items() if chapter.answered_by}
    assert {claim: figures.get(claim) for claim in answered.values()} == {c: name for name, c in answered.items()}


def test_notebooks_are_among_the_generated_documents(store: Store) -> None:
    assert paths.BOOK / "fig2c-compositional-generalization.ipynb" in documents(store)
