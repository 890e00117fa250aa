"""Networks with hand-made heads on hidden Markov chains: theory, exact posterior, silenced heads, gradient descent."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from hyla_repro.studies.attention_paths.hidden_markov import hidden_markov_chain, hmm_heads
from hyla_repro.studies.attention_paths.inputs import (
    Prior,
    attention_maps,
    head_scores,
    kernel_alignment,
    path_inputs,
    path_kernels,
    path_names,
    silence_head,
    total_kernel,
)
from hyla_repro.studies.attention_paths.sampling import (
    effective_weights,
    order_parameter_from_weights,
    predict_mean,
    sample_order_parameter,
)
from hyla_repro.studies.attention_paths.theory import OrderParameter, gp_order_parameter, predict, solve

TEMPERATURE = 0.01
WIDTHS = (10, 30, 50, 100, 300, 500, 1000)
# The first draw has the authors' seeds, the others are independent of it.
AUTHORS, DRAWS = 0, (1, 2, 3, 4, 5)
# Widths of which the exact posterior is sampled, and the number of the chain.
CHAINS = ((10, 0), (10, 1), (100, 0), (100, 1), (30, 0), (300, 0), (1000, 0))
_TESTS = 1_000
# Eigenvectors of the kernel whose overlap with the labels is kept.
_LEADING = 30


@dataclass(frozen=True)
class Point:
    """A network, its task, and how it is solved.

    Args:
        heads: of the first and the second layer, as in "good+random,uniform".
        noise: of the tokens, in the directions that tell nothing.
        draw: of chains and random heads; 0 has the authors' seeds.
        method: one of `METHODS`.
        width: of all layers; 0 for infinite.
        examples: to learn from.
        steps: draws of a sampler, or steps of gradient descent.
        repetition: another draw of the method's own random numbers.
    """

    heads: str
    noise: float
    draw: int
    method: str
    width: int
    examples: int = 100
    steps: int = 0
    repetition: int = 0


FOUR, TWO, NINE = ("good+random,uniform+random", 1.0), ("good+uniform,uniform", 5.0), (
    "good+random+random,uniform+random+random", 1.0,
)  # fmt: skip
TINY = 10


def points() -> list[Point]:
    """Return all that the chapter shows, what takes least first."""
    found = []
    for net, draw in product((FOUR, TWO), (AUTHORS, *DRAWS)):
        found.append(Point(*net, draw, "infinite", 0))
        found += [Point(*net, draw, "theory", width) for width in WIDTHS]
    found += [Point(*NINE, draw, "silenced", 10) for draw in DRAWS]
    found += [Point(*FOUR, draw, "descent", 10, steps=3_000) for draw in DRAWS]
    found += [Point(*FOUR, AUTHORS, "importance", width, TINY, 200_000) for width in (6, 12, 24, 48)]
    found += [Point(*FOUR, AUTHORS, "chain", width, steps=2_000, repetition=n) for width, n in CHAINS]
    return found


def table(point: Point) -> pd.DataFrame:
    """Return what is computed of a point: columns quantity, first, second (paths, heads or ranks) and value."""
    rows = [(*names, *[""] * (3 - len(names)), value) for *names, value in METHODS[point.method](point)]
    found = pd.DataFrame(rows, columns=["quantity", "first", "second", "value"])
    return found.assign(value=[float(f"{value:.7g}") for value in found["value"]])


class Problem(NamedTuple):
    """What the paths read of training and test examples, and their labels; all in float64."""

    train: Float[Tensor, "a p i"]
    labels: Float[Tensor, " a"]
    test: Float[Tensor, "b p i"]
    test_labels: Float[Tensor, " b"]

    def of_paths(self, paths: Sequence[int]) -> "Problem":
        """Return the problem of a network with some of the paths only."""
        return self._replace(train=self.train[:, paths], test=self.test[:, paths])


def head_names(heads: str) -> list[list[str]]:
    """Return the heads' names by layer; a second random head of a layer is "random 2"."""
    layers = [layer.split("+") for layer in heads.split(",")]
    return [[name if (before := layer[:n].count(name)) == 0 else f"{name} {before + 1}" for n, name in enumerate(layer)]
            for layer in layers]  # fmt: skip


@lru_cache(maxsize=2)
def problem(heads: str, noise: float, draw: int, examples: int) -> Problem:
    """Return the chains of a draw and what the paths through its heads read of them."""
    weights = [_weights(layer.split("+"), 147 + 100 * n + 1000 * draw) for n, layer in enumerate(heads.split(","))]
    parts: list[Tensor] = []
    for count, seed in ((examples, 27), (_TESTS, 59)):
        x, labels = hidden_markov_chain(count, seed + 1000 * draw, noise)
        parts += [path_inputs(x, [attention_maps(x, weight) for weight in weights]), labels]
    return Problem(*parts)


def _weights(names: Sequence[str], seed: int) -> Tensor:
    """Return the weights of a layer's heads; each random head has a seed of its own."""
    return hmm_heads(*((name, seed + n - 1) if name == "random" else name for n, name in enumerate(names)))


def _of(point: Point) -> Problem:
    return problem(point.heads, point.noise, point.draw, point.examples)


def _prior(point: Point) -> Prior:
    return Prior.equal([len(layer) for layer in head_names(point.heads)], point.width or 1)


def _accuracy(of: Problem, order_parameter: Tensor) -> float:
    return predict(order_parameter, of.train, of.labels, of.test, TEMPERATURE).accuracy(of.test_labels)


def _solve(of: Problem, prior: Prior) -> OrderParameter:
    return solve(of.train, of.labels, TEMPERATURE, prior)


Rows = Iterator[tuple[str | float, ...]]


