"""Latent codes on fuzzy logic: which terms they tell of, and whether they cluster by function (Figures 2B, 2D, A2)."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from einops import rearrange

from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.summary import mean_and_error
from hyla_repro.studies.codes import as_features, in_the_plane, linear_probe, own_codes, with_control
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic, evaluate
from hyla_repro.training.stack import CHUNK

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_SEQUENCES = 4000
_PLANE_SEQUENCES = 1500


def chance_f1(share: float) -> float:
    """Return the best F1 that needs no input: always answering yes for a label with this share of positives."""
    return 2 * share / (1 + share)


def decoding_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", sequences: int = _SEQUENCES
) -> pd.DataFrame:
    """Decode each term from the codes of each layer: logistic regression, fitted on training functions.

    Args:
        runs: fuzzy-logic runs of one shape, whose codes are collected as one stack.

    Returns: one row per run, model (`trained` or `untrained`), layer and term: F1 and area under the ROC curve on
        held-out functions (`f1`, `auc`) and on training functions in sequences that the probe has not seen
        (`train_f1`, `train_auc`), the F1 of always answering yes (`chance`), and `term_value`, the term's value in
        [0, 1] at the fixed query.
    Source: paper, Figure 2B. Differs: the release scores a ridge regression (Deviation D6).
    """
    tables = []
    for model, stack in with_control(runs, weights, device).items():
        streams = (("train", 0), ("train", -(-sequences // CHUNK)), ("heldout", 0))
        collected = [own_codes(stack, f"{split}_fixed_query", sequences, step) for split, step in streams]
        for index, run in enumerate(runs):
            codes = [as_features(codes[index, :, 0]) for codes, _ in collected]
            terms = [batch.terms[index].numpy() for _, batch in collected]
            table = _decode(run, codes, terms)
            table.insert(1, "model", model)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _decode(run: Experiment, codes: Sequence[np.ndarray], terms: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return one run's rows from codes (b, l, h) and terms (b, k): to fit, to score in training, to score held out."""
    values, rows = _term_values(run), []
    for layer, term in product(range(run.model.n_layers), range(len(values))):
        labels = [(shown == term).any(-1) for shown in terms]
        if not all(label.any() and not label.all() for label in labels):
            continue  # A small training split may lack a term altogether; nothing can be decoded then.
        probe = linear_probe().fit(codes[0][:, layer], labels[0])
        (train_f1, train_auc), (f1, auc) = (
            _probe_scores(probe, part[:, layer], label) for part, label in zip(codes[1:], labels[1:], strict=True)
        )
        rows.append({
            "id": run.id, "layer": layer + 1, "term": term, "term_value": values[term],
            "f1": f1, "chance": chance_f1(float(labels[-1].mean())), "auc": auc,
            "train_f1": train_f1, "train_auc": train_auc,
        })  # fmt: skip
    return pd.DataFrame(rows)


def gain_by_training(decoding: pd.DataFrame) -> pd.DataFrame:
    """Return by how much training raises F1 and AUC on held-out functions, on average and seed by seed, by method.

    Args:
        decoding: rows of `decoding_table` of one layer, with variant and seed.
    """
    means = decoding.pivot_table(["f1", "auc"], index=["variant", "seed"], columns="model")
    gains = pd.DataFrame({score: means[score]["trained"] - means[score]["untrained"] for score in ("f1", "auc")})
    groups = gains.groupby(level="variant")
    average, error, words = groups.mean(), groups.sem(), {}
    for score in gains:
        pairs = zip(average[score], error[score], strict=True)
        words[f"{score}, gain"] = pd.Series([mean_and_error(*pair, 3) for pair in pairs], average.index)
    seeds = gains["auc"].unstack().rename(columns="auc, gain of seed {}".format)
    words |= {name: seeds[name].map("{:.3f}".format).str.replace("-", "−") for name in seeds}
    return pd.DataFrame(words).reindex(METHODS).rename(index=NAMES).rename_axis(None)


