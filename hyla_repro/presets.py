"""Every number of every figure, at three scales: `smoke` (seconds), `laptop` (CPU hours), `paper` (the paper's own)."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

from hyla_repro.attention.variants import VARIANTS
from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig

PRESETS = ("smoke", "laptop", "paper")
METHODS = ("softmax", "linear", "hyla")
# The rows of Table A1: the variants of attention, and three of them with a mixture of experts as feed-forward.
ABLATIONS = (*VARIANTS, *(f"{method}_moe" for method in METHODS))

_STEPS = {"smoke": 60, "laptop": 10_000, "paper": 50_000}
_SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
_EVALUATION_SEQUENCES = {"smoke": 500, "laptop": 16_000, "paper": 16_000}
_EXPERTS = {"feed_forward": "moe", "n_experts": 4, "experts_per_token": 2}
# The paper reports the best of four settings per method; laptop has the one that it lists first.
_OPTIMIZATION = {
    "smoke": ((1e-3, 0.1),),
    "laptop": ((1e-3, 0.1),),
    "paper": tuple(product((1e-3, 3e-3), (0.1, 0.03))),
}


class Sizes(NamedTuple):
    """What SRAVEN's figures vary.

    Args:
        steps: of 128 problems each.
        width: multiplies the sizes of the paper's smallest model: embedding 128, queries, keys and values 64 each,
            feed-forward 256, 16 heads.
        n_heads: None where it follows the width.
    """

    steps: int
    n_features: int = 4
    width: float = 1.0
    n_layers: int = 4
    n_heads: int | None = None
    heldout_fraction: float = 0.25


# 20 million problems; laptop's sizes were chosen by the training score of softmax attention alone (deviations.md, D16).
SRAVEN_SIZES = {
    "smoke": Sizes(steps=60, n_features=2, width=0.25, n_layers=2),
    "laptop": Sizes(steps=8_000, n_features=2, width=0.5),
    "paper": Sizes(steps=156_250),
}
_SRAVEN_EVALUATION = {"smoke": 500, "laptop": 12_800, "paper": 51_200}
_SRAVEN_OPTIMIZATION = {
    "smoke": ((1e-3, 0.1, 10),),
    "laptop": ((1e-3, 0.1, 1000),),
    "paper": tuple(product((1e-3, 3e-4), (0.1, 0.3), (1000, 3000))),
}


def _split(method: str) -> tuple[str, dict[str, Any]]:
    """Return the variant of attention of a method, and what its feed-forward differs in."""
    choose("method", method, ABLATIONS)
    return method.removesuffix("_moe"), _EXPERTS if method.endswith("_moe") else {}


def fuzzy_logic(
    preset: str,
    method: str,
    seed: int,
    n_examples: int = 32,
    heldout_fraction: float = 0.7,
    optimization: tuple[float, float] = (1e-3, 0.1),
    attention_dropout: float = 0.1,
) -> Experiment:
    """Return one fuzzy-logic run with 4 variables and 2 terms (paper, section on fuzzy logic and its appendix)."""
    choose("preset", preset, PRESETS)
    variant, feed_forward = _split(method)
    learning_rate, weight_decay = optimization
    return Experiment(
        task_name="fuzzy_logic",
        task={"n_variables": 4, "n_terms": 2, "n_examples": n_examples, "heldout_fraction": heldout_fraction},
        model=TransformerConfig(
            variant=variant, n_layers=2, d_model=128, n_heads=8, qk_dim=16, v_dim=16, d_ff=256,
            n_positions=n_examples, n_inputs=5, n_outputs=1, **feed_forward,
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


def sraven(
    preset: str,
    method: str,
    seed: int,
    sizes: Sizes | None = None,
    optimization: tuple[float, float, int] | None = None,
    attention_dropout: float = 0.1,
) -> Experiment:
    """Return one SRAVEN run with symbols of 8 values in a grid of 3 x 3 (paper, section on SRAVEN and its appendix).

    Args:
        sizes: those of the preset's main comparison if None.
        optimization: learning rate, weight decay and steps of warm-up; the first that the preset has if None.
    """
    size = sizes or SRAVEN_SIZES[choose("preset", preset, PRESETS)]
    variant, feed_forward = _split(method)
    learning_rate, weight_decay, warmup_steps = optimization or _SRAVEN_OPTIMIZATION[preset][0]
    embedding, kqv, hidden, heads = (round(size.width * base) for base in (128, 64, 256, 16))
    task = {"n_features": size.n_features, "n_values": 8, "grid_size": 3, "heldout_fraction": size.heldout_fraction}
    return Experiment(
        task_name="sraven",
        task=task,
        model=TransformerConfig(
            variant=variant, n_layers=size.n_layers, d_model=embedding, n_heads=size.n_heads or heads, qk_dim=kqv,
            v_dim=kqv, d_ff=hidden, n_positions=9 * size.n_features, n_inputs=8, n_outputs=8, **feed_forward,
        ),
        steps=size.steps,
        batch_size=128,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        attention_dropout=attention_dropout,  # Deviation D1, as above
        evaluation_sequences=_SRAVEN_EVALUATION[preset],
        seed=seed,
    )  # fmt: skip


def _grid(preset: str, methods: tuple[str, ...], points: list[tuple[int, float]]) -> list[Experiment]:
    return [
        fuzzy_logic(preset, method, seed, n_examples, heldout, optimization)
        for (n_examples, heldout), method, optimization, seed in product(
            points, methods, _OPTIMIZATION[preset], _SEEDS[preset]
        )
    ]


def _sraven_grid(preset: str, methods: tuple[str, ...], points: Iterable[Sizes]) -> list[Experiment]:
    # The first setting of the optimiser comes first, for every method and seed: a figure that is not finished shows it.
    return [
        sraven(preset, method, seed, point, optimization)
        for point, optimization, method, seed in product(points, _SRAVEN_OPTIMIZATION[preset], methods, _SEEDS[preset])
    ]


def _main(preset: str) -> list[Experiment]:
    return _grid(preset, METHODS, [(32, 0.7)])


def _latent(preset: str) -> list[Experiment]:
    # The paper shows codes at N=96; a third of that is what two cores can afford and 2C trains anyway.
    return _grid(preset, METHODS, [(96 if preset == "paper" else 32, 0.5)])


def _scaling(preset: str) -> list[Experiment]:
    lengths = {"smoke": (16, 32), "laptop": (16, 32, 64), "paper": (16, 32, 64, 96)}[preset]
    fractions = {"smoke": (0.3, 0.7)}.get(preset, (0.3, 0.5, 0.7))
    if preset == "paper":
        return _grid(preset, METHODS, list(product(lengths, fractions)))
    cross = dict.fromkeys([(32, 0.7), *((32, f) for f in fractions), *((n, 0.7) for n in lengths)])
    return _grid(preset, METHODS, list(cross))


def _ablations(preset: str) -> list[Experiment]:
    return _grid(preset, ABLATIONS, [(32, 0.7)])


def _dropout(preset: str) -> list[Experiment]:
    tasks: tuple[Callable[..., Experiment], ...] = (fuzzy_logic, sraven)
    points = product(tasks, ("softmax", "hyla"), (0.1, 0.0), _SEEDS[preset])
    return [make(preset, method, seed, attention_dropout=rate) for make, method, rate, seed in points]


def _warmup(preset: str) -> list[Experiment]:
    """Return SRAVEN runs with the preset's warm-up, and with one that is as short a part of training as the paper's."""
    learning_rate, weight_decay, usual = _SRAVEN_OPTIMIZATION[preset][0]
    other = 3000 if preset == "paper" else SRAVEN_SIZES[preset].steps // 50
    points = product(("softmax", "hyla"), (usual, other), _SEEDS[preset])
    return [
        sraven(preset, method, seed, optimization=(learning_rate, weight_decay, warmup))
        for method, warmup, seed in points
    ]


def _sraven_main(preset: str) -> list[Experiment]:
    return _sraven_grid(preset, METHODS, [SRAVEN_SIZES[preset]])


def _sraven_ablations(preset: str) -> list[Experiment]:
    return _sraven_grid(preset, ABLATIONS, [SRAVEN_SIZES[preset]])


def _varied(preset: str, **lists: Sequence[Any]) -> list[Experiment]:
    """Return runs of the three methods at a preset's main sizes with these varied, every value with every other."""
    main = SRAVEN_SIZES[preset]
    points = [main._replace(**dict(zip(lists, values, strict=True))) for values in product(*lists.values())]
    return _sraven_grid(preset, METHODS, points)


