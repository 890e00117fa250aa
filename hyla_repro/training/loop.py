"""Training: one deterministic, resumable and budgeted loop from experiments to finished runs, in stacks."""

import math
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from tqdm import tqdm

from hyla_repro.errors import DivergedError
from hyla_repro.experiment import TrainingRun
from hyla_repro.ledger.locks import is_sibling
from hyla_repro.ledger.runs import ALONG, CURVE, MODEL, Ledger, RunLockedError
from hyla_repro.training.foreign import Entry, ForeignStack
from hyla_repro.training.memory import stack_size
from hyla_repro.training.process import catch_signals, keep_freed_memory
from hyla_repro.training.provenance import compiler_available, provenance
from hyla_repro.training.resuming import resumable
from hyla_repro.training.stack import Stack, kept_of

_CURVE_POINTS, _CURVE_SPACING = 20, 30
_CURVE_SEQUENCES = 1000
_CHECKPOINT_SECONDS = 60.0
_COMPILE_FROM_STEPS = 2000
# A run to the steps whose weights it keeps, besides the last; this is no part of what it is.
Keep = Callable[[Any], Collection[int]]


def _look_every(device: str) -> int:
    # On a GPU a look at the losses waits for every step before it.
    return 1 if device == "cpu" else 50


def _stack_size(runs: Sequence[TrainingRun], device: str) -> int:
    # On a CPU one run after the other is faster than a stack (benchmarks/).
    return 1 if device == "cpu" else stack_size(runs, device)


