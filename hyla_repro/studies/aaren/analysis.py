"""What Aaren is by algebra, counted parameters and bytes, and what streaming costs."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hyla_repro.attention import Aaren, HypernetworkAttention, KeyValueCache
from hyla_repro.results.store import Store

STREAMING = "measurements/streaming.csv"
_WIDTH, _HEADS = 256, 8


def errors(n_tokens: int = 33, seed: int = 0) -> pd.Series:
    """Return, for each way to compute Aaren, the largest difference from masked softmax attention, in float64."""
    torch.manual_seed(seed)
    layer, x = Aaren(24, 3, dtype=torch.float64).eval(), torch.randn(2, n_tokens, 24, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x, x, x)[0]
        ways = {"one scan": layer(x, x, x, need_weights=False)[0], "step by step": _by_steps(layer, x)}
        for size in (5, 16):
            layer.block = size
            ways[f"blocks of {size}"] = layer(x, x, x, need_weights=False)[0]
    found = {way: (output - expected).abs().max().item() for way, output in ways.items()}
    return pd.Series(found, name="largest difference").rename_axis("computed")


def _by_steps(layer: Aaren, x: Tensor) -> Tensor:
    state, outputs = layer.init_state(len(x)), []
    for token in x.unbind(1):
        output, state = layer.step(token, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1)


def parameter_counts() -> dict[str, int]:
    """Return the parameters of torch's encoder layer of width 512, 8 heads and 2048 hidden units, and with Aaren."""
    layer = nn.TransformerEncoderLayer(512, 8, 2048)
    counts = {"transformer": sum(parameter.numel() for parameter in layer.parameters())}
    layer.add_module("self_attn", Aaren(512, 8))
    return counts | {"aaren": sum(parameter.numel() for parameter in layer.parameters())}


def bytes_after(n_tokens: int) -> dict[str, int]:
    """Return the bytes that a layer of width 256 remembers after so many tokens: of Aaren, and of a cache."""
    x = torch.zeros(1, n_tokens, _WIDTH)
    aaren, softmax = Aaren(_WIDTH, _HEADS).eval(), HypernetworkAttention(_WIDTH, _HEADS, variant="softmax").eval()
    cache = KeyValueCache()
    with torch.no_grad():
        _, state = aaren.extend(x)
        for token in x.split(1, dim=1):
            softmax(token, token, token, cache=cache, is_causal=True, need_weights=False)
    return {"aaren": state.nbytes, "cache": cache.nbytes}


def exponents(streaming: pd.DataFrame, least: int = 2048) -> pd.Series:
    """Return the powers of the number of tokens that the seconds of streaming grow with, from `least` tokens on.

    Args:
        streaming: rows of benchmarks/streaming.py: attention, tokens and the seconds for all of them.
    """
    long = streaming[streaming["tokens"] >= least]
    slopes = {
        attention: np.polyfit(np.log(part["tokens"]), np.log(part["seconds"]), 1)[0]
        for attention, part in long.groupby("attention", sort=False)
    }
    return pd.Series(slopes, name="exponent").round(2)


def streamed(store: Store) -> pd.DataFrame:
    """Return the measured seconds and bytes of streaming; empty where nothing was measured."""
    return store.table(STREAMING)
