"""The front page: the paper's main question answered by one figure, and every verdict on one sheet."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyla_repro.book.lock import Entry, rule_changed, status
from hyla_repro.book.notebook import page_of
from hyla_repro.book.verdicts import MARKS, Verdict, results_of
from hyla_repro.results.claims import TOPICS
from hyla_repro.results.effects import CONTRADICTED, MIN_SEEDS, UNDECIDED, Effect, paired
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, equal_lead, paper_lead
from hyla_repro.studies import find_chapter
from hyla_repro.studies.language.analysis import by_seed as language_losses
from hyla_repro.studies.style import COLORS, axes_grid, grid_behind, narrow, save_figure, styled

_POINTS = "points on held-out tasks"
_TASKS = {"fuzzy_logic": "Fuzzy logic", "sraven": "SRAVEN"}
# Who says so, by preset for what is ours.
_PAPER, _SCALES = "the paper", {"paper": "ours, the paper's steps", "laptop": "ours, laptop"}


class Row(NamedTuple):
    """One comparison of HYLA and softmax attention on held-out tasks; above zero HYLA is ahead.

    Args:
        paper: from the paper's printed numbers, if it has any.
        ours: by preset, for those that have runs of both methods with the same seed.
        unit: rows of one unit share an axis.
    """

    label: str
    paper: Effect | None
    ours: dict[str, Effect]
    unit: str = _POINTS


def rows(store: Store | None = None) -> list[Row]:
    """Return what the front page compares, from committed results, finished runs and published numbers."""
    scales = {preset: results_of(preset, store) for preset in _SCALES}
    found = []
    for task, name in _TASKS.items():
        found.append(Row(name, paper_lead(task, "hyla", "softmax", store), _by_preset(scales, task, _lead)))
        same = _by_preset(scales, task, _equal_lead)
        levels = ", ".join(effect.name for effect in same.values())
        found.append(Row(f"{name}, both at {levels} on training tasks", None, _unnamed(same)))
    losses = language_losses(scales["laptop"], "test")
    if {"softmax", "hyla"} <= set(losses):
        lower = paired("", losses["softmax"] - losses["hyla"], digits=2)
        found.append(Row("Language, loss on Shakespeare's plays", None, {"laptop": lower}, "bits per character"))
    return [row for row in found if row.paper or row.ours]


def _unnamed(effects: dict[str, Effect]) -> dict[str, Effect]:
    return {preset: effect._replace(name="") for preset, effect in effects.items()}


def _by_preset(
    scales: dict[str, Results], task: str, effect: Callable[[Results, str], Effect | None]
) -> dict[str, Effect]:
    found = {preset: effect(results, task) for preset, results in scales.items()}
    return {preset: value for preset, value in found.items() if value is not None and value.n}


def _lead(results: Results, task: str) -> Effect | None:
    runs = results.best("headline", task)
    if runs.empty or not {"hyla", "softmax"} <= set(runs["variant"]):
        return None
    return paired("", results.leads("hyla", "softmax", "headline", task))


def _equal_lead(results: Results, task: str) -> Effect | None:
    """Return HYLA's lead where both first reach the highest score on training tasks that all their runs reach."""
    runs = results.best("headline", task)
    runs = runs[runs["variant"].isin(("hyla", "softmax"))] if len(runs) else runs
    if runs.empty or runs.groupby("variant")["seed"].nunique().reindex(["hyla", "softmax"]).min() < MIN_SEEDS:
        return None
    return equal_lead(results.curves("headline", task), "hyla", "softmax")


@styled
def forest(comparisons: Sequence[Row]) -> Figure:
    """Draw how far HYLA is ahead of softmax attention: the paper's number above ours, with 95 % intervals.

    Rows of another unit have an axis of their own below.
    """
    units = list(dict.fromkeys(row.unit for row in comparisons))
    groups = [[row for row in comparisons if row.unit == unit] for unit in units]
    heights = [sum(1 + len(_entries(row)) for row in group) for group in groups]
    height = (0.42 if narrow() else 0.25) * sum(heights) + 1.2
    figure, axes = axes_grid(len(groups), 1, 7.4, height, across=None, height_ratios=heights)
    for ax, unit, group in zip(axes[:, 0], units, groups, strict=True):
        (_narrow_panel if narrow() else _panel)(ax, group)
        ax.axvline(0, color="0.4", lw=1)
        ax.margins(x=0.08)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        grid_behind(ax, "x")
        ax.set_xlabel(f"how far HYLA is ahead, in {unit}")
    return figure


def save(figure: Figure, name: str = "front") -> Path:
    """Write a picture of the front page, and return where it is."""
    return save_figure(figure, name)


def _entries(row: Row) -> list[tuple[str, Effect]]:
    """Return what a row compares, from top to bottom, with the name of each source."""
    paper = [(_PAPER, row.paper)] if row.paper else []
    return paper + [(_SCALES[preset], effect) for preset, effect in row.ours.items()]


# Behind words that lines may run through.
_GROUND = {"fc": "white", "ec": "none", "pad": 1}


def _panel(ax: Axes, group: Sequence[Row]) -> None:
    place, ticks, where = 0.0, {}, ("axes fraction", "data")
    for row in group:
        ax.annotate(row.label, (-0.36, place), xycoords=where, va="center", weight="bold", bbox=_GROUND)
        for who, effect in _entries(row):
            place += 1
            ticks[place] = who
            _mark(ax, place, effect, ours=who != _PAPER)
            ax.annotate(_words(effect), (1.03, place), xycoords=where, va="center")
        place += 1.2
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set_ylim(place - 0.5, -0.6)


