"""The exact posterior of the order parameter at any width, without sampling a weight: ground truth for the theory.

Given the weights above V0, f is a Gaussian process with kernel K(U); and U itself is, before data, a chain of Wishart
matrices. So the posterior of U is that chain times N(y; 0, K(U) + T I).
"""

from collections.abc import Callable, Iterator, Sequence
from math import log, pi, prod
from typing import NamedTuple

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from hyla_repro.errors import choose, whole_number
from hyla_repro.studies.attention_paths.inputs import Prior, path_kernels, total_kernel
from hyla_repro.studies.attention_paths.theory import check_data, kernel_energy

METHODS = ("importance", "slice")
_BATCH = 2_000


class Samples(NamedTuple):
    """Draws of U_1 and their weights, which sum to 1."""

    order_parameters: Float[Tensor, "n p p"]
    weights: Float[Tensor, " n"]

    @property
    def mean(self) -> Float[Tensor, "p p"]:
        """The posterior mean of the order parameter."""
        return einsum(self.weights, self.order_parameters, "n, n p q -> p q")

    @property
    def effective_size(self) -> float:
        """How many draws of equal weight say as much; steps of a chain count as if they were independent."""
        return (1 / self.weights.square().sum()).item()


def sample_order_parameter(
    inputs: Float[Tensor, "b p i"],
    labels: Float[Tensor, " _"],
    temperature: float,
    prior: Prior,
    n_samples: int,
    generator: torch.Generator,
    method: str = "importance",
    burn_in: int = 0,
) -> Samples:
    """Return draws of U_1 from its exact posterior.

    Args:
        inputs: what the paths read of the training examples.
        labels: the targets, ±1 for classes.
        temperature: the variance of the noise that labels are thought to have.
        prior: sizes of the network and variances of its weights.
        n_samples: how many draws to return.
        generator: on the CPU; all random numbers come from it.
        method: `importance`, draws of the prior weighted by the likelihood, good for some 20 examples; or `slice`, one
            chain of elliptical slice sampling (Murray et al., 2010), for more.
        burn_in: steps of the chain before those that are kept.

    Raises: ValueError for an unknown method, shapes that do not fit, or a temperature that is not positive.
    """
    choose("method", method, METHODS)
    whole_number("n_samples", n_samples, 1, "each is a draw")
    check_data(inputs, labels, temperature, prior)
    labels, kernels = labels.double(), path_kernels(inputs.double(), inputs.double(), prior.variances[0])

    def log_likelihood(order_parameters: Tensor) -> Tensor:
        return -kernel_energy(total_kernel(order_parameters, kernels), labels, temperature) / 2

    if method == "slice":
        chain = _slice_sampling(log_likelihood, prior, generator)
        kept = torch.cat([next(chain) for _ in range(burn_in + n_samples)][burn_in:])
        return Samples(kept, torch.full((n_samples,), 1 / n_samples, dtype=torch.float64))
    drawn, logs = [], []
    for first in range(0, n_samples, _BATCH):
        drawn.append(order_parameters_of(_normals(min(_BATCH, n_samples - first), prior, generator), prior))
        logs.append(log_likelihood(drawn[-1]))
    return Samples(torch.cat(drawn), torch.cat(logs).softmax(0))


def predict_mean(
    samples: Samples,
    train: Float[Tensor, "a p i"],
    labels: Float[Tensor, " a"],
    test: Float[Tensor, "b p i"],
    temperature: float,
    variance: float = 1.0,
) -> Float[Tensor, " b"]:
    """Return the posterior mean of f at test examples, averaged over draws of the order parameter.

    f is linear in what the paths read, so it is enough to average its coefficients.

    Args:
        samples: draws of the order parameter, as `sample_order_parameter` returns them.
        train: what the paths read of the training examples.
        labels: the targets of the training examples.
        test: what the paths read of the examples that are predicted.
        temperature: the variance of the noise that labels are thought to have, the one of the samples.
        variance: s0, of the entries of V0.
    """
    kernels, scale = path_kernels(train, train, variance), variance / (train.shape[-1] * train.shape[-2])
    noise = temperature * torch.eye(len(train), dtype=torch.float64)
    coefficients = torch.zeros_like(train[0])
    for drawn, weights in zip(samples.order_parameters.split(_BATCH), samples.weights.split(_BATCH), strict=True):
        dual = torch.cholesky_solve(repeat(labels, "a -> n a 1", n=len(drawn)),
                                    torch.linalg.cholesky(total_kernel(drawn, kernels) + noise))  # fmt: skip
        weighed = einsum(weights, drawn, rearrange(dual, "n a 1 -> n a"), "n, n p q, n a -> p q a")
        coefficients = coefficients + scale * einsum(weighed, train, "p q a, a q i -> p i")
    return einsum(coefficients, test, "p i, b p i -> b")


