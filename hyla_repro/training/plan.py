"""Which runs, and what they will cost: floating-point operations, and hours from runs that were timed."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from hyla_repro.attention.variants import MODEL_VARIANTS
from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment

# (batch, m, k, n): batch products (m, k) x (k, n).
Product = tuple[int, int, int, int]


def with_values(runs: Sequence[Experiment], conditions: Iterable[str]) -> list[Experiment]:
    """Return the runs whose rows have these values.

    Args:
        conditions: as COLUMN=VALUE; `method` is a column too.

    Raises: ValueError for a column that runs do not have, or a value that none of them has, naming those there are.
    """
    for condition in conditions:
        name, _, value = condition.partition("=")
        rows = [{**run.row(), "method": run.method} for run in runs]
        choose("column", name, dict.fromkeys(column for row in rows for column in row))
        values = [str(row[name]) if name in row else None for row in rows]
        shown = sorted({text for text in values if text is not None}, key=lambda text: (len(text), text))
        choose(name, _number(value), map(_number, shown))
        runs = [run for run, text in zip(runs, values, strict=True) if text and _number(text) == _number(value)]
    return list(runs)


def _number(text: str) -> str:
    """Return a number in one way of writing it, so that 1e-3 is 0.001; other texts as they are."""
    try:
        return f"{float(text):g}" if float(text) < 1e6 else text
    except ValueError:
        return text


def seconds_of(text: str, name: str = "budget") -> float:
    """Return the seconds of a time such as 30m.

    Raises: ValueError for a text that is no time, with the name of what it should be.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ValueError(f"{name}={text!r} is not a time: write a number and s, m or h, such as 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def forward_products(run: Experiment) -> list[Product]:
    """Return the matrix products of one forward pass over a batch, those of the embedding first.

    The last layer computes only the queries that are read out. An embedding of tokens is no product. Attention of other
    papers is counted as its pair of normaliser and value network is.
    """
    model, b, t = run.model, run.batch_size, run.model.n_positions
    heads, d_qk, d_v = model.n_heads, model.qk_dim // model.n_heads, model.v_dim // model.n_heads
    network = MODEL_VARIANTS[model.variant].value_network
    embedding = [] if model.n_inputs is None else [(1, b * t, model.n_inputs, model.d_model)]
    products: list[Product] = [*embedding]
    for layer in range(model.n_layers):
        q = run.n_read if layer == model.n_layers - 1 else t
        if q == t:
            products.append((1, b * t, model.d_model, 2 * model.qk_dim + model.v_dim))
        else:
            products.append((1, b * q, model.d_model, model.qk_dim))
            products += [(1, b * t, model.d_model, width) for width in (model.qk_dim, model.v_dim)]
        products.append((b * heads, q, d_qk, t))  # scores
        if network.startswith("hyper"):
            products.append((b * t, q, heads, d_v))  # code x values, over the heads, for every key
            if network == "hyper_deep":
                products += [(heads, b * q * t, d_v, d_v), (b * q * t, 1, heads, d_v)]  # and once more, in between
            products.append((b * q, heads, t, d_v))  # code x hidden, over the keys, for every query
        else:
            products.append((b * heads, q, t, d_v))
        products.append((1, b * q, model.v_dim, model.d_model))
        if model.n_experts is not None:
            products.append((1, b * q, model.d_model, model.n_experts))  # router
        up, down = (1, b * q, model.d_model, model.d_ff), (1, b * q, model.d_ff, model.d_model)
        products += [up, up, down] if model.feed_forward == "swiglu" else (model.n_experts or 1) * [up, down]
    products.append((1, b * run.n_read, model.d_model, model.n_outputs or model.vocab_size or 0))
    return products


def step_flop(run: Experiment) -> int:
    """Return the floating-point operations of the products of one training step.

    Each product of the forward pass has two in the backward pass, the embedding only one: its inputs need no gradient.
    """
    flop = [2 * b * m * k * n for b, m, k, n in forward_products(run)]
    return 3 * sum(flop) - (0 if run.model.n_inputs is None else flop[0])


def total_flop(run: Experiment) -> float:
    """Return the floating-point operations of a run's training, evaluation left out."""
    return float(run.steps) * step_flop(run)


@dataclass(frozen=True)
class Timed:
    """A finished run: what it was and how long it took, in minutes of its device, which is a GPU or a core."""

    run: Experiment
    device: str
    minutes: float
    gpu: bool = False


def _kinds(run: Experiment) -> list[tuple[str, ...]]:
    """Return what other runs may share with a run that makes their rates alike, the closest first."""
    return [(run.task_name, run.method), (run.task_name,), ()]


def minutes_per_run(timed: Iterable[Timed], device: str) -> Callable[[Experiment], float | None]:
    """Return a function that estimates the minutes of a run on a device, from runs that were timed there.

    It scales the median of those of the same task and method, else of the task, else of all, by floating-point
    operations; None without any.
    """
    rates: dict[tuple[str, ...], list[float]] = {}
    for entry in timed:
        if entry.device == device and entry.minutes > 0:
            for kind in _kinds(entry.run):
                rates.setdefault(kind, []).append(entry.minutes / total_flop(entry.run))

    def estimate(run: Experiment) -> float | None:
        known = next((rates[kind] for kind in _kinds(run) if kind in rates), None)
        return median(known) * total_flop(run) if known else None

    return estimate


def describe(
    runs: Sequence[Experiment], estimate: Callable[[Experiment], float | None], device: str, processes: int
) -> str:
    """Return the plan of runs as text: a line for each kind, cheapest first, and the sum."""
    kinds: dict[str, list[Experiment]] = {}
    for run in sorted(runs, key=total_flop):
        kinds.setdefault(run.kind, []).append(run)
    lines, total = [], 0.0
    for kind, members in kinds.items():
        minutes = estimate(members[0])
        total += len(members) * (minutes or 0.0)
        time = "" if minutes is None else f", {minutes:.1f} min each"
        lines.append(f"  {len(members):4} x {kind}: {total_flop(members[0]) / 1e12:.3g} TFLOP{time}")
    flop = sum(map(total_flop, runs)) / 1e12
    if runs and estimate(runs[0]) is None:
        time = f"no run was timed on {device} yet, so how long it takes is unknown"
    else:
        time = f"about {total / processes / 60:.1f} h on {device}, {processes} at a time"
    return "\n".join([*lines, f"{len(runs)} runs, {flop:.3g} TFLOP, {time}"])
