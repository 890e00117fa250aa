"""Heads of trained fuzzy-logic models: their scores in surrogates with frozen attention, their cost and their codes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Block, Transformer, load_model
from hyla_repro.studies.attention_paths.inputs import Prior, head_scores, path_inputs
from hyla_repro.studies.attention_paths.theory import gp_order_parameter, predict, solve
from hyla_repro.studies.codes import as_features, linear_probe
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic

# A surrogate learns from so many sequences, and is tried on as many others of the same functions.
_EXAMPLES, _TESTS, _TEMPERATURE = 100, 500, 0.1
# Sequences that the trained model is scored on without a head, and those that the probe of terms is fitted on.
_SEQUENCES, _PROBED = 500, 2_000
# The action is flat near its minimum where paths are many, and scores need three digits.
_TOLERANCE = 1e-5
# Methods that apply their code twice: a path goes through a pair of heads in each layer.
_TWICE = ("hyla", "hyla_no_relu")


class Seen(NamedTuple):
    """What a model does with sequences: every layer's normalised input and code, and what it should answer.

    Args:
        inputs, codes: of each layer; codes of all queries.
        labels: +1 where the target is above its median over these sequences, else -1.
    """

    inputs: list[Float[Tensor, "b t m"]]
    codes: list[Float[Tensor, "b h t t"]]
    labels: Float[Tensor, " b"]


class Surrogate(NamedTuple):
    """A network of the theory with the attention of a trained model.

    Args:
        layers: of the trained model, whose heads are scored.
        twice: whether each layer applies its code twice, and so has a path for every pair of heads.
    """

    layers: tuple[int, ...]
    twice: bool

    def paths(self, seen: Seen) -> Float[Tensor, "b p m"]:
        """Return what the paths read of a model's sequences, at the last token."""
        codes = [seen.codes[layer] for layer in self.layers]
        if self.twice:
            pairs = (einsum(code, code, "b h q k, b g q k -> b h g q k") for code in codes)
            codes = [rearrange(pair, "b h g q k -> b (h g) q k") for pair in pairs]
        return path_inputs(seen.inputs[self.layers[0]], codes)

    def prior(self, n_heads: int, width: int) -> Prior:
        """Return the prior of a network of this width, or as wide as it has paths: the theory needs no fewer.

        A layer that applies its code twice is two of the theory's.
        """
        heads = (n_heads,) * (len(self.layers) * (1 + self.twice))
        return Prior.equal(heads, max(width, prod(heads)))

    def scores(self, order_parameter: Tensor, n_heads: int) -> Float[Tensor, "l h"]:
        """Return each head's score by layer; where the code is applied twice, the sum of both, largest 1."""
        scores = torch.stack(head_scores(order_parameter, (n_heads,) * (len(self.layers) * (1 + self.twice))))
        scores = reduce(scores, "(l n) h -> l h", "sum", l=len(self.layers))
        return scores / scores.max()


