"""The reproduction report and the README's table, generated from committed results."""

from pathlib import Path
from typing import Any

import pandas as pd

from hyla_repro import paths
from hyla_repro.book import costs
from hyla_repro.book.notebook import page_of
from hyla_repro.book.verdicts import NOT_REPRODUCED, NOT_TESTED, REPRODUCED, best_verdict, claims, scales
from hyla_repro.files import write_atomically
from hyla_repro.results.markdown import frame
from hyla_repro.results.markdown import table as markdown_table
from hyla_repro.results.store import Store, cost
from hyla_repro.studies import chapters, experiments, with_runs


def _runs_section(store: Store) -> str:
    runs, lines = pd.DataFrame(store.committed_runs().values()), []
    committed = store.run_ids()
    for figure in with_runs():
        counts = []
        for preset in ("laptop", "paper"):
            wanted = {run.id for run in experiments(figure, preset)}
            counts.append(f"{len(wanted & committed)} of {len(wanted)}")
        lines.append([f"`{figure}`", *counts])
    parts = [markdown_table(["runs of", "laptop", "paper"], lines)]
    if len(runs):
        parts.append(frame(cost(runs)))
    return "\n\n".join(parts)


def verdicts(store: Store) -> pd.DataFrame:
    """Return every claim with its published value, our result, verdict and the preset that decided it."""
    rows, results = [], scales(store)
    for claim in claims(store):
        decided, ours, preset = best_verdict(claim, results)
        fields = {name: getattr(claim, name) for name in ("id", "figure", "statement", "published", "rule", "level")}
        rows.append({**fields, "ours": ours, "preset": preset, "verdict": decided})
    return pd.DataFrame(rows)


def _scale(row: Any) -> str:
    return "" if row.preset == "any" or row.verdict == NOT_TESTED else f" ({row.preset})"


def page(store: Store, table: pd.DataFrame) -> str:
    """Return the report page in MyST, from committed runs and their verdicts."""
    counts = table["verdict"].value_counts()
    tally = ", ".join(f"{counts.get(v, 0)} {v}" for v in (REPRODUCED, NOT_REPRODUCED, NOT_TESTED))
    sections = [
        "# Reproduction report",
        "This page is written by `hyla-repro report` from the committed runs, and a test fails when it is stale.\n"
        "[How to read a verdict](verdicts.md) explains the terms.",
        "At `laptop`, fuzzy logic has a fifth of the paper's steps (D11). SRAVEN has two features instead of four, "
        "half the width and a twentieth of the problems (D16): its accuracies are not comparable with the published "
        "ones.",
        f"**{len(table)} claims: {tally}.**",
    ]
    for title, level in (
        ("Orderings and trends", False),
        ("Levels of Table A1: held-out R² of fuzzy logic, accuracy of SRAVEN (%)", True),
    ):
        rows = [
            [f"[{r.id}]({page_of(r.figure).name})", r.statement, r.published, r.ours, f"**{r.verdict}**{_scale(r)}"]
            for r in table[table["level"] == level].itertuples()
        ]
        sections += [f"## {title}", markdown_table(["claim", "statement", "paper", "here", "verdict"], rows)]
    rules = [[row.id, row.rule] for row in table[~table["level"]].itertuples()]
    rules.append(["levels", table[table["level"]]["rule"].iloc[0]])
    sections += [
        "## Rules",
        markdown_table(["claim", "reproduced when"], rules),
        *(chapter.section(store) for chapter in chapters().values() if chapter.section),
        "## Runs behind it",
        _runs_section(store),
    ]
    return "\n\n".join(sections) + "\n"


def readme_section(table: pd.DataFrame) -> str:
    """Return the README's table of verdicts."""
    table = table[~table["level"]]
    rows = [[row.statement, row.published, row.ours, row.verdict + _scale(row)] for row in table.itertuples()]
    return markdown_table(["claim of the paper", "paper", "here", "verdict"], rows)


def cost_sections(store: Store) -> dict[str, str]:
    """Return the tables of the chapter on cost, by the names of the marks between which they stand."""
    sections = {"costs": frame(costs.figures(store))}
    for name in costs.MEASUREMENTS:
        table, how = costs.described(store, name)
        sections[name] = how if table.empty else f"{frame(table)}\n\n{how}"
    return sections


def _fill(path: Path, sections: dict[str, str]) -> str:
    """Return a page with its tables as they should be, each between two marks that carry its name.

    Raises: ValueError naming the marks that the page lacks.
    """
    text = path.read_text()
    for name, content in sections.items():
        begin, end = f"<!-- {name}: written by `hyla-repro report` -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{path.name} needs the lines {begin!r} and {end!r}, between which a table is written")
        text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return text


def documents(store: Store | None = None, root: Path = paths.ROOT) -> dict[Path, str]:
    """Return the generated documents, by path, as they should be.

    Raises: ValueError if a page has lost the marks between which its tables stand.
    """
    store = store or Store(committed_only=True)
    readme, cost_page, table = root / "README.md", root / "book" / "cost.md", verdicts(store)
    return {
        root / "book" / "report.md": page(store, table),
        readme: _fill(readme, {"verdicts": readme_section(table)}),
        cost_page: _fill(cost_page, cost_sections(store)),
    }


def write(store: Store | None = None) -> list[Path]:
    """Write the report page and the README's table, and return the paths."""
    texts = documents(store)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)
