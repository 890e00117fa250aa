"""Figures: the same data give the same bytes, and a partial result set still draws."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from hyla_repro import paths
from hyla_repro.results.methods import ABLATIONS, METHODS, NAMES
from hyla_repro.results.summary import paper_values, summarize
from hyla_repro.studies import experiments, style
from hyla_repro.studies.ablations.figures import tablea1
from hyla_repro.studies.fuzzy_logic.figures import fig2c, fig2d, figa3
from hyla_repro.studies.language import runs as language


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plt.switch_backend("agg")
    monkeypatch.setattr(paths, "DRAWN", tmp_path)
    return tmp_path


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


def test_ablations_show_every_variant_in_the_order_of_the_table() -> None:
    scores = {task: summarize(runs(figure="tablea1", task=task)) for task in ("fuzzy_logic", "sraven")}
    figure = tablea1(scores, paper_values())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[::-1] == [NAMES[method] for method in ABLATIONS]
    for ax, (task, table) in zip(figure.axes, scores.items(), strict=True):
        theirs, ours = (container.lines[0].get_xdata() for container in ax.containers)
        assert list(ours[::-1]) == pytest.approx(table["heldout"].tolist())
        assert theirs[-1] == {"fuzzy_logic": 63.28, "sraven": 56.56}[task]


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
