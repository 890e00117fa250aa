"""Time attention with scaled heads against softmax attention of the same sizes, without codes, forward only.

Both alternate, call by call, and a ratio is the median over pairs; one layer of width 64 with 4 heads, one thread.
`fused` is torch's own softmax attention between the same projections, the fastest that softmax can have here.

    python benchmarks/scaled_head.py --out scaled_head.csv
"""

import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from conclude import conclude
from torch import Tensor, nn

from hyla_repro.attention import HypernetworkAttention, ScaledHeadAttention
from hyla_repro.studies.primal_dual.analysis import SCALES
from hyla_repro.training.process import keep_freed_memory

_WIDTH, _HEADS = 64, 4


def seconds(layer: nn.Module, x: Tensor) -> float:
    """Return the seconds of one forward pass without codes."""
    start = time.perf_counter()
    layer(x, x, x, need_weights=False)
    return time.perf_counter() - start


@torch.no_grad()
def main(repeats: int = 9, out: Path | None = None) -> None:
    """Print, by number of tokens and windows of the heads, the milliseconds of both and their ratio."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    softmax = HypernetworkAttention(_WIDTH, _HEADS, variant="softmax").eval()
    fused = nn.MultiheadAttention(_WIDTH, _HEADS, batch_first=True).eval()
    fused.load_state_dict(softmax.state_dict())
    rows = []
    for tokens in (256, 512, 1024, 2048, 4096):
        x = torch.randn(1, tokens, _WIDTH)
        own = {name: ScaledHeadAttention(_WIDTH, _HEADS, scales=scales).eval() for name, scales in SCALES.items()}
        for name, layer in [*own.items(), ("fused", fused)]:
            times = [(seconds(layer, x), seconds(softmax, x)) for _ in range(repeats + 2)][2:]
            rows.append({
                "tokens": tokens, "scales": name, "ms": round(1e3 * median(own for own, _ in times), 3),
                "softmax_ms": round(1e3 * median(plain for _, plain in times), 3),
                "ratio": round(median(own / plain for own, plain in times), 3),
            })  # fmt: skip
    conclude(pd.DataFrame(rows), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
