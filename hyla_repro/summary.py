"""Our runs in numbers: averages over seeds, the best setting of each method, and the names that tables print."""

from collections.abc import Iterable
from math import factorial, isnan, sqrt
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hyla_repro.codes import Agreement
from hyla_repro.presets import ABLATIONS, METHODS, experiments
from hyla_repro.results import PAPER, Store
from hyla_repro.tasks.registry import TASKS
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

if TYPE_CHECKING:
    from hyla_repro.tasks import SRaven

NAMES = {
    "softmax": "softmax attention", "linear": "linear attention", "hyla": "HYLA",
    "linear_rms_head": "linear + RMSHead", "linear_rms_head_relu_values": "linear + RMSHead + nonlinear value",
    "hyla_no_rms_head": "HYLA − RMSHead", "hyla_no_relu": "HYLA − nonlinearity",
    "hyla_no_relu_no_rms_head": "HYLA − nonlinearity − RMSHead", "hyla_softmax": "HYLA − RMSHead + softmax",
    "hyla_deep": "HYLA + deep value network", "softmax_moe": "softmax + MoE", "linear_moe": "linear + MoE",
    "hyla_moe": "HYLA + MoE",
}  # fmt: skip


FUZZY_LOGIC, SRAVEN = "fuzzy_logic", "sraven"


class Results:
    """The finished runs of one preset, as claims read them."""

    def __init__(self, preset: str, store: Store | None = None) -> None:
        self.preset, self.store = preset, store or Store()
        self._tables: dict[tuple[str, str], pd.DataFrame] = {}

    def runs(self, figure: str, task: str = FUZZY_LOGIC) -> pd.DataFrame:
        """Return one row per finished run of a figure's runs on one task."""
        if (figure, task) not in self._tables:
            wanted = [run for run in experiments(figure, self.preset) if run.task_name == task]
            self._tables[figure, task] = self.store.runs(wanted)
        return self._tables[figure, task].copy()

    def scores(self, figure: str, task: str = FUZZY_LOGIC) -> pd.DataFrame:
        """Return mean, standard error and number of seeds of every score, per method and grid point.

        Where several learning rates and decays were run, the best held-out mean stands, as in the paper.
        """
        return summarize(self.runs(figure, task))

    def best(self, figure: str, task: str = FUZZY_LOGIC) -> pd.DataFrame:
        """Return the single runs that `scores` averages: those of the best setting of each method and grid point."""
        return best_runs(self.runs(figure, task))

    def main(self, task: str = FUZZY_LOGIC) -> pd.DataFrame:
        """Return the summary of Table A1's runs on one task, by method."""
        scores = self.scores("tablea1", task)
        return scores.set_index("variant") if len(scores) else scores

    def leads(self, better: str, worse: str, task: str = FUZZY_LOGIC) -> pd.Series:
        """Return by how many points one method leads another there on held-out tasks, for each seed."""
        heldout = self.best("tablea1", task).pivot(index="seed", columns="variant", values="heldout")
        return (100 * (heldout[better] - heldout[worse])).dropna()


# What tells the points of a figure apart, besides the method; the scores of each task; what the best is chosen of.
_POINTS = {
    "fuzzy_logic": ["n_examples", "heldout_fraction", "attention_dropout", "steps"],
    "sraven": ["n_features", "heldout_fraction", "n_layers", "d_model", "n_heads", "attention_dropout", "steps"],
}
_SETTINGS = ["learning_rate", "weight_decay", "warmup_steps"]


def _points(runs: pd.DataFrame) -> list[str]:
    (task,) = set(runs["task"])
    return ["variant", *_POINTS[task]]


def _settings(runs: pd.DataFrame) -> list[str]:
    return [name for name in _SETTINGS if name in runs]


def _splits(runs: pd.DataFrame) -> list[str]:
    (task,) = set(runs["task"])
    return list(TASKS.settings(task).evaluation_splits)


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """Average runs of one task over seeds, and keep the best optimiser settings of each method and point.

    Returns: columns `heldout`, `heldout_se`, ... for each split and `n` seeds; scores are R2 or accuracy in percent.
    """
    if runs.empty:
        return runs
    points, splits = _points(runs), _splits(runs)
    groups = (runs.assign(**{s: 100 * runs[s] for s in splits})).groupby([*points, *_settings(runs)])
    table = groups[splits].mean().join(groups[splits].sem().add_suffix("_se")).join(groups.size().rename("n"))
    best = table.sort_values("heldout", ascending=False).groupby(level=points, sort=False).head(1).reset_index()
    order = {name: place for place, name in enumerate(ABLATIONS)}
    return best.sort_values([*points[1:], "variant"], key=lambda c: c.map(order) if c.name == "variant" else c,
                            ignore_index=True)  # fmt: skip


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
    """Return a mean with its standard error in words, which no line break parts; nothing where there is none."""
    unbroken = f"{mean:.{digits}f} ± {error:.{digits}f}".replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")
    return "" if isnan(mean) else unbroken


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


