"""The runs of Figure 6, and what is computed of their weights."""

from itertools import product
from typing import Any, NamedTuple

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.methods import architecture
from hyla_repro.studies.study import PRESETS, once
from hyla_repro.tasks.language.settings import LanguageSettings

TASK = "language"
METHODS = ("softmax", "linear", "linear_rms_head", "hyla")
TINY = "tiny_shakespeare"

SAMPLES = Analysis("language_samples.csv", later("hyla_repro.studies.language.codes", "sample_table"))
LETTER_CODES = Analysis("language_letter_codes.csv", later("hyla_repro.studies.language.codes", "letter_code_table"))


class Sizes(NamedTuple):
    """A text, a model and how long it is trained.

    Args:
        kqv: total width of queries, of keys and of values.
        evaluation: windows of each evaluation split.
    """

    text: str
    tokenizer: str
    context: int
    n_layers: int
    d_model: int
    kqv: int
    d_ff: int
    steps: int
    batch_size: int
    warmup_steps: int
    evaluation: int


# laptop's sizes were chosen by one pilot run of softmax attention (deviations.md, D19). The paper's are those of its
# section on language; it states neither context nor steps, but 130 billion tokens, which are these steps of 1024.
SIZES = {
    "smoke": Sizes("shakespeare", "characters", 32, 2, 32, 16, 64, 60, 16, 10, 200),
    "laptop": Sizes("shakespeare", "characters", 128, 4, 128, 64, 192, 6_000, 8, 200, 500),
    "paper": Sizes("c4", "bpe_32000", 1024, 6, 512, 64, 2048, 496_000, 256, 1_000, 8_000),
}
# Every method has the same rates to choose from; the first seed decides, by loss on validation.
RATES = {"smoke": (3e-3,), "laptop": (1e-3, 3e-3, 6e-3), "paper": (1e-3, 3e-3, 6e-3)}
# The rates that the other seeds are trained with: the best of the first seed's, once these are trained.
CHOSEN: dict[str, dict[str, float]] = {
    "smoke": {},
    "laptop": {"softmax": 3e-3, "linear": 6e-3, "linear_rms_head": 3e-3, "hyla": 6e-3},
    "paper": {},
}
MORE_SEEDS = {"smoke": (), "laptop": (1, 2), "paper": (1, 2)}


def language(
    preset: str, method: str, seed: int, learning_rate: float | None = None, sizes: Sizes | None = None
) -> Experiment:
    """Return one language-modelling run (paper, section on language modelling and its appendix).

    Args:
        learning_rate: the method's chosen one, else the first of those that the preset tries, if None.
        sizes: those of the preset if None.
    """
    size, rates = sizes or SIZES[choose("preset", preset, PRESETS)], RATES[preset]
    task: dict[str, Any] = {"text": size.text, "tokenizer": size.tokenizer, "context": size.context}
    fitting: dict[str, Any] = LanguageSettings(**task).model_sizes
    return Experiment(
        task_name=TASK,
        task=task,
        model=TransformerConfig(
            n_layers=size.n_layers, d_model=size.d_model, n_heads=8, qk_dim=size.kqv, v_dim=size.kqv, d_ff=size.d_ff,
            causal=True, feed_forward="swiglu", position="rotary", **fitting, **architecture(method),
        ),
        steps=size.steps,
        batch_size=size.batch_size,
        learning_rate=learning_rate or CHOSEN[preset].get(method) or rates[0],
        weight_decay=0.1,
        warmup_steps=size.warmup_steps,
        attention_dropout=0.0,
        evaluation_sequences=size.evaluation,
        seed=seed,
    )  # fmt: skip


def main(preset: str) -> list[Experiment]:
    """Return the runs of the main comparison: every rate with the first seed, the chosen ones with the others."""
    tried = [language(preset, method, 0, rate) for rate, method in product(RATES[preset], METHODS)]
    seeds = product(MORE_SEEDS[preset], METHODS)
    return tried + [language(preset, method, seed) for seed, method in seeds if method in CHOSEN[preset]]


def shown(preset: str) -> list[Experiment]:
    """Return the run of each method whose text and codes are shown: the first seed's, with the chosen rate."""
    # Classes of letters are those of characters, and the paper's tokens are none.
    return [language(preset, method, 0) for method in METHODS] if SIZES[preset].tokenizer == "characters" else []


def tiny(preset: str) -> list[Experiment]:
    """Return softmax attention in the nearest set-up to nanoGPT's recipe for a CPU, which publishes a loss of 1.88."""
    if preset != "laptop":
        return []
    size = Sizes(TINY, "characters", 64, 4, 128, 128, 512, 2_000, 12, 100, 2_000)
    return [recipe(language("laptop", "softmax", seed, 1e-3, size)) for seed in (0, 1, 2)]


def recipe(run: Experiment) -> Experiment:
    """Return a run with the recipe's four heads and its feed-forward of two layers."""
    model = run.model.model_copy(update={"n_heads": 4, "feed_forward": "gelu"})
    return run.model_copy(update={"model": model})


def all_runs(preset: str) -> list[Experiment]:
    """Return everything that the chapter shows."""
    return once([*main(preset), *tiny(preset)])
