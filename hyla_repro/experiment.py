"""An experiment: everything that decides a training run's result, and the identity that follows from it."""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from hyla_repro.errors import choose
from hyla_repro.models.config import TransformerConfig
from hyla_repro.tasks.registry import TASKS
from hyla_repro.tasks.task import TaskSettings

if TYPE_CHECKING:
    from hyla_repro.tasks.task import Task


# What a method's best is chosen of, as in the paper; and what makes the size of a model in tables of runs.
OPTIMIZER = ("learning_rate", "weight_decay", "warmup_steps")
_SIZES = ("n_layers", "d_model", "n_heads")
# What tells runs of one point apart: the seed, and what may be drawn by another one.
_SEEDS = ("seed", "split_seed")


def coordinates(task_name: str) -> list[str]:
    """Return what tells the points of figures apart, besides the method and seeds: columns of `Experiment.row`.

    Raises: ValueError for an unknown task.
    """
    settings = TASKS.settings(task_name)
    sizes = _SIZES if settings.names_model_size else ()
    of_task = (name for name in settings.__dataclass_fields__ if name not in _SEEDS)
    return [*of_task, *sizes, "attention_dropout", "steps"]


class TrainingRun(BaseModel):
    """What every training run has, whatever is trained: task, optimisation and seed; frozen.

    Raises: pydantic.ValidationError (a ValueError) naming the field and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_name: str
    task: dict[str, Any]
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    weight_decay: float = Field(ge=0, allow_inf_nan=False)
    warmup_steps: int = Field(ge=0)
    evaluation_sequences: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**32)
    # How matrix products round: tf32 keeps 10 bits of each factor, is faster, and takes an NVIDIA GPU.
    precision: Literal["float32", "tf32"] = "float32"
    # Raise it when a change of code draws other numbers or computes another formula: old runs then count as missing.
    # Sums that are only rounded in another order keep it, though HYLA's scores move by points all the same (D9).
    semantics: Literal[1] = 1

    @model_validator(mode="after")
    def _possible(self) -> "TrainingRun":
        fields = TASKS.settings(self.task_name).__dataclass_fields__.keys() - {"seed"}
        for name in self.task:
            choose(f"setting of {self.task_name}", name, sorted(fields))
        try:
            _ = self.task_settings
        except TypeError as error:
            raise ValueError(f"task={self.task} has a value of a wrong type: {error}") from error
        if 2 * self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} needs more than twice as many steps, not {self.steps}")
        return self

    @property
    def task_settings(self) -> TaskSettings:
        """The task's settings, with the run's own seed; `task_name` tells which class `task` belongs to."""
        return TASKS.settings(self.task_name)(**self.task, seed=self.seed)

    def build_task(self) -> "Task":
        """Return the task generator of this run, with the run's own seed."""
        return TASKS[self.task_name](**self.task, seed=self.seed)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of all fields: the run's name on disk."""
        text = json.dumps(self._identifying(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _identifying(self) -> dict[str, Any]:
        """Return the fields that decide what the run is, as JSON has them."""
        return self.model_dump(mode="json")

    @property
    def method(self) -> str:
        """The name of what figures compare."""
        raise NotImplementedError

    @property
    def shape(self) -> str:
        """What runs must share to be trained as one stack."""
        return self.id

    @property
    def n_read(self) -> int:
        """How many last tokens are read out."""
        return self.task_settings.n_read

    @property
    def kind(self) -> str:
        """A readable name of what a run is, but for its seed and optimiser settings."""
        return f"{self.method} {self.task_settings.summary}"

    @property
    def label(self) -> str:
        """A readable name for progress bars and messages."""
        return f"{self.kind} seed={self.seed} ({self.id})"


class Experiment(TrainingRun):
    """A run of one of our transformers: no default decides a result.

    Raises: pydantic.ValidationError (a ValueError) naming the field and the value.
    """

    model: TransformerConfig
    attention_dropout: float = Field(ge=0, lt=1)
    # Weight of the experts' load-balancing loss, for mixtures of experts alone.
    load_balancing: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    # Draws the first weights instead of `seed`, where one is given.
    init_seed: int | None = Field(default=None, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        sizes = self.task_settings.model_sizes
        if sizes != {name: getattr(self.model, name) for name in sizes}:
            raise ValueError(f"the model's ({', '.join(sizes)}) must be the task's {tuple(sizes.values())}")
        if self.load_balancing is not None and self.model.feed_forward != "moe":
            raise ValueError(f"load_balancing={self.load_balancing} needs feed_forward='moe', which has experts")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # Runs without these keep the identity that they had before there were any.
        return {k: v for k, v in serialize(self).items() if v is not None or k not in ("load_balancing", "init_seed")}

    @property
    def shape(self) -> str:
        """What runs must share to be trained as one stack: everything but seed, optimiser settings and split."""
        fields = self.model_dump(mode="json", exclude={"seed", "init_seed", "learning_rate", "weight_decay"})
        varies = self.task_settings.stackable
        fields["task"] = {name: value for name, value in self.task.items() if name not in varies}
        return json.dumps(fields, sort_keys=True)

    @property
    def kind(self) -> str:
        """A readable name of what a run is, but for its seed and optimiser settings."""
        task, model = self.task_settings, self.model
        size = f", {model.n_layers} layers of width {model.d_model}, {model.n_heads} heads, {self.steps} steps"
        return super().kind + (size if task.names_model_size else "")

    @property
    def method(self) -> str:
        """The name of what figures compare: the variant of attention, and whether it has a mixture of experts."""
        return self.model.variant + ("" if self.model.n_experts is None else "_moe")

    @property
    def label(self) -> str:
        """A readable name for progress bars and messages."""
        others = {"split_seed": self.task.get("split_seed"), "init_seed": self.init_seed}
        seeds = "".join(f" {name}={seed}" for name, seed in ({"seed": self.seed} | others).items() if seed is not None)
        return f"{self.kind}{seeds} ({self.id})"

    def row(self) -> dict[str, Any]:
        """Return the settings that figures group by, flat, for one line of a table."""
        sizes: dict[str, Any] = {}
        if self.task_settings.names_model_size:
            sizes = {name: getattr(self.model, name) for name in _SIZES}
        return {
            "id": self.id, "task": self.task_name, "variant": self.method, **self.task, **sizes, "seed": self.seed,
            "steps": self.steps, "batch_size": self.batch_size, "warmup_steps": self.warmup_steps,
            "learning_rate": self.learning_rate, "weight_decay": self.weight_decay,
            "attention_dropout": self.attention_dropout,
            **({} if self.init_seed is None else {"init_seed": self.init_seed}),
        }  # fmt: skip

    @property
    def point(self) -> dict[str, Any]:
        """What tells the run's place in figures from others, but for its method, seed and optimiser settings."""
        row = self.row()
        return {name: row[name] for name in coordinates(self.task_name) if name in row}
