"""Pictures: rounding is let through, and what a reader could see is found; committed ones stay."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from hyla_repro import paths
from hyla_repro.book import pictures
from hyla_repro.cli import main
from hyla_repro.errors import DataError
from hyla_repro.studies import style

COMMITTED = "figa1.png"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A build's pictures and the committed ones, one each and the same."""
    plt.switch_backend("agg")
    drawn, committed = tmp_path / "drawn", tmp_path / "committed"
    for folder in (drawn, committed):
        folder.mkdir()
        (folder / COMMITTED).write_bytes((paths.FIGURES / COMMITTED).read_bytes())
    monkeypatch.setattr(paths, "DRAWN", drawn)
    monkeypatch.setattr(paths, "FIGURES", committed)
    return drawn, committed


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hyla-repro", "pictures", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def rounded(path: Path, pixels: int, levels: int) -> None:
    """Change some pixels of a picture by some levels."""
    content = pictures.read(path).copy()
    places = np.random.default_rng(0).choice(content[..., 0].size, pixels, replace=False)
    flat = content.reshape(-1, 3)
    flat[places] = np.where(flat[places] < 128, flat[places] + levels, flat[places] - levels)
    Image.fromarray(content).save(path)


def draw(moved: float = 0.0, color: str = "C0", width: float = 1.5, height: float = 3.0) -> plt.Figure:
    figure, ax = plt.subplots(figsize=(4.0, height))
    ax.plot([0.0, 1.0], [0.3 + moved, 0.5 + moved], color=color, lw=width)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return figure


def saved(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=200)
    plt.close(figure)
    return path


def test_figures_are_drawn_into_the_build_and_the_committed_ones_stay(folders: tuple[Path, Path]) -> None:
    drawn, committed = folders
    assert style.save_figure(draw(), "figa1") == drawn / COMMITTED
    assert style.save_figure(draw(), "figa1", "smoke") == drawn / "smoke" / COMMITTED
    assert [path.name for path in committed.iterdir()] == [COMMITTED]
    assert (committed / COMMITTED).read_bytes() != (drawn / COMMITTED).read_bytes()


@pytest.mark.parametrize(
    ("pixels", "levels", "same"), [(90, 1, True), (1000, 4, True), (90, 5, False), (2000, 1, False)]
)
def test_what_rounding_changes_looks_the_same(pixels: int, levels: int, same: bool, folders: tuple[Path, Path]) -> None:
    drawn, committed = (folder / COMMITTED for folder in folders)
    rounded(drawn, pixels, levels)
    words = pictures.difference(drawn, committed)
    assert (not words) is same
    assert same or (f"differs in {pixels} of" in words and f"by up to {levels} of 255" in words)


@pytest.mark.parametrize(
    "changes", [{"moved": 2e-3}, {"color": "C1"}, {"color": "#1f77ba"}, {"width": 1.4}, {"height": 3.01}], ids=str
)
def test_a_line_moved_by_a_pixel_another_shade_width_or_size_is_found(changes: dict, tmp_path: Path) -> None:
    same, other = saved(draw(), tmp_path / "same.png"), saved(draw(**changes), tmp_path / "other.png")
    assert pictures.difference(same, saved(draw(), tmp_path / "again.png")) == ""
    assert pictures.difference(other, same)


def test_what_is_missing_new_or_broken_is_named(folders: tuple[Path, Path]) -> None:
    drawn, committed = folders
    assert pictures.differences() == {}
    (drawn / "new.png").write_bytes((drawn / COMMITTED).read_bytes())
    (committed / "gone.png").write_bytes((drawn / COMMITTED).read_bytes())
    for content in (b"", b"no picture", (drawn / COMMITTED).read_bytes()[:5000]):
        (committed / COMMITTED).write_bytes(content)
        found = pictures.differences()
        assert found.pop(COMMITTED).startswith(f"{committed / COMMITTED} cannot be read as a picture: ")
        assert found == {"gone.png": "was not drawn", "new.png": "is not among the committed pictures"}


def test_a_picture_that_looks_the_same_keeps_its_bytes(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, committed = folders
    before = (committed / COMMITTED).read_bytes()
    rounded(drawn / COMMITTED, 90, 1)
    saved(draw(), drawn / "fig.png")
    saved(draw(moved=0.1), committed / "fig.png")
    assert call(monkeypatch, "--check") == 1
    assert capsys.readouterr().err.startswith("fig.png: differs in ")
    assert call(monkeypatch) == 0
    assert capsys.readouterr().out == "fig.png: written\n"
    assert (committed / COMMITTED).read_bytes() == before != (drawn / COMMITTED).read_bytes()
    assert (committed / "fig.png").read_bytes() == (drawn / "fig.png").read_bytes()
    assert call(monkeypatch, "--check") == 0


def test_broken_or_missing_drawings_replace_nothing(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, committed = folders
    before = (committed / COMMITTED).read_bytes()
    (drawn / COMMITTED).write_bytes(before[:-1000])
    with pytest.raises(DataError, match=r"drawn.figa1\.png cannot be read"):
        pictures.refresh()
    (drawn / COMMITTED).unlink()
    assert call(monkeypatch, "--check") == 2
    assert "holds no pictures: draw them with `make clean book`" in capsys.readouterr().err
    assert (committed / COMMITTED).read_bytes() == before
