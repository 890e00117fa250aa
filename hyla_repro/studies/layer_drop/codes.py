"""Trained models without some of their modules: scores, accuracies along orders of dropping, and what codes do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from hyla_repro.attention import NORMALIZERS, HypernetworkAttention
from hyla_repro.attention.masks import Masked
from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer, load_model
from hyla_repro.studies.layer_drop.dropping import best_subsets, drop_order, dropped, iterative_drop, sublayers, subsets
from hyla_repro.studies.layer_drop.layers import TARGETS, Module, candidates, find_layers
from hyla_repro.studies.layer_drop.scoring import importance
from hyla_repro.tasks.language import Language
from hyla_repro.training.stack import CHUNK

# Every subset is tried of models up to this depth; of deeper ones those of one and two modules.
WHOLE_ORACLE = 4
RANDOM_ORDERS = 5
_SEQUENCES = {"sraven": 1000, "language": 50}
SPLITS = ("test", "heldout")


class Scored(NamedTuple):
    """What a network gets: accuracy on training and on held-out tasks, in [0, 1], and loss on the former in nats."""

    test: float
    heldout: float
    loss: float


class Subject:
    """A trained model, the batches that score its modules, and those that it is evaluated on.

    Args:
        sequences: of each evaluation split; as many calibrate. The tables' if None, or a fifth of the run's own.
    """

    def __init__(self, run: Experiment, weights: bytes, device: str = "cpu", sequences: int | None = None) -> None:
        self.run, self.task = run, run.build_task()
        self.model: Transformer = load_model(weights, run.model).to(device)
        self._device = device
        self._sequences = sequences or min(_SEQUENCES[run.task_name], run.evaluation_sequences // 5)
        self._known: dict[frozenset[Module], Scored] = {}

    def batches(self, split: str, first_step: int = 0) -> list[Any]:
        """Return the batches of a split from a step of its stream."""
        sizes = [min(CHUNK, self._sequences - start) for start in range(0, self._sequences, CHUNK)]
        return [self.task.batch(split, first_step + step, size, self._device) for step, size in enumerate(sizes)]

    @cached_property
    def calibration(self) -> list[Tensor]:
        """Inputs of training tasks that the model was not trained on: those of the steps after its last."""
        return [batch.inputs for batch in self.batches("train", self.run.steps)]

    @cached_property
    def _evaluation(self) -> dict[str, list[Any]]:
        return {split: self.batches(split) for split in SPLITS}

    @torch.no_grad()
    def evaluate(self) -> Scored:
        """Return what the model gets as it is now."""
        found: dict[str, float] = {}
        for split, batches in self._evaluation.items():
            right, losses, sizes = [], [], []
            for batch in batches:
                outputs = self.model(batch.inputs, last=self.task.n_read)
                right.append(self._accuracy(outputs, batch))
                losses.append(self.task.loss(outputs, batch).item())
                sizes.append(len(batch.inputs))
            found[split] = float(np.average(right, weights=sizes))
            found.setdefault("loss", float(np.average(losses, weights=sizes)))
        return Scored(**found)

    def _accuracy(self, outputs: Tensor, batch: Any) -> float:
        # A score is a loss on language, where the share of characters that are likeliest is as plain as SRAVEN's.
        if isinstance(self.task, Language):
            return (outputs.argmax(-1) == batch.targets).double().mean().item()
        return self.task.score(outputs, batch).double().mean().item()

    def without(self, modules: Sequence[Module]) -> Scored:
        """Return what is left without some modules; asked again, from memory."""
        key = frozenset(sublayers(modules, self.run.model.n_layers))
        if key not in self._known:
            with dropped(self.model, modules):
                self._known[key] = self.evaluate()
        return self._known[key]

    @cached_property
    def scores(self) -> dict[Module, float]:
        """The importance of every module."""
        return importance(self.model, self.calibration)


def chance(run: Experiment) -> float:
    """Return the accuracy of the best constant answer: of guessing all symbols, or of the most frequent character."""
    task = run.build_task()
    if isinstance(task, Language):
        targets = torch.cat([task.batch("train", step, CHUNK).targets for step in range(2)])
        return (torch.bincount(targets.flatten()).max() / targets.numel()).item()
    return float(run.task["n_values"]) ** -run.task["n_features"]


# --- the code of a layer --------------------------------------------------------------------------------------


def _zero(code: Tensor, visible: Tensor) -> Tensor:
    return torch.zeros_like(code)


def _uniform(code: Tensor, visible: Tensor) -> Tensor:
    """Give every visible key what the query gives its keys on average, over all sequences: mixing without a choice."""
    total, count = (reduce(x, "b h q k -> 1 h q 1", "sum") for x in (code, visible))
    return visible * total / count.clamp(min=1)


REPLACED = {"zero": _zero, "uniform": _uniform}


@contextmanager
def replaced_code(model: Transformer, layer: int, how: str) -> Iterator[None]:
    """Put another code in the place of a layer's own: zero, or one that does not depend on what tokens hold.

    Args:
        how: a key of REPLACED. A uniform code of softmax attention is 1 / keys.

    Raises: ValueError for an unknown way.
    """
    replace = REPLACED[choose("code", how, REPLACED)]
    attention = find_layers(model)[layer].attn
    assert isinstance(attention, HypernetworkAttention)
    own, name = attention.normalizer, f"{how} in the place of {attention.normalizer}"

    def normalizer(scores: Float[Tensor, "b h q k"], masked: Masked = None) -> Float[Tensor, "b h q k"]:
        code = NORMALIZERS[own](scores, masked)
        visible = torch.ones_like(code) if masked is None else (~masked).expand(code.shape).to(code.dtype)
        return replace(code, visible)

    NORMALIZERS[name], attention.normalizer = normalizer, name
    try:
        yield
    finally:
        attention.normalizer = own
        del NORMALIZERS[name]


def code_dimension(codes: Float[Tensor, "n h"]) -> float:
    """Return how many directions the variance of codes spreads over, from 1 to the number of heads; 0 for a constant.

    The participation ratio (sum of eigenvalues)^2 / sum of squared eigenvalues of the covariance.
    """
    values = torch.linalg.eigvalsh(torch.cov(codes.double().T)).clamp(min=0)
    total, scale = values.sum(), codes.double().square().mean()
    # What rounding leaves of the variance of a constant code has no direction.
    return (total**2 / values.square().sum()).item() if total > 1e-10 * scale else 0.0


def code_variation(codes: Float[Tensor, "n h"]) -> float:
    """Return which share of the codes' mean square varies from pair to pair, in [0, 1]."""
    codes = codes.double()
    return (codes.var(0, correction=0).sum() / codes.square().mean(0).sum().clamp(min=1e-30)).item()


