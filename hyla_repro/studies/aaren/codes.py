"""Whether the logarithm of a trained model's code is a term of the key less a term of the query."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer, load_model
from hyla_repro.tasks.series import SeriesBatch

_SERIES = 100


def double_differences(
    code: Float[Tensor, "b h q k"], padding: Bool[Tensor, "b k"]
) -> tuple[Float[Tensor, "b h _ _"], Bool[Tensor, "b 1 _ _"]]:
    """Return log code[q+1,k+1] - log code[q+1,k] - log code[q,k+1] + log code[q,k], and where all four are there.

    They are 0 for a sum of a term of the key and a term of the query, whatever the terms are.

    Args:
        code: of causal attention, positive up to the diagonal.
    """
    queries, keys = code.shape[-2:]
    visible = torch.ones(queries, keys, dtype=torch.bool).tril() & ~padding[:, None, None] & ~padding[:, None, :, None]
    logs = code.masked_fill(~visible, 1.0).log()
    present = visible[..., :-1, :-1] & visible[..., :-1, 1:] & visible[..., 1:, 1:]
    differences = logs[..., 1:, 1:] - logs[..., 1:, :-1] - logs[..., :-1, 1:] + logs[..., :-1, :-1]
    return differences.masked_fill(~present, 0.0), present


def code_table(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> pd.DataFrame:
    """Return how far the code of each layer is from separable, over the first hundred test series.

    Returns: one row per run, model (`trained` or `untrained`) and layer: `residual`, the root mean square of the double
        differences over heads, in nats.
    """
    rows = []
    for run, content in zip(runs, weights, strict=True):
        models = {"trained": load_model(content, run.model), "untrained": Transformer(run.model).initialize(run.seed)}
        for name, model in models.items():
            codes, batch = _codes(model, run, _SERIES)
            for layer, code in enumerate(codes, 1):
                differences, present = double_differences(code, batch.padding)
                square = differences.square().sum() / (present.sum() * code.shape[1])
                rows.append({"id": run.id, "model": name, "layer": layer, "residual": square.sqrt().item()})
    return pd.DataFrame(rows).round(5)


def matrix_table(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> pd.DataFrame:
    """Return the log code of the last layer's first head on the longest of the first hundred test series.

    Returns: one row per run, query and key up to it: `log_code`, in nats.
    """
    rows = []
    for run, content in zip(runs, weights, strict=True):
        codes, batch = _codes(load_model(content, run.model), run, _SERIES)
        lengths = (~batch.padding).sum(1)
        longest, length = int(lengths.argmax()), int(lengths.max())
        logs = codes[-1][longest, 0].log().numpy()
        rows += [{"id": run.id, "query": q, "key": k, "log_code": logs[q, k]}
                 for q, k in zip(*np.tril_indices(length), strict=True)]  # fmt: skip
    return pd.DataFrame(rows).round(4)


@torch.no_grad()
def _codes(model: Transformer, run: Experiment, series: int) -> tuple[list[Tensor], SeriesBatch]:
    """Return the codes of every layer in float64, and the series that they are of."""
    batch = run.build_task().batch("test", 0, series)
    assert isinstance(batch, SeriesBatch)
    _, codes = model.double()(batch.inputs.double(), return_codes=True, padding=batch.padding)
    return list(codes), batch
