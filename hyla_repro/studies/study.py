"""What a study is: one part of the book, its chapters, the runs behind them and what is computed of their weights."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hyla_repro.experiment import Experiment
from hyla_repro.results.analysis import Analysis, Computed

if TYPE_CHECKING:
    from hyla_repro.results.claims import Claim
    from hyla_repro.results.store import Store

PRESETS = ("smoke", "laptop", "paper")
# The parameters of a chapter that shows runs: allowed words, or a type, or the inclusive range of a whole number.
SCALE: Mapping[str, Any] = {"preset": PRESETS, "train": bool, "device": str}
SEEDS = (0, 2**32 - 1)


def once(runs: Iterable[Experiment]) -> list[Experiment]:
    """Return every run once, where it stands first."""
    return list({run.id: run for run in runs}.values())


def _no_claims(store: "Store | None") -> "list[Claim]":
    return []


@dataclass(frozen=True)
class Chapter:
    """One figure of the paper, its notebook `book/FIGURE-*.ipynb`, and the runs that it shows.

    Args:
        figure: its name on the command line and in files.
        runs: preset to experiments, each once; None for a chapter that trains nothing.
        analyses: tables computed from the weights of those runs.
        tables: those computed of settings alone, by `hyla-repro compute`.
        parameters: what papermill may set in the notebook, as `SCALE` has it.
        defaults: for a chapter without runs, the values that the committed figure shows.
        answered_by: the claim that answers the question of the notebook's title, which then carries its verdict's mark.
        page: whether there is a notebook; without one the runs are a control that the report shows.
        section: the report's section on it, as MyST; nothing if None.
    """

    figure: str
    runs: Callable[[str], list[Experiment]] | None = None
    analyses: tuple[Analysis, ...] = ()
    tables: tuple[Computed, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=lambda: SCALE)
    defaults: Mapping[str, Any] | None = None
    answered_by: str | None = None
    page: bool = True
    section: "Callable[[Store], str] | None" = None


@dataclass(frozen=True)
class Study:
    """One part of the book; its folder has the same rooms as any other: runs, codes or analysis, claims, figures.

    Args:
        name: of its folder.
        title: of the part.
        chapters: in the order of the book.
        claims: the paper's statements that it decides, given the store of published numbers.
        main: preset to the runs of the main comparison, which are trained before all others.
        kept: preset to the runs whose weights are committed, besides those that analyses are made of.
        along: a run to the steps whose weights training keeps, for analyses along training.
        task: what its models are trained on, by the name that `TASKS` has.
        build: preset, method and seed to the run of the main comparison, for any method.
        reported_minutes: what the paper reports a run takes on its GPU, least and most.
    """

    name: str
    title: str
    chapters: tuple[Chapter, ...]
    claims: "Callable[[Store | None], list[Claim]]" = _no_claims
    main: Callable[[str], list[Experiment]] | None = None
    kept: Callable[[str], list[Experiment]] | None = None
    along: Callable[[Experiment], tuple[int, ...]] | None = None
    task: str | None = None
    build: Callable[[str, str, int], Experiment] | None = None
    reported_minutes: tuple[float, float] | None = None