@torch.no_grad()
def _pair_codes(subject: Subject) -> list[Float[Tensor, "n h"]]:
    """Return the codes of every visible pair of some sequences, by layer."""
    inputs = subject.calibration[0][:50]
    _, layers = subject.model(inputs, return_codes=True)
    found = []
    for code in layers:
        pairs = rearrange(code, "b h q k -> q k b h")
        visible = torch.ones(pairs.shape[:2], dtype=torch.bool, device=code.device)
        found.append(rearrange(pairs[visible.tril() if subject.run.model.causal else visible], "p b h -> (p b) h"))
    return found


# --- tables ---------------------------------------------------------------------------------------------------


def score_table(
    runs: Sequence[Experiment],
    weights: Sequence[Mapping[int, bytes]],
    device: str = "cpu",
    sequences: int | None = None,
) -> pd.DataFrame:
    """Score every attention, MLP and block; of models that kept their weights along training also before it, at step 0.

    Returns: one row per run, step, kind and layer from 0: `score` over all tokens, `read` over those that are read out,
        `bare` without the residual, `magnitude`; for attention also `dimension` and `variation` of its codes, and at
        the last step `zero` and `uniform`, the accuracy on training tasks with that code in the place of its own.
    """
    rows = []
    weights = [{**_before_training(run), **by_step} if len(by_step) > 1 else by_step
               for run, by_step in zip(runs, weights, strict=True)]  # fmt: skip
    for subject, step in _subjects(runs, weights, device, sequences):
        model, inputs = subject.model, subject.calibration
        read = torch.arange(inputs[0].shape[1]) >= inputs[0].shape[1] - subject.task.n_read
        columns = {
            "score": subject.scores, "read": importance(model, inputs, token_mask=read),
            "bare": importance(model, inputs, residual=False),
            "magnitude": importance(model, inputs, measure="magnitude"),
        }  # fmt: skip
        codes = _pair_codes(subject)
        for kind, layer in subject.scores:
            row = {name: scores.get((kind, layer), np.nan) for name, scores in columns.items()}
            if kind == "attn":
                row |= {"dimension": code_dimension(codes[layer]), "variation": code_variation(codes[layer])}
                if step == subject.run.steps:
                    row |= {how: _with_code(subject, layer, how) for how in REPLACED}
            rows.append({"id": subject.run.id, "step": step, "kind": kind, "layer": layer, **row})
    return pd.DataFrame(rows).round(8)


