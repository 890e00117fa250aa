"""Locked rules: what was once claimed stays, and no rule changes without an entry that says so."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hyla_repro.book.lock import FILE, Entry, add, digest, dump, entries, problems, reported, status
from hyla_repro.book.verdicts import claims
from hyla_repro.cli import main
from hyla_repro.errors import DataError
from hyla_repro.ledger.data_folder import MANIFEST, DataFolder
from hyla_repro.results.claims import Claim, missing

TODAY = datetime.now(UTC).strftime("%Y-%m-%d")


def claim(name: str, rule: str = "a minus b", statement: str = "A is more than b.") -> Claim:
    return Claim(name, "fig1", "facts", statement, "no printed number", rule, lambda results: missing())


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A folder in which two claims are locked."""
    folder = DataFolder(tmp_path)
    folder.write({})
    assert add([claim("one"), claim("two")], folder, {}, known=False, why="the first rules") == ["one", "two"]
    return folder


# --- the committed file ------------------------------------------------------------------------------------------


def test_claims_and_the_committed_lock_agree() -> None:
    """This fails when a rule changes without a new entry, and when a claim vanishes."""
    locked = entries(DataFolder())
    assert problems(claims(), locked) == []
    # A claim cut out of code and lock alike is missing here.
    assert len(locked) == 113, "a claim was added, or cut from code and lock together"


def test_every_entry_says_when_and_why() -> None:
    for name, versions in entries(DataFolder()).items():
        dates = [entry.date for entry in versions]
        assert dates == sorted(dates), name
        assert all(datetime.fromisoformat(date) for date in dates)
        assert all(entry.note.strip() and entry.statement and entry.rule for entry in versions), name
        assert all(entry.said for entry in versions[:-1]), name


def test_the_claim_that_was_removed_while_failing_is_there_with_its_first_rule() -> None:
    first, *_, last = entries(DataFolder())["a3-test"]
    assert "90 %" in first.rule
    assert first.said == "not reproduced"
    assert any("removed" in entry.note for entry in (first, last))
    assert last.known


def test_the_headline_keeps_the_rule_that_it_had_before_its_runs() -> None:
    first, *_ = entries(DataFolder())["2c-main"]
    assert not first.known
    assert first.said == "not reproduced"
    assert status(entries(DataFolder())["2c-main"]).startswith("changed after first results")


# --- what is found -----------------------------------------------------------------------------------------------


def test_nothing_changed_is_no_problem(folder: DataFolder) -> None:
    assert problems([claim("two"), claim("one")], entries(folder)) == []


def test_changes_of_claims_are_found(folder: DataFolder) -> None:
    locked = entries(folder)
    for changed in (claim("one", rule="a minus b, or nearly"), claim("one", statement="A is more than c.")):
        (found,) = problems([changed, claim("two")], locked)
        assert found == f"one is not what was locked on {TODAY}: `hyla-repro lock --why` says why"
    (found,) = problems([claim("two")], locked)
    assert found.startswith("one was a claim and is none any more")
    (found,) = problems([claim("one"), claim("two"), claim("three")], locked)
    assert found.startswith("three is not locked")


def test_what_no_rule_is_made_of_may_change(folder: DataFolder) -> None:
    renamed = replace(claim("one"), published="81.1", figure="fig2c", topic="code")
    assert problems([renamed, claim("two")], entries(folder)) == []


@pytest.mark.parametrize("field", ["statement", "rule", "digest"])
def test_an_altered_entry_is_found(folder: DataFolder, field: str) -> None:
    content = json.loads(folder.read(FILE))
    content["two"][0][field] += "."
    folder.write({FILE: json.dumps(content).encode()})
    with pytest.raises(DataError, match=rf"the entry of two from {TODAY} was altered"):
        entries(folder)


def test_an_altered_file_is_found(folder: DataFolder) -> None:
    path = folder.folder / FILE
    path.write_text(path.read_text().replace("the first rules", "the last rules"))
    with pytest.raises(DataError, match="was altered since it was collected"):
        entries(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"one": 3}', '{"one": [{}]}', '{"one": [{"date": "today"}]}', '{"one": ["x"]}']
)
def test_a_file_that_is_no_lock_is_refused(folder: DataFolder, content: str) -> None:
    folder.write({FILE: content.encode()})
    with pytest.raises(DataError, match=r"rules\.lock cannot be read .*: restore it with"):
        entries(folder)


def test_digests_tell_statement_from_rule() -> None:
    assert len({digest("a", "b"), digest("b", "a"), digest("ab", ""), digest("", "ab"), digest("a", "b ")}) == 5


# --- what is added -----------------------------------------------------------------------------------------------


