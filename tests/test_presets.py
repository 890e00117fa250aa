"""Every number of every figure, against what the paper states."""

from itertools import product

import pytest

from hyla_repro import presets
from hyla_repro.settings import VARIANTS

FIGURES = sorted(presets.FIGURES)


@pytest.mark.parametrize(("figure", "preset"), list(product(["all", *FIGURES], presets.PRESETS)))
def test_every_figure_builds_at_every_scale(figure: str, preset: str) -> None:
    runs = presets.experiments(figure, preset)
    assert runs
    assert len({run.id for run in runs}) == len(runs)
    seeds = {run.seed for run in runs}
    assert len(seeds) >= (1 if preset == "smoke" else 3)
    settings = {run.model_copy(update={"seed": 0}).id for run in runs}
    assert len(runs) == len(settings) * len(seeds), "not every setting has every seed"
    assert {run.steps for run in runs} == {{"smoke": 60, "laptop": 10_000, "paper": 50_000}[preset]}


def test_all_holds_every_figure_once_and_the_main_comparison_first() -> None:
    for preset in presets.PRESETS:
        runs = [run.id for run in presets.experiments("all", preset)]
        needed = {run.id for figure in FIGURES for run in presets.experiments(figure, preset)}
        assert len(runs) == len(set(runs))
        assert set(runs) == needed
        first = presets.experiments("all", preset)[0]
        assert (first.model.variant, first.task["n_examples"], first.task["heldout_fraction"]) == ("softmax", 32, 0.7)


def test_paper_grid_of_figure_2c() -> None:
    """4 lengths x 3 fractions x 4 optimisations x 3 methods x 3 seeds (paper.md section 4)."""
    runs = presets.experiments("fig2c", "paper")
    grid = {
        (run.task["n_examples"], run.task["heldout_fraction"], run.learning_rate, run.weight_decay,
         run.model.variant, run.seed) for run in runs
    }  # fmt: skip
    axes = (16, 32, 64, 96), (0.3, 0.5, 0.7), (1e-3, 3e-3), (0.1, 0.03), ("softmax", "linear", "hyla"), (0, 1, 2)
    assert grid == set(product(*axes))
    assert len(runs) == 432


def test_paper_table_a1_has_every_attention_variant() -> None:
    runs = presets.experiments("tablea1", "paper")
    assert {run.model.variant for run in runs} == set(VARIANTS)
    assert len(runs) == 10 * 4 * 3
    assert {(run.task["n_examples"], run.task["heldout_fraction"]) for run in runs} == {(32, 0.7)}


@pytest.mark.parametrize("figure", ["fig2b", "fig2d"])
def test_paper_latent_codes_use_96_examples_and_half_held_out(figure: str) -> None:
    runs = presets.experiments(figure, "paper")
    assert {(run.task["n_examples"], run.task["heldout_fraction"]) for run in runs} == {(96, 0.5)}


def test_laptop_latent_codes_are_runs_of_figure_2c() -> None:
    needed = {run.id for run in presets.experiments("fig2b", "laptop")}
    assert needed <= {run.id for run in presets.experiments("fig2c", "laptop")}


def test_dropout_comparison_changes_dropout_alone() -> None:
    runs = presets.experiments("dropout", "laptop")
    rates = {run.attention_dropout for run in runs}
    assert rates == {0.0, 0.1}
    without = {run.model_copy(update={"attention_dropout": 0.1}).id for run in runs}
    assert len(without) * 2 == len(runs)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_model_and_optimisation_of_the_paper(preset: str) -> None:
    for run in presets.experiments("fig2c", preset):
        model = run.model
        sizes = (model.n_layers, model.d_model, model.n_heads, model.qk_dim, model.v_dim, model.d_ff)
        assert sizes == (2, 128, 8, 16, 16, 256)
        assert (run.batch_size, run.task["n_variables"], run.task["n_terms"]) == (128, 4, 2)
        assert run.attention_dropout == 0.1
        assert not model.causal
        assert model.feed_forward == "gelu"
        assert run.warmup_steps == (20 if preset == "smoke" else 100)
        assert run.evaluation_sequences == (500 if preset == "smoke" else 16_000)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'papper': did you mean 'paper'\?.*smoke, laptop, paper"):
        presets.experiments("fig2c", "papper")
    with pytest.raises(ValueError, match=r"unknown figure 'fig2': did you mean 'fig2"):
        presets.experiments("fig2", "paper")
    with pytest.raises(ValueError, match=r"unknown preset 'papper': did you mean 'paper'\?"):
        presets.fuzzy_logic("papper", "hyla", 0)
    with pytest.raises(ValueError, match=r"unknown variant 'hylla': did you mean 'hyla'\?"):
        presets.fuzzy_logic("paper", "hylla", 0)
