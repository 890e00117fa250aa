"""What is wrong with a module that others wrote, said in one line before it is trained."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hyla_repro.training.foreign import Entry, ForeignStack, ModelSpec, seeded

_SEQUENCES = 5


def screen(make_model: Any, spec: ModelSpec, inputs: Float[Tensor, "b t n"]) -> nn.Module:
    """Return the module that `make_model` makes for a task if it can be trained, in evaluation mode.

    Args:
        inputs: three sequences or more of the task, on the device of the training.

    Raises: ValueError saying what is wrong: no module, nothing to train, an output that is no tensor, of another shape
        or not finite, sequences that change each other's outputs, tokens that change earlier ones' in a causal task.
    """
    if not callable(make_model):
        raise ValueError(f"make_model={make_model!r} cannot be called: give a function from a ModelSpec to a module")
    with seeded(inputs.device, "init", spec.seed):
        model = make_model(spec)
    if not isinstance(model, nn.Module):
        raise ValueError(f"make_model returned {type(model).__name__}, which is no torch.nn.Module")
    model = model.to(inputs.device).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("the model has no parameters that require a gradient: there is nothing to train")
    if kinds := {str(parameter.dtype) for parameter in trained} - {"torch.float32"}:
        raise ValueError(
            f"the model has parameters of {', '.join(sorted(kinds))}: all that are trained must be float32"
        )
    if others := [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise ValueError(f"state_dict() holds {', '.join(others)}, no tensor: checkpoints hold tensors alone")
    outputs = _checked_outputs(model, inputs, spec)
    if not _alike(outputs, _checked_outputs(model, inputs, spec)):
        raise ValueError("the model gives other outputs at a second call in evaluation mode: it draws random numbers, "
                         "or keeps a state that no checkpoint holds")  # fmt: skip
    if not _alike(outputs[1:], _checked_outputs(model, inputs[1:], spec)):
        raise ValueError("outputs of a sequence depend on the others of its batch: inputs are (b, t, n_inputs), which "
                         "torch's modules take with batch_first=True")  # fmt: skip
    later = inputs.clone()
    later[:, -1] += 1.0
    if spec.causal and not _alike(outputs[:, :-1], _checked_outputs(model, later, spec)[:, :-1]):
        raise ValueError(f"the model uses future tokens, and {spec.task} is causal: changing the last token changed "
                         "outputs of earlier ones")  # fmt: skip
    return model


def _checked_outputs(model: nn.Module, inputs: Tensor, spec: ModelSpec) -> Tensor:
    given = f"inputs of shape {tuple(inputs.shape)}"
    try:
        with torch.no_grad():
            outputs: Any = model(inputs)
    except Exception as error:
        raise ValueError(f"the model fails on {given}: {type(error).__name__}: {error}") from error
    if not isinstance(outputs, Tensor):
        raise ValueError(f"the model returns {type(outputs).__name__} for {given}: return the outputs alone, a tensor")
    expected = (len(inputs), spec.n_read, spec.n_outputs)
    if tuple(outputs.shape) != expected:
        raise ValueError(f"the model returns shape {tuple(outputs.shape)} for {given}: {spec.task} needs {expected}, "
                         f"the outputs of the last n_read={spec.n_read} tokens")  # fmt: skip
    if not outputs.isfinite().all():
        raise ValueError(f"the model returns values that are not finite for {given}, before any training")
    return outputs


def _alike(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-3, atol=1e-5)


def check_resuming(run: Entry, device: str = "cpu") -> None:
    """Stop a run after a step, go on with a fresh module, and compare.

    Raises: ValueError if the fresh module does not take up what the first one was: its outputs, or its next losses.
    """
    whole = ForeignStack([run], device, remember=3)
    whole.advance()
    weights, content = whole.state_dict(0), whole.to_bytes(0, {})
    # Attributes drawn at random are no state either, so this one is drawn from another seed.
    with seeded(whole.device, "another", run.seed):
        fresh = run.build().to(device).eval()
    try:
        fresh.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"a fresh model does not take the state_dict of a trained one: {error}") from error
    inputs = whole.task.batch("train", 0, _SEQUENCES, whole.device).inputs
    with torch.no_grad():
        restored = _alike(whole.model.eval()(inputs), fresh(inputs))
    whole.model.train()
    resumed = ForeignStack([run], device, remember=3)
    resumed.from_bytes(0, content)
    for stack in (whole, resumed):
        stack.advance()
        stack.advance()
    losses = [torch.tensor(stack.recent(2)) for stack in (whole, resumed)]
    if not losses[0].isfinite().all():
        raise ValueError(f"the loss is not finite in the first steps: {[loss for (loss,) in losses[0].tolist()]}")
    if not restored or not _alike(*losses):
        raise ValueError("the model has state outside its state_dict: a fresh one that was given it goes on with other "
                         "numbers. Keep what changes, or is drawn, in parameters and buffers")  # fmt: skip
