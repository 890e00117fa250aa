"""The reproduction report and the README's table, generated from committed results."""

from pathlib import Path

import pandas as pd

from hyla_repro import paths
from hyla_repro.compare import NOT_REPRODUCED, NOT_TESTED, REPRODUCED, best_verdict, claims
from hyla_repro.presets import FIGURES, experiments
from hyla_repro.results import RUNS, Store
from hyla_repro.runs import write_atomically

_PAGES = {
    "fig1": "fig1-attention-is-a-hypernetwork", "fig2c": "fig2c-compositional-generalization",
    "figa3": "figa3-unknown-terms", "fig2b": "fig2b-decoding", "fig2d": "fig2d-latent-codes",
    "tablea1": "tablea1-ablations",
}  # fmt: skip
BEGIN, END = "<!-- verdicts: written by `hyla-repro report` -->", "<!-- end of verdicts -->"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _runs_section(store: Store) -> str:
    runs, lines = store.table(RUNS), []
    committed = set(runs["id"])
    for figure in FIGURES:
        counts = []
        for preset in ("laptop", "paper"):
            wanted = {run.id for run in experiments(figure, preset)}
            counts.append(f"{len(wanted & committed)} of {len(wanted)}")
        lines.append([f"`{figure}`", *counts])
    parts = [_table(["runs of", "laptop", "paper"], lines)]
    if len(runs):
        groups = runs.groupby(["device", "instruction_set", "threads", "torch", "steps"])
        rows = [
            [str(value) for value in key] + [str(len(part)), f"{part['minutes'].sum() / 60:.1f}",
             part["date"].min() if part["date"].nunique() == 1 else f"{part['date'].min()} to {part['date'].max()}"]
            for key, part in groups
        ]  # fmt: skip
        parts.append(_table(["device", "instruction set", "threads", "torch", "steps", "runs", "hours", "date"], rows))
    return "\n\n".join(parts)


def verdicts(store: Store) -> pd.DataFrame:
    """Return every claim with its published value, our result, verdict and the preset that decided it."""
    rows = []
    for claim in claims(store):
        decided, ours, preset = best_verdict(claim, store)
        rows.append({"id": claim.id, "figure": claim.figure, "statement": claim.statement, "published": claim.published,
                     "ours": ours, "preset": preset, "verdict": decided, "rule": claim.rule, "level": claim.level})  # fmt: skip
    return pd.DataFrame(rows)


def page(store: Store) -> str:
    """Return the report page in MyST."""
    table = verdicts(store)
    counts = table["verdict"].value_counts()
    tally = ", ".join(f"{counts.get(v, 0)} {v}" for v in (REPRODUCED, NOT_REPRODUCED, NOT_TESTED))
    sections = [
        "# Reproduction report",
        "This page is written by `hyla-repro report` from the committed runs, and a test fails when it is stale.\n"
        "[How to read a verdict](verdicts.md) explains the terms.",
        f"**{len(table)} claims: {tally}.**",
    ]
    for title, part in (("Orderings and trends", table[~table["level"]]), ("Levels of Table A1", table[table["level"]])):
        rows = [
            [f"[{row.id}]({_PAGES[row.figure]}.ipynb)", row.statement, row.published, row.ours, row.preset, f"**{row.verdict}**"]
            for row in part.itertuples()
        ]
        sections += [f"## {title}", _table(["claim", "statement", "paper", "here", "preset", "verdict"], rows)]
    rules = [[row.id, row.rule] for row in table[~table["level"]].itertuples()]
    rules.append(["levels", table[table["level"]]["rule"].iloc[0]])
    sections += ["## Rules", _table(["claim", "reproduced when"], rules), "## Runs behind it", _runs_section(store)]
    return "\n\n".join(sections) + "\n"


def readme_section(store: Store) -> str:
    """Return the README's table between its two marks."""
    table = verdicts(store)
    rows = [[row.statement, row.published, row.ours, f"{row.verdict} ({row.preset})" if row.verdict != NOT_TESTED else row.verdict]
            for row in table[~table["level"]].itertuples()]  # fmt: skip
    return "\n".join([BEGIN, "", _table(["claim of the paper", "paper", "here", "verdict"], rows), "", END])


def documents(store: Store | None = None, root: Path = paths.ROOT) -> dict[Path, str]:
    """Return the generated documents, by path, as they should be.

    Raises: ValueError if the README has lost the marks between which the table stands.
    """
    store = store or Store(committed_only=True)
    readme = (root / "README.md").read_text()
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"README.md needs the lines {BEGIN!r} and {END!r}, between which the table is written")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return {root / "book" / "report.md": page(store), root / "README.md": before + readme_section(store) + after}


def write(store: Store | None = None) -> list[Path]:
    """Write the report page and the README's table, and return the paths."""
    texts = documents(store)
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)
