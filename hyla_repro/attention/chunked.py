"""Attention in blocks of queries and keys: memory grows with the tokens, not with their pairs.

Every output is a sum over keys, so blocks of keys add up. The backward pass computes a block's code again and asks
autograd for this block alone. Only softmax needs a query's other keys: a first pass finds the logarithm of its
denominator, which then is one more input of the sum, with a gradient of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from hyla_repro.attention.masks import Bias, Masked, per_visible_key
from hyla_repro.attention.normalizers import NORMALIZERS
from hyla_repro.attention.value_networks import Activation

Inputs = dict[str, Tensor]
Block = tuple[slice, slice]
# Which of an input's axes after batch and head are those of queries and of keys.
_AXES = {"query": "q", "key": "k", "value": "k", "bias": "qk", "scale": "qk", "inner": "", "total": "q", "masked": "qk"}
_OF_TOTAL = ("query", "key", "bias", "masked")
_OF_MIXED = ("query", "key", "value", "bias", "scale", "inner", "total", "masked")


class _Plan(NamedTuple):
    """What is computed, besides the tensors; the arguments of attend_in_blocks."""

    chunk: int
    causal: bool
    n_added: int
    factor: float
    normalizer: str
    linear: bool
    activation: Activation


def attend_in_blocks(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b h k d"],
    value: Float[Tensor, "b h k e"],
    bias: Bias,
    masked: Masked,
    *,
    normalizer: str,
    value_network: str,
    activation: Activation,
    inner_weight: Float[Tensor, "h e e"] | None = None,
    power: float = 0.0,
    scale: float | None = None,
    code_scale: Bias = None,
    chunk: int,
    causal: bool = False,
    n_added: int = 0,
) -> Float[Tensor, "b h q e"]:
    """Return what each head mixes, as `attend` does, and never hold the code.

    A block has chunk**2 pairs of each sequence, and some ten tensors of h or e numbers for each. Blocks add up in
    float32 or wider. Masks and biases of the caller are sliced.

    HYLA forward and backward, 1024 tokens, 8 heads of width 8, one thread, chunk 256: 0.59 of the plain form's time.
    `torch.utils.checkpoint` around blocks of 64 queries takes 0.65, and memory that grows with the block times the
    keys. A backward pass written by hand for HYLA alone took 0.84 of this form's time; one for all pairs would need a
    derivative for every normaliser and network.

    Args:
        power: divide by this power of the number of keys that a query sees.
        chunk: queries, and keys, of a block.
        causal: a query sees no later token, aligned at the last one; hidden blocks are skipped, and no mask is made.
        n_added: how many of the last keys are no tokens, and seen by every query.

    Raises: ValueError for an activation with parameters.
    Differs: no dropout. Compiled, there is one graph for each length, which holds every block. A
        backward pass must not run inside torch.autograd.graph.saved_tensors_hooks, which torch.func refuses.
    """
    if value_network == "relu_values":
        value = activation(value)
    elif value_network == "hyper_linear":
        activation = _unchanged
    elif value_network != "linear" and activation(value.detach()[:1, :1, :1]).requires_grad:
        raise ValueError(
            f"activation {activation} has parameters, which would get no gradient in blocks of chunk={chunk}: "
            "use one without, or chunk=None"
        )
    plan = _Plan(
        chunk, causal, n_added, query.shape[-1] ** -0.5 if scale is None else scale, normalizer,
        value_network in ("linear", "relu_values"), activation,
    )  # fmt: skip
    if torch.is_autocast_enabled(query.device.type):  # the backward pass runs outside of it
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(half), key.to(half), value.to(half)
    total = _LogSumExp.apply(plan, query, key, bias, masked) if normalizer == "softmax" else None
    mixed = _Mixed.apply(plan, query, key, value, bias, code_scale, inner_weight, total, masked)
    return mixed if power == 0.0 else mixed * per_visible_key(_visible(plan, query, key, masked), power, mixed.dtype)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _blocks(plan: _Plan, n_queries: int, n_keys: int) -> Iterator[Block]:
    """Go through the blocks that causal attention does not hide, rows first, and at least one for each row."""
    n_tokens = n_keys - plan.n_added
    for row in range(0, max(n_queries, 1), plan.chunk):
        rows = slice(row, min(row + plan.chunk, n_queries))
        newest = rows.stop - 1 + n_tokens - n_queries
        for column in range(0, max(n_keys, 1), plan.chunk):
            columns = slice(column, min(column + plan.chunk, n_keys))
            if not plan.causal or column <= max(newest, 0) or columns.stop > n_tokens:
                yield rows, columns


def _cut(name: str, whole: Tensor, block: Block) -> Tensor:
    """Return a view of the block's part of an input; an axis of size 1 is shared by all blocks."""
    for dim, axis in enumerate(_AXES[name], 2):
        part = block[0 if axis == "q" else 1]
        if whole.shape[dim] != 1:
            whole = whole.narrow(dim, part.start, part.stop - part.start)
    return whole


def _parts(plan: _Plan, inputs: Inputs) -> Iterator[tuple[Block, Inputs]]:
    """Go through the blocks with their parts of the inputs; where the diagonal crosses one, it gets a causal mask."""
    n_queries, n_keys = inputs["query"].shape[2], inputs["key"].shape[2]
    n_tokens = n_keys - plan.n_added
    ahead, device = n_tokens - n_queries, inputs["query"].device
    for rows, columns in _blocks(plan, n_queries, n_keys):
        part = {name: _cut(name, whole, (rows, columns)) for name, whole in inputs.items()}
        if plan.causal and columns.stop - 1 > rows.start + ahead:
            newest = rearrange(torch.arange(rows.start + ahead, rows.stop + ahead, device=device), "q -> q 1")
            keys = torch.arange(columns.start, columns.stop, device=device)
            future = rearrange((keys > newest) & (keys < n_tokens), "q k -> 1 1 q k")
            part["masked"] = part["masked"] | future if "masked" in part else future
        yield (rows, columns), part


