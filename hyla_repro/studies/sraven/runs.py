"""The runs of SRAVEN's figures, and what is computed of their weights (Figures 4 and 5, their appendices, Table A1)."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.lazy import later
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.methods import METHODS, architecture
from hyla_repro.studies.study import PRESETS, once

TASK = "sraven"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
# The three methods of the main comparison have these besides, on which the headline claims rest.
MORE_SEEDS = {"laptop": tuple(range(3, 10))}

RULE_DECODING = Analysis("sraven_rule_decoding.csv", later("hyla_repro.studies.sraven.codes", "rule_decoding_table"))
MEAN_CODES = Analysis("sraven_mean_codes.csv", later("hyla_repro.studies.sraven.codes", "mean_code_table"))
CODE_PLANE = Analysis("sraven_code_plane.csv", later("hyla_repro.studies.sraven.codes", "code_plane_table"))


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
SIZES = {
    "smoke": Sizes(steps=60, n_features=2, width=0.25, n_layers=2),
    "laptop": Sizes(steps=8_000, n_features=2, width=0.5),
    "paper": Sizes(steps=156_250),
}
# Layers of the deep models, whose layers are dropped (arXiv 2406.15786).
DEPTH = {"smoke": 3, "laptop": 8, "paper": 8}
_EVALUATION_PROBLEMS = {"smoke": 500, "laptop": 12_800, "paper": 51_200}
_NORMALISERS = ("hyla_softmax", "linear", "linear_rms_head", "hyla_no_rms_head", "hyla_no_relu",
                "hyla_no_relu_no_rms_head")  # fmt: skip
_OPTIMIZATION = {
    "smoke": ((1e-3, 0.1, 10),),
    "laptop": ((1e-3, 0.1, 1000),),
    "paper": tuple(product((1e-3, 3e-4), (0.1, 0.3), (1000, 3000))),
}


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
    size = sizes or SIZES[choose("preset", preset, PRESETS)]
    learning_rate, weight_decay, warmup_steps = optimization or _OPTIMIZATION[preset][0]
    embedding, kqv, hidden, heads = (round(size.width * base) for base in (128, 64, 256, 16))
    task = {"n_features": size.n_features, "n_values": 8, "grid_size": 3, "heldout_fraction": size.heldout_fraction}
    return Experiment(
        task_name="sraven",
        task=task,
        model=TransformerConfig(
            n_layers=size.n_layers, d_model=embedding, n_heads=size.n_heads or heads, qk_dim=kqv,
            v_dim=kqv, d_ff=hidden, n_positions=9 * size.n_features, n_inputs=8, n_outputs=8, **architecture(method),
        ),
        steps=size.steps,
        batch_size=128,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=warmup_steps,
        # Deviation D1: the release trains with this dropout although the paper does not list it.
        attention_dropout=attention_dropout,
        evaluation_sequences=_EVALUATION_PROBLEMS[preset],
        seed=seed,
    )  # fmt: skip


def grid(
    preset: str, methods: tuple[str, ...], points: Iterable[Sizes], seeds: tuple[int, ...] | None = None
) -> list[Experiment]:
    """Return runs of every method, optimiser setting and seed at these sizes."""
    chosen = SEEDS[preset] if seeds is None else seeds
    # The first setting of the optimiser comes first, for every method and seed: a figure that is not finished shows it.
    return [
        sraven(preset, method, seed, point, optimization)
        for point, optimization, method, seed in product(points, _OPTIMIZATION[preset], methods, chosen)
    ]


def comparison(preset: str, methods: tuple[str, ...], seeds: tuple[int, ...] | None = None) -> list[Experiment]:
    """Return runs of these methods in the main comparison, at a preset's own sizes.

    Args:
        seeds: those that every figure has if None.
    """
    return grid(preset, methods, [SIZES[preset]], seeds)


def main(preset: str) -> list[Experiment]:
    """Return the runs of the main comparison, with all their seeds."""
    return comparison(preset, METHODS, SEEDS[preset] + MORE_SEEDS.get(preset, ()))


def _varied(preset: str, **lists: Sequence[Any]) -> list[Experiment]:
    """Return runs of the three methods at a preset's main sizes with these varied, every value with every other."""
    sizes = SIZES[preset]
    points = [sizes._replace(**dict(zip(lists, values, strict=True))) for values in product(*lists.values())]
    return grid(preset, METHODS, points)