def head_table(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> pd.DataFrame:
    """Return one row per run, surrogate, layer and head.

    Args:
        runs: fuzzy-logic runs.
        device: ignored: the theory is solved on the CPU.

    Returns: `score`, of the head in the surrogate; the trained model's fall of R² on held-out functions without the
        head's code (`drop`), and with the other heads multiplied by sqrt(H / (H - 1)) besides (`drop_rescaled`);
        `probe`, the mean size of the head's coefficient over probes of terms from that layer's standardised code; and
        of the surrogate its `accuracy` in percent, that of infinite width (`infinite`), and `participation`,
        (Tr U)² / Tr U² over the number of paths.
    """
    tables = [_of_run(run, load_model(content, run.model)) for run, content in zip(runs, weights, strict=True)]
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def _of_run(run: Experiment, model: Transformer) -> pd.DataFrame:
    cost, probes, rows = _costs(run, model), _probes(run, model), []
    train, test = _see(run, model, 0, _EXAMPLES), _see(run, model, 1, _TESTS)
    for name, surrogate in _surrogates(run):
        facts, scores = _solve(surrogate, run, train, test)
        for layer, own in zip(surrogate.layers, scores.tolist(), strict=True):
            for head, score in enumerate(own):
                rows.append({"id": run.id, "surrogate": name, "layer": layer + 1, "head": head, "score": score,
                             **cost[layer][head], "probe": probes[layer][head], **facts})  # fmt: skip
    return pd.DataFrame(rows).round(6)


def _surrogates(run: Experiment) -> list[tuple[str, Surrogate]]:
    """Return a surrogate of each layer, and of all layers where they have few enough paths."""
    twice, layers = run.method in _TWICE, range(run.model.n_layers)
    single = [("one layer", Surrogate((layer,), twice)) for layer in layers]
    return single if twice else [*single, ("all layers", Surrogate(tuple(layers), twice))]


def _blocks(model: Transformer) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _see(run: Experiment, model: Transformer, step: int, size: int) -> Seen:
    batch, inputs = run.build_task().batch("test", step, size), []
    hooks = [block.norm1.register_forward_hook(lambda _, __, normed: inputs.append(normed)) for block in _blocks(model)]
    _, codes = model(batch.inputs, return_codes=True)
    for hook in hooks:
        hook.remove()
    high = batch.targets[:, 0] > batch.targets[:, 0].median()
    labels = 2 * high.double() - 1
    return Seen([x.double() for x in inputs], [code.double() for code in codes], labels)


def _solve(surrogate: Surrogate, run: Experiment, train: Seen, test: Seen) -> tuple[dict[str, float], Tensor]:
    """Return facts of a surrogate and the scores of its heads."""
    first, second = surrogate.paths(train), surrogate.paths(test)
    # Codes of different methods differ in size, and the noise of the labels should weigh the same for all.
    scale = first.square().mean().sqrt()
    first, second, prior = first / scale, second / scale, surrogate.prior(run.model.n_heads, run.model.v_dim)
    with torch.enable_grad():
        found = solve(first, train.labels, _TEMPERATURE, prior, _TOLERANCE).paths
    accuracy, infinite = (
        predict(u, first, train.labels, second, _TEMPERATURE).accuracy(test.labels)
        for u in (found, gp_order_parameter(prior)[0])
    )
    participation = (found.trace() ** 2 / found.square().sum() / len(found)).item()
    facts = {"accuracy": accuracy, "infinite": infinite, "participation": participation}
    return facts, surrogate.scores(found, run.model.n_heads)


def _costs(run: Experiment, model: Transformer) -> list[list[dict[str, float]]]:
    """Return by how much R² on held-out functions falls without each head, by layer."""
    task, n_heads = run.build_task(), run.model.n_heads
    batch = task.batch("heldout", 0, _SEQUENCES)

    def score() -> float:
        return task.score(model(batch.inputs, last=task.n_read), batch).double().mean().item()

    whole, rescale = score(), (n_heads / max(n_heads - 1, 1)) ** 0.5
    costs: list[list[dict[str, float]]] = []
    for block in _blocks(model):
        costs.append([])
        for head in range(n_heads):
            falls = []
            for others in (1.0, rescale):
                with _code_scaled(block.attention, _without(head, n_heads, others)):
                    falls.append(whole - score())
            costs[-1].append(dict(zip(("drop", "drop_rescaled"), falls, strict=True)))
    return costs


def _without(head: int, n_heads: int, others: float) -> Float[Tensor, "1 h 1 1"]:
    scales = torch.full((n_heads,), others)
    scales[head] = 0.0
    return rearrange(scales, "h -> 1 h 1 1")


@contextmanager
def _code_scaled(attention: nn.Module, scale: Tensor) -> Iterator[None]:
    """Multiply the normalised code of an attention layer inside this context."""

    def set_scale(_: nn.Module, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**options, "code_scale": scale}

    hook = attention.register_forward_pre_hook(set_scale, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _probes(run: Experiment, model: Transformer) -> list[list[float]]:
    """Return the mean size of each head's coefficient in probes of terms, by layer, with a fixed query."""
    task = run.build_task()
    assert isinstance(task, FuzzyLogic)
    batch = task.batch("train_fixed_query", 0, _PROBED)
    _, codes = model(batch.inputs, return_codes=True)
    return [_probe(as_features(code[:, :, -1, -1]), batch.terms) for code in codes]


def _probe(features: Float[np.ndarray, "b h"], terms: Int[Tensor, "b k"]) -> list[float]:
    labels = [(terms == term).any(-1).numpy() for term in terms.unique()]
    sizes = [np.abs(linear_probe().fit(features, label)[-1].coef_[0]) for label in labels]
    return np.mean(sizes, axis=0).tolist()
