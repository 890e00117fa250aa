"""Figures: the same data give the same bytes, and a partial result set still draws."""

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from hyla_repro import paths
from hyla_repro.book import front, shown
from hyla_repro.results.methods import ABLATIONS, ALL_METHODS, METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import paper_values, summarize
from hyla_repro.studies import experiments, style
from hyla_repro.studies.ablations.figures import GROUPS, tablea1
from hyla_repro.studies.fuzzy_logic.figures import fig2c, fig2d, figa3
from hyla_repro.studies.idea.figures import schematic
from hyla_repro.studies.language import runs as language


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    plt.switch_backend("agg")
    monkeypatch.setattr(paths, "DRAWN", tmp_path)
    yield tmp_path
    plt.close("all")


def runs(preset: str = "laptop", figure: str = "fig2c", task: str = "fuzzy_logic") -> pd.DataFrame:
    rows = [{**run.row(), "test": 0.9, "heldout": 0.5 + 0.01 * run.seed, "unknown_terms": -0.3, "train_loss": 1.0}
            for run in experiments(figure, preset) if run.task_name == task]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_same_data_give_the_same_bytes(folder: Path) -> None:
    table = runs()
    contents = []
    for _ in range(2):
        path = style.save_figure(fig2c(table), "fig2c")
        contents.append(path.read_bytes())
        plt.close("all")
    assert contents[0] == contents[1]
    assert b"Software" not in contents[0]
    assert path == folder / "fig2c.png"


def test_other_presets_do_not_overwrite_the_committed_figure(folder: Path) -> None:
    table = runs("smoke")
    path = style.save_figure(figa3(table), "figa3", "smoke")
    assert path == folder / "smoke" / "figa3.png"


@pytest.mark.parametrize("variant", METHODS)
def test_a_single_method_with_a_single_run_draws(variant: str) -> None:
    table = runs()
    table = table[table["variant"] == variant].head(1)
    figure = fig2c(table)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [NAMES[variant]]


def test_methods_keep_their_colours_and_differ_in_marker() -> None:
    assert {*METHODS, *language.METHODS} <= style.COLORS.keys() == style.MARKERS.keys()
    assert len(set(style.COLORS.values())) == len(set(style.MARKERS.values())) == len(style.COLORS)


def test_variants_have_the_looks_of_the_method_they_come_from() -> None:
    found = {method: style.family(method) for method in ALL_METHODS}
    assert {method: found[method] for method in style.COLORS} == {method: method for method in style.COLORS}
    assert found["linear_moe"] == "linear"
    assert found["linear_rms_head_relu_values"] == "linear_rms_head"
    assert found["hyla_no_relu_no_rms_head"] == found["hyla_softmax"] == "hyla"


def test_ablations_show_every_variant_once_and_both_tasks_on_axes_of_their_own() -> None:
    scores = {task: summarize(runs(figure="tablea1", task=task)) for task in ("fuzzy_logic", "sraven")}
    assert sorted(row for rows in GROUPS.values() for row in rows) == sorted(ABLATIONS)
    figure = tablea1(scores, paper_values())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()][::-1]
    assert labels == [NAMES.get(row, row) for group, rows in GROUPS.items() for row in (group, *rows)]
    drawn = [sorted(float(bars.lines[0].get_xdata()[0]) for bars in ax.containers) for ax in figure.axes]
    ours = {task: sorted(table["heldout"]) for task, table in scores.items()}
    theirs = paper_values().groupby("task")["value"].apply(sorted)
    assert [value for value in drawn[0] if np.isfinite(value)] == pytest.approx(
        sorted([*theirs["fuzzy_logic"], *ours["fuzzy_logic"]])
    )
    for values, expected in zip(drawn[1:], (theirs["sraven"], ours["sraven"]), strict=True):
        assert [value for value in values if np.isfinite(value)] == pytest.approx(expected)


def test_codes_in_the_plane_mark_the_term_exactly() -> None:
    plane = pd.DataFrame(
        {"variant": "hyla", "x": [0.0, 1.0, 2.0], "y": 0.0, "target": 0.5, "function": ["1+2", "1+12", "0+2"]}
    )
    figure = fig2d(plane, term=2)
    without, having = figure.axes[1].collections
    assert np.array_equal(having.get_offsets()[:, 0], [0.0, 2.0])
    assert np.array_equal(without.get_offsets()[:, 0], [1.0])


def test_a_notebook_goes_on_showing_figures_after_the_first() -> None:
    """Loading a notebook's backend turns interaction on, within the style of the first figure; it must stay on."""

    @style.styled
    def first() -> plt.Figure:
        plt.ion()
        return plt.figure()

    first()
    try:
        assert plt.isinteractive()
    finally:
        plt.ioff()


# --- legible on a page and on a phone --------------------------------------------------------------------------------

