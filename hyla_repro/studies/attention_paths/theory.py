"""The order parameter of the paths at finite width: its action, where that is smallest, and the predictor of that."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hyla_repro.errors import expect_shape
from hyla_repro.studies.attention_paths.inputs import Prior, path_kernels, total_kernel

# Larger tables of path kernels are not kept: the kernel is then computed from the path inputs each time.
_LARGEST_TABLE = 10**7
# Newton's steps and the smallest curvature need the whole matrix of second derivatives.
_LARGEST_HESSIAN = 200


class OrderParameter(NamedTuple):
    """A solution of the theory.

    Args:
        layers: U_1 ... U_L; U_1 (paths by paths) is the one that the kernel needs.
        readout: u_a.
        action: at the minimum, divided by the largest width.
        gradient: its largest derivative, by any entry of a log-Cholesky factor.
        curvature: the smallest eigenvalue of its second derivatives by the same entries, NaN for many entries.
    """

    layers: tuple[Tensor, ...]
    readout: Tensor
    action: float
    gradient: float
    curvature: float

    @property
    def paths(self) -> Float[Tensor, "p p"]:
        """U_1."""
        return self.layers[0]


class Prediction(NamedTuple):
    """The mean and variance of f at each example; the class is the sign of the mean."""

    mean: Float[Tensor, " b"]
    variance: Float[Tensor, " b"]

    def accuracy(self, labels: Float[Tensor, " b"]) -> float:
        """Return the percentage of labels that the sign of the mean has."""
        return 100 * (self.mean.sign() == labels).double().mean().item()


def gp_order_parameter(prior: Prior) -> tuple[Tensor, ...]:
    """Return U_1 ... U_L of infinite width: U_l = s_a s_L ... s_l I, so that all paths weigh the same, alone."""
    scale, layers = prior.variances[-1], []
    for layer in reversed(range(len(prior.heads))):
        scale *= prior.variances[layer + 1]
        layers.append(scale * torch.eye(prior.paths_from(layer), dtype=torch.float64))
    return tuple(reversed(layers))


def entropy(layers: Sequence[Float[Tensor, "_ _"]], prior: Prior) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the part of the action that comes from the prior, and u_a, which it is smallest for.

        S = N_a (u_a / s_a - ln u_a) + sum_l N_l S_l
        S_l = Tr(P_l^{-1} ptr_l U_l) / s_l - logdet U_l + H_l logdet P_l

    P_l is U_{l+1}, and u_a at the last layer; ptr_l sums the blocks of one head with itself over heads.

    Args:
        layers: U_1 ... U_L, positive definite.

    Source: Tiberi et al., whose code's entropy it is, up to no constant.
    """
    *widths, readout_width = prior.widths
    _, *variances, readout_variance = prior.variances
    # The positive root of the condition that the derivative by u_a is zero.
    half = readout_variance * (prior.heads[-1] * widths[-1] / readout_width - 1) / 2
    pull = widths[-1] * readout_variance / (readout_width * variances[-1]) * layers[-1].trace()
    u_a = (half**2 + pull).sqrt() - half
    total = readout_width * (u_a / readout_variance - u_a.log())
    above = rearrange(u_a, "-> 1 1")
    for layer in reversed(range(len(prior.heads))):
        heads, own = prior.heads[layer], layers[layer]
        factor = torch.linalg.cholesky(above)
        blocks = einsum(rearrange(own, "(h p) (g q) -> h p g q", h=heads, g=heads), "h p h q -> p q")
        trace = torch.cholesky_solve(blocks, factor).trace()
        total = total + widths[layer] * (trace / variances[layer] - _logdet(own) + heads * _logdet(above))
        above = own
    return total, u_a


