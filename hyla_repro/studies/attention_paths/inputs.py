"""Attention paths: what each reads, the kernels of pairs of paths, and scores of heads (Tiberi et al., 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from hyla_repro.errors import choose, whole_number

READOUTS = ("last", "mean")


@dataclass(frozen=True)
class Prior:
    """Sizes of a network of frozen attention, and the prior variances of the weights that it learns.

        z0_t = V0 x_t / sqrt(N0)
        zl_t = sum_{h,s} A^{l,h}_{t,s} V^{l,h} z(l-1)_s / sqrt(H_l N_l)
        f(x) = a . zL / sqrt(N_a)

    The last line is at the last token, or averaged over tokens.

    A path is a head of each layer, (h_1, ..., h_L); paths are counted with h_1 slowest.

    Args:
        heads: H_1 ... H_L, of the attention layers.
        widths: N_1 ... N_L and N_a, of the hidden layers.
        variances: of the entries of V0, of V^1 ... V^L, and of a.

    Raises: ValueError for a layer without heads or width, other numbers of entries, or a variance that is not positive.
    """

    heads: tuple[int, ...]
    widths: tuple[int, ...]
    variances: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, sizes in (("heads", self.heads), ("widths", self.widths)):
            for size in sizes:
                whole_number(name, size, 1, "a layer needs one at least")
        layers = len(self.heads)
        if not layers or (len(self.widths), len(self.variances)) != (layers + 1, layers + 2):
            raise ValueError(
                f"heads={self.heads} has {layers} layers, widths={self.widths} {len(self.widths)} entries and "
                f"variances={self.variances} {len(self.variances)}: L layers, 1 at least, need L + 1 widths "
                "(N_1 to N_L, N_a) and L + 2 variances (of V0, of V^1 to V^L, of a)"
            )
        if min(self.variances) <= 0:
            raise ValueError(f"variances={self.variances} must all be above 0")

    @classmethod
    def equal(cls, heads: Sequence[int], width: int) -> "Prior":
        """Return the prior whose hidden layers have one width, and whose variances are 1."""
        return cls(tuple(heads), (width,) * (len(heads) + 1), (1.0,) * (len(heads) + 2))

    @property
    def n_paths(self) -> int:
        """How many paths there are."""
        return prod(self.heads)

    def paths_from(self, layer: int) -> int:
        """Return how many paths lead from a layer, counted from 0, to the readout."""
        return prod(self.heads[layer:])


def path_names(*heads: Sequence[str]) -> list[str]:
    """Return the name of every path in the order of all arrays here, given the names of each layer's heads."""
    return [" > ".join(names) for names in product(*heads)]


def attention_maps(
    x: Float[Tensor, "b t i"], weights: Float[Tensor, "h i i"], hard: bool = False
) -> Float[Tensor, "b h t t"]:
    """Return softmax over keys k of x_k^T W^h x_q, of the raw input.

    Args:
        hard: give the key with the highest score all the weight.

    Returns: (b, h, q, k); rows over k sum to 1.
    """
    scores = einsum(x, weights, x, "b k i, h i j, b q j -> b h q k")
    if hard:
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
    return scores.softmax(-1)


def path_inputs(
    x: Float[Tensor, "b t i"], maps: Sequence[Float[Tensor, "b _ t t"]], readout: str = "last"
) -> Float[Tensor, "b p i"]:
    """Return what each path reads, xi_p = sum_s [r^T A^{L,h_L} ... A^{1,h_1}]_s x_s.

    Args:
        maps: of each layer, (b, h, q, k). Rows of a linear network's code need not sum to 1.
        readout: `last`, where r picks the last token, or `mean` over tokens.

    Raises: ValueError for an unknown readout, or without maps.
    """
    if not maps:
        raise ValueError("maps is empty: a path needs one layer of attention at least")
    if choose("readout", readout, READOUTS) == "last":
        rows = maps[-1][:, :, -1]
    else:
        rows = reduce(maps[-1], "b h q k -> b h k", "mean")
    for layer in reversed(maps[:-1]):
        rows = rearrange(einsum(rows, layer, "b p q, b h q k -> b h p k"), "b h p k -> b (h p) k")
    return einsum(rows, x, "b p t, b t i -> b p i")


def path_kernels(
    first: Float[Tensor, "a p i"], second: Float[Tensor, "b p i"], variance: float = 1.0
) -> Float[Tensor, "p p a b"]:
    """Return the kernel of every pair of paths, C_{p,q}(x, x') = (s0 / N0) xi_p(x) . xi_q(x').

    Args:
        first: path inputs of the examples x.
        second: path inputs of the examples x'.
        variance: s0, of the entries of V0.
    """
    return einsum(first, second, "a p i, b q i -> p q a b") * (variance / first.shape[-1])


def total_kernel(
    order_parameter: Float[Tensor, "*n p p"], kernels: Float[Tensor, "p p a b"]
) -> Float[Tensor, "*n a b"]:
    """Return K = sum_{p,q} U_{p,q} C_{p,q} / D, for D paths, of one order parameter or several."""
    return einsum(order_parameter, kernels, "... p q, p q a b -> ... a b") / len(kernels)


def kernel_alignment(kernel: Float[Tensor, "b b"], labels: Float[Tensor, " b"], k: int) -> Float[Tensor, " k"]:
    """Return abs(e . y) / sqrt(b) of k leading eigenvectors e, largest eigenvalue first: 0 to 1 with labels of ±1."""
    vectors = torch.linalg.eigh(kernel).eigenvectors
    leading = vectors.flip(-1)[:, :k]
    return einsum(leading, labels, "b k, b -> k").abs() / len(labels) ** 0.5


def head_scores(order_parameter: Float[Tensor, "p p"], heads: Sequence[int]) -> list[Float[Tensor, " _"]]:
    """Return how much of the order parameter goes through each head, relative to the head with most of it.

    Before the division a score is the sum of abs(U[p, q]) over the pairs of which one path, or both, have the head.

    Returns: a score for each head, of each layer; 0 to 1.
    Source: Tiberi et al., section on head pruning; their compute_heads_score.
    Differs: theirs fails for one layer.
    """
    sizes, absolute = tuple(heads), order_parameter.abs()
    sums = [torch.stack([absolute[_touched(sizes, layer, head)].sum() for head in range(count)])
            for layer, count in enumerate(sizes)]  # fmt: skip
    largest = torch.cat(sums).max()
    return [layer / largest for layer in sums]


def silence_head(
    order_parameter: Float[Tensor, "p p"], heads: Sequence[int], layer: int, head: int
) -> Float[Tensor, "p p"]:
    """Return the order parameter without every pair of paths of which one, or both, have a head.

    Args:
        layer, head: counted from 0.

    Raises: ValueError for a layer or a head that there is not.
    """
    whole_number("layer", layer, 0, f"heads={tuple(heads)}", len(heads) - 1)
    whole_number("head", head, 0, f"heads={tuple(heads)}", heads[layer] - 1)
    return order_parameter.masked_fill(_touched(tuple(heads), layer, head).to(order_parameter.device), 0.0)


def _touched(heads: tuple[int, ...], layer: int, head: int) -> Tensor:
    """Return which pairs of paths have a head in one of them, or in both."""
    has = torch.tensor([path[layer] == head for path in product(*map(range, heads))])
    return rearrange(has, "p -> p 1") | has
