"""The identity of chapter 1, and what the normaliser does to the generated weights (Figures 1 and A1)."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import einsum, reduce
from torch import Tensor

from hyla_repro.attention import NORMALIZERS, HypernetworkAttention
from hyla_repro.counter_rng import CounterRNG


class Readings(NamedTuple):
    """One attention layer's arrays, by both readings, in float64.

    Args:
        code: (b, h, q, k).
        generated: (b, q, k, out, in), the matrices that the code writes.
        direct: (b, q, out), of multi-head attention.
        by_pairs: (b, q, out), the sum over keys of the generated networks' outputs.
    """

    code: Tensor
    generated: Tensor
    direct: Tensor
    by_pairs: Tensor


@torch.no_grad()
def two_readings(
    n_heads: int = 3, n_tokens: int = 7, seed: int = 0, normalizer: str = "softmax", sequences: int = 1
) -> Readings:
    """Return what a layer with random weights makes of random tokens, as attention and as a hypernetwork."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = HypernetworkAttention(8 * n_heads, n_heads, bias=False, normalizer=normalizer, value_network="linear")
        x = torch.randn(sequences, n_tokens, 8 * n_heads, dtype=torch.float64)
    direct, code = layer.double()(x, x, x)
    (generated,) = layer.value_network_weights(x, x)
    return Readings(code, generated, direct, einsum(generated, x, "b q k o i, b k i -> b q o"))


def identity_errors(n_heads: int = 3, n_tokens: int = 7, seed: int = 0) -> pd.Series:
    """Return, per normaliser, the largest difference between attention and the sum of its generated networks.

    Both are computed in float64, where rounding alone gives up to 3e-13 (1 to 16 heads, 5 to 50 tokens).
    """
    errors = {}
    for normalizer in NORMALIZERS:
        both = two_readings(n_heads, n_tokens, seed, normalizer, sequences=2)
        errors[normalizer] = (both.by_pairs - both.direct).abs().max().item()
    return pd.Series(errors, name="largest difference").rename_axis("normaliser")


def generated_variance(
    normalizer: str, n_heads: int, score_scale: float = 1.0, d_model: int = 128, n_tokens: int = 32, seed: int = 0
) -> dict[str, float]:
    """Return the variance of HYLA's generated output layer over that of an ordinary layer, 1 / fan-in.

    Args:
        score_scale: factor on the query weights, and so on the scores, as training may grow them.

    Returns: `median`, `low` and `high` (5 and 95 %) over the pairs (q, k) of a random sequence.
    """
    rng = CounterRNG(seed, "generated_variance")
    layer = HypernetworkAttention(d_model, n_heads, bias=False, normalizer=normalizer)
    with torch.no_grad():
        for step, weight in enumerate((layer.in_proj_weight, layer.out_proj.weight)):
            weight.copy_(rng.truncated_normal(step, tuple(weight.shape)) * d_model**-0.5)
        layer.in_proj_weight[:d_model] *= score_scale
        x = rng.normal(2, (1, n_tokens, d_model))
        _, output_layer = layer.value_network_weights(x, x)
    fan_in = d_model // n_heads
    ratios = fan_in * reduce(output_layer.square(), "1 q k o i -> (q k)", "mean").numpy()
    low, median, high = np.quantile(ratios, (0.05, 0.5, 0.95))
    return {"median": float(median), "low": float(low), "high": float(high)}


def variance_table(n_heads: Sequence[int], score_scales: Sequence[float], d_model: int, seed: int) -> pd.DataFrame:
    """Return `generated_variance` of every normaliser, number of heads and score scale, one row each."""
    rows = [
        {"normalizer": normalizer, "n_heads": heads, "score_scale": scale,
         **generated_variance(normalizer, heads, scale, d_model, seed=seed)}
        for normalizer, heads, scale in product(NORMALIZERS, n_heads, score_scales)
    ]  # fmt: skip
    return pd.DataFrame(rows)
