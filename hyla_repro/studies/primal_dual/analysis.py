"""Attention as a regression, solved and compared; what scaled heads cost; and scores with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from hyla_repro.attention import ScaledHeadAttention, centred, pool_tokens
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import mean_and_error

MEASURED = "measurements/scaled_head.csv"
# What each kind of attention does to keys and targets before the regression: beta, rescale, tokens in a window.
_KINDS = {"softmax": (0.0, False, 1), "BN": (1.0, True, 1), "SH": (0.0, False, 2), "BN + SH": (1.0, True, 2)}
SCALES = {"1, 1, 2, 2": (1, 1, 2, 2), "1, 2, 4, 8": (1, 2, 4, 8)}
_LIMIT, _EPSILON = 200.0, 0.02


class HeadRegression(NamedTuple):
    """A head as support-vector regressions, one for each output feature, and attention with their dual variables.

    Args:
        predictions: of the regressions at the queries.
        attention: softmax attention of the queries to the keys, with values made of the dual variables, plus the bias.
        values: dual variables over the keys' normalisers.
        duals: of each key and feature; 0 where the key is no support vector.
    """

    predictions: Float[np.ndarray, "m d"]
    attention: Float[np.ndarray, "m d"]
    values: Float[np.ndarray, "n d"]
    duals: Float[np.ndarray, "n d"]


def svr_head(
    keys: Float[np.ndarray, "n c"],
    queries: Float[np.ndarray, "m c"],
    targets: Float[np.ndarray, "n d"],
    limit: float = _LIMIT,
    epsilon: float = _EPSILON,
) -> HeadRegression:
    """Fit targets at keys by support-vector regression, and predict at queries in both ways.

    The kernel is exp(<x, y> / sqrt(c)) / (h(x) h(y)), where h(x) sums exp(<x, k> / sqrt(c)) over the keys k.

    Args:
        limit: of each dual variable, usually called C.
        epsilon: error that costs nothing.

    Source: Nguyen et al., "A Primal-Dual Framework for Transformers and Neural Networks" (2023).
    """
    from sklearn.svm import SVR

    def similar(x: np.ndarray) -> np.ndarray:
        return np.exp(x @ keys.T / keys.shape[1] ** 0.5)

    of_keys, of_queries = similar(keys), similar(queries)
    normalisers = of_keys.sum(1)
    kernel = of_keys / normalisers / normalisers[:, None]
    weights = of_queries / of_queries.sum(1, keepdims=True)
    predictions, duals, biases = [], np.zeros(targets.shape), []
    for feature, target in enumerate(targets.T):
        model = SVR(kernel="precomputed", C=limit, epsilon=epsilon, tol=1e-10).fit(kernel, target)
        predictions.append(model.predict(weights / normalisers))
        duals[model.support_, feature] = model.dual_coef_[0]
        biases.append(model.intercept_[0])
    values = duals / normalisers[:, None]
    return HeadRegression(np.stack(predictions, axis=1), weights @ values + np.array(biases), values, duals)


def regressions(n_keys: int = 24, n_queries: int = 40, width: int = 5, seed: int = 0) -> dict[str, HeadRegression]:
    """Return the regression of a head of random keys for softmax attention, Attention-BN, Attention-SH and both."""
    draw = torch.Generator().manual_seed(seed)
    keys, queries, targets = (torch.randn(1, 1, n, d, generator=draw, dtype=torch.float64)
                              for n, d in ((n_keys, width), (n_queries, width), (n_keys, 3)))  # fmt: skip
    found = {}
    for name, (beta, rescale, scale) in _KINDS.items():
        pooled, wanted = (pool_tokens(x, scale) for x in (keys, targets))
        asked, known = centred(queries, pooled, beta, rescale=rescale)
        found[name] = svr_head(known[0, 0].numpy(), asked[0, 0].numpy(), wanted[0, 0].numpy())
    return found


def regression_table(found: dict[str, HeadRegression]) -> pd.DataFrame:
    """Return, per kind of attention, whether both ways agree, and how many of its keys are support vectors."""
    rows = {
        name: {
            "prediction and attention differ by": "less than 1e-8" if _differ(head) < 1e-8 else f"{_differ(head):.0e}",
            "keys": len(head.duals), "support vectors, per feature": ", ".join(map(str, (head.duals != 0).sum(0))),
        }
        for name, head in found.items()
    }  # fmt: skip
    return pd.DataFrame(rows).T


def _differ(head: HeadRegression) -> float:
    return float(np.abs(head.predictions - head.attention).max())


def counted(lengths: Sequence[int], width: int = 64) -> pd.DataFrame:
    """Return the products of a layer with scaled heads over those of softmax attention, by length and scales."""

    def flops(scales: tuple[int, ...], length: int) -> int:
        return ScaledHeadAttention(width, len(scales), scales=scales).attention_flops(length)

    rows = {
        length: {name: flops(scales, length) / flops((1,) * len(scales), length) for name, scales in SCALES.items()}
        for length in lengths
    }
    return pd.DataFrame(rows).T.rename_axis("tokens")


def measured(store: Store) -> pd.DataFrame:
    """Return the measured times of scaled heads; empty where nothing was measured."""
    return store.table(MEASURED)


def distances(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean distances of heads and lengths of their outputs by layer, attention and model, over seeds.

    Args:
        table: rows of `codes.distance_table`, with variant.
    """
    names = {"distance": "distance", "unit_distance": "at length 1", "length": "length of outputs"}
    groups = table.assign(attention=table["variant"].map(NAMES)).groupby(["layer", "attention", "model"], sort=False)
    means, errors = groups[list(names)].mean(), groups[list(names)].sem()
    return pd.DataFrame({
        title: [mean_and_error(mean, error, 3) for mean, error in zip(means[name], errors[name], strict=True)]
        for name, title in names.items()
    }, index=means.index).reset_index()  # fmt: skip


def times(measured: pd.DataFrame) -> pd.DataFrame:
    """Return measured times over those of softmax attention, by number of tokens and windows of the heads.

    Args:
        measured: rows of benchmarks/scaled_head.py.
    """
    names = {scales: f"windows {scales}" for scales in SCALES} | {"fused": "torch's fused softmax"}
    table = measured.pivot(index="tokens", columns="scales", values="ratio")
    return table[list(names)].rename(columns=names).rename_axis(columns=None)
