"""The value networks that the latent code of a pair (q, k) generates, one function for each kind (section 3)."""

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.attention.normalizers import Code
from hyla_repro.errors import choose

Value = Float[Tensor, "b h k d"]
Mixed = Float[Tensor, "b h q d"]
Inner = Float[Tensor, "h d d"] | None
Activation = Callable[[Tensor], Tensor]
ValueNetwork = Callable[[Code, Value, Activation, Inner], Mixed]

ACTIVATIONS: dict[str, Activation] = {"relu": torch.relu, "gelu": F.gelu}

# Up to this head width, channel by channel beats a batched product of tiny matrices: on a CPU at width 2 twice as
# fast eager and 6 times compiled; and it never holds a (b, h, q, k, d) tensor (benchmarks/value_network.py).
_NARROW = 4


def as_activation(activation: str | Activation) -> Activation:
    """Return a function for a name of ACTIVATIONS, and a function as it is.

    Raises: ValueError for another name, TypeError for what cannot be called.
    """
    if isinstance(activation, str):
        return ACTIVATIONS[choose("activation", activation, ACTIVATIONS)]
    if not callable(activation):
        raise TypeError(f"activation={activation!r} cannot be called: give {' or '.join(ACTIVATIONS)}, or a function")
    return activation


def _mix_heads(code: Code, value: Value) -> Float[Tensor, "b d q k"]:
    """First generated layer: sum_h a[h,q,k] value[h,k] for every pair."""
    if value.shape[-1] > _NARROW:
        return einsum(code, value, "b h q k, b h k d -> b d q k")
    channels = rearrange(value, "b h k d -> d b h 1 k")
    return rearrange([(code * channel).sum(1) for channel in channels], "d b q k -> b d q k")


def _mix_keys(code: Code, hidden: Float[Tensor, "b d q k"]) -> Mixed:
    """Second generated layer up to W_h^out: sum_k a[h,q,k] hidden[q,k] for every query and head."""
    if hidden.shape[1] > _NARROW:
        return einsum(code, hidden, "b h q k, b d q k -> b h q d")
    channels = rearrange(hidden, "b d q k -> d b 1 q k")
    return rearrange([(code * channel).sum(-1) for channel in channels], "d b h q -> b h q d")


def linear_value(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate one linear layer per pair: standard multi-head attention (section 2)."""
    return einsum(code, value, "b h q k, b h k d -> b h q d")


def relu_values(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Apply the activation to each head's value before mixing: a non-linearity the code does not shape."""
    return linear_value(code, activation(value), activation)


def hyper_linear(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate two linear layers from the same code: HYLA without its non-linearity."""
    return _mix_keys(code, _mix_heads(code, value))


def hyper_relu(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate both layers of a one-hidden-layer value network from the same code: HYLA (section 3)."""
    hidden = activation(_mix_heads(code, value))
    return _mix_keys(code, hidden)


def hyper_deep(code: Code, value: Value, activation: Activation, inner: Inner = None) -> Mixed:
    """Generate a third layer between the two of HYLA, from the basis `inner` (HYLA+)."""
    assert inner is not None, "hyper_deep needs the (h, d, d) basis of its middle layer"
    hidden = activation(_mix_heads(code, value))
    # Every head's image of hidden comes first, so that the code contracts it like any other value.
    images = einsum(hidden, inner, "b d q k, h d e -> b h q k e")
    hidden = activation(rearrange((code.unsqueeze(-1) * images).sum(1), "b q k e -> b e q k"))
    return _mix_keys(code, hidden)


#: What `value_network` may be: what the latent code generates.
VALUE_NETWORKS: dict[str, ValueNetwork] = {
    "linear": linear_value,
    "relu_values": relu_values,
    "hyper_linear": hyper_linear,
    "hyper_relu": hyper_relu,
    "hyper_deep": hyper_deep,
}
