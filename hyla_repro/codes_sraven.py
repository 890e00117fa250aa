"""Latent codes on SRAVEN: what the code of an answer's token tells of the rule behind the answer (Figures 5 and A6-A8).

"Own code" is the code of a token attending to itself. The symbols of the answer are read out at the last tokens of a
problem, one per feature, and each continues a feature that follows one rule.
"""

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from hyla_repro.experiment import Experiment
from hyla_repro.settings import SRAVEN_RULES
from hyla_repro.tasks import SRaven
from hyla_repro.training import load_model
from hyla_repro.transformer import Transformer

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# In the paper's streams no column permutes the features and rules stand in ascending order, so that the place of a
# symbol tells of its rule; aligned streams permute all columns alike, and places tell nothing.
STREAMS = ("unpermuted", "aligned")
_PROBLEMS = 2000
_POINTS = 600
_CHUNK = 500
_NEIGHBOURS, _NEIGHBOUR_POINTS = 10, 2000


@torch.no_grad()
def response_codes(
    model: Transformer, task: SRaven, split: str, problems: int, first_step: int = 0
) -> tuple[Float[Tensor, "n l h"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the own codes of all response tokens, in every layer, with the rule and the symbol of each.

    Args:
        split: a split of the task.
        first_step: where in the stream to begin; each step holds up to 500 problems.

    Returns: codes, rule numbers as in `RULES`, and symbols; n is problems times features, the features of a problem
        side by side.
    """
    parts, k = [], task.n_features
    for step, start in enumerate(range(0, problems, _CHUNK), first_step):
        batch = task.batch(split, step, min(_CHUNK, problems - start))
        _, layers = model(batch.inputs, return_codes=True, last=k)
        own = torch.stack([code[:, :, -k:, -k:].diagonal(dim1=-2, dim2=-1) for code in layers])
        rules = batch.rules.gather(1, batch.permutations[:, -1])
        parts.append((rearrange(own, "l b h k -> (b k) l h"), rules.flatten(), batch.targets.flatten()))
    codes, rules, symbols = (torch.cat(column) for column in zip(*parts, strict=True))
    return codes, rules, symbols


def _arrays(
    model: Transformer, task: SRaven, split: str, problems: int, first_step: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes, rules, symbols = response_codes(model, task, split, problems, first_step)
    # Rounded, so that what differs in its last bits alone between processors is the same to a probe.
    return np.round(codes.double().numpy(), 5), rules.numpy(), symbols.numpy()


def _models(run: Experiment, weights: bytes) -> dict[str, Transformer]:
    """Return the trained model, and the same before its first step, which is the control."""
    return {"trained": load_model(weights, run), "untrained": Transformer(run.model).initialize(run.seed).eval()}


def _task(run: Experiment) -> SRaven:
    task = run.build_task()
    assert isinstance(task, SRaven)
    return task


def rule_decoding_table(run: Experiment, weights: bytes, problems: int = _PROBLEMS) -> pd.DataFrame:
    """Decode the rule from the own code of each layer: logistic regression, fitted on training tasks (Figure 5F).

    Which rules are frequent differs between training and held-out tasks, so rules count equally, whatever their number:
    in fitting the probe, and in its accuracy, which is the mean over rules of the share of tokens decoded right.

    Returns: one row per stream, layer and model (`trained` or `untrained`): `accuracy` on held-out rule combinations,
        `train_accuracy` on fresh problems of training tasks, `chance`, the accuracy of any constant answer on the
        held-out ones, and `neighbours`, the share of a held-out code's ten nearest others that are of its rule, with
        `neighbours_chance` over all pairs. All in [0, 1].
    Source: paper, Figure 5F. Differs: the aligned streams, the untrained control and the equal weights are ours (D17).
    """
    task, rows = _task(run), []
    for (name, model), stream in product(_models(run, weights).items(), STREAMS):
        splits = (("train", 0), ("train", -(-problems // _CHUNK)), ("heldout", 0))
        fit, train, heldout = (_arrays(model, task, f"{split}_{stream}", problems, step) for split, step in splits)
        share = np.bincount(heldout[1]) / len(heldout[1])
        for layer in range(run.model.n_layers):
            probe = _probe().fit(fit[0][:, layer], fit[1])
            rows.append({
                "id": run.id, "stream": stream, "model": name, "layer": layer + 1,
                "accuracy": _mean_recall(probe, heldout[0][:, layer], heldout[1]),
                "train_accuracy": _mean_recall(probe, train[0][:, layer], train[1]),
                "chance": 1 / np.count_nonzero(share),
                "neighbours": _same_rule(heldout[0][: _NEIGHBOUR_POINTS, layer], heldout[1][: _NEIGHBOUR_POINTS]),
                "neighbours_chance": (share**2).sum(),
            })  # fmt: skip
    return pd.DataFrame(rows).round(5)


def _probe() -> "Pipeline":
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))


def _mean_recall(probe: "Pipeline", codes: np.ndarray, rules: np.ndarray) -> float:
    right = probe.predict(codes) == rules
    return float(np.mean([right[rules == rule].mean() for rule in np.unique(rules)]))


def _same_rule(codes: np.ndarray, rules: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    # Without points of its own, `kneighbors` leaves each point out of its neighbours.
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(codes).kneighbors(return_distance=False)
    return float((rules[near] == rules[:, None]).mean())


def mean_code_table(run: Experiment, weights: bytes, problems: int = _PROBLEMS) -> pd.DataFrame:
    """Average the own codes of each rule over fresh problems of training tasks, for every layer (Figure 5E).

    Training tasks hold every rule; with few features the held-out ones need not.

    Returns: one row per model (`trained` or `untrained`), layer and rule: how many tokens, and `head_1`, `head_2`, ...
    Source: paper, Figure 5E, which does not say of which tasks the codes are.
    """
    task, rows = _task(run), []
    for name, model in _models(run, weights).items():
        codes, rules, _ = _arrays(model, task, "train_unpermuted", problems)
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


def code_plane_table(run: Experiment, weights: bytes, points: int = _POINTS) -> pd.DataFrame:
    """Lay the own codes of every layer out in the plane with t-SNE, for the first seed (Figures 5A, 5B, A6-A8).

    Returns: one row per layer and response token of held-out rule combinations: x, y, its symbol and rule, and for the
        last layer the code itself as `head_1`, ...; no rows for other seeds, which no figure shows.
    """
    if run.seed:
        return pd.DataFrame({"id": []})
    from sklearn.manifold import TSNE

    task = _task(run)
    problems = -(-points // task.n_features)
    codes, rules, symbols = _arrays(load_model(weights, run), task, "heldout_unpermuted", problems)
    tables = []
    for layer in range(run.model.n_layers):
        plane = np.zeros((len(codes), 2))
        # Without a softmax, what all answers' tokens share is all that the first layer's code can tell.
        if np.ptp(codes[:, layer], axis=0).any():
            plane = TSNE(init="pca", perplexity=30, random_state=run.seed).fit_transform(codes[:, layer])
            plane = (100 * plane / np.abs(plane).max()).round(1)
        columns: dict[str, Any] = {
            "id": run.id, "layer": layer + 1, "x": plane[:, 0], "y": plane[:, 1], "symbol": symbols,
            "rule": [SRAVEN_RULES[rule] for rule in rules],
        }  # fmt: skip
        if layer == run.model.n_layers - 1:
            columns |= {f"head_{head}": code.round(3) for head, code in enumerate(codes[:, layer].T, 1)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
