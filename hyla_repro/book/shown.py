"""What a chapter shows: the runs of its figure, tables made of them, its picture, verdicts and cost."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from hyla_repro.book.verdicts import Comparison, results_of, table
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.files import write_atomically
from hyla_repro.results.analysis import Analysis, Computed
from hyla_repro.results.store import cost, require
from hyla_repro.results.summary import Results, best_runs
from hyla_repro.studies import PRESETS, experiments, find_chapter
from hyla_repro.studies.style import save_figure


@dataclass(frozen=True)
class Shown:
    """What a chapter shows: one figure at one preset, with what it needs of results, figures and verdicts.

    Args:
        preset: `custom` for a chapter without runs whose parameters are not those of the committed figure.
        train, device: whether missing runs were trained, and where.
    """

    figure: str
    preset: str
    train: bool = False
    device: str = "cpu"

    @cached_property
    def results(self) -> Results:
        """The finished runs of this preset, of every study."""
        return results_of(self.preset)

    @cached_property
    def wanted(self) -> list[Experiment]:
        """The runs that the figure is made of, finished or not."""
        return experiments(self.figure, self.preset)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per finished run.

        Raises: DataError without any, saying how to train them.
        """
        return require(self.results.store.runs(self.wanted), self.figure, self.preset)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The finished runs with the best optimiser setting of each method and grid point."""
        return best_runs(self.runs)

    def analysis(self, analysis: Analysis) -> pd.DataFrame:
        """Return a table that is computed from the weights of these runs, with their settings."""
        settings = self.runs.columns.intersection(["id", *self.wanted[0].point])
        return self.results.store.analysis(analysis, self.wanted).merge(self.runs[settings])

    def computed(self, computed: Computed) -> pd.DataFrame:
        """Return a table that is computed of settings alone.

        Raises: DataError if a part of it is missing or stale, saying how to compute it.
        """
        table, wanted = self.results.store.computed(computed), computed.wanted()
        if missing := wanted.keys() - set(table["id"]):
            raise DataError(f"{computed.table} lacks {len(missing)} of {len(wanted)} parts, or has them of other "
                            f"settings: run `hyla-repro compute {self.figure}`")  # fmt: skip
        return table

    def curves(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Return the training curves of some of the finished runs."""
        identities = set(runs["id"])
        return self.results.store.curves(run for run in self.wanted if run.id in identities)

    def progress(self) -> str:
        """Return in words how many of the runs are finished."""
        partly = self.results.partly(self.figure)
        done = f"{len(self.runs)} of {len(self.wanted)} runs of this figure are finished"
        return f"{done}: {partly}" if partly else done

    def save(self, figure: Figure, name: str = "") -> Path:
        """Write the picture, beside the first one a table of the runs that it shows, and return where it is."""
        path = save_figure(figure, name or self.figure, self.preset)
        if not name and (table := self._data()) is not None:
            write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
        return path

    def _data(self) -> pd.DataFrame | None:
        """Return the runs behind the figure, or what was computed for it; None where it is drawn of neither."""
        chapter = find_chapter(self.figure)
        if chapter.runs and self.preset in PRESETS:
            runs = self.results.store.runs(self.wanted)
            return runs if len(runs) else None
        return self.results.store.computed(chapter.tables[0]) if chapter.tables else None

    def verdicts(self) -> Comparison:
        """Return the paper's claims beside our results and verdicts."""
        return Comparison(table(self.figure, self.preset if self.preset in PRESETS else "laptop"))

    def cost(self) -> pd.DataFrame:
        """Return what the runs cost, and when and on which device they were trained."""
        return cost(self.runs)
