"""A stack: runs of one shape trained as one program, with a leading run axis on weights, moments and data."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map

from hyla_repro.experiment import TrainingRun
from hyla_repro.models.transformer import Transformer
from hyla_repro.training.compiler import Program, Programs, compile_programs, undone
from hyla_repro.training.dropout import dropout_scales
from hyla_repro.training.optimizer import BETAS, EPSILON, decays, schedule

CHUNK = 500
_STATE, _KEPT, REST = ("model", "exp_avg", "exp_avg_sq"), "kept/", "rest/"


class Stack:
    """Runs of equal `TrainingRun.shape` between two steps: weights, AdamW's moments and the losses so far.

    The model, the task and the loss are written for one run; vmap gives them the run axis. A run's numbers do not
    depend on the others of its stack, up to the rounding of batched products.

    Args:
        runs: at least one; seeds, learning rates, decays and what the task names in `stackable` may differ.
        use_compiler: compile the step; it takes about a minute and pays back after some thousand steps.
        remember: of how many steps `recent` can give the losses.
    """

    def __init__(
        self, runs: Sequence[TrainingRun], device: str = "cpu", use_compiler: bool = False, remember: int = 1
    ) -> None:
        self.runs: list[Any] = list(runs)
        self.device, self.task = torch.device(device), runs[0].build_task()
        initial = [self._build(run) for run in runs]
        self.model = initial[0].to(device)
        trained = _trained(self.model)
        self._shapes = {name: parameter.shape for name, parameter in trained.items()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        parts = [torch.full((p.numel(),), float(decays(n, p))) for n, p in trained.items()]
        self._decayed = torch.cat(parts).to(device)
        self.weights = torch.stack([self._flat(_trained(model)).to(device) for model in initial])
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.loss_sum = torch.zeros(len(runs), device=device)
        self.clock = torch.zeros((), dtype=torch.int64, device=device)
        self._peak, self._decay = (
            torch.tensor([[getattr(run, name)] for run in runs], device=device)
            for name in ("learning_rate", "weight_decay")
        )
        self._schedule = schedule(runs[0].steps, runs[0].warmup_steps).to(device)
        self._tables: dict[str, dict[str, Tensor]] = {}
        self._training_tables = self.tables("train")
        self._losses = torch.zeros(remember, len(runs), device=device)
        self.step = 0
        self._state = (self.weights, self.first, self.second, self.loss_sum, self._losses, self.clock)
        self.compiled, self._to_compile = use_compiler, use_compiler
        # The masks are a program of their own: fused into the step, a compiler draws a pair's factor anew for every
        # sequence and head, up to a quarter of a step on a CPU.
        self._programs: Programs = (self._draw_masks, self._learn)
        self._graph: torch.cuda.CUDAGraph | None = None

    def _build(self, run: Any) -> nn.Module:
        """Return the model of a run with its first weights."""
        return Transformer(run.model).initialize(run.seed if run.init_seed is None else run.init_seed)

    # --- the step ------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take one step of every run; the first one compiles it."""
        if self._to_compile:
            self._programs, self.compiled = compile_programs(self._programs, self._try_out)
            self._to_compile = False
        if self.device.type == "cuda":
            if self._graph is None:
                self._graph = self._capture()
            self._graph.replay()
        else:
            self._advance()
        self.step += 1

    def _try_out(self, masks: Program, learn: Program) -> None:
        with undone(self._state):
            learn(masks())

    def _capture(self) -> "torch.cuda.CUDAGraph":
        """Record a whole step, data and optimiser included, so that replaying it costs no launches."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), undone(self._state):
            self.warm_up()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph

    def warm_up(self) -> None:
        """Take steps that count for nothing: compilers and libraries may not set themselves up in a recording."""
        for _ in range(3):
            self._advance()

    def recent(self, count: int) -> list[list[float]]:
        """Return the losses of the last `count` steps, oldest first, one per run.

        Raises: ValueError for more steps than are remembered.
        """
        if count > len(self._losses):
            raise ValueError(f"count={count} is too large: the losses of {len(self._losses)} steps are remembered")
        rows = self._losses.tolist()
        return [rows[step % len(rows)] for step in range(self.step - count, self.step)]

    def _advance(self) -> None:
        masks, learn = self._programs
        learn(masks())

    def _draw_masks(self) -> dict[str, Tensor]:
        model, rate = self.runs[0].model, self.runs[0].attention_dropout

        def draw(tables: dict[str, Tensor]) -> dict[str, Tensor]:
            scales = dropout_scales(model, rate, tables["seed"], self.clock, self.device)
            return {} if scales is None else {"code_scales": scales}

        return self._per_run(draw, self._training_tables)

    def _learn(self, masks: dict[str, Tensor]) -> None:
        gradients, losses = self._per_run(self._gradient, self.weights, self._training_tables | masks)
        rate, correct_first, correct_second = self._schedule.index_select(0, self.clock.view(1))[0]
        rate = rate * self._peak
        self.first.lerp_(gradients, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).add_(gradients.square() * (1 - BETAS[1]))
        self.weights.mul_(1 - rate * self._decay * self._decayed)
        self.weights.sub_(rate * correct_first * self.first / (self.second.sqrt() * correct_second + EPSILON))
        self._losses.index_copy_(0, (self.clock % len(self._losses)).view(1), losses.unsqueeze(0))
        self.loss_sum.add_(losses)
        self.clock.add_(1)

    def _gradient(self, weights: Tensor, tables: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        gradients, loss = grad_and_value(self._loss)(self._named(weights), tables)
        return self._flat(gradients), loss

    def _loss(self, weights: dict[str, Tensor], tables: dict[str, Tensor]) -> Tensor:
        run = self.runs[0]
        batch = self.task.draw("train", tables, self.clock, run.batch_size)
        settings = {"code_scales": tables.get("code_scales"), "return_imbalance": True}
        outputs, imbalance = self._read_out(weights, batch, **settings)
        loss = self.task.loss(outputs, batch)
        return loss if run.load_balancing is None else loss + run.load_balancing * imbalance

    def _read_out(self, weights: dict[str, Tensor], batch: Any, **settings: Any) -> Any:
        settings |= {"last": self.task.n_read, "padding": getattr(batch, "padding", None)}
        return functional_call(self.model, weights, (batch.inputs,), settings)

    def _per_run(self, function: Callable[..., Any], *stacked: Any) -> Any:
        if len(self.runs) > 1:
            return vmap(function)(*stacked)
        # A single run goes without the batched products of vmap, which cost a CPU 8 % of a step.
        return tree_map(lambda x: x.unsqueeze(0), function(*tree_map(lambda x: x[0], stacked)))

    # --- evaluation ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, sequences: int) -> list[dict[str, float]]:
        """Return each run's mean score over `sequences` sequences of every evaluation split's own stream."""
        scores = {}
        for split in self.task.evaluation_splits:
            total = torch.zeros(len(self.runs), dtype=torch.float64)
            for step, start in enumerate(range(0, sequences, CHUNK)):
                size = min(CHUNK, sequences - start)
                total += self._per_run(self._scorer(split, step, size), self.weights, self.tables(split)).cpu()
            scores[split] = (total / sequences).tolist()
        return [{split: values[index] for split, values in scores.items()} for index in range(len(self.runs))]

    def _scorer(self, split: str, step: int, size: int) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
        def score(weights: Tensor, tables: dict[str, Tensor]) -> Tensor:
            batch = self.task.draw(split, tables, step, size)
            outputs = self._read_out(self._named(weights), batch)
            return self.task.score(outputs, batch).double().sum()

        return score

    # --- latent codes --------------------------------------------------------------------------------------

    @torch.no_grad()
    def codes(self, split: str, step: int, size: int) -> tuple[Float[Tensor, "run b token l h"], Any]:
        """Return the codes of the tokens that are read out, each attending to itself, and the batches they are of.

        Returns: codes by run, sequence, token, layer and head; the task's batch with the run axis in front.
        """
        return self._per_run(self._coder(split, step, size), self.weights, self.tables(split))

    def _coder(self, split: str, step: int, size: int) -> Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, Any]]:
        n_read = self.task.n_read

        def code(weights: Tensor, tables: dict[str, Tensor]) -> tuple[Tensor, Any]:
            batch = self.task.draw(split, tables, step, size)
            _, layers = self._read_out(self._named(weights), batch, return_codes=True)
            own = [layer[:, :, -n_read:, -n_read:].diagonal(dim1=-2, dim2=-1) for layer in layers]
            return rearrange(own, "l b h token -> b token l h"), batch

        return code

    # --- what depends on a split ---------------------------------------------------------------------------

    def tables(self, split: str) -> dict[str, Tensor]:
        """Return the tables of a split for every run, with the run axis in front."""
        if split not in self._tables:
            each = [run.build_task().tables(split, self.device) for run in self.runs]
            self._tables[split] = {name: _stacked([tables[name] for tables in each]) for name in each[0]}
        return self._tables[split]

    # --- weights by name, and as bytes ---------------------------------------------------------------------

    @staticmethod
    def _flat(named: dict[str, Tensor]) -> Float[Tensor, " p"]:
        return torch.cat([value.detach().reshape(-1) for value in named.values()])

    def _named(self, flat: Float[Tensor, " p"]) -> dict[str, Tensor]:
        parts = zip(self._shapes.items(), flat.split(self._sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def _rest(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of the model besides trained weights: nothing of our transformers."""
        return {}

    def load_weights(self, index: int, content: bytes) -> None:
        """Set the weights of one run to those of its safetensors bytes."""
        named = safetensors.torch.load(content)
        self.weights[index] = self._flat({name: named[name] for name in self._shapes}).to(self.device)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Return the weights of one run, as `Transformer.load_state_dict` takes them."""
        return {name: value.cpu().contiguous() for name, value in self._named(self.weights[index]).items()}

    def to_bytes(self, index: int, facts: dict[str, Any], kept: Mapping[str, Tensor] | None = None) -> bytes:
        """Serialise all that a run's next step depends on, as safetensors (no pickle), with facts of the caller's.

        Args:
            kept: tensors to store besides, which `kept_of` gives back.
        """
        tensors = {"loss_sum": self.loss_sum[index].cpu()} | {f"{_KEPT}{name}": x for name, x in (kept or {}).items()}
        for kind, stacked in zip(_STATE, (self.weights, self.first, self.second), strict=True):
            named = self._named(stacked[index].cpu())
            tensors |= {f"{kind}/{name}": value.contiguous() for name, value in named.items()}
        tensors |= {f"{REST}{name}": value for name, value in self._rest().items()}
        state = facts | {"id": self.runs[index].id, "step": self.step}
        return safetensors.torch.save(tensors, metadata={"state": json.dumps(state)})

    def from_bytes(self, index: int, content: bytes) -> dict[str, Any]:
        """Set one run to a serialised state, and return the facts stored with it. All runs must be set to one step.

        Raises: ValueError for the state of another run.
        """
        state = facts_of(content)
        if state["id"] != self.runs[index].id:
            raise ValueError(f"checkpoint of run {state['id']} cannot continue run {self.runs[index].id}")
        tensors = safetensors.torch.load(content)
        for kind, stacked in zip(_STATE, (self.weights, self.first, self.second), strict=True):
            stacked[index] = self._flat({name: tensors[f"{kind}/{name}"] for name in self._shapes}).to(self.device)
        self.loss_sum[index] = tensors["loss_sum"].to(self.device)
        self.step = state["step"]
        self.clock.fill_(self.step)
        return state


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors with the run axis in front; one that all runs share, such as a text, is not copied."""
    first = tensors[0]
    if all(tensor is first for tensor in tensors):
        return first.expand(len(tensors), *first.shape)
    return torch.stack(list(tensors))


def facts_of(content: bytes) -> dict[str, Any]:
    """Return the facts in the header of a serialised run."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["state"])


def kept_of(content: bytes) -> dict[str, Tensor]:
    """Return the tensors that were stored besides a serialised run's own."""
    tensors = safetensors.torch.load(content)
    return {name.removeprefix(_KEPT): tensor for name, tensor in tensors.items() if name.startswith(_KEPT)}