def test_a_changed_rule_is_appended_with_what_the_first_one_said(folder: DataFolder) -> None:
    before = entries(folder)
    changed = [claim("one", rule="a minus c"), claim("two"), claim("three")]
    verdicts = {"one": "undecided", "two": "reproduced"}
    assert add(changed, folder, verdicts, known=True, why="c is the fair one") == ["one", "three"]
    now = entries(folder)
    first, last = now["one"]
    assert first == before["one"][0]._replace(said="undecided")
    assert last == Entry(TODAY, "A is more than b.", "a minus c", digest("A is more than b.", "a minus c"), True, None,
                         "c is the fair one")  # fmt: skip
    assert now["two"] == before["two"]
    assert problems(changed, now) == []
    assert add(changed, folder, verdicts, known=True, why="again") == []
    assert entries(folder) == now


def test_going_back_to_the_first_rule_is_an_entry_too(folder: DataFolder) -> None:
    for rule in ("a minus c", "a minus b"):
        assert add([claim("one", rule=rule), claim("two")], folder, {"one": rule}, known=True, why="so") == ["one"]
    assert [entry.rule for entry in entries(folder)["one"]] == ["a minus b", "a minus c", "a minus b"]
    assert [entry.said for entry in entries(folder)["one"]] == ["a minus c", "a minus b", None]


@pytest.mark.parametrize(
    ("present", "why", "message"),
    [
        (["two"], "it failed", "claims vanished: one; bring them back, also those that fail"),
        (["one", "two", "three"], " ", "why is empty"),
    ],
)
def test_nothing_is_added_for_a_vanished_claim_or_without_a_reason(
    folder: DataFolder, present: list[str], why: str, message: str
) -> None:
    before = folder.read(FILE)
    with pytest.raises(ValueError, match=message):
        add([claim(name) for name in present], folder, {}, known=True, why=why)
    assert folder.read(FILE) == before


def test_the_file_reads_as_it_was_written(folder: DataFolder) -> None:
    locked = entries(folder)
    folder.write({FILE: dump(locked)})
    assert entries(folder) == locked
    assert FILE in json.loads((folder.folder / MANIFEST).read_text())


def test_a_page_says_what_its_rules_said() -> None:
    page = "\n".join([
        "| claim | verdict | statement | here | paper |",
        "| [2c-main](fig2c.ipynb) | **reproduced** (laptop) | HYLA is better. | **weak**: x; 13.5 | 81.1 |",
        "| [identity](fig1.ipynb) | **contradicted** | It is. | below 1e-12 | exact |",
        "| [a1-hyla](tablea1.ipynb) | **not tested at this scale** | HYLA | 68.2 | 81.1 |",
        "| 2c-main | a rule | at most 2.5 % | fixed |",
    ])  # fmt: skip
    assert reported(page) == {
        "2c-main": "reproduced", "identity": "contradicted", "a1-hyla": "not tested at this scale",
    }  # fmt: skip


def test_status_in_words() -> None:
    def entry(date: str, known: bool, said: str | None = None, words: str = "A.", rule: str = "a") -> Entry:
        return Entry(date, words, rule, digest(words, rule), known, said, "why")

    assert status([entry("2026-11-23", False)]) == "fixed before its runs, 2026-11-23"
    assert status([entry("2026-11-23", True)]) == "fixed after first results, 2026-11-23"
    first = entry("2026-11-22", False, "not reproduced")
    words = "changed after first results, 2026-11-23; the first rule (2026-11-22) said: not reproduced"
    assert status([first, entry("2026-11-23", True, rule="b")]) == words
    words = "fixed before its runs, 2026-11-22; the words of its statement changed after first results, 2026-11-23"
    assert status([first, entry("2026-11-23", True, words="B.")]) == words


def test_the_command_locks_what_is_new_and_refuses_an_empty_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.md").write_text("| [one](a.ipynb) | **undecided** | A. | 1 | 2 |\n")
    monkeypatch.setattr("hyla_repro.paths.BOOK", tmp_path)
    monkeypatch.setattr("hyla_repro.paths.DATA", tmp_path / "data")
    monkeypatch.setattr("hyla_repro.book.verdicts.claims", lambda: [claim("one", rule=rule)])

    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["hyla-repro", "lock", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / MANIFEST).write_text("{}")
    rule = "a minus b"
    assert call("--why", "the first rule", "--no-known") == 0
    assert "locked one" in capsys.readouterr().out
    assert call("--why", "again") == 0
    assert "locked nothing new" in capsys.readouterr().out
    rule = "a minus c"
    assert call("--why", "c is the fair one") == 0
    first, last = entries(DataFolder(tmp_path / "data"))["one"]
    assert (first.known, first.said, last.known, last.rule) == (False, "undecided", True, "a minus c")
    rule = "a minus d"
    assert call("--why", " ") == 2
    assert "why is empty" in capsys.readouterr().err
    assert len(entries(DataFolder(tmp_path / "data"))["one"]) == 2
