"""Why our SRAVEN runs disagree with the paper: HYLA beside softmax attention under every condition that was trained."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hyla_repro.experiment import Experiment
from hyla_repro.results.claims import FLOOR
from hyla_repro.results.effects import Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.summary import equal_lead
from hyla_repro.studies.style import COLORS, axes_grid, grid_behind, legend_outside, narrow, styled

AS_IT_IS = "the main comparison"
# What a condition may change: the cause that it is a test of, and how a value is called.
_CHANGES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "learning_rate": ("optimiser", lambda rate: f"learning rate {rate:g}"),
    "warmup_steps": ("optimiser", lambda steps: f"warm-up of {steps:g}"),
    "attention_dropout": ("optimiser", lambda rate: f"attention dropout {rate:g}" if rate else "no attention dropout"),
    "d_model": ("model", lambda width: f"width {width:g}"),
    "n_layers": ("model", lambda layers: f"{layers:g} layers"),
    "n_heads": ("model", lambda heads: f"{heads:g} head{'s' * (heads > 1)}"),
    "n_features": ("task", lambda features: f"{features:g} features"),
    "heldout_fraction": ("task", lambda fraction: f"{100 * fraction:.0f} % held out"),
    # Longer training comes with other changes, and then these are tested.
    "steps": ("time", lambda steps: f"{steps:,} steps".replace(",", " ")),
}
_NORMALISER = "normaliser"
_CAUSES = (AS_IT_IS, "time", "optimiser", "model", "task", _NORMALISER)
_UNTRAINED, _UNTOLD, _OPEN = "not trained yet", "too little learned to tell", "open"
_SOFTMAX, _HYLA = "softmax attention leads", "HYLA leads"
# Rows of Table A1 that differ by RMSHead alone: without it, and with it.
_RMS_HEAD = {"linear": "linear_rms_head", "hyla_no_rms_head": "hyla", "hyla_no_relu_no_rms_head": "hyla_no_relu"}


class Condition(NamedTuple):
    """HYLA and softmax attention under one change of the main comparison; differences are in held-out points.

    Args:
        cause: what the change is a test of.
        name: of the change.
        scores: means in percent, by method and split.
        lead: HYLA minus softmax attention at the last step, of no seeds where they are not trained.
        equal: the same where both first reach the accuracy on training tasks that it is named after; None if that
            is too little.
    """

    cause: str
    name: str
    scores: pd.DataFrame
    lead: Effect
    equal: Effect | None

    @property
    def says(self) -> str:
        """What the lead comes to, in words."""
        if not self.lead.n:
            return _UNTRAINED
        if self.scores["test"].min() < FLOOR:
            return _UNTOLD
        if self.lead.high < 0:
            return _SOFTMAX
        return _HYLA if self.lead.low > 0 else _OPEN


def conditions(wanted: Sequence[Experiment], runs: pd.DataFrame, curves: pd.DataFrame) -> list[Condition]:
    """Return the main comparison and every change of it, cause by cause.

    Args:
        wanted: the experiments of `runs.causes`, of one preset.
        runs: one row per finished one, with settings and scores.
        curves: rows of `Store.curves` of the same runs.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[Experiment]] = {}
    for run in wanted:
        groups.setdefault(tuple(_changed(run, wanted[0]).items()), []).append(run)
    found = [
        _condition(dict(changed), method, runs[runs["id"].isin([run.id for run in group])], curves)
        for changed, group in groups.items()
        for method in dict.fromkeys(run.method for run in group)
        if method in ("hyla", "hyla_softmax")
    ]
    return sorted(found, key=lambda condition: _CAUSES.index(condition.cause))


def _changed(run: Experiment, main: Experiment) -> dict[str, Any]:
    """Return what a run has other than the main comparison; the number of heads follows the width."""
    row, usual = run.row(), main.row()
    changed = {name: row[name] for name in _CHANGES if row[name] != usual[name]}
    return {name: value for name, value in changed.items() if name != "n_heads" or "d_model" not in changed}


def _condition(changed: Mapping[str, Any], method: str, runs: pd.DataFrame, curves: pd.DataFrame) -> Condition:
    heldout = runs.pivot(index="seed", columns="variant", values="heldout").reindex(columns=["softmax", method])
    leads = (100 * (heldout[method] - heldout["softmax"])).dropna()
    pair = runs[runs["variant"].isin(("softmax", method)) & runs["seed"].isin(leads.index)]
    scores = 100 * pair.groupby("variant")[["test", "heldout"]].mean()
    told = len(leads) > 1 and scores["test"].min() >= FLOOR
    equal = equal_lead(curves[curves["id"].isin(pair["id"])], method, "softmax") if told else None
    return Condition(*_named(changed, method), scores, paired("", leads), equal)


def _named(changed: Mapping[str, Any], method: str) -> tuple[str, str]:
    """Return the cause that a change is a test of, and the name of the change."""
    if method != "hyla":
        return _NORMALISER, "HYLA with a softmax over keys"
    if not changed:
        return AS_IT_IS, AS_IT_IS
    return _CHANGES[next(iter(changed))][0], ", ".join(_CHANGES[name][1](value) for name, value in changed.items())


