"""The runs of fuzzy logic's figures, and what is computed of their weights (Figure 2, A2, A3 and Table A1)."""

from itertools import product

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.methods import METHODS, architecture
from hyla_repro.studies.study import PRESETS

TASK = "fuzzy_logic"
_STEPS = {"smoke": 60, "laptop": 10_000, "paper": 50_000}
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
# The three methods of the main comparison have these besides, on which the headline claims rest.
MORE_SEEDS = {"laptop": tuple(range(3, 10))}
_EVALUATION_SEQUENCES = {"smoke": 500, "laptop": 16_000, "paper": 16_000}
# The paper reports the best of four settings per method; laptop has the one that it lists first.
_OPTIMIZATION = {
    "smoke": ((1e-3, 0.1),),
    "laptop": ((1e-3, 0.1),),
    "paper": tuple(product((1e-3, 3e-3), (0.1, 0.03))),
}

DECODING = Analysis("decoding.csv", later("hyla_repro.studies.fuzzy_logic.codes", "decoding_table"))
EMBEDDING = Analysis("embedding.csv", later("hyla_repro.studies.fuzzy_logic.codes", "embedding_table"))


def fuzzy_logic(
    preset: str,
    method: str,
    seed: int,
    n_examples: int = 32,
    heldout_fraction: float = 0.7,
    optimization: tuple[float, float] = (1e-3, 0.1),
    attention_dropout: float = 0.1,
    head_width: int = 2,
) -> Experiment:
    """Return one fuzzy-logic run with 4 variables and 2 terms (paper, section on fuzzy logic and its appendix).

    Args:
        head_width: numbers of a head's key, query and value; the paper's eight heads have two.
    """
    choose("preset", preset, PRESETS)
    learning_rate, weight_decay = optimization
    return Experiment(
        task_name="fuzzy_logic",
        task={"n_variables": 4, "n_terms": 2, "n_examples": n_examples, "heldout_fraction": heldout_fraction},
        model=TransformerConfig(
            n_layers=2, d_model=128, n_heads=8, qk_dim=8 * head_width, v_dim=8 * head_width, d_ff=256,
            n_positions=n_examples, n_inputs=5, n_outputs=1, **architecture(method),
        ),
        steps=_STEPS[preset],
        batch_size=128,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=min(100, _STEPS[preset] // 3),
        # Deviation D1: the release trains with this dropout although the paper does not list it.
        attention_dropout=attention_dropout,
        evaluation_sequences=_EVALUATION_SEQUENCES[preset],
        seed=seed,
    )  # fmt: skip


def grid(
    preset: str, methods: tuple[str, ...], points: list[tuple[int, float]], seeds: tuple[int, ...] | None = None
) -> list[Experiment]:
    """Return runs of every method, optimiser setting and seed at these examples in context and fractions held out."""
    return [
        fuzzy_logic(preset, method, seed, n_examples, heldout, optimization)
        for (n_examples, heldout), method, optimization, seed in product(
            points, methods, _OPTIMIZATION[preset], SEEDS[preset] if seeds is None else seeds
        )
    ]


def comparison(preset: str, methods: tuple[str, ...], seeds: tuple[int, ...] | None = None) -> list[Experiment]:
    """Return runs of these methods in the main comparison: 32 examples in context, 70 % of the combinations held out.

    Args:
        seeds: those that every figure has if None.
    """
    return grid(preset, methods, [(32, 0.7)], seeds)


def main(preset: str) -> list[Experiment]:
    """Return the runs of the main comparison, with all their seeds."""
    return comparison(preset, METHODS, SEEDS[preset] + MORE_SEEDS.get(preset, ()))


def latent(preset: str) -> list[Experiment]:
    """Return the runs whose latent codes are shown."""
    # The paper shows codes at N=96; a third of that is what two cores can afford and 2C trains anyway.
    return grid(preset, METHODS, [(96 if preset == "paper" else 32, 0.5)])


def scaling(preset: str) -> list[Experiment]:
    """Return runs along examples in context and fraction held out: all pairs at paper, else a cross."""
    lengths = {"smoke": (16, 32), "laptop": (16, 32, 64), "paper": (16, 32, 64, 96)}[preset]
    fractions = {"smoke": (0.3, 0.7)}.get(preset, (0.3, 0.5, 0.7))
    if preset == "paper":
        return grid(preset, METHODS, list(product(lengths, fractions)))
    cross = dict.fromkeys([(32, 0.7), *((32, f) for f in fractions), *((n, 0.7) for n in lengths)])
    return grid(preset, METHODS, list(cross))


def dropout(preset: str) -> list[Experiment]:
    """Return runs with and without attention dropout (Deviation D1)."""
    points = product(("softmax", "hyla"), (0.1, 0.0), SEEDS[preset])
    return [fuzzy_logic(preset, method, seed, attention_dropout=rate) for method, rate, seed in points]


def wide_heads(preset: str) -> list[Experiment]:
    """Return the main comparison with heads as wide as a standard transformer's, the model's width in equal shares."""
    # The paper's preset is what the paper trained, which has no such runs.
    pairs = product(SEEDS[preset], METHODS) if preset != "paper" else ()
    return [fuzzy_logic(preset, method, seed, head_width=16) for seed, method in pairs]
