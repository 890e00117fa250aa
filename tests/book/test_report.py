"""Generated documents are what the committed results say, and are found stale when they are not."""

import re
from pathlib import Path

import pandas as pd
import pytest

from hyla_repro.book import report
from hyla_repro.ledger.data_folder import RUNS, table_name
from hyla_repro.paths import ROOT
from hyla_repro.results.store import Store
from hyla_repro.studies import experiments


@pytest.fixture(scope="module")
def fresh() -> dict[Path, str]:
    return report.documents()


def test_report_page_and_readme_are_up_to_date(fresh: dict[Path, str]) -> None:
    for path, text in fresh.items():
        assert path.read_text() == text, f"{path.name} is stale: run `hyla-repro report`"


def test_every_claim_has_a_row_with_its_verdict(fresh: dict[Path, str]) -> None:
    page = fresh[ROOT / "book" / "report.md"]
    for found in report.verdicts(Store(committed_only=True)):
        assert any(f"[{found.claim.id}](" in line and f"**{found.answer}**" in line for line in page.splitlines())


def test_each_warm_up_has_a_row_of_its_own(fresh: dict[Path, str]) -> None:
    """A summary alone would keep the better one, as of all settings of the optimiser."""
    section = fresh[ROOT / "book" / "report.md"].partition("## Learning rate and warm-up")[2].partition("\n## ")[0]
    for method in ("softmax attention", "HYLA"):
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith(f"| {method}")]
        assert {("0.001", "1000", "3 |"), ("0.001", "160", "3 |")} <= {(row[1], row[2], row[-1]) for row in rows}
        assert len({tuple(row[:3]) for row in rows}) == len(rows)


def test_the_headline_by_seed_ends_with_what_decides_it(fresh: dict[Path, str]) -> None:
    section = fresh[ROOT / "book" / "report.md"].partition("## The headline, seed by seed")[2].partition("\n## ")[0]
    ends = [line.split(" | ")[-2:] for line in section.splitlines() if line.startswith("| mean")]
    decided = {found.claim.id: found for found in report.verdicts(Store(committed_only=True))}
    for cells, claim in zip(ends, ("2c-main", "a1-sraven-main"), strict=True):
        effects = decided[claim].outcome.effects
        assert [cell.rstrip(" |") for cell in cells] == [str(effect._replace(name="")).strip() for effect in effects]
    seeds = [line for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(seeds) == sum(decided[claim].outcome.effects[0].n for claim in ("2c-main", "a1-sraven-main"))


def test_linked_chapters_exist() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.ipynb)\)", (ROOT / "book/report.md").read_text()))
    assert len(linked) > 10
    for name in linked:
        assert (ROOT / "book" / name).exists()


def test_a_readme_without_its_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# no marks\n")
    with pytest.raises(ValueError, match=r"README\.md needs the lines"):
        report._fill(tmp_path / "README.md", {"verdicts": "a table"})


def test_committed_runs_are_runs_of_the_presets() -> None:
    known = {run.id for preset in ("laptop", "paper") for run in experiments("all", preset)}
    store = Store(committed_only=True)
    committed = pd.concat([store.table(RUNS), store.table(table_name(RUNS, "sraven"))])
    assert set(committed["id"]) <= known
    assert committed["id"].is_unique
    assert (committed["heldout"] <= 1).all()
    assert not committed["commit"].str.contains("dirty|unknown").any()