def table(found: Sequence[Condition]) -> pd.DataFrame:
    """Return what was measured under every condition: accuracies in percent, differences in points."""
    rows = []
    for condition in found:
        both = condition.scores.sort_index(key=lambda methods: methods != "softmax")
        softmax, hyla = (f"{row.test:.1f} / {row.heldout:.1f}" for row in both.itertuples()) if len(both) else ("", "")
        rows.append({
            "condition": condition.name, "softmax attention": softmax, "HYLA": hyla,
            "HYLA ahead by": str(condition.lead) if condition.lead.n else "", "seeds": str(condition.lead.n or ""),
            "says": condition.says,
            "ahead at equal training accuracy": str(condition.equal or "").replace(" %:", " %: ", 1),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("condition").rename_axis(None)


def in_short(found: Sequence[Condition]) -> str:
    """Return how many conditions say what, and how far the two are apart at equal training accuracy, in words."""
    counts = Counter(condition.says for condition in found)
    equal = [condition.equal for condition in found if condition.equal]
    apart = max((abs(effect.value) for effect in equal), default=0.0)
    clear = sum(effect.low > 0 or effect.high < 0 for effect in equal)
    levels = [int(effect.name.split()[0]) for effect in equal] or [0]
    hyla = counts[_HYLA] or "none"
    return "\n".join([
        f"Of {len(found)} conditions, softmax attention leads clearly in {counts[_SOFTMAX]}, HYLA in {hyla}.",
        f"Open: {counts[_OPEN]}. Too little learned to tell: {counts[_UNTOLD]}. Not trained yet: {counts[_UNTRAINED]}.",
        f"At equal accuracy on training tasks ({min(levels)} to {max(levels)} %) {len(equal)} can be compared:",
        f"the two are {apart:.1f} points apart on average at most, and clearly so in {clear or 'none'} of them.",
    ])  # fmt: skip


def without_rms_head(wanted: Sequence[Experiment], runs: pd.DataFrame) -> pd.DataFrame:
    """Return how many points rows of Table A1 gain without RMSHead, seed by seed; arguments as of `conditions`."""
    usual = runs[runs["id"].isin([run.id for run in wanted if not _changed(run, wanted[0])])]
    test, heldout = (100 * usual.pivot(index="seed", columns="variant", values=split) for split in ("test", "heldout"))
    rows = {}
    for without, having in _RMS_HEAD.items():
        if {without, having} <= set(test):
            gains = (paired("", scores[without] - scores[having]) for scores in (test, heldout))
            rows[f"{NAMES[without]}, minus {NAMES[having]}"] = [str(effect) for effect in gains]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["training tasks", "held-out tasks"])


@styled
def forest(found: Sequence[Condition], paper: Effect) -> Figure:
    """Draw how far HYLA is ahead under every condition, at the last step and at equal accuracy on training tasks.

    Conditions that tell too little are pale, and the axis is not made for their intervals.

    Args:
        paper: HYLA minus softmax attention in the paper.
    """
    causes = list(dict.fromkeys(condition.cause for condition in found))
    figure, axes = axes_grid(1, 1, 7.4, (0.36 if narrow() else 0.27) * (len(found) + len(causes)) + 1.2)
    ax, place, ticks = axes[0, 0], 0.0, {0.0: _in_lines("the paper, four features")}
    _mark(ax, 0.0, paper, "D", "0.45", "the paper")
    for cause in causes:
        place += 0.5 if cause == AS_IT_IS else 1.2
        if cause != AS_IT_IS:
            ax.text(-0.02, place, cause, transform=ax.get_yaxis_transform(), weight="bold", ha="right", va="center")
        for condition in (entry for entry in found if entry.cause == cause):
            place += 1
            ticks[place] = _in_lines(condition.name)
            _row(ax, place, condition)
    told = [paper, *(condition.lead for condition in found if condition.lead.n and condition.says != _UNTOLD)]
    ends = [end for effect in told for end in (effect.value, effect.low, effect.high) if pd.notna(end)]
    ax.axvline(0, color="0.4", lw=1)
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set(xlim=(min(ends) - 3, max(ends) + 3), ylim=(place + 0.7, -0.7),
           xlabel="HYLA minus softmax attention,\npoints on held-out tasks")  # fmt: skip
    ax.tick_params(axis="y", length=0)
    grid_behind(ax, "x")
    handles, labels = ax.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    legend_outside(figure, (list(by_label.values()), list(by_label)))
    return figure


def _in_lines(name: str) -> str:
    """Return a name as it is drawn: on a phone in short lines."""
    if not narrow():
        return name
    return "\n".join(fill(part, 22) for part in name.replace(", ", ",\n").splitlines())


def _row(ax: Axes, place: float, condition: Condition) -> None:
    if not condition.lead.n:
        ax.text(1, place, _UNTRAINED, color="0.4", va="center", style="italic")
    alpha = 0.35 if condition.says == _UNTOLD else 1.0
    _mark(ax, place - 0.13, condition.lead, "o", COLORS["hyla"], "at the last step", alpha=alpha)
    if condition.equal:
        hollow = {"mfc": "none", "ms": 5, "lw": 1}
        _mark(ax, place + 0.2, condition.equal, "s", "0.35", "at equal accuracy on training tasks", **hollow)


def _mark(ax: Axes, place: float, effect: Effect, marker: str, color: Any, label: str, **looks: Any) -> None:
    if effect.n:
        reach = [[effect.value - effect.low], [effect.high - effect.value]] if effect.n > 1 else None
        style = {"ms": 7, "lw": 2, **looks}
        ax.errorbar(effect.value, place, xerr=reach, fmt=marker, color=color, label=label, **style)
