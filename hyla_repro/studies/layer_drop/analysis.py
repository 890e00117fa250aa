"""What is left of accuracy when modules are dropped, and models compared at equal accuracy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.effects import paired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error
from hyla_repro.studies.layer_drop.published import PUBLISHED, Drops

KINDS = {"attn": "attention", "mlp": "MLP", "block": "block"}
TASKS = {"sraven": "SRAVEN", "language": "characters"}
# What a task's splits hold; text that is held out is of another author.
SPLITS = {
    ("sraven", "test"): "training tasks", ("sraven", "heldout"): "held-out tasks",
    ("language", "test"): "Shakespeare", ("language", "heldout"): "Milton",
}  # fmt: skip


def rows(store: Store, analysis: Analysis, wanted: Sequence[Experiment]) -> pd.DataFrame:
    """Return the rows of a table with what tells models apart: task, n_layers, steps, variant, seed.

    Tables take minutes for each model, so that what is committed is read, and made only of models trained here.
    """
    known = set(store.table(analysis.table)["id"])
    here = set() if store.committed_only else {run.id for run in wanted if Ledger().state(run) == "done"}
    there = [run for run in wanted if run.id in known | here]
    if not there:
        return pd.DataFrame()
    facts = {run.id: (run.task_name, run.model.n_layers, run.steps) for run in there}
    table = store.analysis(analysis, there)
    columns = pd.DataFrame([facts[identity] for identity in table["id"]], columns=["task", "n_layers", "steps"])
    return pd.concat([table, columns], axis=1)


def progress(table: pd.DataFrame, wanted: Sequence[Experiment]) -> str:
    """Return in words of how many models the layers were dropped."""
    done = table["id"].nunique() if len(table) else 0
    return f"layers were dropped of {done} of {len(wanted)} models" + (
        "" if done else ": `hyla-repro run drop` trains those that are missing, `hyla-repro collect` drops their layers"
    )


def retained(curves: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return curves with `kept`: accuracy above chance as a share of the whole model's, in percent.

    Args:
        curves: rows of `curve_table`.
        split: "test" for training tasks, "heldout".
    """
    whole = curves[curves["n"] == 0].groupby(["id", "step"])[split].first().rename("whole")
    joined = curves.join(whole, on=["id", "step"])
    return joined.assign(kept=100 * (joined[split] - joined["chance"]) / (joined["whole"] - joined["chance"]))


def last_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of fully trained models."""
    return table[table["step"] == table["steps"]]


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of `kept` over all numbers of dropped modules of each kind, by variant and seed."""
    own = curves[(curves["order"] == "score") & (curves["n"] > 0) & curves["target"].isin(KINDS)]
    return own.pivot_table("kept", index=["variant", "seed"], columns="target")