def _problems(preset: str) -> tuple[int, ...]:
    steps = SIZES[preset].steps
    return (steps // 2, steps, 2 * steps)


def _depth(preset: str) -> list[Experiment]:
    depths = {"smoke": (1, 2), "laptop": (2, 4), "paper": (4, 8, 16)}[preset]
    # At the paper's scale every depth has every number of problems, as every width has.
    return _varied(preset, n_layers=depths, steps=_problems(preset) if preset == "paper" else _problems(preset)[1:2])


def _width(preset: str) -> list[Experiment]:
    widths = {"smoke": (0.125, 0.25), "laptop": (0.25, 0.5), "paper": (1.0, 2.0, 4.0)}[preset]
    return _varied(preset, width=widths, steps=_problems(preset))


def scaling(preset: str) -> list[Experiment]:
    """Return runs along training problems, width and depth (Figures 4 and A4)."""
    return once(_width(preset) + _depth(preset))


def heldout(preset: str) -> list[Experiment]:
    """Return runs along the fraction of tasks held out (Figure A5)."""
    fractions = {"smoke": (0.25, 0.5), "laptop": (0.1, 0.25, 0.5), "paper": (0.1, 0.25, 0.3, 0.5, 0.7, 0.9)}[preset]
    return _varied(preset, heldout_fraction=fractions)


def _heads(preset: str) -> list[Experiment]:
    heads = {"smoke": (1, 4), "laptop": (1, 2, 8), "paper": (1, 2, 4, 8, 16)}[preset]
    usual = SIZES[preset].width * 16
    # Where the number of heads is that of the width, the run is that of the main comparison.
    return _varied(preset, n_heads=[None if number == usual else number for number in heads])


def _features(preset: str) -> list[Experiment]:
    return _varied(preset, n_features={"smoke": (2, 3), "laptop": (2, 3), "paper": (2, 3, 4)}[preset])


def codes(preset: str) -> list[Experiment]:
    """Return the runs whose codes are shown: the main comparison, and one seed of other depths."""
    deeper = [run for run in _depth(preset) if run.steps == SIZES[preset].steps]
    runs = comparison(preset, METHODS) + [run for run in deeper if run.seed == 0]
    # Which of its settings the paper shows codes of is not said; ours is the one that other presets have too.
    return once(run for run in runs if _optimization(run) == _OPTIMIZATION[preset][0])


def heads_and_features(preset: str) -> list[Experiment]:
    """Return runs along the number of heads, and along that of features (Figures 5C and 5D)."""
    return once(_heads(preset) + _features(preset))


def dropout(preset: str) -> list[Experiment]:
    """Return runs with and without attention dropout (Deviation D1)."""
    points = product(("softmax", "hyla"), (0.1, 0.0), SEEDS[preset])
    return [sraven(preset, method, seed, attention_dropout=rate) for method, rate, seed in points]


def tuning(preset: str) -> list[Experiment]:
    """Return runs that tell whether the order of methods is a matter of tuning: learning rates times steps of warm-up.

    The shorter warm-up is as short a part of training as the paper's longest.
    """
    usual, weight_decay, warmup = _OPTIMIZATION[preset][0]
    rates = (usual, 3e-4, 3e-3) if preset == "laptop" else (usual,)
    other = 3000 if preset == "paper" else SIZES[preset].steps // 50
    settings = [(rate, weight_decay, steps) for rate, steps in product(rates, (warmup, other))]
    return [
        sraven(preset, method, seed, optimization=setting)
        for setting, seed, method in product(settings, SEEDS[preset], ("softmax", "hyla"))
    ]


def long(preset: str) -> list[Experiment]:
    """Return the main comparison trained for six times as long: does HYLA lead once everybody has learned?"""
    # The paper's preset is what the paper trained, which has no such runs.
    return grid(preset, METHODS, [SIZES[preset]._replace(steps=6 * SIZES[preset].steps)] if preset != "paper" else [])


def deep(preset: str) -> list[Experiment]:
    """Return the main comparison with more layers."""
    sizes = SIZES[preset]._replace(n_layers=DEPTH[preset])
    return [sraven(preset, method, seed, sizes) for seed in SEEDS[preset] for method in METHODS]


def causes(preset: str) -> list[Experiment]:
    """Return the runs that tell why ours disagree: softmax attention and HYLA wherever both are trained.

    The rows of Table A1 that differ from another by the normaliser alone are among them.
    """
    figures = (main(preset), scaling(preset), deep(preset), heads_and_features(preset), heldout(preset))
    rows = comparison(preset, _NORMALISERS)
    # Among the settings of the optimiser that the paper chooses from, the first stands for all.
    usual = _OPTIMIZATION[preset][0]
    first = [run for runs in (*figures, rows) for run in runs if _optimization(run) == usual]
    runs = once([*first, *dropout(preset), *tuning(preset), *long(preset)])
    return [run for run in runs if run.method in ("softmax", "hyla") or run in rows]


def _optimization(run: Experiment) -> tuple[float, float, int]:
    return run.learning_rate, run.weight_decay, run.warmup_steps
