"""Where a decoder of pre-norm blocks has its attentions and MLPs: our Transformer, LLaMA, Mistral, GPT-2 and such."""

from typing import NamedTuple

from torch import nn

# A module of the network: "attn", "mlp" or "block", and the number of its layer from 0.
Module = tuple[str, int]
# What may be dropped: one kind, or attentions and MLPs with one another.
TARGETS = {"attn": ("attn",), "mlp": ("mlp",), "block": ("block",), "joint": ("attn", "mlp")}
#: How blocks call the norm before attention, attention, the norm before the MLP, and the MLP. `transformers` uses the
#: second for LLaMA, Mistral and Qwen, the third for GPT-2. A model with other names adds its own.
LAYOUTS = [
    ("norm1", "attention", "norm2", "feed_forward"),
    ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp"),
    ("ln_1", "attn", "ln_2", "mlp"),
]


class Layer(NamedTuple):
    """One block and its parts: z = x + attn(attn_norm(x)), y = z + mlp(mlp_norm(z))."""

    block: nn.Module
    attn_norm: nn.Module
    attn: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module


def find_layers(model: nn.Module) -> list[Layer]:
    """Return the blocks of a model in order.

    Raises: ValueError for a model without blocks of a known layout, naming those there are.
    """
    for names in LAYOUTS:
        layers = []
        for block in model.modules():
            parts = [part for name in names if isinstance(part := getattr(block, name, None), nn.Module)]
            if len(parts) == len(names):
                layers.append(Layer(block, *parts))
        if layers:
            return layers
    layouts = "; ".join(", ".join(names) for names in LAYOUTS)
    raise ValueError(
        f"{type(model).__name__} has no blocks with norms, attention and MLP of these names: {layouts}. "
        "Add its own names to LAYOUTS"
    )


def candidates(target: str, n_layers: int) -> list[Module]:
    """Return what a target, "attn", "mlp", "block" or "joint", may drop: attentions before MLPs, each by layer."""
    return [(kind, layer) for kind in TARGETS[target] for layer in range(n_layers)]
