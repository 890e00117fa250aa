"""The runs that chapters on other papers' attention share: on our two tasks, and on time series."""

from collections.abc import Iterable
from typing import Any

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.methods import METHODS, architecture
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven
from hyla_repro.studies.study import PRESETS
from hyla_repro.tasks.series.settings import SeriesSettings

SERIES = "series"
OF_AAREN = ("softmax_causal", "aaren", "hyla_learned_query")
OF_PRIMAL_DUAL = ("softmax_bn", "softmax_sh", "softmax_bn_sh", "hyla_bn", "hyla_sh")
TASKS = {fuzzy_logic.TASK: "fuzzy logic", sraven.TASK: "SRAVEN"}
# None at the paper's scale: which sizes the papers' models of time series have is not known here.
SERIES_SEEDS = {"smoke": (0,), "laptop": tuple(range(10)), "paper": ()}
_STEPS = {"smoke": 60, "laptop": 400, "paper": 400}


def composition(preset: str, methods: tuple[str, ...]) -> list[Experiment]:
    """Return the main comparison of both tasks for these methods, with three seeds and the settings of all others."""
    return fuzzy_logic.comparison(preset, methods) + sraven.comparison(preset, methods)


def beside_controls(preset: str, methods: tuple[str, ...]) -> list[Experiment]:
    """Return the runs of these methods on both tasks, and those of softmax, linear attention and HYLA."""
    return composition(preset, (*METHODS, *methods))


def series(preset: str, method: str, seed: int, data_set: str = "japanese_vowels") -> Experiment:
    """Return one run of time-series classification: 2 layers of width 64 with 4 heads, read out at the mean step.

    These sizes are those of small transformers for such series, and were not searched over; 400 steps see every
    training series about 47 times.
    """
    settings = SeriesSettings(data_set)
    fitting: dict[str, Any] = settings.model_sizes
    return Experiment(
        task_name=SERIES,
        task={"data_set": data_set},
        model=TransformerConfig(
            n_layers=2, d_model=64, n_heads=4, qk_dim=64, v_dim=64, d_ff=128,
            **fitting, **architecture(method),
        ),
        steps=_STEPS[choose("preset", preset, PRESETS)],
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_steps=_STEPS[preset] // 10,
        attention_dropout=0.1,
        evaluation_sequences=settings.facts.n_test,
        seed=seed,
    )  # fmt: skip


def series_runs(preset: str, methods: Iterable[str]) -> list[Experiment]:
    """Return the runs of these methods on Japanese vowels, seed by seed."""
    return [series(preset, method, seed) for seed in SERIES_SEEDS[preset] for method in methods]
