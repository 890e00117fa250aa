"""The parts of the book, one folder each; everything that goes over studies, chapters or runs begins here.

In a study's folder, `runs` says what is trained for a figure, `codes` or `analysis` what is computed of it, `claims`
what the paper states and which rule decides it, and `figures` draws it.
"""

from collections.abc import Callable

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.studies.aaren import AAREN
from hyla_repro.studies.ablations import ABLATIONS
from hyla_repro.studies.attention_paths import ATTENTION_PATHS
from hyla_repro.studies.fuzzy_logic import FUZZY_LOGIC
from hyla_repro.studies.idea import IDEA
from hyla_repro.studies.language import LANGUAGE
from hyla_repro.studies.layer_drop import LAYER_DROP
from hyla_repro.studies.mixers import MIXERS
from hyla_repro.studies.primal_dual import PRIMAL_DUAL
from hyla_repro.studies.recall import RECALL
from hyla_repro.studies.sraven import SRAVEN
from hyla_repro.studies.study import PRESETS, Chapter, Study, once

__all__ = [
    "PRESETS", "STUDIES", "Chapter", "Study", "add", "chapters", "experiments", "find_chapter", "kept", "kept_steps",
    "pages", "study_of", "trainable", "with_runs",
]  # fmt: skip

STUDIES: list[Study] = [
    IDEA, FUZZY_LOGIC, SRAVEN, ABLATIONS, LANGUAGE, AAREN, PRIMAL_DUAL, ATTENTION_PATHS, LAYER_DROP, RECALL,
    MIXERS,
]  # fmt: skip


def add(study: Study) -> None:
    """Add a study at the end of the book, for this process; a module outside this package may call it when imported.

    Raises: ValueError for a name, task or figure that another study has.
    """
    figures = [chapter.figure for chapter in study.chapters]
    if len(set(figures)) < len(figures):
        raise ValueError(f"study {study.name!r} has figure {max(figures, key=figures.count)!r} twice: rename one")
    for other in STUDIES:
        taken = {"all", *(chapter.figure for chapter in other.chapters)}.intersection(figures)
        if taken or other.name == study.name or (study.task and other.task == study.task):
            what = f"figure {min(taken)!r}" if taken else f"name {study.name!r} or task {study.task!r}"
            raise ValueError(f"study {study.name!r} has the {what} of study {other.name!r}: choose another")
    STUDIES.append(study)


def chapters() -> dict[str, Chapter]:
    """Return every chapter by its figure, in the order of the book."""
    return {chapter.figure: chapter for study in STUDIES for chapter in study.chapters}


def pages() -> dict[str, Chapter]:
    """Return the chapters that have a notebook, by figure."""
    return {figure: chapter for figure, chapter in chapters().items() if chapter.page}


def find_chapter(figure: str) -> Chapter:
    """Return the chapter of a figure.

    Raises: ValueError for an unknown figure, naming those there are.
    """
    known = pages()
    return known[choose("figure", figure, known)]


def with_runs() -> dict[str, Callable[[str], list[Experiment]]]:
    """Return, by figure, what has runs, chapters and controls: preset to experiments."""
    return {figure: chapter.runs for figure, chapter in chapters().items() if chapter.runs}


def experiments(figure: str, preset: str) -> list[Experiment]:
    """Return the runs behind a figure (or `all`), each once, those of the main comparisons first.

    Raises: ValueError for an unknown figure or preset.
    """
    choose("preset", preset, PRESETS)
    known = with_runs()
    if choose("figure", figure, ["all", *known]) != "all":
        return known[figure](preset)
    main = [run for study in STUDIES if study.main for run in study.main(preset)]
    return once([*main, *(run for runs in known.values() for run in runs(preset))])


def trainable(figure: str, preset: str) -> list[Experiment]:
    """Return the runs behind a figure that `hyla-repro run` can be told to train.

    Raises: ValueError for an unknown figure or preset, or a chapter that trains nothing.
    """
    known = chapters()
    if figure in known and not known[figure].runs:
        raise ValueError(f"{figure} has no runs to train: make its chapter with `hyla-repro reproduce {figure}`")
    return experiments(figure, preset)


def kept(preset: str) -> list[Experiment]:
    """Return the runs whose weights are committed, besides those that analyses are made of."""
    return [run for study in STUDIES if study.kept for run in study.kept(preset)]


def kept_steps(run: Experiment) -> set[int]:
    """Return the steps before the last whose weights a run keeps while it is trained."""
    return {step for study in STUDIES if study.along for step in study.along(run)}


def study_of(task: str) -> Study:
    """Return the study whose models are trained on a task.

    Raises: ValueError for a task that no study has.
    """
    by_task = {study.task: study for study in STUDIES if study.task}
    return by_task[choose("task", task, by_task)]
