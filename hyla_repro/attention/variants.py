"""The variants of attention that figures compare, as pairs of a normaliser and a value network; without torch."""

from typing import NamedTuple


class Variant(NamedTuple):
    """One row of Table A1: how the code is normalised and which network it generates."""

    normalizer: str
    value_network: str


VARIANTS = {
    "softmax": Variant("softmax", "linear"),
    "linear": Variant("none", "linear"),
    "hyla": Variant("rms_head", "hyper_relu"),
    "linear_rms_head": Variant("rms_head", "linear"),
    "linear_rms_head_relu_values": Variant("rms_head", "relu_values"),
    "hyla_no_rms_head": Variant("none", "hyper_relu"),
    "hyla_no_relu": Variant("rms_head", "hyper_linear"),
    "hyla_no_relu_no_rms_head": Variant("none", "hyper_linear"),
    "hyla_softmax": Variant("softmax", "hyper_relu"),
    "hyla_deep": Variant("rms_head", "hyper_deep"),
}
