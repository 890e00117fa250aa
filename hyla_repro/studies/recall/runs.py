"""The runs of the chapter on recall: four kinds of attention, at numbers of pairs that softmax attention recalls."""

from itertools import product
from typing import Any, NamedTuple

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.methods import architecture
from hyla_repro.studies.study import PRESETS
from hyla_repro.tasks.mqar.settings import MQARSettings

TASK = "mqar"
METHODS = ("softmax", "linear", "hyla", "aaren")


class Sizes(NamedTuple):
    """Tokens, model and training of a preset.

    Args:
        pairs: number of pairs to tokens of a sequence.
        rates: learning rates that every method has to choose from.
    """

    pairs: dict[int, int]
    vocab_size: int
    width: int
    steps: int
    batch_size: int
    rates: tuple[float, ...]
    evaluation: int


# laptop's sizes were chosen by training scores of softmax attention alone. The paper's tasks and rates are those of
# Zoology's Figure 2, whose softmax attention has 2 layers of 64 to 512 channels with one head, and no feed-forward;
# it sees 6.4 million sequences, 100 000 different ones, in steps of 128 to 512.
SIZES = {
    "smoke": Sizes({2: 16, 4: 16}, 16, 32, 60, 16, (1e-2,), 200),
    "laptop": Sizes({4: 32, 6: 32, 8: 32}, 32, 32, 2_500, 64, (1e-2,), 2_000),
    "paper": Sizes({4: 64, 8: 128, 16: 256, 64: 512}, 8192, 128, 25_000, 256, (1e-4, 4.64e-4, 2.15e-3, 1e-2), 3_000),
}
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}


def mqar(
    preset: str, method: str, seed: int, n_pairs: int | None = None, learning_rate: float | None = None
) -> Experiment:
    """Return one run of multi-query associative recall: 2 layers with 4 heads, causal.

    Args:
        n_pairs: one of the preset's, the most of them if None.
        learning_rate: the first that the preset tries if None.
    """
    size = SIZES[choose("preset", preset, PRESETS)]
    n_pairs = n_pairs or max(size.pairs)
    task: dict[str, Any] = {
        "n_pairs": n_pairs, "n_tokens": size.pairs[n_pairs], "vocab_size": size.vocab_size, "power": 0.01,
    }  # fmt: skip
    fitting: dict[str, Any] = MQARSettings(**task).model_sizes
    return Experiment(
        task_name=TASK,
        task=task,
        model=TransformerConfig(
            n_layers=2, d_model=size.width, n_heads=4, qk_dim=size.width, v_dim=size.width, d_ff=2 * size.width,
            **{"causal": True, **fitting, **architecture(method)},
        ),
        steps=size.steps,
        batch_size=size.batch_size,
        learning_rate=learning_rate or size.rates[0],
        weight_decay=0.1,
        warmup_steps=size.steps // 10,
        attention_dropout=0.0,
        evaluation_sequences=size.evaluation,
        seed=seed,
    )  # fmt: skip


def all_runs(preset: str) -> list[Experiment]:
    """Return every method at every number of pairs, seed by seed."""
    size = SIZES[preset]
    points = product(size.rates, SEEDS[preset], size.pairs, METHODS)
    return [mqar(preset, method, seed, n_pairs, rate) for rate, seed, n_pairs, method in points]