def _overlaps(of: Problem, order_parameter: Tensor) -> Rows:
    kernel = total_kernel(order_parameter, path_kernels(of.train, of.train))
    for rank, value in enumerate(kernel_alignment(kernel, of.labels, _LEADING).tolist(), start=1):
        yield "overlap", str(rank), value


def _entries(point: Point, order_parameter: Tensor) -> Rows:
    names = path_names(*head_names(point.heads))
    for (p, first), (q, second) in combinations_with_replacement(enumerate(names), 2):
        yield "order parameter", first, second, order_parameter[p, q].item()


def _infinite(point: Point) -> Rows:
    """Return Gaussian processes: of all paths, of the good one alone, and of that and the denoising one."""
    of, names = _of(point), path_names(*head_names(point.heads))
    good, denoising = 0, next(n for n, name in enumerate(names) if n and name.endswith("uniform"))
    for label, paths in (("all", [*range(len(names))]), ("good", [good]), ("good and denoising", [good, denoising])):
        yield "accuracy", label, _accuracy(of.of_paths(paths), torch.eye(len(paths), dtype=torch.float64))
    yield from _overlaps(of, gp_order_parameter(_prior(point))[0])


def _theory(point: Point) -> Rows:
    of = _of(point)
    found = _solve(of, _prior(point))
    yield "accuracy", _accuracy(of, found.paths)
    for name in ("action", "gradient", "curvature"):
        yield name, getattr(found, name)
    yield from _entries(point, found.paths)
    if point.width == min(WIDTHS):
        yield from _overlaps(of, found.paths)


def _silenced(point: Point) -> Rows:
    """Return each head's score, and the accuracy without it: silenced in the solution, and solved anew."""
    of, prior, names = _of(point), _prior(point), head_names(point.heads)
    found, infinite = _solve(of, prior).paths, gp_order_parameter(prior)[0]
    yield "accuracy", _accuracy(of, found)
    yield "accuracy of infinite width", _accuracy(of, infinite)
    paths = list(product(*map(range, prior.heads)))
    for layer, scores in enumerate(head_scores(found, prior.heads)):
        for head, score in enumerate(scores.tolist()):
            where = (f"layer {layer + 1}", names[layer][head])
            yield "score", *where, score
            yield "accuracy without", *where, _accuracy(of, silence_head(found, prior.heads, layer, head))
            heads = [count - (n == layer) for n, count in enumerate(prior.heads)]
            fewer = of.of_paths([n for n, path in enumerate(paths) if path[layer] != head])
            again = _solve(fewer, Prior.equal(heads, point.width)).paths
            yield "accuracy solved without", *where, _accuracy(fewer, again)


def _chain(point: Point) -> Rows:
    """Return the exact posterior by slice sampling, and how far the theory is from it."""
    of, prior = _of(point), _prior(point)
    generator = torch.Generator().manual_seed(1 + point.repetition)
    drawn = sample_order_parameter(
        of.train, of.labels, TEMPERATURE, prior, point.steps, generator, "slice", burn_in=point.steps // 8
    )
    mean = predict_mean(drawn, of.train, of.labels, of.test, TEMPERATURE)
    theory = predict(_solve(of, prior).paths, of.train, of.labels, of.test, TEMPERATURE)
    yield "accuracy", 100 * (mean.sign() == of.test_labels).double().mean().item()
    yield "accuracy of the theory", theory.accuracy(of.test_labels)
    yield "correlation with the theory", torch.corrcoef(torch.stack([mean, theory.mean]))[0, 1].item()
    yield from _entries(point, drawn.mean)


def _importance(point: Point) -> Rows:
    """Return how far the theory's order parameter is from the exact one, which few examples allow to draw directly."""
    of, prior = _of(point), _prior(point)
    drawn = sample_order_parameter(
        of.train, of.labels, TEMPERATURE, prior, point.steps, torch.Generator().manual_seed(1)
    )
    theory = _solve(of, prior).paths
    yield "relative error", ((theory - drawn.mean).norm() / drawn.mean.norm()).item()
    yield "effective draws", drawn.effective_size
    yield from _entries(point, drawn.mean)


def _descent(point: Point) -> Rows:
    """Return the order parameter of one network trained by Adam from weights of the prior, without weight decay."""
    of, prior = _of(point), _prior(point)
    generator = torch.Generator().manual_seed(point.draw)
    width, inputs = point.width, of.train.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    first, readout = normal(width, inputs), normal(width)
    values = [normal(heads, width, width) for heads in prior.heads]

    def network(paths: Tensor) -> Tensor:
        # The effective weights reach the inputs before they meet the examples, which are many.
        reach = effective_weights(values, readout) @ first / (inputs * width * prior.n_paths) ** 0.5
        return einsum(reach, paths, "p i, b p i -> b")

    theory = _solve(of, prior).paths

    def own() -> Tensor:
        return order_parameter_from_weights(values, readout).detach()

    def cosine(order_parameter: Tensor) -> float:
        return ((order_parameter * theory).sum() / (order_parameter.norm() * theory.norm())).item()

    untrained = cosine(own())
    optimizer = torch.optim.Adam([first, readout, *values], lr=1e-3)
    for _ in range(point.steps):
        optimizer.zero_grad()
        loss = (network(of.train) - of.labels).square().mean()
        loss.backward()
        optimizer.step()
    learned = own()
    yield "loss", loss.item()
    yield "accuracy", 100 * (network(of.test).sign() == of.test_labels).double().mean().item()
    yield "cosine", cosine(learned)
    yield "cosine before training", untrained
    yield from _entries(point, learned)


METHODS: dict[str, Callable[[Point], Rows]] = {
    "infinite": _infinite,
    "theory": _theory,
    "silenced": _silenced,
    "descent": _descent,
    "importance": _importance,
    "chain": _chain,
}