def energy(
    order_parameter: Float[Tensor, "p p"],
    inputs: Float[Tensor, "b p i"],
    labels: Float[Tensor, " b"],
    temperature: float,
    variance: float = 1.0,
) -> Float[Tensor, ""]:
    """Return the part of the action that comes from the data, logdet(K + T I) + y^T (K + T I)^{-1} y.

    Args:
        order_parameter: U_1.
        inputs: what the paths read of the training examples.
        temperature: T, the variance of the noise that labels are thought to have.
        variance: s0, of the entries of V0.
    """
    return kernel_energy(_kernel_of(inputs, variance)(order_parameter), labels, temperature)


def kernel_energy(
    kernel: Float[Tensor, "*n b b"], labels: Float[Tensor, " b"], temperature: float
) -> Float[Tensor, "*n"]:
    """Return logdet(K + T I) + y^T (K + T I)^{-1} y of one kernel or several: -2 log p(y), but for a constant."""
    factor = torch.linalg.cholesky(kernel + temperature * torch.eye(len(labels)).to(kernel))
    white = torch.linalg.solve_triangular(factor, rearrange(labels, "b -> b 1"), upper=False)
    logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return logdet + einsum(white, white, "... b i, ... b i -> ...")


def solve(
    inputs: Float[Tensor, "b p i"],
    labels: Float[Tensor, " _"],
    temperature: float,
    prior: Prior,
    tolerance: float = 1e-7,
    start: Sequence[Float[Tensor, "_ _"]] | None = None,
) -> OrderParameter:
    """Return the order parameter at which the action is smallest, found by L-BFGS from the point of infinite width.

    Args:
        inputs: what the paths read of the training examples.
        labels: the targets, ±1 for classes.
        temperature: the variance of the noise that labels are thought to have.
        tolerance: the largest derivative of the action over the largest width that ends the search.
        start: U_1 ... U_L to start from, instead of infinite width.

    Raises: ValueError for shapes that do not fit the prior or one another, or a temperature that is not positive;
        RuntimeError if the search ends at larger derivatives.
    """
    check_data(inputs, labels, temperature, prior)
    inputs, labels = inputs.double(), labels.double()
    kernel_of, scale = _kernel_of(inputs, prior.variances[0]), max(prior.widths)

    def action(entries: Tensor) -> Tensor:
        layers = _order_parameters(entries, prior)
        return (kernel_energy(kernel_of(layers[0]), labels, temperature) + entropy(layers, prior)[0]) / scale

    entries, gradient, curvature = _minimise(action, _entries(start or gp_order_parameter(prior)), tolerance)
    if gradient > tolerance:
        raise RuntimeError(
            f"the action's largest derivative is still {gradient:.1e}, above tolerance={tolerance:.1e}: allow more, "
            "raise the temperature, or start from the solution of a larger width"
        )
    layers = _order_parameters(entries, prior)
    return OrderParameter(layers, entropy(layers, prior)[1], action(entries).item(), gradient, curvature)


def predict(
    order_parameter: Float[Tensor, "p p"],
    train: Float[Tensor, "a p i"],
    labels: Float[Tensor, " a"],
    test: Float[Tensor, "b p i"],
    temperature: float,
    variance: float = 1.0,
) -> Prediction:
    """Return the predictor of an order parameter, the mean and the variance of f at test examples.

        mean = k^T (K + T I)^{-1} y
        variance = K(x, x) - k^T (K + T I)^{-1} k

    Args:
        order_parameter: U_1, of `solve`, `gp_order_parameter` or a sample.
        train: what the paths read of the training examples.
        labels: y, the targets of the training examples.
        test: what the paths read of the examples that are predicted.
        temperature: T, the variance of the noise that labels are thought to have.
        variance: s0, of the entries of V0.
    """
    weight = variance / (test.shape[-1] * test.shape[-2])
    # Without the large table of all pairs of paths: weigh the paths of the test examples first.
    weighed = einsum(order_parameter, test, "p q, b q i -> b p i") * weight
    across = einsum(weighed, train, "b p i, a p i -> a b")
    own = einsum(weighed, test, "b p i, b p i -> b")
    kernel = _kernel_of(train, variance, table=False)(order_parameter)
    factor = torch.linalg.cholesky(kernel + temperature * torch.eye(len(train)).to(kernel))
    solved = torch.cholesky_solve(across, factor)
    return Prediction(einsum(solved, labels, "a b, a -> b"), own - einsum(across, solved, "a b, a b -> b"))


