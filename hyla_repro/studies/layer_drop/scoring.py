"""How much a module changes the residual stream, by the cosine between before and after it (He et al., section 3)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.errors import choose
from hyla_repro.studies.layer_drop.layers import Layer, Module, find_layers

Stream = Float[Tensor, "*tokens m"]
Visit = Callable[[Module, Stream, Stream], None]
TokenMask = Bool[Tensor, "..."] | Callable[[Any], Bool[Tensor, "..."]]


def cosine_distance(x: Stream, y: Stream) -> Float[Tensor, "*tokens"]:
    """Return 1 - cos(x, y) of every token, in float32: 0 where the stream is only rescaled, 2 where it is flipped."""
    return 1 - F.cosine_similarity(x.float(), y.float(), dim=-1)


def relative_magnitude(x: Stream, y: Stream) -> Float[Tensor, "*tokens"]:
    """Return, for every token, the length of what a module adds divided by that of the result, in float32."""
    x, y = x.float(), y.float()
    return (y - x).norm(dim=-1) / y.norm(dim=-1).clamp(min=1e-8)


MEASURES = {"cosine": cosine_distance, "magnitude": relative_magnitude}


def importance(
    model: nn.Module,
    batches: Iterable[Any],
    residual: bool = True,
    token_mask: TokenMask | None = None,
    measure: str = "cosine",
) -> dict[Module, float]:
    """Return the importance of every attention, MLP and block of a decoder, from one pass over calibration batches.

        S = 1 - mean over tokens of cos(x, y)

    x is the residual stream before the norm, y after the module's output was added. All tokens weigh the same, however
    they are batched. Sums are kept, and no streams: memory does not grow with the tokens.

    Args:
        model: our Transformer, or one of blocks as in LAYOUTS. It is evaluated, and left in the mode that it was in.
        batches: what the model takes; of a mapping, such as a tokenizer gives, its keywords.
        residual: compare streams. Without it, x is the norm's output and y the module's own, which says little: only
            to show that it does; blocks then have no score.
        token_mask: True for tokens that count, (t,), (b, t), or a function of the batch that returns it; all if None.
        measure: "cosine"; "magnitude" is the mean of `relative_magnitude`.

    Returns: by module, such as ("attn", 0): dimensionless, from 0 to 2 for the cosine.
    Raises: ValueError for an unknown measure, a measure that needs the residual, a model of another layout, blocks that
        are not x + f(norm(x)), and for no token at all.
    Source: He et al., equations 1 to 6; their compression/prune/layer_drop.py.
    Differs: they know no mask.
    """
    token_score = MEASURES[choose("measure", measure, MEASURES)]
    if measure == "magnitude" and not residual:
        raise ValueError("measure='magnitude' compares streams: use residual=True")
    sums: dict[Module, Tensor] = {}
    counts: dict[Module, Tensor] = {}
    mask: Tensor | None = None

    def add(module: Module, x: Stream, y: Stream) -> None:
        scores = token_score(x, y)
        counted = _counted(mask, scores)
        # Padding may hold anything, also NaN, which no factor of 0 takes away.
        total, count = torch.where(counted, scores, 0.0).sum(dtype=torch.float64), counted.sum()
        sums[module] = sums[module] + total if module in sums else total
        counts[module] = counts[module] + count if module in counts else count

    with torch.no_grad(), _evaluated(model), watching(model, add, residual):
        for batch in batches:
            mask = token_mask(batch) if callable(token_mask) else token_mask
            model(**batch) if isinstance(batch, Mapping) else model(batch)
    if not sums or not all(counts.values()):
        raise ValueError("no token counts: give at least one batch, and a token_mask that is True somewhere")
    # Rounding may take the cosine of equal vectors above 1.
    return {module: max(0.0, (total / counts[module]).item()) for module, total in sums.items()}


def _counted(mask: Tensor | None, scores: Float[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
    if mask is None:
        return torch.ones_like(scores, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape not in (scores.shape, scores.shape[1:]):
        raise ValueError(
            f"token_mask has shape {tuple(mask.shape)} and dtype {mask.dtype}: give bool of (token,) or "
            f"(batch, token), here {tuple(scores.shape)}"
        )
    return mask.to(scores.device).expand(scores.shape)


@contextmanager
def watching(model: nn.Module, visit: Visit, residual: bool = True) -> Iterator[None]:
    """Call visit(module, x, y) for every module of every forward pass, as soon as y is known.

    Args:
        residual: give the stream before and after; else the norm's output and the module's own, and no blocks.

    Raises: ValueError, in the pass, for blocks that are not x + f(norm(x)).
    """
    with ExitStack() as hooks:
        for index, layer in enumerate(find_layers(model)):
            for handle in _Watch(index, visit, residual).attach(layer):
                hooks.callback(handle.remove)
        yield


class _Watch:
    """The hooks of one layer, which hold what its modules begin with until they end."""

    def __init__(self, index: int, visit: Visit, residual: bool) -> None:
        self.index, self.visit, self.residual = index, visit, residual
        self.held: dict[str, tuple[Tensor, Tensor]] = {}
        self.added: dict[str, Tensor] = {}
        self.checked: set[str] = set()

    def attach(self, layer: Layer) -> list[Any]:
        """Register all hooks, and return their handles."""
        return [
            layer.attn_norm.register_forward_hook(partial(self._start, "attn")),
            layer.attn.register_forward_hook(partial(self._add, "attn")),
            layer.mlp_norm.register_forward_hook(self._between),
            layer.mlp.register_forward_hook(partial(self._add, "mlp")),
            layer.block.register_forward_hook(self._end),
        ]

    def _start(self, kind: str, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.held[kind] = (inputs[0], output)

    def _add(self, kind: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.added[kind] = first(output)

    def _between(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._finish("attn", inputs[0])
        self._start("mlp", norm, inputs, output)

    def _end(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self._finish("mlp", first(output))
        if self.residual:
            self.visit(("block", self.index), self.held["attn"][0], first(output))
        self.held.clear()

    def _finish(self, kind: str, y: Tensor) -> None:
        (x, normed), added = self.held[kind], self.added.pop(kind)
        if kind not in self.checked:
            self._check(kind, x, added, y)
        self.visit((kind, self.index), *((x, y) if self.residual else (normed, added)))

    def _check(self, kind: str, x: Tensor, added: Tensor, y: Tensor) -> None:
        # Half precision rounds the stream to about 0.4 %.
        if x.shape != y.shape or (y - x - added).norm() > 0.02 * (x.norm() + added.norm()):
            raise ValueError(
                f"{kind} of layer {self.index} does not add its own output to the stream: importance is defined for "
                "pre-norm blocks, z = x + attn(norm(x)) and y = z + mlp(norm(z)), read at all tokens"
            )
        self.checked.add(kind)


def first(output: Any) -> Tensor:
    """Return the tensor that goes on, of a module that may return more."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Set a model and its parts to evaluation, and back to what each of them was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
