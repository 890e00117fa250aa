"""What figures compare: the methods, in the order of every figure and table, and what these call them."""

from typing import Any

from hyla_repro.attention.variants import NEIGHBOURS, VARIANTS
from hyla_repro.errors import choose

METHODS = ("softmax", "linear", "hyla")
# The rows of Table A1: the variants of attention, and three of them with a mixture of experts as feed-forward.
ABLATIONS = (*VARIANTS, *(f"{method}_moe" for method in METHODS))
# What runs may have besides: attention of other papers, its controls, and HYLA with its ideas. No row of Table A1.
ALL_METHODS = (*ABLATIONS, *NEIGHBOURS)

NAMES = {
    "softmax": "softmax attention", "linear": "linear attention", "hyla": "HYLA",
    "linear_rms_head": "linear + RMSHead", "linear_rms_head_relu_values": "linear + RMSHead + nonlinear value",
    "hyla_no_rms_head": "HYLA − RMSHead", "hyla_no_relu": "HYLA − nonlinearity",
    "hyla_no_relu_no_rms_head": "HYLA − nonlinearity − RMSHead", "hyla_softmax": "HYLA − RMSHead + softmax",
    "hyla_deep": "HYLA + deep value network", "softmax_moe": "softmax + MoE", "linear_moe": "linear + MoE",
    "hyla_moe": "HYLA + MoE", "aaren": "Aaren", "softmax_causal": "causal softmax, absolute positions",
    "hyla_learned_query": "HYLA with a learned query", "softmax_bn": "softmax + BN", "softmax_sh": "softmax + SH",
    "softmax_bn_sh": "softmax + BN + SH", "hyla_bn": "HYLA + BN", "hyla_sh": "HYLA + SH",
}  # fmt: skip

_EXPERTS = {"feed_forward": "moe", "n_experts": 4, "experts_per_token": 2}


def architecture(method: str) -> dict[str, Any]:
    """Return what a method sets of a `TransformerConfig`: its variant, its experts if any, and causal if it must be.

    Raises: ValueError for an unknown method.
    """
    choose("method", method, ALL_METHODS)
    causal = {"causal": True} if method in NEIGHBOURS and NEIGHBOURS[method].absolute else {}
    return {"variant": method.removesuffix("_moe"), **(_EXPERTS if method.endswith("_moe") else {}), **causal}
