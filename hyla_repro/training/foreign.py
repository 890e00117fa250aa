"""Modules that others wrote, trained by our loop: what they are made for, a run of one, and its stack."""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from hyla_repro.experiment import TrainingRun
from hyla_repro.tasks.task import TaskSettings
from hyla_repro.training.stack import REST, Stack, facts_of


@dataclass(frozen=True)
class ModelSpec:
    """What a task asks of a module: vectors (b, n_tokens, n_inputs) in, vectors (b, n_read, n_outputs) out.

    Args:
        task: its name, for modules that have a size for each.
        preset: its name, smoke, laptop or paper, for modules that have a size for each.
        n_inputs: width of the vectors that come in.
        n_outputs: width of the vectors that go out, such as the logits of a symbol.
        n_tokens: length of a sequence.
        n_read: how many last tokens are answered, in their order.
        causal: whether an answer may depend on its own token and earlier ones alone.
        seed: of the run; for modules that draw their first weights themselves. Others find torch's generator seeded.
        settings: those of the task.
    """

    task: str
    preset: str
    n_inputs: int
    n_outputs: int
    n_tokens: int
    n_read: int
    causal: bool
    seed: int
    settings: TaskSettings


MakeModel = Callable[[ModelSpec], Any]


class Entry(TrainingRun):
    """A run of a module that others wrote; its steps, batches, optimiser and evaluation are those of one of ours.

    Its identity is that of its name and of all that decides a run but the module, so that a changed module meets what
    the one before left, and is refused: what is known of the module is stored with every checkpoint and result.

    Args:
        name: of the row; letters, digits and `._+-`.
        n_parameters: how many parameters the module trains.
        shapes: digest of the names, shapes and dtypes of its `state_dict`.
        source: digest of its source code.
        build: returns the module with first weights; it is called with torch's generator seeded.

    All others are those of `TrainingRun`; `enter` fills them in.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    n_parameters: int
    shapes: str
    source: str
    build: Callable[[], Any] = Field(exclude=True, repr=False)

    @property
    def method(self) -> str:
        return self.name

    @property
    def module_facts(self) -> dict[str, Any]:
        """What tells its module from others: number of parameters, digests of all shapes and of the source code."""
        return {"n_parameters": self.n_parameters, "shapes": self.shapes, "source": self.source}

    def _identifying(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set(self.module_facts))

    def refuse_other(self, stored: Mapping[str, Any]) -> None:
        """Refuse to go on with, or to show, what another module was trained to under this name.

        Raises: ValueError naming what differs.
        """
        words = {"n_parameters": "number of parameters", "shapes": "shapes", "source": "source code"}
        if changed := [words[name] for name, value in self.module_facts.items() if stored.get(name) != value]:
            raise ValueError(f"runs of name={self.name!r} are of another model: its {' and '.join(changed)} differed. "
                             f"Give the changed model another name, or delete the folders *-{self.name}-*")  # fmt: skip


def describe_module(make_model: MakeModel, model: nn.Module) -> dict[str, Any]:
    """Return what `Entry` stores of a module. Of code that cannot be found, such as a built-in, nothing is known."""
    state = {name: (list(value.shape), str(value.dtype)) for name, value in model.state_dict().items()}
    classes = {type(part) for part in model.modules() if type(part).__module__.partition(".")[0] != "torch"}
    code = [_source(part) for part in (make_model, *sorted(classes, key=lambda part: part.__qualname__))]
    n_parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {"n_parameters": n_parameters, "shapes": _digest(json.dumps(state)), "source": _digest("\n".join(code))}


def _source(part: Any) -> str:
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        # In a notebook a class has no file, though its functions have.
        functions = filter(inspect.isfunction, vars(part).values()) if inspect.isclass(part) else ()
        return "\n".join(map(_source, functions))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def seeded(device: torch.device, *key: object) -> Iterator[None]:
    """Let torch's own generators, which modules of others draw from, depend on this key alone, and restore them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # The CPU's generator takes 32 bits of a seed.
        torch.manual_seed(int(_digest(repr(key))[:8], 16))
        yield


class ForeignStack(Stack):
    """One run of a module that others wrote, between two steps: never compiled, recorded or vectorised.

    Its gradients are those of torch.autograd, so that it may use whatever a torch module may. Dropout and other noise
    of its own depend on seed and step alone. Buffers and frozen parameters are part of its state.
    """

    def __init__(
        self, runs: Sequence[TrainingRun], device: str = "cpu", use_compiler: bool = False, remember: int = 1
    ) -> None:
        super().__init__(runs, device, use_compiler=False, remember=remember)

    def _build(self, run: Any) -> nn.Module:
        with seeded(self.device, "init", run.seed):
            return run.build().train()

    def advance(self) -> None:
        self._advance()
        self.step += 1

    def _draw_masks(self) -> dict[str, Tensor]:
        return {}

    def _gradient(self, weights: Tensor, tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        weights = weights.detach().requires_grad_()
        with seeded(self.device, "step", self.runs[0].seed, self.step):
            loss = self._loss(self._named(weights), tables)
            (gradient,) = torch.autograd.grad(loss, weights)
        return gradient, loss.detach()

    def _loss(self, weights: dict[str, Tensor], tables: dict[str, Tensor]) -> Tensor:
        batch = self.task.draw("train", tables, self.clock, self.runs[0].batch_size)
        return self.task.loss(self._read_out(weights, batch), batch)

    def _read_out(self, weights: dict[str, Tensor], batch: Any, **settings: Any) -> Any:
        return functional_call(self.model, weights, (batch.inputs,))

    def evaluate(self, sequences: int) -> list[dict[str, float]]:
        """Return the run's mean score in evaluation mode, as `Stack.evaluate` does."""
        self.model.eval()
        try:
            return super().evaluate(sequences)
        finally:
            self.model.train()

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Return the module's whole `state_dict` with the trained weights, as its `load_state_dict` takes it."""
        self.model.load_state_dict(self._named(self.weights[index]), strict=False)
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _rest(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict(0).items() if name not in self._shapes}

    def to_bytes(self, index: int, facts: dict[str, Any], kept: Mapping[str, Tensor] | None = None) -> bytes:
        """Serialise the run, as `Stack.to_bytes` does, with what tells its module from others."""
        return super().to_bytes(index, facts | {"module": self.runs[index].module_facts}, kept)

    def from_bytes(self, index: int, content: bytes) -> dict[str, Any]:
        """Set the run to a serialised state, and return the facts stored with it.

        Raises: ValueError for the state of another run, or of another module under the same name.
        """
        self.runs[index].refuse_other(facts_of(content)["module"])
        facts, tensors = super().from_bytes(index, content), safetensors.torch.load(content)
        rest = {name.removeprefix(REST): value for name, value in tensors.items() if name.startswith(REST)}
        self.model.load_state_dict(rest, strict=False)
        return facts