def halves(curves: pd.DataFrame, order: str = "score") -> pd.DataFrame:
    """Return `kept` with half as many modules dropped as there are layers, by variant and seed, a column per target."""
    half = curves[curves["n"] == curves["n_layers"] // 2]
    return half[half["order"].str.startswith(order)].pivot_table("kept", index=["variant", "seed"], columns="target")


def matched(curves: pd.DataFrame) -> pd.DataFrame:
    """Return, of each task and seed, the rows of every method at the step at which they are about equally good.

    The aim is the lowest of the methods' last accuracies on training tasks; of each method that step's weights are
    taken whose accuracy is nearest, the later of equally near ones. What is held out has no part in the choice.

    Returns: rows of the curves, none of models that kept no weights along training.
    """
    if curves.empty:
        return curves
    curves = curves[curves.groupby("id")["step"].transform("nunique") > 1]
    whole = curves[(curves["target"] == "attn") & (curves["order"] == "score") & (curves["n"] == 0)]
    last = last_steps(whole)
    aim = last[last["variant"].isin(METHODS)].groupby(["task", "seed"])["test"].min().rename("aim")
    apart = whole.join(aim, on=["task", "seed"]).assign(apart=lambda table: (table["test"] - table["aim"]).abs())
    nearest = apart.sort_values(["apart", "step"], ascending=[True, False]).drop_duplicates(["task", "variant", "seed"])
    return curves.merge(nearest[["id", "step"]])


def widest_gap(curves: pd.DataFrame) -> float:
    """Return the largest difference between methods' whole accuracies on training tasks of a seed, in points."""
    whole = curves[(curves["target"] == "attn") & (curves["order"] == "score") & (curves["n"] == 0)]
    by_seed = whole.groupby("seed")["test"]
    return float(100 * (by_seed.max() - by_seed.min()).max())


def single_losses(scores: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return fully trained modules with their score and `harm`, by how much dropping one raises the loss, in nats."""
    ended = last_steps(curves)
    whole = ended[ended["n"] == 0].groupby("id")["loss"].first().rename("before")
    single = ended[ended["order"] == "single"].join(whole, on="id")
    single = single.assign(kind=single["target"], layer=single["dropped"].str.extract(r"(\d+)")[0].astype(int),
                           harm=single["loss"] - single["before"])  # fmt: skip
    return last_steps(scores).merge(single[["id", "kind", "layer", "harm"]], on=["id", "kind", "layer"])


def rank_correlations(singles: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of score and harm over the layers of a model, by variant, seed and kind."""
    groups = singles.groupby(["variant", "seed", "kind"])
    return groups[["score", "harm"]].apply(lambda part: part["score"].corr(part["harm"], method="spearman")).unstack()


def regret(curves: pd.DataFrame) -> pd.Series:
    """Return by how many points of `kept` the joint order is behind the best subset, on average over its sizes."""
    own = last_steps(curves)
    own = own[(own["target"] == "joint") & own["order"].isin(["score", "oracle"]) & (own["n"] > 0)]
    pair = own.pivot_table("kept", index=["variant", "seed", "n"], columns="order")
    pair = pair.reindex(columns=["score", "oracle"]).dropna()
    return (pair["oracle"] - pair["score"]).groupby(level=["variant", "seed"]).mean()


# --- tables of the page ---------------------------------------------------------------------------------------


def summary(curves: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return what is left on average, distance from the best subset and rank correlation, by model and method.

    Returns: means over seeds with standard errors; areas and regret in percent of the accuracy above chance.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    if curves.empty or scores.empty:
        return pd.DataFrame()
    by_model = dict(iter(retained(last_steps(curves)).groupby(["task", "n_layers"])))
    for task, layers in sorted(by_model, key=lambda model: (list(TASKS).index(model[0]), -model[1])):
        part = by_model[task, layers]
        own = scores[(scores["task"] == task) & (scores["n_layers"] == layers)]
        columns = areas(part).reindex(columns=list(KINDS)).rename(columns=KINDS).add_prefix("kept without ")
        columns["behind the best subset"] = regret(part)
        ranks = rank_correlations(single_losses(own, part)).reindex(columns=list(KINDS)).rename(columns=KINDS)
        by_method = dict(iter(columns.join(ranks.add_prefix("rank correlation, ")).groupby(level="variant")))
        for method in (method for method in METHODS if method in by_method):
            values = by_method[method]
            digits = {name: 2 if name.startswith("rank") else 1 for name in values}
            found[f"{TASKS[task]}, {layers} layers", NAMES[method]] = {
                name: mean_and_error(column.mean(), column.sem(), digits[name]) for name, column in values.items()
            }
    return pd.DataFrame(found).T


def code_table(scores: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return for every layer of SRAVEN's deepest models what its code is, and accuracy without it, in percent."""
    if curves.empty or scores.empty:
        return pd.DataFrame()
    ended = last_steps(scores)
    ended = ended[(ended["task"] == "sraven") & (ended["kind"] == "attn")]
    ended = ended[ended["n_layers"] == ended["n_layers"].max()]
    alone = last_steps(curves)
    alone = alone[(alone["order"] == "single") & (alone["target"] == "attn")]
    alone = alone.assign(layer=alone["dropped"].str.extract(r"(\d+)")[0].astype(int), without=100 * alone["test"])
    table = ended.merge(alone[["id", "layer", "without"]])
    table = table.assign(layer=table["layer"] + 1, zero=100 * table["zero"], uniform=100 * table["uniform"])
    names = {"score": "S", "dimension": "dimension of the code", "variation": "part that varies",
             "without": "dropped", "zero": "code zero", "uniform": "code uniform"}  # fmt: skip
    means = table.groupby(["variant", "layer"])[list(names)].mean().rename(columns=names)
    shown = means.reindex([m for m in METHODS if m in means.index.get_level_values(0)], level=0).rename(index=NAMES)
    return shown.round({"S": 3, "dimension of the code": 1, "part that varies": 2} | dict.fromkeys(
        ("dropped", "code zero", "code uniform"), 1))  # fmt: skip


def matched_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return what is kept without half of the attentions or MLPs at equal accuracy, by task, split and method."""
    at, found = matched(curves), {}
    if at.empty:
        return pd.DataFrame()
    for (task, split), name in SPLITS.items():
        part = at[at["task"] == task]
        half = halves(retained(part, split))
        whole = part[part["n"] == 0].groupby(["variant", "seed"])[split].first()
        for method in (method for method in METHODS if method in half.index):
            own = half.loc[method]
            found[TASKS[task], name, NAMES[method]] = {
                "whole accuracy (%)": mean_and_error(100 * whole[method].mean(), 100 * whole[method].sem()),
                "kept without half of attention (%)": mean_and_error(own["attn"].mean(), own["attn"].sem()),
                "kept without half of the MLPs (%)": mean_and_error(own["mlp"].mean(), own["mlp"].sem()),
                "attention minus MLP": str(paired("", own["attn"] - own["mlp"])),
            }
    return pd.DataFrame(found).T


def published(name: str, drops: Drops | None = None) -> pd.DataFrame:
    """Return a published table of a model: mean accuracy, speed-up and ratio, by what and how many are dropped."""
    drops = drops or PUBLISHED[name]
    cells: dict[int, dict[str, str]] = {}
    for (kind, n), row in drops.rows.items():
        ratio = "" if row.ratio is None else f", {row.ratio:.2f}"
        words = f"{row.average:.1f}, {row.speedup:.2f}×{ratio}".replace("-", "−")
        cells.setdefault(n, {})[KINDS[kind]] = words
    return pd.DataFrame(dict(sorted(cells.items()))).fillna("").rename_axis(columns=f"{name}, whole {drops.average}")


def published_areas() -> pd.DataFrame:
    """Return the published share of accuracy that is kept without 8 modules, in percent of the whole model's."""
    table = {
        name: {KINDS[kind]: 100 * drops.rows[kind, 8].average / drops.average for kind in KINDS}
        for name, drops in PUBLISHED.items()
    }
    return pd.DataFrame(table).T.round(1)


def mean_by_stage(scores: pd.DataFrame) -> pd.DataFrame:
    """Return S averaged over all layers but the first, by variant, seed and step, a column per kind."""
    later = scores[scores["layer"] > 0]
    return later.pivot_table("score", index=["variant", "seed", "step"], columns="kind")


def first_layer_lead(scores: pd.DataFrame, kind: str) -> pd.Series:
    """Return by how much S of the first layer is above the largest of the others, by variant and seed.

    Args:
        scores: those of one step.
    """
    table = scores[scores["kind"] == kind].pivot_table("score", index=["variant", "seed"], columns="layer")
    return table[0] - table.drop(columns=0).max(axis=1)


def lead_of_joint(curves: pd.DataFrame) -> pd.Series:
    """Return the mean lead of joint dropping over the better of attention and MLP alone, over all numbers of drops."""
    own = curves[(curves["order"] == "score") & (curves["n"] > 0)]
    table = own.pivot_table("kept", index=["variant", "seed", "n"], columns="target")
    lead = table["joint"] - np.maximum(table["attn"], table["mlp"])
    return lead.groupby(level=["variant", "seed"]).mean()
