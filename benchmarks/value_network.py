"""Compare ways to compute HYLA's two contractions, forward and backward, for narrow and wide heads.

hidden[q,k] = relu(sum_h a[h,q,k] value[k,h]) and mixed[q,h] = sum_k a[h,q,k] hidden[q,k], at the sizes of the fuzzy
logic task: batch 128, 8 heads, 32 tokens. The forms are timed in turn, so that a busy machine slows all alike.

    python benchmarks/value_network.py --out value_network.csv
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from einops import einsum, rearrange
from torch import Tensor

from hyla_repro import attention

Form = Callable[[Tensor, Tensor], Tensor]


def with_limit(narrow: int) -> Form:
    """Return the library's own form, channel by channel up to heads of this width."""

    def form(code: Tensor, value: Tensor) -> Tensor:
        attention._NARROW = narrow
        return attention.hyper_relu(code, value, torch.relu)

    return form


def plain_einsum(code: Tensor, value: Tensor) -> Tensor:
    """The two lines of the paper, the head's width last."""
    hidden = einsum(code, value, "b h q k, b k h d -> b q k d").relu()
    return einsum(code, hidden, "b h q k, b q k d -> b q h d")


def broadcast(code: Tensor, value: Tensor) -> Tensor:
    """One product of five axes, summed: holds a (b, h, q, k, d) tensor."""
    wide = code.unsqueeze(-1)
    hidden = (wide * rearrange(value, "b k h d -> b h 1 k d")).sum(1, keepdim=True).relu()
    return rearrange((wide * hidden).sum(3), "b h q d -> b q h d")


def forms() -> dict[str, Form]:
    return {
        "einsum, width last": plain_einsum,
        "einsum, width first": with_limit(0),
        "channel by channel": with_limit(10**6),
        "broadcast": broadcast,
    }


def measure(d_head: int, repeats: int, batch: int, heads: int, tokens: int, compiled: bool) -> dict[str, float | int]:
    """Return medians in milliseconds of a forward and backward pass of every form."""
    code = torch.randn(batch, heads, tokens, tokens, requires_grad=True)
    value = torch.randn(batch, tokens, heads, d_head, requires_grad=True)
    calls = {name: torch.compile(form) if compiled else form for name, form in forms().items()}
    expected = plain_einsum(code, value)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            output = call(code, value)
            torch.autograd.grad(output.sum(), (code, value))
            if round_ >= 3:  # the first rounds compile and fill caches
                seconds[name].append(time.perf_counter() - start)
            else:
                torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)
    return {"d_head": d_head, **{name: 1e3 * median(values) for name, values in seconds.items()}}


def main(
    threads: int = 1, repeats: int = 15, batch: int = 128, heads: int = 8, tokens: int = 32, compiled: bool = False,
    out: Path | None = None,
) -> None:  # fmt: skip
    """Print one line per head width; `--threads 0` uses all cores, `--compiled` compiles every form."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    table = pd.DataFrame([measure(width, repeats, batch, heads, tokens, compiled) for width in (2, 4, 8, 16)])
    print(table.to_string(index=False, float_format="{:.2f}".format))
    if out is not None:
        table.assign(threads=torch.get_num_threads(), compiled=compiled, torch=torch.__version__).to_csv(
            out, index=False
        )


if __name__ == "__main__":
    typer.run(main)