def order_parameter_from_weights(
    values: Sequence[Float[Tensor, "_ _ _"]], readout: Float[Tensor, " _"]
) -> Float[Tensor, "p p"]:
    """Return the order parameter of one network's weights.

        U_1[p, q] = v_p . v_q / N_1
        v_p = (N_a N_L ... N_2)^{-1/2} a^T V^{L,h_L} ... V^{1,h_1}

    Args:
        values: V^1 ... V^L, (head, output, input) each.
        readout: the weights a, as many as the last layer has outputs.
    """
    effective = effective_weights(values, readout)
    return effective @ effective.mT / effective.shape[-1]


def effective_weights(values: Sequence[Float[Tensor, "_ _ _"]], readout: Float[Tensor, " _"]) -> Float[Tensor, "p n"]:
    """Return v_p of every path: what the layers above V0 and the readout make of its values.

        f = (N_0 N_1 D)^{-1/2} sum_p v_p^T V0 xi_p

    Args:
        values: V^1 ... V^L, (head, output, input) each.
        readout: the weights a, as many as the last layer has outputs.
    """
    vectors = rearrange(readout, "o -> 1 o")
    for layer in reversed(values):
        product = einsum(vectors, layer, "p o, h o n -> h p n") / vectors.shape[-1] ** 0.5
        vectors = rearrange(product, "h p n -> (h p) n")
    return vectors


def order_parameters_of(normals: Sequence[Float[Tensor, "n ..."]], prior: Prior) -> Float[Tensor, "n p p"]:
    """Return U_1 of standard normal numbers, as the prior distributes it: a chain of Wishart matrices.

    Args:
        normals: for u_a (n, N_a); then for each layer, the last one first, (n, H_l, rank of U_{l+1}, N_l).
    """
    *widths, readout_width = prior.widths
    _, *variances, readout_variance = prior.variances
    scale = readout_variance / readout_width * normals[0].square().sum(-1)
    root = order_parameter = rearrange(scale.sqrt(), "n -> n 1 1")
    for width, variance, normal in zip(reversed(widths), reversed(variances), normals[1:], strict=True):
        drawn = einsum(root, normal, "n p r, n h r w -> n h p w") * (variance / width) ** 0.5
        vectors = rearrange(drawn, "n h p w -> n (h p) w")
        order_parameter = vectors @ vectors.mT
        # Any root will do; that of lower rank, where the layer is narrower than its paths are many.
        root = vectors if width <= vectors.shape[-2] else torch.linalg.cholesky(order_parameter)
    return order_parameter


def _shapes(prior: Prior) -> list[tuple[int, ...]]:
    """Return the shapes of one draw's normal numbers."""
    shapes: list[tuple[int, ...]] = [(prior.widths[-1],)]
    rank = 1
    for layer in reversed(range(len(prior.heads))):
        shapes.append((prior.heads[layer], rank, prior.widths[layer]))
        rank = min(prior.widths[layer], prior.paths_from(layer))
    return shapes


def _normals(n: int, prior: Prior, generator: torch.Generator) -> list[Tensor]:
    return [torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in _shapes(prior)]


def _slice_sampling(
    log_likelihood: Callable[[Tensor], Tensor], prior: Prior, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield U_1 (1, p, p) after every step of an elliptical slice sampler over the normal numbers."""
    shapes = _shapes(prior)
    sizes = [prod(shape) for shape in shapes]

    def normal() -> Tensor:
        return torch.randn(sum(sizes), generator=generator, dtype=torch.float64)

    def uniform() -> float:
        return torch.rand(1, generator=generator, dtype=torch.float64).item()

    def order_parameter(state: Tensor) -> Tensor:
        parts = zip(state.split(sizes), shapes, strict=True)
        return order_parameters_of([part.view(1, *shape) for part, shape in parts], prior)

    state = normal()
    current = order_parameter(state)
    level = log_likelihood(current).item()
    while True:
        other, least = normal(), level + log(1 - uniform())
        angle = 2 * pi * uniform()
        low, high = angle - 2 * pi, angle
        while True:
            turned = torch.tensor(angle, dtype=torch.float64)
            proposed = state * turned.cos() + other * turned.sin()
            current = order_parameter(proposed)
            level = log_likelihood(current).item()
            if level >= least:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = low + (high - low) * uniform()
        state = proposed
        yield current
