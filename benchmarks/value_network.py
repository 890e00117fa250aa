"""Compare ways to compute HYLA's two contractions, forward and backward.

hidden[q,k] = relu(sum_h a[h,q,k] value[k,h]) and mixed[q,h] = sum_k a[h,q,k] hidden[q,k], at batch 128 and the sizes of
fuzzy logic (8 heads, 32 tokens) and SRAVEN (16 heads, 36 tokens), each also with wider heads than the paper's. The
forms are timed in turn, so that a busy machine slows all alike.

    python benchmarks/value_network.py --out value_network.csv
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import typer
from conclude import conclude
from einops import einsum, rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hyla_repro.attention import value_networks
from hyla_repro.training.process import keep_freed_memory

Form = Callable[[Tensor, Tensor], Tensor]
SHAPES = {"fuzzy logic": (8, 32, (2, 8, 16)), "SRAVEN": (16, 36, (4, 8))}
_BATCH, _CHUNK = 128, 8


def with_limit(narrow: int) -> Form:
    """Return the library's own form, channel by channel up to heads of this width."""

    def form(code: Tensor, value: Tensor) -> Tensor:
        value_networks._NARROW = narrow
        heads_first = rearrange(value, "b k h d -> b h k d")
        return rearrange(value_networks.hyper_relu(code, heads_first, torch.relu), "b h q d -> b q h d")

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


def chunked(code: Tensor, value: Tensor) -> Tensor:
    """A few queries at a time, computed again in the backward pass: never holds the (b, q, k, d) tensor."""
    parts = [checkpoint(with_limit(0), part, value, use_reentrant=False) for part in code.split(_CHUNK, dim=2)]
    return torch.cat(parts, dim=1)


FORMS: dict[str, Form] = {
    "two batched products": with_limit(0),
    "einsum as written": plain_einsum,
    "channel by channel": with_limit(10**6),
    "chunks of queries, computed twice": chunked,
    "broadcast": broadcast,
}


def measure(
    heads: int, tokens: int, d_head: int, repeats: int, compiled: bool, device: str
) -> list[dict[str, str | float]]:
    """Return the median milliseconds of a forward and backward pass, and the ratio to the fastest, of every form."""
    draw = partial(torch.randn, device=device, requires_grad=True)
    code, value = draw(_BATCH, heads, tokens, tokens), draw(_BATCH, tokens, heads, d_head)
    calls = {name: torch.compile(form) if compiled else form for name, form in FORMS.items()}
    expected = plain_einsum(code, value)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            output = call(code, value)
            torch.autograd.grad(output.sum(), (code, value))
            if device != "cpu":
                torch.cuda.synchronize(device)
            if round_ >= 3:  # the first rounds compile and fill caches
                seconds[name].append(time.perf_counter() - start)
            else:
                torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-3)
    best = min(map(median, seconds.values()))
    return [{"form": name, "ms": 1e3 * median(times), "to_fastest": median(times) / best}
            for name, times in seconds.items()]  # fmt: skip


def main(device: str = "cpu", repeats: int = 15, out: Path | None = None) -> None:
    """Print the times of every form, eager and compiled, in one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for compiled, (task, (heads, tokens, widths)) in product((False, True), SHAPES.items()):
        for width in widths:
            torch.compiler.reset()
            facts = {"task": task, "heads": heads, "tokens": tokens, "d_head": width, "compiled": compiled}
            rows += [facts | row for row in measure(heads, tokens, width, repeats, compiled, device)]
    conclude(pd.DataFrame(rows), device, out)


if __name__ == "__main__":
    typer.run(main)
