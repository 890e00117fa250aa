"""Training: one deterministic, resumable and budgeted loop from an experiment to a finished run."""

import ctypes
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from hyla_repro.counter_rng import CounterRNG
from hyla_repro.errors import DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.provenance import compiler_available, provenance
from hyla_repro.runs import CURVE, MODEL, Ledger, RunLockedError
from hyla_repro.tasks import Batch, Task
from hyla_repro.transformer import Transformer

_CURVE_POINTS, _CURVE_SPACING = 20, 30
_CURVE_SEQUENCES = 1000
_CHUNK = 500
_CHECKPOINT_SECONDS = 60.0
_COMPILE_FROM_STEPS = 2000


def learning_rate(step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of a step: linear warm-up from 0, cosine to a tenth of the peak, then constant.

    The cosine ends warmup_steps before the last step (Deviation D3: a slip of the release that we keep).
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = min((step - warmup_steps) / (total_steps - 2 * warmup_steps), 1.0)
    return peak * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW with the release's decay rule.

    The release decays every parameter with more than one axis. Its query, key and value biases have two (head,
    width) and so are decayed; here they are one packed vector, named to keep that rule (Deviation D4).
    """
    named = list(model.named_parameters())
    decayed = [p for name, p in named if p.ndim > 1 or name.endswith("in_proj_bias")]
    free = [p for name, p in named if not (p.ndim > 1 or name.endswith("in_proj_bias"))]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def dropout_scales(run: Experiment, step: int, device: torch.device | str) -> Tensor | None:
    """Return the factors (layer, q, k) on the codes: 0 with the dropout rate, else 1 / (1 - rate).

    One mask per layer, shared by the whole batch and all heads, as in the release.
    """
    if run.attention_dropout == 0.0:
        return None
    shape = (run.model.n_layers, run.model.n_positions, run.model.n_positions)
    draw = CounterRNG(run.seed, "attention_dropout").uniform(step, shape, device)
    return (draw >= run.attention_dropout).to(torch.float32) / (1.0 - run.attention_dropout)


@torch.no_grad()
def evaluate(model: Transformer, task: Task, split: str, sequences: int, device: torch.device | str) -> float:
    """Return the task's mean score over `sequences` sequences of a split's own evaluation stream."""
    total = 0.0
    for step, start in enumerate(range(0, sequences, _CHUNK)):
        batch = task.batch(split, step, min(_CHUNK, sequences - start), device)
        total += task.score(model(batch.inputs, last=task.n_read), batch).double().sum().item()
    return total / sequences


class _Training:
    """The state of one run between two steps: weights, optimiser, curve."""

    def __init__(self, run: Experiment, device: str, use_compiler: bool) -> None:
        self.run, self.device, self.task = run, device, run.build_task()
        self.model = Transformer(run.model).initialize(run.seed).to(device)
        self.optimizer = make_optimizer(self.model, run.weight_decay)
        self.step, self.seconds = 0, 0.0
        self.curve: list[dict[str, float]] = []
        self.loss_sum = torch.zeros((), device=device)
        self.last_finite: float | None = None
        self.every = max(run.steps // _CURVE_POINTS, _CURVE_SPACING)
        self.compiled = use_compiler
        if use_compiler:
            # After eight shapes in one process the compiler leaves a function uncompiled and only warns.
            torch.compiler.reset()
        self._loss = torch.compile(self._eager_loss) if use_compiler else self._eager_loss

    def _eager_loss(self, batch: Batch, scales: Tensor | None) -> Tensor:
        outputs = self.model(batch.inputs, last=self.task.n_read, code_scales=scales)
        return self.task.loss(outputs, batch)

    def advance(self) -> None:
        """Take one step; at the curve's points also record the losses since the last and the scores."""
        run, step = self.run, self.step
        batch = self.task.batch("train", step, run.batch_size, self.device)
        loss = self._loss(batch, dropout_scales(run, step, self.device))
        # On a GPU this check would wait for every step, so there it is made at the curve's points only.
        if self.device == "cpu":
            self._check_finite(loss.item())
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, run.learning_rate, run.warmup_steps, run.steps)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += loss.detach()
        self.step += 1
        if self.step % self.every == 0 or self.step == run.steps:
            self._record()

    def _check_finite(self, loss: float, remember: bool = True) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"loss is {loss} at step {self.step} of {self.run.label}; last finite loss: "
                                f"{self.last_finite}. Lower the learning rate or check the task's values.")  # fmt: skip
        if remember or self.device != "cpu":
            self.last_finite = loss

    def _record(self) -> None:
        since = self.step - (int(self.curve[-1]["step"]) if self.curve else 0)
        mean_loss = self.loss_sum.item() / since
        scores = self.evaluate(min(_CURVE_SEQUENCES, self.run.evaluation_sequences))
        # The last step's loss is that of the weights before it, so the scores say whether it ruined them.
        ruined = not all(map(math.isfinite, scores.values()))
        self._check_finite(math.nan if ruined else mean_loss, remember=False)
        self.curve.append({"step": self.step, "train_loss": mean_loss, **scores})
        self.loss_sum.zero_()

    def evaluate(self, sequences: int) -> dict[str, float]:
        splits = self.task.evaluation_splits
        return {split: evaluate(self.model, self.task, split, sequences, self.device) for split in splits}

    def to_bytes(self) -> bytes:
        """Serialise everything the next step depends on, as safetensors (no pickle)."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = value
        tensors["loss_sum"] = self.loss_sum
        state = {"step": self.step, "seconds": self.seconds, "curve": self.curve, "id": self.run.id,
                 "last_finite": self.last_finite}  # fmt: skip
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return safetensors.torch.save(tensors, metadata={"state": json.dumps(state)})

    def from_bytes(self, content: bytes) -> None:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        state = json.loads(header["__metadata__"]["state"])
        if state["id"] != self.run.id:
            raise ValueError(f"checkpoint of run {state['id']} cannot continue run {self.run.id}")
        tensors = safetensors.torch.load(content)
        self.model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
        for name, parameter in self.model.named_parameters():
            if f"step/{name}" in tensors:
                moments = {key: tensors[f"{key}/{name}"].to(self.device) for key in ("exp_avg", "exp_avg_sq")}
                # AdamW counts its steps on the parameters' device when fused.
                self.optimizer.state[parameter] = {"step": tensors[f"step/{name}"].to(self.device), **moments}
        self.loss_sum = tensors["loss_sum"].to(self.device)
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]
        self.last_finite = state["last_finite"]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being interrupted in the middle of a step."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {n: signal.signal(n, lambda number, frame: received.append(number)) for n in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _keep_freed_memory() -> None:
    """Make glibc reuse the buffers of a step instead of returning them to the system after each.

    The page faults of getting them back took 18 of 79 ms of a HYLA step on one core; other C libraries ignore this.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 1 << 25)
        mallopt(trim_threshold, (1 << 31) - 1)


