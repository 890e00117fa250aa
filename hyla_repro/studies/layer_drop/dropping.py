"""Dropping modules: in which order, what is left, and how its score falls (He et al., sections 3 to 5)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from math import comb
from typing import Any, TypeVar

import torch
from torch import nn

from hyla_repro.counter_rng import CounterRNG
from hyla_repro.errors import choose, whole_number
from hyla_repro.studies.layer_drop.layers import TARGETS, Module, candidates, find_layers
from hyla_repro.studies.layer_drop.scoring import first, importance

METHODS = ("score", "reverse", "random")
_MOST_SUBSETS = 4096
Score = TypeVar("Score")


def drop_order(
    scores: Mapping[Module, float], target: str = "joint", method: str = "score", seed: int = 0
) -> list[Module]:
    """Return the modules of a kind in the order in which they are dropped.

    Args:
        scores: what `importance` returns, of either measure.
        target: "attn", "mlp" or "block"; "joint" sorts attentions and MLPs by one scale, attentions first where equal.
        method: "score", least important first; "reverse", deepest first; "random", by the seed.

    Raises: ValueError for an unknown target or method, or without scores of the target.
    Source: He et al., sections 3 and 7, and their appendix on other metrics.
    Differs: equal scores keep the order of layers.
    """
    kinds = TARGETS[choose("target", target, TARGETS)]
    modules = sorted((module for module in scores if module[0] in kinds), key=lambda m: (kinds.index(m[0]), m[1]))
    if not modules:
        raise ValueError(f"scores hold nothing of target={target!r}: blocks have scores with residual=True alone")
    if choose("method", method, METHODS) == "score":
        return sorted(modules, key=lambda module: scores[module])
    if method == "reverse":
        return sorted(modules, key=lambda module: (module[1], kinds.index(module[0])), reverse=True)
    order = CounterRNG(seed, "drop_order").permutations(0, 1, len(modules))[0]
    return [modules[place] for place in order.tolist()]


@contextmanager
def dropped(model: nn.Module, modules: Iterable[Module]) -> Iterator[nn.Module]:
    """Take modules out of a network: the stream passes them unchanged. Leaving the context puts them back.

    Norm, sublayer and residual connection go together, and ("block", l) is both sublayers of layer l. What remains
    keeps its place, so positions and caches stay as they were. Outputs are computed and not added, so that this saves
    no time: it says what a network without them would answer.

    Args:
        modules: such as ("attn", 3); none changes nothing.

    Raises: ValueError for an unknown kind or a layer that the model lacks.
    """
    layers = find_layers(model)
    with ExitStack() as hooks:
        for kind, layer in sorted(sublayers(modules, len(layers))):
            # First of all hooks, so that whoever watches the module sees what it adds now.
            handle = getattr(layers[layer], kind).register_forward_hook(_silence, prepend=True)
            hooks.callback(handle.remove)
        yield model


def sublayers(modules: Iterable[Module], n_layers: int) -> set[Module]:
    """Return the attentions and MLPs that modules are made of, checked.

    Raises: ValueError for an unknown kind or a layer out of range.
    """
    found: set[Module] = set()
    for kind, layer in modules:
        choose("kind of module", kind, ("attn", "mlp", "block"))
        place = whole_number("layer", layer, 0, "layers count from 0", n_layers - 1)
        found |= {(part, place) for part in (("attn", "mlp") if kind == "block" else (kind,))}
    return found


def _silence(module: nn.Module, inputs: Any, output: Any) -> Any:
    silent = torch.zeros_like(first(output))
    return (silent, *output[1:]) if isinstance(output, tuple) else silent


def drop_curve(
    model: nn.Module, order: Sequence[Module], evaluate: Callable[[nn.Module], Score]
) -> list[Score]:  # fmt: skip
    """Return what evaluate says of the whole model and after each further module of an order is dropped.

    Args:
        model: as `importance` takes it; it is whole again afterwards.
        order: the modules, first to go first, as `drop_order` returns them.
        evaluate: a function of the model, which returns a score or whatever is wanted of it.

    Returns: len(order) + 1 values.
    """
    scores = []
    for n in range(len(order) + 1):
        with dropped(model, order[:n]):
            scores.append(evaluate(model))
    return scores


def iterative_drop(
    model: nn.Module, n: int, batches: Sequence[Any], target: str = "joint", **options: Any
) -> list[Module]:
    """Return the order that comes of dropping the least important module and scoring what is left, n times.

    Args:
        model: as `importance` takes it; it is whole again afterwards.
        n: how many modules to drop.
        batches: calibration batches, read n times.
        target: "attn", "mlp", "block", or "joint" for attentions and MLPs.
        options: those of `importance`.

    Raises: ValueError for an n that is not from 0 to the number of the target's modules, and as `importance` does.
    Differs: the authors' loop, as released, scores attentions without the MLPs of the layers whose attention was
        dropped, and MLPs without their attentions; here the network that is left is scored.
    """
    available = candidates(choose("target", target, TARGETS), len(find_layers(model)))
    order: list[Module] = []
    for _ in range(whole_number("n", n, 0, f"there are {len(available)} modules to drop", len(available))):
        with dropped(model, order):
            scores = importance(model, batches, **options)
        order.append(drop_order({module: scores[module] for module in available if module not in order}, target)[0])
    return order


def oracle(
    model: nn.Module, evaluate: Callable[[nn.Module], Score], target: str = "joint", largest: int | None = None
) -> dict[tuple[Module, ...], Score]:
    """Return what evaluate says after each subset of the modules is dropped: the best of a size bounds every order.

    Args:
        model: as `importance` takes it; it is whole again afterwards.
        evaluate: a function of the model, which returns a score or whatever is wanted of it.
        target: "attn", "mlp", "block", or "joint" for attentions and MLPs.
        largest: size of the largest subsets; all if None.

    Returns: by subset, a tuple of modules such as ("attn", 3).

    Raises: ValueError for an unknown target, more than 4096 subsets, or a size out of range.
    """
    scores = {}
    for subset in subsets(candidates(choose("target", target, TARGETS), len(find_layers(model))), largest):
        with dropped(model, subset):
            scores[subset] = evaluate(model)
    return scores


def subsets(modules: Sequence[Module], largest: int | None = None) -> list[tuple[Module, ...]]:
    """Return the subsets of modules up to a size, all if None, small ones first.

    Raises: ValueError for more than 4096 subsets, or a size out of range.
    """
    reason = f"there are {len(modules)} modules to drop"
    sizes = range(1 + whole_number("largest", len(modules) if largest is None else largest, 0, reason, len(modules)))
    count = sum(comb(len(modules), size) for size in sizes)
    if count > _MOST_SUBSETS:
        raise ValueError(f"{count} subsets of {len(modules)} modules are too many: set largest to 1 or 2")
    return [subset for size in sizes for subset in combinations(modules, size)]


def best_subsets(scores: Mapping[tuple[Module, ...], float]) -> list[tuple[Module, ...]]:
    """Return the subset with the highest score of each size, from none upwards; the first of equal ones."""
    best: dict[int, tuple[Module, ...]] = {}
    for subset, score in scores.items():
        if len(subset) not in best or score > scores[best[len(subset)]]:
            best[len(subset)] = subset
    return [best[size] for size in sorted(best)]
