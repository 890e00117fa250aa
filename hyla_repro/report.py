"""The reproduction report and the README's table, generated from committed results."""

from pathlib import Path
from typing import Any

import pandas as pd

from hyla_repro import costs, paths
from hyla_repro.compare import NOT_REPRODUCED, NOT_TESTED, REPRODUCED, best_verdict, claims, scales
from hyla_repro.files import write_atomically
from hyla_repro.presets import FIGURES, experiments
from hyla_repro.results import Store, cost
from hyla_repro.summary import FUZZY_LOGIC, NAMES, SRAVEN, Results, mean_and_error, summarize

_PAGES = {
    "fig1": "fig1-attention-is-a-hypernetwork", "fig2c": "fig2c-compositional-generalization",
    "figa3": "figa3-unknown-terms", "fig2b": "fig2b-decoding", "fig2d": "fig2d-latent-codes",
    "tablea1": "tablea1-ablations", "fig3": "fig3-sraven", "fig4": "fig4-scaling",
    "figa5": "figa5-heldout-fraction", "fig5a": "fig5a-latent-codes", "fig5c": "fig5c-heads-and-difficulty",
    "fig5e": "fig5e-mean-codes", "fig5f": "fig5f-rule-decoding",
}  # fmt: skip


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _frame(table: pd.DataFrame) -> str:
    return _table(list(table.columns), table.astype(str).to_numpy().tolist())


def _runs_section(store: Store) -> str:
    runs, lines = pd.DataFrame(store.committed_runs().values()), []
    committed = store.run_ids()
    for figure in FIGURES:
        counts = []
        for preset in ("laptop", "paper"):
            wanted = {run.id for run in experiments(figure, preset)}
            counts.append(f"{len(wanted & committed)} of {len(wanted)}")
        lines.append([f"`{figure}`", *counts])
    parts = [_table(["runs of", "laptop", "paper"], lines)]
    if len(runs):
        parts.append(_frame(cost(runs)))
    return "\n\n".join(parts)


def _dropout_section(store: Store) -> str:
    """Show what Deviation D1 is worth: scores on held-out and on training tasks with and without attention dropout."""
    names, results = {FUZZY_LOGIC: "fuzzy logic, R²", SRAVEN: "SRAVEN, accuracy"}, Results("laptop", store)
    rows = [
        [names[task], NAMES[row.variant], f"{row.attention_dropout:g}",
         mean_and_error(row.test, row.test_se), mean_and_error(row.heldout, row.heldout_se), str(row.n)]
        for task in names for row in results.scores("dropout", task).itertuples()
    ]  # fmt: skip
    return _table(["task", "method", "attention dropout", "training tasks (%)", "held-out (%)", "seeds"], rows)


def _warmup_section(store: Store) -> str:
    """Show what a shorter warm-up is worth on SRAVEN (Deviation D16): scores by method and steps of warm-up."""
    # Warm-up is a setting of the optimiser, of which a summary keeps the best alone: so one summary for each.
    runs = Results("laptop", store).runs("warmup", SRAVEN)
    tables = [summarize(part) for _, part in runs.groupby("warmup_steps", sort=False)]
    rows = [
        [NAMES[row.variant], str(row.warmup_steps), mean_and_error(row.test, row.test_se),
         mean_and_error(row.heldout, row.heldout_se), str(row.n)]
        for table in tables for row in table.itertuples()
    ]  # fmt: skip
    return _table(["method", "steps of warm-up", "training tasks (%)", "held-out (%)", "seeds"], rows)


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
            [f"[{r.id}]({_PAGES[r.figure]}.ipynb)", r.statement, r.published, r.ours, f"**{r.verdict}**{_scale(r)}"]
            for r in table[table["level"] == level].itertuples()
        ]
        sections += [f"## {title}", _table(["claim", "statement", "paper", "here", "verdict"], rows)]
    rules = [[row.id, row.rule] for row in table[~table["level"]].itertuples()]
    rules.append(["levels", table[table["level"]]["rule"].iloc[0]])
    sections += [
        "## Rules",
        _table(["claim", "reproduced when"], rules),
        "## Attention dropout",
        "The main comparison of each task, preset laptop; [D1](deviations.md) says why this is measured.",
        _dropout_section(store),
        "## Warm-up",
        "SRAVEN's main comparison, preset laptop, and with a warm-up of a fiftieth of the training, the longest that "
        "the paper has at 20 million problems; [D16](deviations.md) says why this is measured.",
        _warmup_section(store),
        "## Runs behind it",
        _runs_section(store),
    ]
    return "\n\n".join(sections) + "\n"


def readme_section(table: pd.DataFrame) -> str:
    """Return the README's table of verdicts."""
    table = table[~table["level"]]
    rows = [[row.statement, row.published, row.ours, row.verdict + _scale(row)] for row in table.itertuples()]
    return _table(["claim of the paper", "paper", "here", "verdict"], rows)


def cost_sections(store: Store) -> dict[str, str]:
    """Return the tables of the chapter on cost, by the names of the marks between which they stand."""
    sections = {"costs": _frame(costs.figures(store))}
    for name in costs.MEASUREMENTS:
        table, how = costs.described(store, name)
        sections[name] = how if table.empty else f"{_frame(table)}\n\n{how}"
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
