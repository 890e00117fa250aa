"""Parameters in the layout of the authors' JAX/Flax release, to and from a Transformer of this package."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange

from hyla_repro.errors import choose
from hyla_repro.models.config import TransformerConfig
from hyla_repro.models.transformer import Transformer

_MIXERS = {
    "softmax_attention": "softmax",
    "linear_attention": "linear",
    "linear_attention_rms_head": "linear_rms_head",
    "linear_hypatt": "hyla",
    "linear_hypatt_no_rms_head": "hyla_no_rms_head",
    "linear_hypatt_mlp_linear": "hyla_no_relu",
    "linear_hypatt_mlp_linear_no_rms_head": "hyla_no_relu_no_rms_head",
    "softmax_hypatt": "hyla_softmax",
}
_FEED_FORWARDS: dict[str, tuple[Literal["gelu", "swiglu"], tuple[str, ...]]] = {
    "gelu_mlp": ("gelu", ("up", "down")),
    "swiglu": ("swiglu", ("gate", "up", "down")),
}


def release_config(config: Mapping[str, Any], n_inputs: int | None = None) -> TransformerConfig:
    """Translate an entry of the golden arrays' index.json.

    Raises: ValueError for a mixer, feed-forward or norm of the release that this package does not have.
    """
    if config["norm"] != "layer" or config["share_params_over_layers"] or not config["use_relative_position"]:
        raise ValueError("only LayerNorm, unshared layers and relative positions can be loaded")
    kind = _FEED_FORWARDS[choose("state_mixer", config["state_mixer"], _FEED_FORWARDS)][0]
    return TransformerConfig(
        variant=_MIXERS[choose("sequence_mixer", config["sequence_mixer"], _MIXERS)], feed_forward=kind,
        n_layers=config["num_layers"], d_model=config["emb_dim"], n_heads=config["num_heads"],
        qk_dim=config["qk_dim"], v_dim=config["v_dim"], d_ff=config["mlp_dim"],
        n_positions=config["relative_position_max_dist"], causal=config["use_causal_mask"],
        n_inputs=n_inputs, n_outputs=config.get("output_dim"), vocab_size=config.get("vocab_size"),
    )  # fmt: skip


def to_state_dict(params: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Rearrange arrays of the release (parameters or their gradients) to this package's names and layout.

    Args:
        params: arrays by the release's path, with or without the prefix `param:` or `grad:`.

    Raises: ValueError naming a path that is missing.
    """
    arrays = {path.rpartition(":")[2]: np.asarray(array, np.float32) for path, array in params.items()}

    def get(path: str, pattern: str = "... -> ...") -> np.ndarray:
        if path not in arrays:
            raise ValueError(f"parameter {path!r} is missing: the release stores one for this configuration")
        return rearrange(arrays[path], pattern)

    def dense(ours: str, theirs: str) -> None:
        state[f"{ours}.weight"] = get(f"{theirs}/kernel", "i o -> o i")
        if f"{theirs}/bias" in arrays:
            state[f"{ours}.bias"] = get(f"{theirs}/bias")

    def norm(ours: str, theirs: str) -> None:
        state[f"{ours}.weight"], state[f"{ours}.bias"] = get(f"{theirs}/scale"), get(f"{theirs}/bias")

    state: dict[str, np.ndarray] = {}
    if "vocab_size" in config:
        state["embedding.weight"] = get("embedding/embedding")
    else:
        dense("embedding", "embedding")
        dense("read_out", "logitdense")
    norm("norm", "decoder_norm")
    for layer in range(config["num_layers"]):
        ours, theirs = f"blocks.{layer}", f"transformer_block_{layer}"
        norm(f"{ours}.norm1", f"{theirs}/norm1")
        norm(f"{ours}.norm2", f"{theirs}/norm2")
        state[f"{ours}.position.table"] = get(f"{theirs}/relative_embedding/rel_embedding")
        mixer, names = f"{theirs}/sequence_mixer", ("query", "key", "value")
        kernels = [get(f"{mixer}/{name}/kernel", "m h d -> (h d) m") for name in names]
        state[f"{ours}.attention.in_proj_weight"] = np.concatenate(kernels)
        biases = [get(f"{mixer}/{name}/bias", "h d -> (h d)") for name in names]
        state[f"{ours}.attention.in_proj_bias"] = np.concatenate(biases)
        state[f"{ours}.attention.out_proj.weight"] = get(f"{mixer}/out/kernel", "h d m -> m (h d)")
        state[f"{ours}.attention.out_proj.bias"] = get(f"{mixer}/out/bias")
        for index, name in enumerate(_FEED_FORWARDS[config["state_mixer"]][1]):
            dense(f"{ours}.feed_forward.{name}", f"{theirs}/state_mixer/Dense_{index}")
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def load_release(params: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Transformer:
    """Build the Transformer of a release configuration with the release's parameters.

    Args:
        params: arrays by path, for example `dict(numpy.load(file))`; other entries than parameters are ignored.
        config: the release's settings as in index.json of the golden arrays.

    Returns: a float32 Transformer on the CPU, in evaluation mode.
    Raises: ValueError for a missing parameter or a configuration this package does not have.
    """
    prefixed = {path: array for path, array in params.items() if path.startswith("param:")}
    params = prefixed or params
    state = to_state_dict(params, config)
    n_inputs = state["embedding.weight"].shape[1] if "vocab_size" not in config else None
    model = Transformer(release_config(config, n_inputs))
    model.load_state_dict(state)
    return model.eval()
