"""Our runs in numbers: averages over seeds, the best setting of each method, and how tables print them."""

from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hyla_repro.experiment import OPTIMIZER, Experiment, coordinates
from hyla_repro.results.effects import Effect, Published, paired, published
from hyla_repro.results.methods import ALL_METHODS, METHODS, NAMES
from hyla_repro.results.store import PAPER, Store
from hyla_repro.tasks.registry import TASKS


class Results:
    """The finished runs of one preset, as claims read them.

    Args:
        experiments: figure and preset to the runs behind it.
        store: committed results and the ledger if None.
    """

    def __init__(
        self, preset: str, experiments: Callable[[str, str], list[Experiment]], store: Store | None = None
    ) -> None:
        self.preset, self.store = preset, store or Store()
        # Claims of one figure ask for its runs again and again.
        self._experiments = cache(lambda figure: experiments(figure, preset))
        self._tables: dict[tuple[str, ...], pd.DataFrame] = {}

    def wanted(self, figure: str, task: str) -> list[Experiment]:
        """Return the experiments behind a figure that are on one task, finished or not."""
        return [run for run in self._experiments(figure) if run.task_name == task]

    def runs(self, figure: str, task: str) -> pd.DataFrame:
        """Return one row per finished run of a figure's runs on one task."""
        return self._once(("runs", figure, task), lambda: self.store.runs(self.wanted(figure, task)))

    def partly(self, figure: str) -> str:
        """Return in words how many settings of the optimiser were trained of all that a figure asks for, if not all."""
        notes = []
        for task in dict.fromkeys(run.task_name for run in self._experiments(figure)):
            settings = [tuple(getattr(run, name) for name in OPTIMIZER) for run in self.wanted(figure, task)]
            runs = self.runs(figure, task)
            trained = len(runs.groupby(_settings(runs)).size()) if len(runs) else 0
            if 0 < trained < len(set(settings)):
                notes.append(f"{trained} of {len(set(settings))} settings of the optimiser")
        return ", ".join(dict.fromkeys(notes))

    def scores(self, figure: str, task: str) -> pd.DataFrame:
        """Return mean, standard error and number of seeds of every score, per method and grid point.

        Where several learning rates and decays were run, the best held-out mean stands, as in the paper.
        """
        return self._once(("scores", figure, task), lambda: summarize(self.runs(figure, task)))

    def best(self, figure: str, task: str) -> pd.DataFrame:
        """Return the single runs that `scores` averages: those of the best setting of each method and grid point."""
        return self._once(("best", figure, task), lambda: best_runs(self.runs(figure, task)))

    def curves(self, figure: str, task: str) -> pd.DataFrame:
        """Return the training curves of those runs, as `Store.curves` does."""
        identities = set(self.best(figure, task)["id"])
        return self.store.curves(run for run in self.wanted(figure, task) if run.id in identities)

    def by_method(self, figure: str, task: str) -> pd.DataFrame:
        """Return `scores` of a figure with one grid point, by method."""
        scores = self.scores(figure, task)
        return scores.set_index("variant") if len(scores) else scores

    def leads(self, better: str, worse: str, figure: str, task: str) -> pd.Series:
        """Return by how many points one method leads another there on held-out tasks, for each seed."""
        heldout = self.best(figure, task).pivot(index="seed", columns="variant", values="heldout")
        return (100 * (heldout[better] - heldout[worse])).dropna()

    def _once(self, key: tuple[str, ...], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a copy of a table that is made at the first call: claims of one figure share their tables."""
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key].copy()


def _points(runs: pd.DataFrame) -> list[str]:
    (task,) = set(runs["task"])
    return ["variant", *(name for name in coordinates(task) if name in runs)]


def _settings(runs: pd.DataFrame) -> list[str]:
    return [name for name in OPTIMIZER if name in runs]


def _splits(runs: pd.DataFrame) -> list[str]:
    return [split for split in _settings_of(runs).evaluation_splits if split in runs]


def _settings_of(runs: pd.DataFrame) -> type[Any]:
    (task,) = set(runs["task"])
    return TASKS.settings(task)


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Average runs of one task over seeds, and keep the best optimiser settings of each method and point.

    Settings are compared on the seeds that all of them have, if there are any.

    Returns: columns `heldout`, `heldout_se`, ... for each split and `n` seeds; R2 and accuracy are in percent.
    """
    if runs.empty:
        return runs
    points, settings, splits, task = _points(runs), _settings(runs), _splits(runs), _settings_of(runs)
    scaled = runs.assign(**{split: task.scale * runs[split] for split in splits})
    groups = scaled.groupby([*points, *settings])
    table = groups[splits].mean().join(groups[splits].sem().add_suffix("_se")).join(groups.size().rename("n"))
    compared = _of_common_seeds(scaled, points, settings).groupby([*points, *settings])[task.selected_by].mean()
    best = table.assign(compared=compared).sort_values("compared", ascending=task.lower_is_better)
    best = best.groupby(level=points, sort=False).head(1).drop(columns="compared").reset_index()
    order = {name: place for place, name in enumerate(ALL_METHODS)}
    return best.sort_values([*points[1:], "variant"], key=lambda c: c.map(order) if c.name == "variant" else c,
                            ignore_index=True)  # fmt: skip


def _of_common_seeds(runs: pd.DataFrame, points: list[str], settings: list[str]) -> pd.DataFrame:
    """Return the runs of those seeds that every setting of a point has, all runs of a point without any such seed."""
    tried = runs.drop_duplicates([*points, *settings]).groupby(points).size().rename("tried")
    with_seed = runs.groupby([*points, "seed"]).size().rename("with_seed")
    counts = runs.join(with_seed, on=[*points, "seed"]).join(tried, on=points)
    common = (counts["with_seed"] == counts["tried"]).set_axis(runs.index)
    any_common = common.groupby([runs[name] for name in points]).transform("any")
    return runs[common | ~any_common]


def best_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the best optimiser setting of each method and grid point."""
    return runs if runs.empty else runs.merge(summarize(runs)[[*_points(runs), *_settings(runs)]])


def by_seed(runs: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out score in percent by method and seed, with the mean on training tasks, at the best setting.

    Args:
        runs: one row per run, of one grid point.
        scores: what `summarize` made of them.
    """
    best = runs.merge(scores[["variant", *_settings(runs)]])
    table = 100 * best.pivot(index="variant", columns="seed", values="heldout").rename(columns="seed {}".format)
    training = scores.set_index("variant")["test"].rename("training tasks")
    return table.join(training).reindex(scores["variant"]).rename(index=NAMES).rename_axis(None)


def mean_and_error(mean: float, error: float, digits: int = 1) -> str:
    """Return a mean with its standard error in words, which no line break parts; nothing where there is none.

    Of a single number there is no standard error, and it stands alone.
    """
    if isnan(mean):
        return ""
    if isnan(error):
        return _rounded(mean, digits).replace("-", "−")
    unbroken = f"{_rounded(mean, digits)} ± {_rounded(error, digits)}"
    return unbroken.replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def _rounded(value: float, digits: int) -> str:
    """Return a number rounded from the decimals that it prints with, halves up: 4.25 is 4.3, and 6.55 is 6.6."""
    return "nan" if isnan(value) else str(Decimal(str(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def heldout_at(curves: pd.DataFrame, level: float) -> pd.Series:
    """Return held-out scores where a run's score on training tasks first reaches a level, by variant and seed.

    This takes the speed of learning out of a comparison. Between two evaluations both scores count as straight lines.

    Args:
        curves: rows of `Store.curves`, whose scores are shares.
        level: a share.

    Returns: shares; NaN for a run that never reaches the level.
    """

    def crossing(curve: pd.DataFrame) -> float:
        curve = curve.sort_values("step")
        training, heldout = curve["test"].to_numpy(), curve["heldout"].to_numpy()
        reached = training >= level
        if not reached.any():
            return float("nan")
        last = int(reached.argmax())
        # Below the level before, at or above it now; a run that starts above it has one point to take.
        around = slice(max(last - 1, 0), last + 1)
        return float(np.interp(level, training[around], heldout[around]))

    by_run = {run: crossing(curve) for run, curve in curves.groupby(["variant", "seed"])}
    return pd.Series(by_run, dtype=float).rename_axis(["variant", "seed"])


def equal_lead(curves: pd.DataFrame, better: str, worse: str, step: float = 0.05) -> Effect:
    """Return how far one method leads another on held-out tasks at equal scores on training tasks, seed by seed.

    The score is the highest, in steps of this share, that all runs of both reach; the effect is named after it.

    Args:
        curves: rows of `Store.curves` of runs with equal settings.
    """
    curves = curves[curves["variant"].isin((better, worse))]
    highest = curves.groupby(["variant", "seed"])["test"].max().min()
    # Rounded, since 0.3 / 0.05 is a little less than six, and six times 0.05 a little more than 0.3.
    level = round(step * np.floor(round(highest / step, 6)), 6)
    scores = 100 * heldout_at(curves, level).unstack("variant")
    return paired(f"{100 * level:.0f} %", scores[better] - scores[worse])


def equal_training(curves: pd.DataFrame, levels: Iterable[float] = (0.15, 0.2, 0.25, 0.3, 0.35)) -> pd.DataFrame:
    """Return held-out scores in percent at equal scores on training tasks, and their differences seed by seed.

    Returns: a column per level; means and standard errors, blank where a run of the method never reaches the level.
    """
    columns = {}
    for level in levels:
        scores = 100 * heldout_at(curves, level).unstack("variant").reindex(columns=METHODS)
        pairs = (("hyla", "softmax"), ("hyla", "linear"), ("softmax", "linear"))
        leads = {f"{NAMES[one]} minus {NAMES[other]}": scores[one] - scores[other] for one, other in pairs}
        rows = scores.rename(columns=NAMES).assign(**leads)
        columns[f"at {level:.0%}"] = rows.agg(lambda row: mean_and_error(row.mean(skipna=False), row.sem()))
    return pd.DataFrame(columns).rename_axis(None)


def paper_values(store: Store | None = None) -> pd.DataFrame:
    """Return the published numbers: figure, task, variant, value and standard error in percent, source."""
    return (store or Store()).table(PAPER)


def paper_lead(task: str, better: str, worse: str, store: Store | None = None) -> Effect:
    """Return how far one method leads another on held-out tasks in the paper's main comparison (Welch's t)."""
    table = paper_values(store)
    cells = table[table["task"] == task].set_index("variant")
    pairs = (cells.loc[method, ["value", "standard_error"]] for method in (better, worse))
    effect = published("", *(Published(float(value), float(error)) for value, error in pairs))
    # The printed numbers have two decimals, and so has their difference.
    return effect._replace(value=round(effect.value, 2))


def share_interval(successes: int, tries: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson's, which holds for rare events too)."""
    interval = binomtest(successes, tries).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def percent_interval(successes: int, tries: int) -> str:
    """Return a share and its 95 % interval in words."""
    low, high = share_interval(successes, tries)
    return f"{100 * successes / tries:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
