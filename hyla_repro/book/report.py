"""The reproduction report and the README's table, generated from committed results."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hyla_repro import paths
from hyla_repro.book import budget, costs
from hyla_repro.book.front import mark_of
from hyla_repro.book.lock import entries, status
from hyla_repro.book.notebook import page_of
from hyla_repro.book.verdicts import ANSWERS, Verdict, as_one_family, best_verdict, claims, headlines, scales
from hyla_repro.files import write_atomically
from hyla_repro.results.claims import TOPICS
from hyla_repro.results.effects import LEVEL, NOT_TESTED, REPRODUCED
from hyla_repro.results.markdown import frame, table
from hyla_repro.results.store import Store, cost
from hyla_repro.studies import chapters, experiments, pages, with_runs
from hyla_repro.studies.mixers import leaderboard


def _runs_section(store: Store) -> str:
    runs, lines = pd.DataFrame(store.committed_runs().values()), []
    committed = store.run_ids()
    for figure in with_runs():
        counts = []
        for preset in ("laptop", "paper"):
            wanted = {run.id for run in experiments(figure, preset)}
            counts.append(f"{len(wanted & committed)} of {len(wanted)}" if wanted else "–")
        lines.append([f"`{figure}`", *counts])
    parts = [
        "How many of the runs are committed, by the name that `hyla-repro run` takes:",
        table(["runs of", "laptop", "paper"], lines),
    ]
    if len(runs):
        parts += ["On what they were trained:", frame(cost(runs).rename(columns=lambda name: name.replace("_", " ")))]
    return "\n\n".join(parts)


def verdicts(store: Store) -> list[Verdict]:
    """Return the verdict on every claim, each from the largest preset that can decide it."""
    results = scales(store)
    return [best_verdict(claim, results) for claim in claims(store)]


def _tally(found: Sequence[Verdict]) -> str:
    counts = Counter(entry.answer for entry in found)
    return ", ".join(f"{counts[answer]} {answer}" for answer in ANSWERS if counts[answer])


def tallies(found: Sequence[Verdict]) -> str:
    """Return how many claims have which verdict, topic by topic; the numbers of Table A1 are a topic of their own."""
    rows = [[title.partition(":")[0], _tally([entry for entry in found if entry.claim.topic == topic])]
            for topic, title in TOPICS.items()]  # fmt: skip
    return table(["topic", "verdicts"], rows)


def page(store: Store, found: Sequence[Verdict]) -> str:
    """Return the report page in MyST, from committed runs and their verdicts."""
    locked = entries(store)
    sections = [
        "# Reproduction report",
        "This page is written by `hyla-repro report` from the committed runs, and a test fails when it is stale.\n"
        "[How to read a verdict](verdicts.md) explains the terms.",
        "At `laptop`, fuzzy logic has a fifth of the paper's steps (D11). SRAVEN has two features instead of four, "
        "half the width and a twentieth of the problems (D16): its accuracies are not comparable with the published "
        "ones.",
        "Under *here*, scores are in percent, R² for fuzzy logic and accuracy elsewhere, but for language, which has "
        "bits per character; ± is one standard error over seeds. In brackets are 95 % intervals, which may reach "
        "beyond what a score can be, as three seeds tell little. Of many differences the one that decides is printed: "
        "*4 of 6 clear, least so …* says that four of six lie above zero with their whole intervals. Differences "
        "are taken before rounding.",
        tallies(found),
    ]
    for topic, title in TOPICS.items():
        rows = [
            [f"[{claim.id}]({page_of(claim.figure).name})", f"**{answer}**{_scale(answer, preset)}", claim.statement,
             outcome.words, claim.published]
            for claim, answer, outcome, preset in found if claim.topic == topic
        ]  # fmt: skip
        sections += [f"## {title}", table(["claim", "verdict", "statement", "here", "paper"], rows)]
    single = [entry.claim for entry in found if not entry.claim.level]
    rules = [[f"`{claim.id}`", claim.rule, claim.chance, status(locked.get(claim.id, []))] for claim in single]
    levels = [entry.claim for entry in found if entry.claim.level]
    fixed = {claim.id: status(locked.get(claim.id, [])) for claim in levels}
    others = [f"; `{name}`: {when}" for name, when in fixed.items() if when != fixed[levels[0].id]]
    rules.append(["levels", levels[0].rule, levels[0].chance, fixed[levels[0].id] + "".join(others)])
    sections += [
        "## Rules",
        "What must be above zero, each with its whole 95 % interval (Student's t, paired by seed) for *reproduced*, "
        "where a rule names no other bound; how likely that is by luck; and when the rule was fixed.",
        table(["claim", "above zero", "by luck", "rule"], rules),
        *(chapter.section(store) for chapter in chapters().values() if chapter.section),
        "## Runs behind it",
        _runs_section(store),
    ]
    return "\n\n".join(sections) + "\n"


def _scale(answer: str, preset: str) -> str:
    return "" if preset == "any" or answer == NOT_TESTED else f" ({preset})"


def readme_section(found: Sequence[Verdict]) -> str:
    """Return the README's table of verdicts."""
    rows = [[entry.claim.statement, entry.label + (", weak" if entry.outcome.weak else ""),
             entry.outcome.evidence or entry.outcome.ours]
            for entry in found if not entry.claim.level]  # fmt: skip
    return table(["claim", "verdict", "effect (95 % interval)"], rows)