def _narrow_panel(ax: Axes, group: Sequence[Row]) -> None:
    """Draw as `_panel` does, with names and numbers above each mark instead of beside it."""
    place, where = 0.0, ("axes fraction", "data")
    for row in group:
        ax.annotate(row.label, (0, place), xycoords=where, va="center", weight="bold", bbox=_GROUND)
        for who, effect in _entries(row):
            ax.annotate(who, (0, place + 0.9), xycoords=where, va="center", color="0.3", bbox=_GROUND)
            ax.annotate(_words(effect), (1, place + 0.9), xycoords=where, va="center", ha="right", bbox=_GROUND)
            place += 1.7
            _mark(ax, place, effect, ours=who != _PAPER)
        place += 1.3
    ax.set_yticks([])
    ax.set_ylim(place - 0.7, -0.6)


def _words(effect: Effect) -> str:
    return str(effect) if effect.n > 1 else f"{effect.value:.{effect.digits}f} (one seed)".replace("-", "−")


def _mark(ax: Axes, place: float, effect: Effect, ours: bool) -> None:
    color = COLORS["hyla"] if ours else "0.45"
    if effect.n > 1:
        ax.plot([effect.low, effect.high], [place, place], color=color, lw=2, solid_capstyle="butt")
    ax.plot(effect.value, place, "o" if ours else "D", color=color, mfc=color if effect.n > 1 else "white", ms=7)


class Matrix:
    """Every verdict as a small cell, by topic; a cell opens what was claimed and found, and leads to its place.

    It needs no script: cells are buttons that open a popover.
    """

    def __init__(self, found: Sequence[Verdict]) -> None:
        self._found = found

    def _repr_html_(self) -> str:
        topics = []
        for topic, title in TOPICS.items():
            entries = [entry for entry in self._found if entry.claim.topic == topic]
            cells = "".join(map(_cell, entries))
            name = escape(title.partition(":")[0])
            topics.append(f'<div class="verdicts-topic"><div class="verdicts-name">{name}</div>'
                          f'<div class="verdicts-cells">{cells}</div></div>')  # fmt: skip
        legend = "".join(
            f'<span><span class="verdict {_class(answer)}">{mark}</span> {answer}</span>'
            for answer, mark in MARKS.items()
        )
        return f'<div class="verdicts"><div class="verdicts-legend">{legend}</div>{"".join(topics)}</div>'

    def __repr__(self) -> str:
        lines = (f"{MARKS[entry.answer]} {entry.claim.id}: {entry.claim.statement}" for entry in self._found)
        return "\n".join(lines)


def _class(answer: str) -> str:
    return answer.partition(" ")[0]


def _cell(entry: Verdict) -> str:
    claim, anchor = entry.claim, f"verdict-{entry.claim.id}"
    statement, said = escape(claim.statement), escape(f"{entry.label}: {entry.outcome.words}".replace("**", ""))
    return (
        f'<button type="button" class="verdict {_class(entry.answer)}" popovertarget="{anchor}" '
        f'title="{statement} {said}" aria-label="{escape(claim.id)}: {entry.answer}">{MARKS[entry.answer]}</button>'
        f'<div popover id="{anchor}" class="verdict-card"><p><strong>{statement}</strong></p><p>{said}</p>'
        f'<p><a href="{_page(entry)}">Its chapter</a> · '
        f'<a href="report.html#claim-{claim.id}">In the report</a></p></div>'
    )


_FAILED = "Contradicted here"


class Open:
    """What failed, what is undecided, and which rules changed, as lists that fold."""

    def __init__(self, found: Sequence[Verdict], locked: Mapping[str, list[Entry]]) -> None:
        by_answer = {answer: [entry for entry in found if entry.answer == answer] for answer in MARKS}
        changed = [entry for entry in found if rule_changed(locked.get(entry.claim.id, []))]
        self._lists = {
            _FAILED: [(entry, entry.outcome.evidence or entry.outcome.ours)
                                  for entry in by_answer[CONTRADICTED]],
            "Undecided": [(entry, entry.outcome.evidence or entry.outcome.ours) for entry in by_answer[UNDECIDED]],
            "Rules that changed": [(entry, status(locked[entry.claim.id])) for entry in changed],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        parts = []
        for title, entries in self._lists.items():
            items = "".join(
                f'<li><a href="{_page(entry)}">{escape(entry.claim.statement)}</a> {escape(words)}</li>'
                for entry, words in entries
            )
            # What failed is not to be looked for.
            unfolded = " open" if title == _FAILED else ""
            parts.append(f"<details{unfolded}><summary>{title}: {len(entries)}</summary><ul>{items}</ul></details>")
        return f'<div class="verdicts-lists">{"".join(parts)}</div>'

    def __repr__(self) -> str:
        return "\n".join(
            f"{title}\n" + "\n".join(f"- {entry.claim.statement} {words}" for entry, words in entries)
            for title, entries in self._lists.items()
        )


def _page(entry: Verdict) -> str:
    return page_of(entry.claim.figure).with_suffix(".html").name


def mark_of(figure: str, found: Sequence[Verdict]) -> str:
    """Return the sign of the verdict on the claim that answers a chapter's title."""
    answered = find_chapter(figure).answered_by
    return next(MARKS[entry.answer] for entry in found if entry.claim.id == answered)