def _before_training(run: Experiment) -> dict[int, bytes]:
    return {0: safetensors.torch.save(dict(Transformer(run.model).initialize(run.seed).state_dict()))}


def _with_code(subject: Subject, layer: int, how: str) -> float:
    with replaced_code(subject.model, layer, how):
        return subject.evaluate().test


def _subjects(
    runs: Sequence[Experiment], weights: Sequence[Mapping[int, bytes]], device: str, sequences: int | None
) -> Iterator[tuple[Subject, int]]:
    for run, by_step in zip(runs, weights, strict=True):
        for step, content in by_step.items():
            yield Subject(run, content, device, sequences), step


def curve_table(
    runs: Sequence[Experiment],
    weights: Sequence[Mapping[int, bytes]],
    device: str = "cpu",
    sequences: int | None = None,
) -> pd.DataFrame:
    """Evaluate models along orders of dropping.

    Returns: one row per run, step, target, order and number of modules dropped (`n`): which, such as `attn0 mlp3`,
        layers from 0, `test`, `heldout` and `loss` as in `Scored`, and `chance`. At every step the target's own order
        by `score`; at the last one also random ones, of attention and of MLPs `bare`, `magnitude`, `reverse` and
        `iterative`, `single`, where each module is dropped alone, and of both together `oracle`, the best subset of
        each size on training tasks, up to two modules of deep models. Curves end at as many modules as there are
        layers.
    """
    rows, floors = [], {run.id: chance(run) for run in runs}
    for subject, step in _subjects(runs, weights, device, sequences):
        for target, order, modules in _orders(subject, last=step == subject.run.steps):
            found = subject.without(modules)
            names = " ".join(f"{kind}{layer}" for kind, layer in modules)
            rows.append({"id": subject.run.id, "step": step, "target": target, "order": order, "n": len(modules),
                         "dropped": names or "none", **found._asdict(), "chance": floors[subject.run.id]})  # fmt: skip
    return pd.DataFrame(rows).round(5)


def _orders(subject: Subject, last: bool) -> Iterator[tuple[str, str, tuple[Module, ...]]]:
    """Yield target, name of the order and what is dropped, for every point of every curve."""
    depth = subject.run.model.n_layers
    for target in TARGETS:
        named = {"score": drop_order(subject.scores, target)}
        if last and target != "block":
            named |= _other_orders(subject, target)
        for name, order in named.items():
            for n in range(depth + 1):
                yield target, name, tuple(order[:n])
    if last:
        for module in subject.scores:
            yield module[0], "single", (module,)
        every = subsets(candidates("joint", depth), None if depth <= WHOLE_ORACLE else 2)
        for subset in best_subsets({subset: subject.without(subset).test for subset in every}):
            yield "joint", "oracle", subset


def _other_orders(subject: Subject, target: str) -> dict[str, list[Module]]:
    model, inputs, scores = subject.model, subject.calibration, subject.scores
    orders = {f"random {seed}": drop_order(scores, target, "random", seed) for seed in range(RANDOM_ORDERS)}
    if target == "joint":
        return orders
    return orders | {
        "bare": drop_order(importance(model, inputs, residual=False), target),
        "magnitude": drop_order(importance(model, inputs, measure="magnitude"), target),
        "reverse": drop_order(scores, target, "reverse"),
        "iterative": iterative_drop(model, subject.run.model.n_layers, inputs, target),
    }