def _problems(preset: str) -> tuple[int, ...]:
    steps = SRAVEN_SIZES[preset].steps
    return (steps // 2, steps, 2 * steps)


def _data(preset: str) -> list[Experiment]:
    return _varied(preset, steps=_problems(preset))


def _depth(preset: str) -> list[Experiment]:
    depths = {"smoke": (1, 2), "laptop": (2, 4), "paper": (4, 8, 16)}[preset]
    # At the paper's scale every depth has every number of problems, as every width has.
    return _varied(preset, n_layers=depths, steps=_problems(preset) if preset == "paper" else _problems(preset)[1:2])


def _width(preset: str) -> list[Experiment]:
    widths = {"smoke": (0.125, 0.25), "laptop": (0.25, 0.5), "paper": (1.0, 2.0, 4.0)}[preset]
    return _varied(preset, width=widths, steps=_problems(preset))


def _sraven_scaling(preset: str) -> list[Experiment]:
    return _once(_width(preset) + _depth(preset))


def _sraven_heldout(preset: str) -> list[Experiment]:
    fractions = {"smoke": (0.25, 0.5), "laptop": (0.1, 0.25, 0.5), "paper": (0.1, 0.25, 0.3, 0.5, 0.7, 0.9)}[preset]
    return _varied(preset, heldout_fraction=fractions)


def _heads(preset: str) -> list[Experiment]:
    heads = {"smoke": (1, 4), "laptop": (1, 2, 8), "paper": (1, 2, 4, 8, 16)}[preset]
    main = SRAVEN_SIZES[preset].width * 16
    # Where the number of heads is that of the width, the run is that of the main comparison.
    return _varied(preset, n_heads=[None if number == main else number for number in heads])


def _features(preset: str) -> list[Experiment]:
    return _varied(preset, n_features={"smoke": (2, 3), "laptop": (2, 3), "paper": (2, 3, 4)}[preset])


def _codes(preset: str) -> list[Experiment]:
    """Return the runs whose codes are shown: the main comparison, and one seed of other depths."""
    main, deeper = _sraven_main(preset), [run for run in _depth(preset) if run.steps == SRAVEN_SIZES[preset].steps]
    runs = main + [run for run in deeper if run.seed == 0]
    # Which of its settings the paper shows codes of is not said; ours is the one that other presets have too.
    first = _SRAVEN_OPTIMIZATION[preset][0]
    return _once(run for run in runs if (run.learning_rate, run.weight_decay, run.warmup_steps) == first)


def _heads_and_features(preset: str) -> list[Experiment]:
    return _once(_heads(preset) + _features(preset))


def _table_a1(preset: str) -> list[Experiment]:
    return _ablations(preset) + _sraven_ablations(preset)


FIGURES: dict[str, Callable[[str], list[Experiment]]] = {
    "fig2c": _scaling,
    "fig2b": _latent,
    "fig2d": _latent,
    "figa3": _scaling,
    "fig4": _sraven_scaling,
    "figa5": _sraven_heldout,
    "fig5a": _codes,
    "fig5c": _heads_and_features,
    "fig5e": _codes,
    "fig5f": _codes,
    "tablea1": _table_a1,
    "dropout": _dropout,
    "warmup": _warmup,
}


def _once(runs: Iterable[Experiment]) -> list[Experiment]:
    return list({run.id: run for run in runs}.values())


def experiments(figure: str, preset: str) -> list[Experiment]:
    """Return the runs behind a figure (or `all`), each once, those of the main comparisons first.

    Raises: ValueError for an unknown figure or preset.
    """
    choose("preset", preset, PRESETS)
    if choose("figure", figure, ["all", *FIGURES]) != "all":
        return FIGURES[figure](preset)
    order = [_main, _latent, _sraven_main, _ablations, _dropout, _warmup, _scaling, _sraven_ablations, _data, _heads,
             _features, _sraven_heldout, _sraven_scaling]  # fmt: skip
    return _once(run for make in order for run in make(preset))