# Pixels of a picture in a window of 1 280 and on a phone of 390, those of its smallest text, and of an inch at most.
_PAGE, _PHONE, _NATURAL = (672, 11), (342, 9), 96
_FAULTLESS: dict[str, list[str]] = {"page": [], "phone": []}


def faults(figure: Figure, pixels: int, smallest: float) -> list[str]:
    """Return what is too small, cut off by the edge, or written over something else."""
    FigureCanvasAgg(figure)
    figure.canvas.draw()
    per_point = min(pixels / figure.get_figwidth(), _NATURAL) / 72
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    found = [f"small: {text.get_text()}" for text in texts if text.get_fontsize() * per_point < smallest]
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    if min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) < -0.01:
        found.append(f"cut: {drawn.extents.round(2)} of {width:.2f} x {height:.2f}")
    named = list(_names(figure))
    boxes = np.array([text.get_window_extent().extents for text in named]).reshape(-1, 4)
    # Half a pixel more or less is no overlap.
    low, high = boxes[:, None, :2] + 0.5, boxes[:, None, 2:] - 0.5
    over = ((low < boxes[None, :, 2:]) & (boxes[None, :, :2] < high)).all(axis=-1)
    found += [
        f"over each other: {named[i].get_text()}, {named[j].get_text()}" for i, j in np.argwhere(np.triu(over, 1))
    ]
    return found


def _names(figure: Figure) -> Iterator[Text]:
    """Yield titles, and the labels of axes, ticks and legends that are drawn."""
    texts = [text for legend in figure.findobj(plt.matplotlib.legend.Legend) for text in legend.get_texts()]
    for ax in figure.axes:
        texts.append(ax.title)
        if not ax.axison:
            continue
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return (text for text in texts if text.get_visible() and text.get_text().strip())


def both_sizes(figure: Figure) -> dict[str, list[str]]:
    twin = style.narrow_twin(figure)
    assert twin is not None
    return {"page": faults(figure, *_PAGE), "phone": faults(twin, *_PHONE)}


def test_small_cut_and_overlapping_text_is_found() -> None:
    figure, ax = plt.subplots(figsize=(style.WIDE, 3.0))
    ax.set_xticks([0.5, 0.505], ["first", "second"], fontsize=8)
    ax.text(0.5, -0.5, "below", transform=ax.transAxes)
    kinds = {fault.partition(":")[0] for fault in faults(figure, *_PAGE)}
    assert kinds == {"small", "cut", "over each other"}


def test_the_widths_are_those_at_which_text_of_ten_points_is_legible() -> None:
    for width, (pixels, smallest) in ((style.WIDE, _PAGE), (style.NARROW, _PHONE)):
        assert 10 / 72 * pixels / width >= smallest


def test_on_a_phone_panels_stack_and_keep_their_labels(folder: Path) -> None:
    figure = figa3(runs())
    path, twin = style.save_figure(figure, "figa3"), style.narrow_twin(figure)
    assert {file.name for file in folder.iterdir()} == {"figa3.png", "figa3.svg", "figa3-narrow.svg"}
    assert path.with_suffix(".svg").read_text() != (folder / "figa3-narrow.svg").read_text()
    places = [ax.get_subplotspec() for ax in twin.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(row, 0) for row in range(4)]
    # Columns stay together: training functions and unknown terms against examples, then against the fraction.
    assert [ax.get_ylabel() for ax in twin.axes] == 2 * [row[0].get_ylabel() for row in np.reshape(figure.axes, (2, 2))]
    assert twin.axes[0].get_shared_y_axes().joined(twin.axes[0], twin.axes[2])
    assert not plt.fignum_exists(twin.number), "a notebook would show it, too"
    assert not style.narrow()


def test_the_front_page_is_legible() -> None:
    for figure in (front.forest(front.rows(Store(committed_only=True))), schematic()):
        assert both_sizes(figure) == _FAULTLESS


@pytest.mark.slow
@pytest.mark.parametrize("chapter", sorted(paths.BOOK.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_pictures_of_every_chapter_are_legible(
    chapter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(tmp_path))
    saved: dict[str, Figure] = {}

    def save(figure: Figure, name: str, preset: str) -> Path:
        saved[name] = figure
        return style.save_figure(figure, name, preset)

    monkeypatch.setattr(shown, "save_figure", save)
    cells = [cell for cell in json.loads(chapter.read_text())["cells"] if cell["cell_type"] == "code"]
    last = max(index for index, cell in enumerate(cells) if "shown.save(" in "".join(cell["source"]))
    names: dict[str, object] = {}
    for cell in cells[: last + 1]:
        exec("".join(cell["source"]), names)
    assert saved
    assert [(name, found) for name, figure in saved.items() if (found := both_sizes(figure)) != _FAULTLESS] == []
