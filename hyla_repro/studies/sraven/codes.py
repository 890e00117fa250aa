"""Latent codes on SRAVEN: what the code of an answer's token tells of the rule behind the answer (Figures 5 and A6-A8).

"Own code" is the code of a token attending to itself. The symbols of the answer are read out at the last tokens of a
problem, one per feature, and each continues a feature that follows one rule.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from einops import rearrange
from jaxtyping import Float, Int

from hyla_repro.experiment import Experiment
from hyla_repro.results.effects import paired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.studies.codes import as_features, in_the_plane, linear_probe, own_codes, trained, with_control
from hyla_repro.tasks.sraven import SRaven
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES
from hyla_repro.training.stack import CHUNK, Stack

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# In the paper's streams no column permutes the features and rules stand in ascending order, so that the place of a
# symbol tells of its rule; aligned streams permute all columns alike, and places tell nothing.
STREAMS = ("unpermuted", "aligned")
_PROBLEMS = 2000
_POINTS = 600
_NEIGHBOURS, _NEIGHBOUR_POINTS = 10, 2000


class Answers(NamedTuple):
    """The answers' tokens of one run, the features of a problem side by side.

    Args:
        codes: of each token attending to itself, in every layer.
        rules: what each symbol follows, numbered as in `RULES`.
        symbols: from 0 to n_values - 1.
    """

    codes: Float[np.ndarray, "n l h"]
    rules: Int[np.ndarray, " n"]
    symbols: Int[np.ndarray, " n"]


def answers(stack: Stack, split: str, problems: int, first_step: int = 0) -> list[Answers]:
    """Return the answers' tokens of every run of a stack.

    Args:
        split: a split of the task.
        first_step: where in the stream to begin; each step holds up to 500 problems.
    """
    codes, batch = own_codes(stack, split, problems, first_step)
    rules = batch.rules.gather(-1, batch.permutations[:, :, -1])
    return [
        Answers(as_features(rearrange(codes[index], "b k l h -> (b k) l h")), rules[index].flatten().numpy(),
                batch.targets[index].flatten().numpy())
        for index in range(len(codes))
    ]  # fmt: skip


def rule_decoding_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", problems: int = _PROBLEMS
) -> pd.DataFrame:
    """Decode the rule from the own code of each layer: logistic regression, fitted on training tasks (Figure 5F).

    Which rules are frequent differs between training and held-out tasks, so rules count equally, whatever their number:
    in fitting the probe, and in its accuracy, which is the mean over rules of the share of tokens decoded right.

    Args:
        runs: SRAVEN runs of one shape, whose codes are collected as one stack.

    Returns: one row per run, stream, layer and model (`trained` or `untrained`): `accuracy` on held-out rule
        combinations, `train_accuracy` on fresh problems of training tasks, `chance`, the accuracy of the best constant
        answer on the held-out ones, and `neighbours`, the share of a held-out code's ten nearest others that are of
        its rule, with `neighbours_chance` over all pairs. All in [0, 1].
    Source: paper, Figure 5F. Differs: the aligned streams, the untrained control and the equal weights are ours (D17).
    """
    rows = []
    for (name, stack), stream in product(with_control(runs, weights, device).items(), STREAMS):
        splits = (("train", 0), ("train", -(-problems // CHUNK)), ("heldout", 0))
        collected = [answers(stack, f"{split}_{stream}", problems, step) for split, step in splits]
        for run, fit, train, heldout in zip(runs, *collected, strict=True):
            share = np.bincount(heldout.rules) / len(heldout.rules)
            for layer in range(run.model.n_layers):
                probe = linear_probe(class_weight="balanced").fit(fit.codes[:, layer], fit.rules)
                near = slice(_NEIGHBOUR_POINTS)
                rows.append({
                    "id": run.id, "stream": stream, "model": name, "layer": layer + 1,
                    "accuracy": _mean_recall(probe, heldout.codes[:, layer], heldout.rules),
                    "train_accuracy": _mean_recall(probe, train.codes[:, layer], train.rules),
                    "chance": 1 / np.count_nonzero(share),
                    "neighbours": _same_rule(heldout.codes[near, layer], heldout.rules[near]),
                    "neighbours_chance": (share**2).sum(),
                })  # fmt: skip
    return pd.DataFrame(rows).round(5)


def _mean_recall(probe: "Pipeline", codes: np.ndarray, rules: np.ndarray) -> float:
    right = probe.predict(codes) == rules
    return float(np.mean([right[rules == rule].mean() for rule in np.unique(rules)]))


def _same_rule(codes: np.ndarray, rules: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    # Without points of its own, `kneighbors` leaves each point out of its neighbours.
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(codes).kneighbors(return_distance=False)
    return float((rules[near] == rules[:, None]).mean())


def share_by_place(run: Experiment, stream: str) -> float:
    """Return the share of a held-out code's neighbours that would be of its rule if a code told its place and no more.

    The place of a symbol tells of its rule in the paper's streams, whatever a model has learned. This is the control of
    `neighbours` in `rule_decoding_table`, over the same problems.

    Args:
        stream: one of STREAMS.
    """
    task = run.build_task()
    assert isinstance(task, SRaven)
    problems = -(-_NEIGHBOUR_POINTS // task.n_read)
    sizes = (min(CHUNK, problems - start) for start in range(0, problems, CHUNK))
    batches = [task.batch(f"heldout_{stream}", step, size) for step, size in enumerate(sizes)]
    rules = np.concatenate([batch.rules.gather(-1, batch.permutations[:, -1]).numpy() for batch in batches])
    return float(np.mean([((np.bincount(place) / len(place)) ** 2).sum() for place in rules.T]))


def neighbours_table(probes: pd.DataFrame, runs: Iterable[Experiment]) -> pd.DataFrame:
    """Return the share of neighbours of the same rule in percent, by stream, method and layer, with its controls.

    Args:
        probes: rows of `rule_decoding_table` of models of one depth, with variant and seed.
        runs: those of the probes, for what the place alone tells.
    """
    table = _with_place(probes, runs)
    shares = table.pivot_table("neighbours", index=["stream", "variant", "layer"], columns="model")
    shares = shares.rename(columns={"trained": "after training", "untrained": "before training"})
    controls = table.groupby(["stream", "variant", "layer"])[["place", "neighbours_chance"]].mean()
    whole = shares.join(controls.rename(columns={"place": "place alone", "neighbours_chance": "chance"}))
    axes = [STREAMS[::-1], METHODS, sorted(probes["layer"].unique())]
    order = pd.MultiIndex.from_product(axes, names=whole.index.names)
    return (100 * whole.reindex(order)).rename(index=NAMES).round(1)


def lead_over_place(probes: pd.DataFrame, runs: Iterable[Experiment]) -> pd.DataFrame:
    """Return by how many points neighbours of the last layer share the rule more often than places, unpermuted.

    Returns: a row per method: every seed, and the mean with its 95 % interval.
    """
    table = _with_place(probes, runs)
    last = table[(table["stream"] == "unpermuted") & (table["model"] == "trained")
                 & (table["layer"] == table["layer"].max())].set_index(["variant", "seed"])  # fmt: skip
    leads = (100 * (last["neighbours"] - last["place"])).unstack()
    effects = {method: str(paired("", leads.loc[method])).strip() for method in leads.index}
    table = leads.map("{:.1f}".format).replace("-", "−", regex=True).rename(columns="seed {}".format)
    table = table.assign(mean=pd.Series(effects)).reindex(METHODS).rename(index=NAMES)
    return table.rename_axis(index=None, columns=None)


def _with_place(probes: pd.DataFrame, runs: Iterable[Experiment]) -> pd.DataFrame:
    """Return probes with `share_by_place` of their run and stream as `place`."""
    shown = {run.id: run for run in runs if run.id in set(probes["id"])}
    # The place is the task's alone, so methods of one seed share it.
    known = {(run.seed, stream): run for run in shown.values() for stream in STREAMS}
    place = {key: share_by_place(run, key[1]) for key, run in known.items()}
    return probes.assign(place=[place[key] for key in zip(probes["seed"], probes["stream"], strict=True)])


def mean_code_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", problems: int = _PROBLEMS
) -> pd.DataFrame:
    """Average the own codes of each rule over fresh problems of training tasks, for every layer (Figure 5E).

    Training tasks hold every rule; with few features the held-out ones need not.

    Args:
        runs: SRAVEN runs of one shape, whose codes are collected as one stack.

    Returns: one row per run, model (`trained` or `untrained`), layer and rule: how many tokens, and `head_1`, ...
    Source: paper, Figure 5E, which does not say of which tasks the codes are.
    """
    rows = []
    for name, stack in with_control(runs, weights, device).items():
        for run, (codes, rules, _) in zip(runs, answers(stack, "train_unpermuted", problems), strict=True):
            for layer, rule in product(range(run.model.n_layers), np.unique(rules)):
                mean = codes[rules == rule, layer].mean(0)
                rows.append({"id": run.id, "model": name, "layer": layer + 1, "rule": SRAVEN_RULES[rule],
                             "tokens": int((rules == rule).sum()), **_heads(mean)})  # fmt: skip
    return pd.DataFrame(rows)


def _heads(code: np.ndarray) -> dict[str, float]:
    return {f"head_{head}": round(float(value), 5) for head, value in enumerate(code, 1)}


def similarity(means: pd.DataFrame) -> pd.DataFrame:
    """Return the cosine similarity of the mean codes of every two rules, in [-1, 1].

    Args:
        means: rows of `mean_code_table` of one run, model and layer. Rules that it lacks are NaN.
    """
    heads = means.set_index("rule").filter(like="head_").dropna(axis=1)
    unit = heads.div(np.linalg.norm(heads, axis=1), axis=0)
    return (unit @ unit.T).reindex(index=list(SRAVEN_RULES), columns=list(SRAVEN_RULES))


def mean_similarity(means: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return, by method, the similarity of every two rules in the last layer after training, averaged over seeds.

    Args:
        means: rows of `mean_code_table` of models of one depth, with variant and seed.
    """
    last = means[(means["layer"] == means["layer"].max()) & (means["model"] == "trained")]
    by_seed = {key: similarity(part).stack() for key, part in last.groupby(["variant", "seed"])}
    table = pd.DataFrame(by_seed).T.groupby(level=0).mean().T
    return {str(method): table[method].unstack().loc[list(SRAVEN_RULES), list(SRAVEN_RULES)] for method in table}


