"""A study outside the package: a task, its runs, a figure and a claim. `python toy_study.py run toy1` trains it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, tensor

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.counter_rng import CounterRNG
from hyla_repro.experiment import Experiment
from hyla_repro.models import TransformerConfig
from hyla_repro.results.claims import Claim, Outcome, missing
from hyla_repro.results.effects import paired
from hyla_repro.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hyla_repro.results.store import Store
    from hyla_repro.results.summary import Results


@dataclass(frozen=True)
class MeanSettings:
    n_tokens: int = 4
    seed: int = 0
    version, n_inputs, n_outputs, n_read, metric, short_name, summary = 1, 2, 1, 1, "R²", "mean", "mean"
    names_model_size, stackable, evaluation_splits = False, (), ("test", "heldout")
    selected_by, lower_is_better, scale = "heldout", False, 100.0

    @property
    def model_sizes(self) -> dict[str, int]:
        return {"n_positions": self.n_tokens, "n_inputs": self.n_inputs, "n_outputs": self.n_outputs}


class MeanBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Mean(MeanSettings):
    """Say the mean of all numbers shown."""

    def tables(self, split: str, device: Any = "cpu") -> dict[str, Tensor]:
        return {"seed": tensor(self.seed, device=device)}

    def draw(self, split: str, tables: dict[str, Tensor], step: Any, size: int) -> MeanBatch:
        shape, seed = (size, self.n_tokens, self.n_inputs), tables["seed"]
        x = CounterRNG(seed, f"mean/{split}").uniform(step, shape, seed.device)
        return MeanBatch(x, x.mean((1, 2))[:, None])

    def batch(self, split: str, step: int, size: int, device: Any = "cpu") -> MeanBatch:
        return self.draw(split, self.tables(split, device), step, size)

    def loss(self, outputs: Tensor, batch: MeanBatch) -> Tensor:
        return (outputs[..., 0] - batch.targets).square().mean()

    def score(self, outputs: Tensor, batch: MeanBatch) -> Tensor:
        return 1 - 24 * (outputs[..., 0] - batch.targets).square()[:, 0]


def runs(preset: str) -> list[Experiment]:
    model = TransformerConfig(
        variant="linear", n_layers=1, d_model=8, n_heads=2, qk_dim=4, v_dim=4, d_ff=8, n_positions=4, n_inputs=2,
        n_outputs=1,
    )  # fmt: skip
    steps = {"smoke": 4, "laptop": 40, "paper": 80}[preset]
    return [
        Experiment(task_name="mean", task={"n_tokens": 4}, model=model, steps=steps, batch_size=16, learning_rate=0.01,
                   weight_decay=0.1, warmup_steps=1, attention_dropout=0.0, evaluation_sequences=64, seed=seed)
        for seed in (0, 1, 2)
    ]  # fmt: skip


def draw(table: "pd.DataFrame") -> "Figure":
    from hyla_repro.studies.style import axes_grid, percent_axis, styled

    @styled
    def bars() -> "Figure":
        figure, axes = axes_grid(1, 1, 3.0, 3.0)
        axes[0, 0].bar(table["seed"].astype(str), 100 * table["heldout"])
        percent_axis(axes[0, 0], "R² (%)")
        return figure

    return bars()


def learns(results: "Results") -> Outcome:
    table = results.by_method("toy1", "mean")
    if table.empty:
        return missing()
    scores = 100 * results.runs("toy1", "mean").set_index("seed")["heldout"]
    return Outcome(f"{scores.mean():.0f}", (paired("R² minus 20", scores - 20),))


def claims(store: "Store | None") -> list[Claim]:
    return [Claim("toy-learns", "toy1", "facts", "A mean is easy.", "100", "held-out R² minus 20 %", learns)]


TASKS.add("mean", MeanSettings, Mean)
studies.add(studies.Study("toy", "Toy", (studies.Chapter("toy1", runs),), claims, task="mean"))

if __name__ == "__main__":
    main()