def _train_one(run: Experiment, ledger: Ledger, device: str, stop: Callable[[], bool], progress: bool) -> bool:
    _keep_freed_memory()
    training = _Training(run, device, run.steps >= _COMPILE_FROM_STEPS and compiler_available(device))
    content, damaged = ledger.load_checkpoint(run)
    for path in damaged:
        tqdm.write(f"checkpoint {path} is damaged; using the one before it")
    if content is not None:
        training.from_bytes(content)
    started = saved = time.monotonic()
    before = training.seconds
    bar = tqdm(total=run.steps, initial=training.step, desc=run.label, disable=not progress, unit="step")
    try:
        while training.step < run.steps:
            training.advance()
            bar.update()
            now = time.monotonic()
            training.seconds = before + now - started
            stopping = stop() and training.step < run.steps
            if stopping or now - saved > _CHECKPOINT_SECONDS:
                ledger.save_checkpoint(run, training.step, training.to_bytes())
                saved = now
            if stopping:
                return False
        _finish(training, ledger)
    except DivergedError as error:
        facts = {"error": str(error), "step": training.step, "last_finite_loss": training.last_finite}
        ledger.mark_diverged(run, facts)
        raise
    finally:
        bar.close()
    return True


def _finish(training: _Training, ledger: Ledger) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in training.model.state_dict().items()}
    files = {
        MODEL: safetensors.torch.save(weights),
        CURVE: pd.DataFrame(training.curve).to_csv(index=False).encode(),
    }
    facts = {
        "scores": training.evaluate(training.run.evaluation_sequences),
        "train_loss": training.curve[-1]["train_loss"],
        "minutes": round(training.seconds / 60, 2),
        "provenance": provenance(training.device, training.compiled),
    }
    ledger.commit(training.run, files, facts)


def train(
    experiments: Sequence[Experiment],
    ledger: Ledger | None = None,
    device: str = "cpu",
    budget_seconds: float | None = None,
    progress: bool = True,
) -> list[Experiment]:
    """Train the runs that are missing, and return those that still are when the budget is used up.

    Finished runs are left alone, runs that another process trains are passed over, paused ones go on where
    they stopped, with the same result as if they had never stopped.

    Args:
        budget_seconds: stop, saving a checkpoint, after this time.

    Raises:
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once a checkpoint is saved.
        DivergedError: when the loss is not finite; the run is marked and never counted as a result.
    """
    ledger = ledger or Ledger()
    deadline = math.inf if budget_seconds is None else time.monotonic() + budget_seconds
    with _signals() as received:
        for run in experiments:
            if ledger.state(run) in ("done", "diverged") or time.monotonic() > deadline:
                continue
            try:
                with ledger.lock(run):
                    if ledger.state(run) != "done":
                        _train_one(run, ledger, device, lambda: bool(received) or time.monotonic() > deadline, progress)
            except RunLockedError as error:
                tqdm.write(str(error))
            if received:
                break
    if received:
        raise SystemExit(143) if received[0] == signal.SIGTERM else KeyboardInterrupt
    return [run for run in experiments if ledger.state(run) != "done"]


def load_model(path: Path | bytes, run: Experiment) -> Transformer:
    """Return the trained Transformer of a run from its safetensors file or their bytes."""
    content = path if isinstance(path, bytes) else path.read_bytes()
    model = Transformer(run.model)
    model.load_state_dict(safetensors.torch.load(content))
    return model.eval()
