"""How far the outputs of a trained model's heads are from each other."""

from collections.abc import Sequence

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from hyla_repro.attention import HypernetworkAttention, head_distance
from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer, load_model
from hyla_repro.tasks.series import SeriesBatch


@torch.no_grad()
def head_outputs(
    model: Transformer, inputs: Tensor, padding: Bool[Tensor, "b t"] | None = None
) -> list[Float[Tensor, "b h t d"]]:
    """Return what the heads of every layer put out, before they are mixed."""
    found: list[Tensor] = []
    heads = model.config.n_heads

    def keep(_: torch.nn.Module, arguments: tuple[Tensor]) -> None:
        found.append(rearrange(arguments[0], "b t (h d) -> b h t d", h=heads))

    layers = [module.out_proj for module in model.modules() if isinstance(module, HypernetworkAttention)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        model(inputs, padding=padding)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def distance_table(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> pd.DataFrame:
    """Return the distances between heads over all test series.

    Returns: one row per run, model (`trained` or `untrained`) and layer: `distance` and `unit_distance`, the means over
        tokens and pairs of heads of the outputs' distance, as they are and at length 1; `length`, the mean length of
        a head's output.
    """
    rows = []
    for run, content in zip(runs, weights, strict=True):
        batch = run.build_task().batch("test", 0, run.evaluation_sequences)
        assert isinstance(batch, SeriesBatch)
        models = {"trained": load_model(content, run.model), "untrained": Transformer(run.model).initialize(run.seed)}
        for name, model in models.items():
            for layer, outputs in enumerate(head_outputs(model, batch.inputs, batch.padding), 1):
                raw, unit = (head_distance(outputs, normalise, batch.padding).item() for normalise in (False, True))
                length = rearrange(outputs.norm(dim=-1), "b h t -> b t h")[~batch.padding].mean().item()
                rows.append({"id": run.id, "model": name, "layer": layer, "distance": raw, "unit_distance": unit,
                             "length": length})  # fmt: skip
    return pd.DataFrame(rows).round(4)