def identity_errors(n_heads: int = 3, n_tokens: int = 7, seed: int = 0) -> pd.Series:
    """Return, per normaliser, the largest difference between attention and the sum of its generated networks.

    Both are computed in float64 on outputs of order 1, so rounding alone gives about 1e-16.
    """
    import torch

    from hyla_repro.attention import NORMALIZERS, HypernetworkAttention

    draw, errors = torch.Generator().manual_seed(seed), {}
    for normalizer in NORMALIZERS:
        layer = HypernetworkAttention(8 * n_heads, n_heads, bias=False, normalizer=normalizer, value_network="linear")
        x = torch.randn(2, n_tokens, 8 * n_heads, generator=draw, dtype=torch.float64)
        (generated,) = layer.double().value_network_weights(x, x)
        by_pairs = torch.einsum("bqkoi,bki->bqo", generated, x)
        errors[normalizer] = (by_pairs - layer(x, x, x)[0]).abs().max().item()
    return pd.Series(errors, name="largest difference").rename_axis("normaliser")


def shares_table(shares: dict[tuple[str, int], Agreement]) -> pd.DataFrame:
    """Return neighbour agreement by method, a column per seed, and the means of both controls; by (variant, seed)."""
    series = pd.Series({key: agreement.share for key, agreement in shares.items()})
    wide = series.unstack().rename(columns="seed {}".format).reindex(METHODS)
    controls = pd.DataFrame.from_dict(
        {key: {"target alone": a.by_target, "chance": a.chance} for key, a in shares.items()}, orient="index"
    )
    return wide.join(controls.groupby(level=0).mean()).rename(index=NAMES).map("{:.0%}".format)


def sraven_counts(task: "SRaven") -> pd.Series:
    """Return how many tasks, problems and hypotheses there are."""
    from hyla_repro.tasks.sraven import hypotheses
    from hyla_repro.tasks.sraven.rules import fillings

    sizes = [fillings(name, task.n_values, task.grid_size) for name in SRAVEN_RULES]
    orders = factorial(task.n_features) ** task.grid_size
    counts = {
        "tasks": task.n_multisets, "trained on": task.n_multisets - task.n_heldout, "held out": task.n_heldout,
        "ways to draw a problem of the smallest task": min(sizes) ** task.n_features * orders,
        "ways to draw a problem of the largest task": max(sizes) ** task.n_features * orders,
        "hypotheses per problem": hypotheses(task),
    }  # fmt: skip
    return pd.Series({name: f"{n:,}" if n < 1e9 else f"{n:.1e}" for name, n in counts.items()}, name="number")


def ambiguity(task: "SRaven", problems: int) -> pd.DataFrame:
    """Return, per split, which share of problems is ambiguous, with 95 % intervals, and the best possible accuracy."""
    from hyla_repro.tasks.sraven import best_guess, evaluation_set, is_ambiguous, is_wholly_ambiguous

    rows = {}
    for split, batch in evaluation_set(task, problems=problems).problems.items():
        several, wholly = is_ambiguous(task, batch.inputs), is_wholly_ambiguous(task, batch)
        _, probability = best_guess(task, batch.inputs)
        rows[split] = {
            "another answer, every symbol different": percent_interval(int(wholly.sum()), problems),
            "more than one answer": percent_interval(int(several.sum()), problems),
            "best possible accuracy": f"{100 * probability.mean().item():.1f} %",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def wilson(successes: int, tries: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson's, which holds for rare events too)."""
    share, z = successes / tries, 1.959964
    middle, half = share + z**2 / (2 * tries), z * sqrt(share * (1 - share) / tries + z**2 / (4 * tries**2))
    return (middle - half) / (1 + z**2 / tries), (middle + half) / (1 + z**2 / tries)


def percent_interval(successes: int, tries: int) -> str:
    """Return a share and its 95 % interval in words."""
    low, high = wilson(successes, tries)
    return f"{100 * successes / tries:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
