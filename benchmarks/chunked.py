"""Memory and time of attention by the number of tokens: all pairs at once, in blocks, and torch's softmax attention.

A forward and a backward pass at batch 1 with 8 heads of width 8, one thread, every point in a process of its own: time
is that of the processor, the peak the resident memory of the whole process, torch included. Where all pairs at once
could need more than the limit of memory, they are left out. Up to 2048 tokens the numbers are medians of some rounds,
and `checkpoint` is there as well: blocks of queries by `torch.utils.checkpoint`.

    python benchmarks/chunked.py --out chunked.csv
"""

import resource
import sys
import time
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
import torch.fx.experimental.symbolic_shapes  # which a first backward pass imports, and no point should pay for
import typer
from conclude import conclude
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hyla_repro.attention import VARIANTS, hypernetwork_attention

HEADS, WIDTH = 8, 8
LENGTHS, CHUNK = (512, 1024, 2048, 4096, 8192), 256
SIZES, SIZES_AT = (64, 128, 256, 512), 2048
_ROWS = 64  # of `checkpoint`: the fastest of 16 to 256
# Of the numbers (h, q, k): scores, code, hidden and their like, and their gradients.
_COPIES = 10


def attend(form: str, variant: str, chunk: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what the heads mix."""
    pair = VARIANTS[variant]._asdict()
    if form == "torch":
        return F.scaled_dot_product_attention(query, key, value)
    if form == "checkpoint":
        rows = [checkpoint(hypernetwork_attention, part, key, value, use_reentrant=False, **pair)
                for part in query.split(_ROWS, dim=2)]  # fmt: skip
        return torch.cat(rows, dim=2)
    return hypernetwork_attention(query, key, value, chunk=chunk or None, **pair)


def point(form: str, variant: str, tokens: int, chunk: int) -> dict[str, str | int | float]:
    """Return the seconds of the passes and the peak of this process's memory."""
    torch.manual_seed(0)
    tensors = [torch.randn(1, HEADS, tokens, WIDTH, requires_grad=True) for _ in range(3)]
    weight = torch.randn(1, HEADS, tokens, WIDTH)
    few = [x[:, :, :_ROWS] for x in tensors]
    torch.autograd.grad(attend(form, variant, chunk, *few), few, weight[:, :, :_ROWS])  # what a first call sets up
    start = time.process_time()
    torch.autograd.grad(attend(form, variant, chunk, *tensors), tensors, weight)
    return {
        "variant": variant, "form": form, "tokens": tokens, "chunk": chunk, "cpu_s": time.process_time() - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }  # fmt: skip


def points(tokens: int, limit_gib: float) -> list[tuple[str, str, int, int]]:
    """Return form, variant, tokens and chunk of the points of one length."""
    todo: list[tuple[str, str, int, int]] = [("torch", "softmax", tokens, 0)]
    if _COPIES * 4 * HEADS * tokens**2 < limit_gib * 2**30:
        todo += [("plain", "hyla", tokens, 0), ("plain", "softmax", tokens, 0)]
        todo += [("checkpoint", "hyla", tokens, 0)] * (tokens <= SIZES_AT)
    sizes = SIZES if tokens == SIZES_AT else (CHUNK,)
    return todo + [("chunked", "softmax", tokens, CHUNK)] + [("chunked", "hyla", tokens, size) for size in sizes]


def main(rounds: int = 3, limit_gib: float = 8.0, out: Path | None = None) -> None:
    """Measure the points of each length in turn, and take medians of the rounds."""
    torch.set_num_threads(1)
    rows = []
    for tokens in LENGTHS:
        for _, todo in product(range(rounds if tokens <= SIZES_AT else 1), points(tokens, limit_gib)):
            with get_context("fork").Pool(1) as pool:
                rows.append(pool.apply(point, todo))
            print(rows[-1], flush=True)
    facts = ["variant", "form", "tokens", "chunk"]
    conclude(pd.DataFrame(rows).groupby(facts, sort=False, as_index=False).median(), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