class _Training:
    """A stack on its way: what is recorded of every run beside its numbers, and which of them diverged."""

    def __init__(self, runs: Sequence[TrainingRun], device: str, use_compiler: bool, keep: Keep) -> None:
        self.look_every = _look_every(device)
        stack = ForeignStack if isinstance(runs[0], Entry) else Stack
        self.stack = stack(runs, device, use_compiler, self.look_every)
        self.runs, self.device = list(runs), device
        self.steps = runs[0].steps
        self.record_every = max(self.steps // _CURVE_POINTS, _CURVE_SPACING)
        self.seconds = 0.0
        self.curves: list[list[dict[str, float]]] = [[] for _ in runs]
        self.last_finite: list[float | None] = [None for _ in runs]
        self.diverged: dict[int, DivergedError] = {}
        self.keep, self.kept = [keep(run) for run in runs], [dict[str, torch.Tensor]() for _ in runs]
        self._ends: dict[int, dict[str, Any]] = {}
        self._looked = 0

    @property
    def step(self) -> int:
        return self.stack.step

    @property
    def going(self) -> list[int]:
        """The runs that have not diverged, by their place in the stack."""
        return [index for index in range(len(self.runs)) if index not in self.diverged]

    def advance(self) -> None:
        """Take one step; look at the losses, and record a point of the curves, when it is time to."""
        self.stack.advance()
        record = self.step % self.record_every == 0 or self.step == self.steps
        if record or self.step % self.look_every == 0:
            self._look()
        if record and self.going:
            self._record()
        for index in self.going:
            if self.step in self.keep[index]:
                named = self.stack.state_dict(index)
                self.kept[index] |= {f"{self.step}/{name}": weight.clone() for name, weight in named.items()}

    def _look(self) -> None:
        for offset, losses in enumerate(self.stack.recent(self.step - self._looked)):
            for index in self.going:
                if math.isfinite(losses[index]):
                    self.last_finite[index] = losses[index]
                else:
                    self._diverge(index, losses[index], self._looked + offset)
        self._looked = self.step

    def _diverge(self, index: int, loss: float, step: int) -> None:
        self.diverged[index] = DivergedError(
            f"loss is {loss} at step {step} of {self.runs[index].label}; last finite loss: {self.last_finite[index]}. "
            "Lower the learning rate or check the task's values.", step, self.last_finite[index]
        )  # fmt: skip

    def _record(self) -> None:
        means, scores = self.stack.loss_sum.tolist(), self.evaluate(_CURVE_SEQUENCES)
        for index in self.going:
            curve = self.curves[index]
            since = self.step - (int(curve[-1]["step"]) if curve else 0)
            # The last step's loss is that of the weights before it, so the scores say whether it ruined them.
            if not all(map(math.isfinite, scores[index].values())):
                self._diverge(index, math.nan, self.step)
            curve.append({"step": self.step, "train_loss": means[index] / since, **scores[index]})
        self.stack.loss_sum.zero_()

    def evaluate(self, at_most: int) -> list[dict[str, float]]:
        return self.stack.evaluate(min(at_most, self.runs[0].evaluation_sequences))

    def save(self, ledger: Ledger) -> None:
        """Store a checkpoint of every run that has not diverged."""
        self._look()
        for index in self.going:
            facts = {"seconds": self.seconds, "curve": self.curves[index], "last_finite": self.last_finite[index],
                     "end": self._ends.get(index)}  # fmt: skip
            ledger.save_checkpoint(self.runs[index], self.step, self.stack.to_bytes(index, facts, self.kept[index]))

    def load(self, contents: Sequence[bytes]) -> None:
        """Set every run to its checkpoint; all must be of one step."""
        for index, content in enumerate(contents):
            facts, self.kept[index] = self.stack.from_bytes(index, content), kept_of(content)
            self.seconds, self.curves[index], self.last_finite[index] = (
                facts[name] for name in ("seconds", "curve", "last_finite")
            )
            if facts.get("end"):
                self._ends[index] = facts["end"]
        self._looked = self.step

    def finish(self, ledger: Ledger) -> None:
        """Store the results of every run that has not diverged.

        A process may die between two of them. What is left of the stack would then go on as a smaller one, whose
        batched products round differently, so all ends are in checkpoints before the first result is stored.
        """
        if not set(self.going) <= set(self._ends):
            scores = self.evaluate(self.runs[0].evaluation_sequences)
            # A stack shares its time, so that the minutes of its runs add up to the device's.
            minutes = round(self.seconds / 60 / len(self.runs), 2)
            self._ends = {index: {"scores": scores[index], "minutes": minutes} for index in self.going}
            if len(self.going) > 1:
                self.save(ledger)
        facts = provenance(self.device, self.stack.compiled)
        for index in self.going:
            curve, weights = self.curves[index], safetensors.torch.save(self.stack.state_dict(index))
            files = {MODEL: weights, CURVE: pd.DataFrame(curve).to_csv(index=False).encode()}
            if self.kept[index]:
                files[ALONG] = safetensors.torch.save(self.kept[index])
            result = {**self._ends[index], "train_loss": curve[-1]["train_loss"], "provenance": facts}
            ledger.commit(self.runs[index], files, result)


def _train_stack(
    runs: Sequence[TrainingRun],
    contents: Sequence[bytes],
    ledger: Ledger,
    device: str,
    stop: Callable[[], bool],
    progress: bool,
    keep: Keep,
) -> list[DivergedError]:
    """Train locked runs of one shape from checkpoints of one step, or from the start without any."""
    keep_freed_memory()
    # TensorFloat-32 only where a run's identity says so, whatever the process was told before.
    torch.set_float32_matmul_precision("high" if runs[0].precision == "tf32" else "highest")
    training = _Training(runs, device, runs[0].steps >= _COMPILE_FROM_STEPS and compiler_available(device), keep)
    if contents:
        training.load(contents)
    started = saved = time.monotonic()
    before, reported = training.seconds, 0
    label = runs[0].label if len(runs) == 1 else f"{len(runs)} runs of {runs[0].method}"
    first = training.step
    if progress and training.stack.compiled:
        tqdm.write(f"{label}: compiling, which takes up to a minute")
    with tqdm(total=runs[0].steps, initial=first, desc=label, disable=not progress, unit="step") as bar:
        while training.step < training.steps and training.going:
            training.advance()
            if training.step == first + 1:
                bar.unpause()  # what compiling took is no part of the rate
            bar.update()
            for index in list(training.diverged)[reported:]:
                ledger.mark_diverged(runs[index], training.diverged[index].facts)
            reported = len(training.diverged)
            now = time.monotonic()
            training.seconds = before + now - started
            unfinished = training.step < training.steps  # how a run ends is for `finish` to store
            stopping = stop() and unfinished
            if stopping or (unfinished and now - saved > _CHECKPOINT_SECONDS):
                training.save(ledger)
                saved = now
            if stopping:
                break
        else:
            if training.going:
                training.finish(ledger)
    return list(training.diverged.values())


def _stacks(experiments: Sequence[TrainingRun], device: str) -> list[list[TrainingRun]]:
    """Group runs of equal shape into stacks of the size that the device is best at, in the order of their first."""
    groups: dict[str, list[TrainingRun]] = {}
    for run in experiments:
        groups.setdefault(run.shape, []).append(run)
    stacks = []
    for runs in groups.values():
        size = _stack_size(runs, device)
        stacks += [runs[start : start + size] for start in range(0, len(runs), size)]
    place = {run.id: index for index, run in enumerate(experiments)}
    return sorted(stacks, key=lambda runs: place[runs[0].id])


def train(
    experiments: Sequence[TrainingRun],
    ledger: Ledger | None = None,
    device: str = "cpu",
    budget_seconds: float | None = None,
    progress: bool = True,
    keep: Keep = lambda run: (),
) -> list[TrainingRun]:
    """Train the runs that are missing, and return those that still are when the budget is used up.

    On a GPU runs of equal shape are trained as one stack; on a CPU one after the other, which is faster there.
    Finished runs are left alone, runs that another process trains are passed over, paused ones go on where
    they stopped, with the same result as if they had never stopped.

    Args:
        budget_seconds: stop, saving a checkpoint, after this time.
        keep: the steps of a run whose weights it keeps in ALONG; runs that are finished get none.

    Raises:
        ValueError: a run with precision "tf32" on a CPU.
        KeyboardInterrupt, SystemExit: after SIGINT or SIGTERM, once a checkpoint is saved.
        DivergedError: at the end, when a loss was not finite; such a run is marked and never counted as a result.
    """
    ledger = ledger or Ledger()
    if device == "cpu" and (coarse := [run for run in experiments if run.precision == "tf32"]):
        raise ValueError(f"precision='tf32', which takes a GPU: use device='cuda' or float32 for {coarse[0].label}")
    deadline = math.inf if budget_seconds is None else time.monotonic() + budget_seconds
    diverged: list[DivergedError] = []
    states = [(run, ledger.state(run)) for run in experiments]
    for run in (run for run, state in states if state == "done"):
        ledger.tidy(run)
    missing = [run for run, state in states if state not in ("done", "diverged")]
    with catch_signals() as received:

        def stop() -> bool:
            return bool(received) or time.monotonic() > deadline

        waiting = _stacks(missing, device) if missing else []
        while waiting and not stop():
            diverged += _train_locked(waiting.pop(0), waiting, ledger, device, stop, progress, keep)
    if received:
        raise SystemExit(143) if received[0] == signal.SIGTERM else KeyboardInterrupt
    if diverged:
        raise diverged[0]
    return [run for run in experiments if ledger.state(run) != "done"]


def _train_locked(
    runs: list[TrainingRun],
    waiting: list[list[TrainingRun]],
    ledger: Ledger,
    device: str,
    stop: Callable[[], bool],
    progress: bool,
    keep: Keep,
) -> list[DivergedError]:
    """Train those runs of a stack that nobody else does; what must be trained apart goes to the front of `waiting`."""
    with ExitStack() as locks:
        held = []
        for run in runs:
            try:
                locks.enter_context(ledger.lock(run))
            except RunLockedError as error:
                if not is_sibling(ledger.holder(run)):
                    tqdm.write(str(error))
                continue
            if ledger.state(run) != "done":  # another process may have finished it since
                held.append(run)
        if not held:
            return []
        (part, contents), *others = resumable(held, ledger)
        waiting[:0] = [rest for rest, _ in others]
        try:
            return _train_stack(part, contents, ledger, device, stop, progress, keep)
        except torch.cuda.OutOfMemoryError:
            if len(part) == 1:
                raise
            half = len(part) // 2
            tqdm.write(f"{len(part)} runs do not fit into the memory of {device}: going on with {half}")
            waiting[:0] = [part[:half], part[half:]]
    torch.cuda.empty_cache()
    return []
