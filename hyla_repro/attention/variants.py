"""The variants of attention that figures compare, as pairs of a normaliser and a value network; without torch.

`VARIANTS` are the paper's own, `NEIGHBOURS` what models have besides them to compare with.
"""

from typing import NamedTuple


class Variant(NamedTuple):
    """One row of Table A1: how the code is normalised and which network it generates."""

    normalizer: str
    value_network: str


#: What `variant` may be, with the pair that each stands for.
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


class Neighbour(NamedTuple):
    """An attention that the paper does not have: another paper's, a control for it, or HYLA with its idea.

    Args:
        module: "aaren", "learned_query", "batch_norm" or "scaled_head"; None for `HypernetworkAttention` itself.
        absolute: tokens get a learned position each, instead of a bias for pairs in every layer; and models are causal.
        beta: how much of the keys' mean is taken away, None for nothing.
    """

    normalizer: str
    value_network: str
    module: str | None
    absolute: bool = False
    beta: float | None = None


# A learned query needs a causal order, and a bias for pairs would give the query what it must not know: so these three
# have absolute positions, and "softmax_causal" is the control, which differs from "aaren" by its queries alone. The
# others keep the positions of "softmax" and "hyla", which are their controls.
#: What the `variant` of a model may be besides.
NEIGHBOURS = {
    "aaren": Neighbour(*VARIANTS["softmax"], "aaren", absolute=True),
    "softmax_causal": Neighbour(*VARIANTS["softmax"], None, absolute=True),
    "hyla_learned_query": Neighbour(*VARIANTS["hyla"], "learned_query", absolute=True),
    "softmax_bn": Neighbour(*VARIANTS["softmax"], "batch_norm", beta=1.0),
    "softmax_sh": Neighbour(*VARIANTS["softmax"], "scaled_head"),
    "softmax_bn_sh": Neighbour(*VARIANTS["softmax"], "scaled_head", beta=1.0),
    "hyla_bn": Neighbour(*VARIANTS["hyla"], "batch_norm", beta=1.0),
    "hyla_sh": Neighbour(*VARIANTS["hyla"], "scaled_head"),
}
# All that a `TransformerConfig` may name.
MODEL_VARIANTS: dict[str, Variant | Neighbour] = {**VARIANTS, **NEIGHBOURS}