def check_data(inputs: Float[Tensor, "b p i"], labels: Float[Tensor, " _"], temperature: float, prior: Prior) -> None:
    """Refuse path inputs that do not fit the prior or the labels, and a temperature that is not positive.

    Raises: ValueError saying what does not fit.
    """
    if inputs.shape[1] != prior.n_paths:
        raise ValueError(f"inputs have {inputs.shape[1]} paths: heads={prior.heads} make {prior.n_paths}")
    expect_shape("labels", labels.shape, inputs.shape[:1], "a target for each example of the inputs")
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0: it is the variance of the labels' noise")


def _logdet(matrix: Tensor) -> Tensor:
    return 2 * torch.linalg.cholesky(matrix).diagonal().log().sum()


def _kernel_of(inputs: Tensor, variance: float, table: bool = True) -> Callable[[Tensor], Tensor]:
    """Return the function from the order parameter to the kernel of these inputs."""
    examples, paths, width = inputs.shape
    if table and (examples * paths) ** 2 <= _LARGEST_TABLE:
        kernels = path_kernels(inputs, inputs, variance)
        return lambda order_parameter: total_kernel(order_parameter, kernels)

    def kernel(order_parameter: Tensor) -> Tensor:
        weighed = einsum(order_parameter, inputs, "p q, b q i -> b p i")
        return einsum(weighed, inputs, "a p i, b p i -> a b") * (variance / (width * paths))

    return kernel


def _entries(layers: Sequence[Tensor]) -> Tensor:
    """Return the lower triangles of the Cholesky factors, their diagonals as logarithms, in one vector."""
    parts = []
    for layer in layers:
        factor = torch.linalg.cholesky(layer.double())
        rows, columns = torch.tril_indices(*factor.shape)
        parts.append(torch.where(rows == columns, factor[rows, columns].abs().log(), factor[rows, columns]))
    return torch.cat(parts)


def _order_parameters(entries: Tensor, prior: Prior) -> tuple[Tensor, ...]:
    """Return U_1 ... U_L of such a vector."""
    sizes = [prior.paths_from(layer) for layer in range(len(prior.heads))]
    layers = []
    for size, part in zip(sizes, entries.split([size * (size + 1) // 2 for size in sizes]), strict=True):
        rows, columns = torch.tril_indices(size, size)
        values = torch.where(rows == columns, part.exp(), part)
        factor = torch.zeros(size, size, dtype=entries.dtype).index_put((rows, columns), values)
        layers.append(factor @ factor.mT)
    return tuple(layers)


def _gradient(action: Callable[[Tensor], Tensor], entries: Tensor) -> Tensor:
    return torch.autograd.functional.vjp(action, entries)[1]


def _minimise(action: Callable[[Tensor], Tensor], start: Tensor, tolerance: float) -> tuple[Tensor, float, float]:
    """Return where the action is smallest, its largest derivative there, and its smallest curvature."""
    entries = start.clone().requires_grad_()
    search = torch.optim.LBFGS([entries], max_iter=500, history_size=20, tolerance_grad=tolerance / 10,
                               tolerance_change=0.0, line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        value = action(entries)
        value.backward()
        return value

    for _ in range(20):
        search.step(closure)
        if _gradient(action, entries.detach()).abs().max() <= tolerance:
            break
    found, curvature = entries.detach(), float("nan")
    if len(found) <= _LARGEST_HESSIAN:
        # Differences below the action's rounding error stop L-BFGS; Newton's steps look at derivatives alone.
        second = torch.autograd.functional.hessian(action, found, vectorize=True)
        curvature = torch.linalg.eigvalsh(second)[0].item()
        for _ in range(3):
            found = found - torch.linalg.solve(second, _gradient(action, found))
    return found, _gradient(action, found).abs().max().item(), curvature