def _visible(plan: _Plan, query: Tensor, key: Tensor, masked: Tensor | None) -> Tensor:
    """Return how many keys each query sees, (#b, #h, q, 1)."""
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=query.device)
    whole = nothing if masked is None else masked
    count = torch.zeros(*whole.shape[:2], query.shape[2], 1, dtype=torch.int64, device=query.device)
    for block, part in _parts(plan, {"query": query, "key": key, "masked": whole}):
        seen = ~part["masked"].expand(*part["masked"].shape[:3], part["key"].shape[2])
        _cut("query", count, block).add_(seen.sum(-1, keepdim=True))
    return count


def _scores(plan: _Plan, part: Inputs) -> Tensor:
    scores = einsum(part["query"] * plan.factor, part["key"], "b h q d, b h k d -> b h q k")
    return scores + part["bias"] if "bias" in part else scores


def _exponents(plan: _Plan, part: Inputs) -> Tensor:
    """Return scores, at least float32, as softmax takes them: -inf at masked pairs."""
    scores = _scores(plan, part)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores.masked_fill(part["masked"], -torch.inf) if "masked" in part else scores


def _mass(plan: _Plan, part: Inputs) -> Tensor:
    """Return the block's share of each query's softmax; its gradient is that of the logarithm of the denominator."""
    return (_exponents(plan, part) - part["total"]).exp().sum(-1, keepdim=True)


def _mix(plan: _Plan, part: Inputs) -> Tensor:
    """Return the block's sum over its keys.

    The layers of `value_networks`, with keys before queries: for each key one product of two matrices, on a CPU
    twice as fast as that module's layout, which serves all keys at once.
    """
    if plan.normalizer == "softmax":
        code = (_exponents(plan, part) - part["total"]).exp()
    else:
        code = NORMALIZERS[plan.normalizer](_scores(plan, part), part.get("masked"))
    value = part["value"]
    code = (code * part["scale"] if "scale" in part else code).to(value.dtype)
    if plan.linear:
        return einsum(code, value, "b h q k, b h k e -> b h q e")
    hidden = plan.activation(einsum(code, value, "b h q k, b h k e -> b k q e"))
    if "inner" in part:
        weighted = rearrange(code, "b h q k -> b k q h 1") * rearrange(hidden, "b k q e -> b k q 1 e")
        hidden = plan.activation(einsum(weighted, part["inner"].to(value.dtype), "b k q h e, h e d -> b k q d"))
    return einsum(code, hidden, "b h q k, b k q e -> b h q e")


def _wide_zeros(new: Tensor, *shape: int) -> Tensor:
    # Made from a result, not from an input, so that under vmap it has the axis of everything that is added to it.
    return new.new_zeros(shape, dtype=torch.promote_types(new.dtype, torch.float32))


def _gradients(
    function: Callable[[_Plan, Inputs], Tensor], ctx: Any, names: tuple[str, ...], inputs: Inputs, cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of all arguments, block by block."""
    wanted = [name for name, needed in zip(names, ctx.needs_input_grad[1:], strict=True) if needed]
    gradients: Inputs = {}
    for block, part in _parts(ctx.plan, inputs):

        def of_wanted(chosen: Inputs, part: Inputs = part) -> Tensor:
            return function(ctx.plan, part | chosen)

        out, pull = torch.func.vjp(of_wanted, {name: part[name] for name in wanted})  # type: ignore[misc]
        for name, gradient in pull(_cut("query", cotangent, block).to(out.dtype))[0].items():
            if name not in gradients:
                gradients[name] = _wide_zeros(gradient, *inputs[name].shape)
            _cut(name, gradients[name], block).add_(gradient)
    return (None, *(gradients[name].to(inputs[name].dtype) if name in gradients else None for name in names))


def _named(names: tuple[str, ...], tensors: tuple[Tensor | None, ...]) -> Inputs:
    return {name: tensor for name, tensor in zip(names, tensors, strict=True) if tensor is not None}


class _LogSumExp(torch.autograd.Function):
    """The logarithm of softmax's denominator for each head and query, 0 for a query that sees no key."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor | None) -> Tensor:
        inputs, total = _named(_OF_TOTAL, tensors), None
        for block, part in _parts(plan, inputs):
            new = _exponents(plan, part).logsumexp(-1, keepdim=True)
            if total is None:
                total = new.new_full((*new.shape[:2], inputs["query"].shape[2], 1), -torch.inf)
            rows = _cut("query", total, block)
            rows.copy_(torch.logaddexp(rows, new))
        assert total is not None
        return total.masked_fill(total == -torch.inf, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _named((*_OF_TOTAL, "total"), ctx.saved_tensors)
        return _gradients(_mass, ctx, _OF_TOTAL, inputs, cotangent)


class _Mixed(torch.autograd.Function):
    """What each head mixes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, *tensors: Tensor | None) -> Tensor:
        inputs, mixed = _named(_OF_MIXED, tensors), None
        for block, part in _parts(plan, inputs):
            new = _mix(plan, part)
            if mixed is None:
                mixed = _wide_zeros(new, *new.shape[:2], inputs["query"].shape[2], new.shape[3])
            _cut("query", mixed, block).add_(new)
        assert mixed is not None
        return mixed.to(inputs["value"].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(_mix, ctx, _OF_MIXED, _named(_OF_MIXED, ctx.saved_tensors), cotangent)