def _term_values(run: Experiment) -> list[float]:
    """Return the value of every known term at the fixed query."""
    task = run.build_task()
    assert isinstance(task, FuzzyLogic)
    query = task.batch("train_fixed_query", 0, len(task.terms)).inputs[:, -1:, : task.n_variables]
    return evaluate(rearrange(task.terms, "term v -> term 1 v"), query).flatten()[: task.n_known_terms].tolist()


def _probe_scores(probe: "Pipeline", features: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import f1_score, roc_auc_score

    f1 = f1_score(label, probe.predict(features), zero_division=0.0)
    return float(f1), float(roc_auc_score(label, probe.decision_function(features)))


def embedding_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", sequences: int = _PLANE_SEQUENCES
) -> pd.DataFrame:
    """Lay the last layer's codes on held-out functions out in the plane with t-SNE (Figures 2D and A2).

    Args:
        runs: fuzzy-logic runs of one shape, whose codes are collected as one stack.

    Returns: one row per run, model (`trained` or `untrained`) and sequence: x, y, its target and its function's terms
        as `a+b`.
    """
    tables = []
    for model, stack in with_control(runs, weights, device).items():
        codes, batch = own_codes(stack, "heldout_fixed_query", sequences)
        for index, run in enumerate(runs):
            plane = in_the_plane(codes[index, :, 0, -1].numpy(), run.seed)
            functions = ["+".join(str(int(term)) for term in row) for row in batch.terms[index]]
            targets = batch.targets[index, :, 0].numpy().round(4)
            tables.append(pd.DataFrame({"id": run.id, "model": model, "x": plane[:, 0].round(2),
                                        "y": plane[:, 1].round(2), "target": targets,
                                        "function": functions}))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


class Agreement(NamedTuple):
    """How often neighbours show the same function, as shares in [0, 1].

    Args:
        share: over the nearest neighbours of every point.
        chance: over all pairs of different points.
        by_target: what the neighbours' targets alone explain: each neighbour replaced by any sequence of its target.
    """

    share: float
    chance: float
    by_target: float


def neighbour_agreement(plane: pd.DataFrame, neighbours: int = 10) -> Agreement:
    """Return how often a point's nearest neighbours in the plane show the same function, with two controls.

    Args:
        plane: columns x, y, function and target; a function has one target, since all sequences share one query.
    """
    from sklearn.neighbors import NearestNeighbors

    points, labels, targets = plane[["x", "y"]].to_numpy(), plane["function"].to_numpy(), plane["target"].to_numpy()
    near = NearestNeighbors(n_neighbors=neighbours + 1).fit(points).kneighbors(points, return_distance=False)
    # Points may coincide, so a point need not be the first of its own neighbours.
    others = np.array([[other for other in row if other != own][:neighbours] for own, row in enumerate(near)])
    same_function, same_target = (column[others] == column[:, None] for column in (labels, targets))
    n_function, n_target = (plane.groupby(name)[name].transform("size").to_numpy() for name in ("function", "target"))
    # Of the other sequences with this point's target, so many show its function.
    within_target = (n_function - 1) / np.maximum(n_target - 1, 1)
    return Agreement(
        float(same_function.mean()),
        float((n_function - 1).mean() / (len(plane) - 1)),
        float((same_target.mean(1) * within_target).mean()),
    )


def agreements(plane: pd.DataFrame) -> pd.DataFrame:
    """Return `neighbour_agreement` by model, variant and seed."""
    groups = plane.groupby(["model", "variant", "seed"])
    return pd.DataFrame({key: neighbour_agreement(part)._asdict() for key, part in groups}).T.rename_axis(
        ["model", "variant", "seed"]
    )


def shares_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Return `agreements` as a table: by method, a column per seed, and the means of the controls."""
    trained, untrained = shares.loc["trained"], shares.loc["untrained"]
    table = trained["share"].unstack().rename(columns="seed {}".format)
    controls = {
        "target alone": trained["by_target"], "before training": untrained["share"],
        "target alone, before training": untrained["by_target"], "chance": trained["chance"],
    }  # fmt: skip
    means = pd.DataFrame({name: values.groupby("variant").mean() for name, values in controls.items()})
    return table.join(means).reindex(METHODS).rename(index=NAMES).map("{:.0%}".format)
