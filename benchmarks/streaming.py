"""Time streaming: a layer reads tokens one by one, Aaren from its state and softmax attention from a cache.

One layer of width 256 with 8 heads, one sequence, one thread. The seconds of a number of tokens are those of all steps
up to it, so that a longer stream goes on where a shorter one was timed.

    python benchmarks/streaming.py --out streaming.csv
"""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import typer
from conclude import conclude
from torch import Tensor

from hyla_repro.attention import Aaren, HypernetworkAttention, KeyValueCache

_WIDTH, _HEADS = 256, 8
Step = Callable[[Tensor], object]


def aaren() -> tuple[Step, Callable[[], int]]:
    """Return what takes a token (1, width), and what tells the bytes that are remembered."""
    layer = Aaren(_WIDTH, _HEADS).eval()
    state = layer.init_state(1)

    def step(token: Tensor) -> None:
        nonlocal state
        _, state = layer.step(token, state)

    return step, lambda: state.nbytes


def cached() -> tuple[Step, Callable[[], int]]:
    """Return the same of causal softmax attention."""
    layer, cache = HypernetworkAttention(_WIDTH, _HEADS, variant="softmax").eval(), KeyValueCache()

    def step(token: Tensor) -> None:
        x = token.unsqueeze(1)
        layer(x, x, x, cache=cache, is_causal=True, need_weights=False)

    return step, lambda: cache.nbytes


@torch.no_grad()
def main(longest: int = 16384, out: Path | None = None) -> None:
    """Print seconds and bytes by attention and number of tokens, from 256 on, each twice the one before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens, rows = torch.randn(longest, 1, _WIDTH), []
    for name, make in (("Aaren", aaren), ("softmax with a cache", cached)):
        step, nbytes = make()
        for token in tokens[:64]:
            step(token)  # libraries set themselves up
        step, nbytes = make()
        marks, start = {256 * 2**k for k in range(20)}, time.perf_counter()
        for count, token in enumerate(tokens, 1):
            step(token)
            if count in marks:
                rows.append({"attention": name, "tokens": count, "seconds": round(time.perf_counter() - start, 4),
                             "bytes": nbytes()})  # fmt: skip
    conclude(pd.DataFrame(rows), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