def luck_section(found: Sequence[Verdict]) -> str:
    """Return what luck may do: claims tested, verdicts expected by chance, and the headline claims adjusted."""
    tested = [
        entry for entry in found if entry.outcome.effects and entry.answer != NOT_TESTED and not entry.claim.level
    ]
    reproduced = sum(entry.answer == REPRODUCED for entry in tested)
    adjusted = headlines(found)
    rows = [[row.claim, row.difference, str(row.seeds), _p(row.p), _p(row.adjusted)] for row in adjusted.itertuples()]
    family = as_one_family(tested)
    left = ", ".join(f"`{entry.claim.id}`" for entry in found
                     if entry.answer == REPRODUCED and family.get(entry.claim.id, 1.0) < 1 - LEVEL)  # fmt: skip
    return "\n\n".join([
        f"{len(tested)} claims are decided by effects with intervals, and {reproduced} of them come out as "
        f"reproduced. If no claim were true, at most {0.025 * len(tested):.1f} would be expected to by luck: a claim "
        "with several effects needs all of them, so its chance is at most that of one, 2.5 %.",
        f"{len(family)} of them have differences by seed, of seeds 0, 1 and 2 alone. Taken as one family (Holm, a "
        f"claim's p-value being the largest of its effects), {left or 'none'} would be left as reproduced.",
        "The headline claims, with p-values (two-sided) adjusted for being several (Holm):",
        table(["claim", "difference", "seeds", "p", "adjusted p"], rows),
    ])  # fmt: skip


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.4f}"


def cost_sections(store: Store) -> dict[str, str]:
    """Return the tables of the chapter on cost, by the names of the marks between which they stand."""
    figures = costs.figures(store)
    sections = {"cost": _cost_in_short(store, figures), "costs": frame(figures)}
    for name in costs.MEASUREMENTS:
        measured, how = costs.described(store, name)
        sections[name] = how if measured.empty else f"{frame(measured)}\n\n{how}"
    return sections


def _cost_in_short(store: Store, figures: pd.DataFrame) -> str:
    """Return a row for each figure: what training its runs again takes at each preset."""
    times, known = costs.spans(store, figures), pages()
    rows = [[f"[{figure}]({page_of(figure).name})" if figure in known else figure, *row]
            for figure, row in zip(times.index, times.to_numpy().tolist(), strict=True)]  # fmt: skip
    return table(["runs of", *times.columns], rows)


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


_TITLE = re.compile(r'("# .*?\?)(?: [✓✗~○])?(?=(\\n)?")')


def _marked(path: Path, mark: str) -> str:
    """Return a notebook whose title ends with the mark of the verdict that answers it."""
    text, count = _TITLE.subn(rf"\1 {mark}", path.read_text(), count=1)
    if not count:
        raise ValueError(f"{path.name}: its title asks nothing, so no verdict can answer it; end it with '?'")
    return text


def documents(store: Store | None = None, root: Path = paths.ROOT) -> dict[Path, str]:
    """Return the generated documents, by path, as they should be.

    Raises: ValueError if a page has lost the marks between which its tables stand, or a title its question.
    """
    store = store or Store(committed_only=True)
    readme, cost_page, how_to_read = root / "README.md", root / "book" / "cost.md", root / "book" / "verdicts.md"
    cluster_page = root / "book" / "cluster.md"
    found = verdicts(store)
    notebooks = {page_of(name): mark_of(name, found) for name, chapter in chapters().items() if chapter.answered_by}
    return {
        **{path: _marked(path, mark) for path, mark in notebooks.items()},
        root / "book" / "report.md": page(store, found),
        readme: _fill(readme, {"verdicts": readme_section(found)}),
        how_to_read: _fill(how_to_read, {"luck": luck_section(found)}),
        cost_page: _fill(cost_page, cost_sections(store)),
        cluster_page: _fill(cluster_page, {"budget": frame(budget.table(store))}),
        **leaderboard_page(store, root),
    }


def leaderboard_page(store: Store, root: Path = paths.ROOT) -> dict[Path, str]:
    """Return the leaderboard's page, by path, as it should be."""
    path = root / "book" / "leaderboard.md"
    return {path: _fill(path, {"leaderboard": leaderboard.section(store)})}


def write(store: Store | None = None) -> list[Path]:
    """Write what is generated of pages, the README and titles, and return the paths that changed."""
    return write_pages(documents(store))


def write_pages(texts: Mapping[Path, str]) -> list[Path]:
    """Write pages that are not as they should be, and return their paths."""
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        write_atomically(path, texts[path].encode())
    return changed