def code_plane_table(
    runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu", points: int = _POINTS
) -> pd.DataFrame:
    """Lay the own codes of every layer out in the plane with t-SNE, for the first seed (Figures 5A, 5B, A6-A8).

    Args:
        runs: SRAVEN runs of one shape, whose codes are collected as one stack.

    Returns: one row per run, layer and token of held-out rule combinations: x, y, its symbol and rule, and for the last
        layer the code itself as `head_1`, ...; no rows for other seeds, which no figure shows.
    """
    shown = [(run, content) for run, content in zip(runs, weights, strict=True) if run.seed == 0]
    if not shown:
        return pd.DataFrame({"id": []})
    stack = trained([run for run, _ in shown], [content for _, content in shown], device)
    problems, tables = -(-points // stack.task.n_read), []
    for (run, _), tokens in zip(shown, answers(stack, "heldout_unpermuted", problems), strict=True):
        for layer in range(run.model.n_layers):
            plane = in_the_plane(tokens.codes[:, layer], run.seed).round(1)
            columns: dict[str, Any] = {
                "id": run.id, "layer": layer + 1, "x": plane[:, 0], "y": plane[:, 1], "symbol": tokens.symbols,
                "rule": [SRAVEN_RULES[rule] for rule in tokens.rules],
            }  # fmt: skip
            if layer == run.model.n_layers - 1:
                columns |= {f"head_{head}": code.round(3) for head, code in enumerate(tokens.codes[:, layer].T, 1)}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
