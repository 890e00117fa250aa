"""Every number of every figure, against what the paper states."""

from itertools import product

import pandas as pd
import pytest

from hyla_repro.attention.variants import VARIANTS
from hyla_repro.experiment import Experiment
from hyla_repro.results.methods import METHODS
from hyla_repro.studies import PRESETS, experiments, with_runs
from hyla_repro.studies.ablations import runs as ablations
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven_settings
from hyla_repro.studies.sraven.runs import sraven

FIGURES = sorted(with_runs())
# Other depths than the main one are shown with one seed.
CODES = ("fig5a", "fig5e", "fig5f")
# Longer runs than the paper's, and letters of a text in pieces.
NONE = [(figure, "paper") for figure in ("wide-heads", "long", "letters", "aaren-codes", "primal-heads")]


def sraven_runs(figure: str, preset: str) -> list[Experiment]:
    return [run for run in experiments(figure, preset) if run.task_name == "sraven"]


@pytest.mark.parametrize(("figure", "preset"), list(product(["all", *FIGURES], PRESETS)))
def test_every_figure_builds_at_every_scale(figure: str, preset: str) -> None:
    runs = experiments(figure, preset)
    assert bool(runs) == ((figure, preset) not in NONE), "a figure without runs"
    assert len({run.id for run in runs}) == len(runs)
    seeds = {"smoke": {0}}.get(preset, {0, 1, 2})
    # Language tries learning rates with the first seed, and trains the chosen ones with the others.
    first = [run for run in runs if run.seed in seeds and run.task_name != "language"]
    # One part of a seed is drawn anew at a time, in runs of their own.
    first = [run for run in first if run.init_seed is None and "split_seed" not in run.task]
    settings = {run.model_copy(update={"seed": 0}).id for run in first}
    if figure not in (*CODES, "seeds"):
        assert len(first) == len(settings) * len(seeds), "not every setting has every seed"
    fuzzy = [run for run in runs if run.task_name == "fuzzy_logic"]
    assert {run.steps for run in fuzzy} <= {{"smoke": 60, "laptop": 10_000, "paper": 50_000}[preset]}


def test_the_three_methods_of_the_headline_have_ten_seeds_at_laptop() -> None:
    more = [run for run in experiments("all", "laptop") if run.seed > 2 and run.task_name != "series"]
    assert len(more) == 2 * 3 * 7
    assert {(run.task_name, run.method) for run in more} == set(
        product(("fuzzy_logic", "sraven"), ("softmax", "linear", "hyla"))
    )
    assert {run.seed for run in more} == set(range(3, 10))
    main = {run.model_copy(update={"seed": 0}).id for run in more}
    assert main <= {run.id for run in experiments("tablea1", "laptop")}
    assert {run.id for run in more} <= {run.id for run in experiments("headline", "laptop")}
    for preset in ("smoke", "paper"):
        assert max(run.seed for run in experiments("all", preset)) <= 2


@pytest.mark.parametrize("preset", PRESETS)
def test_all_rows_of_table_a1_have_the_same_seeds_and_so_the_same_splits(preset: str) -> None:
    rows = pd.DataFrame([run.row() for run in experiments("tablea1", preset)])
    seeds = rows.groupby(["task", "variant"])["seed"].unique().map(sorted)
    assert len(seeds) == 2 * 13
    assert all(found == seeds.iloc[0] for found in seeds)


def test_longer_runs_have_six_times_the_steps_and_nothing_else() -> None:
    for run in experiments("long", "laptop"):
        assert run.steps == 48_000
        assert run.model_copy(update={"steps": 8_000}).id in {main.id for main in experiments("tablea1", "laptop")}


def test_all_holds_every_figure_once_and_the_main_comparison_first() -> None:
    for preset in PRESETS:
        runs = [run.id for run in experiments("all", preset)]
        needed = {run.id for figure in FIGURES for run in experiments(figure, preset)}
        assert len(runs) == len(set(runs))
        assert set(runs) == needed
        first = experiments("all", preset)[0]
        assert (first.model.variant, first.task["n_examples"], first.task["heldout_fraction"]) == ("softmax", 32, 0.7)


def test_paper_grid_of_figure_2c() -> None:
    """4 lengths x 3 fractions x 4 optimisations x 3 methods x 3 seeds (paper.md section 4)."""
    runs = experiments("fig2c", "paper")
    grid = {
        (run.task["n_examples"], run.task["heldout_fraction"], run.learning_rate, run.weight_decay,
         run.model.variant, run.seed) for run in runs
    }  # fmt: skip
    axes = (16, 32, 64, 96), (0.3, 0.5, 0.7), (1e-3, 3e-3), (0.1, 0.03), ("softmax", "linear", "hyla"), (0, 1, 2)
    assert grid == set(product(*axes))
    assert len(runs) == 432


def test_paper_table_a1_has_every_row_on_both_tasks() -> None:
    """13 rows x 4 (fuzzy logic) or 8 (SRAVEN) optimisations x 3 seeds (paper.md section 6)."""
    runs = experiments("tablea1", "paper")
    fuzzy = [run for run in runs if run.task_name == "fuzzy_logic"]
    assert len(fuzzy) == 13 * 4 * 3
    assert {(run.task["n_examples"], run.task["heldout_fraction"]) for run in fuzzy} == {(32, 0.7)}
    sraven = [run for run in runs if run.task_name == "sraven"]
    assert len(sraven) == 13 * 8 * 3
    for part in (fuzzy, sraven):
        assert {run.method for run in part} == {*VARIANTS, "softmax_moe", "linear_moe", "hyla_moe"}
        experts = {(run.model.n_experts, run.model.experts_per_token) for run in part if run.method.endswith("_moe")}
        assert experts == {(4, 2)}


def test_sraven_at_the_papers_scale() -> None:
    """Sizes, data and optimisation of paper.md section 5."""
    for run in sraven_runs("tablea1", "paper"):
        model = run.model
        sizes = (model.n_layers, model.d_model, model.n_heads, model.qk_dim, model.v_dim, model.d_ff, model.n_positions)
        assert sizes == (4, 128, 16, 64, 64, 256, 36)
        assert run.task == {"n_features": 4, "n_values": 8, "grid_size": 3, "heldout_fraction": 0.25}
        assert run.steps * run.batch_size == 20_000_000
        assert run.evaluation_sequences == 51_200
        assert run.attention_dropout == 0.1
    grid = {(run.learning_rate, run.weight_decay, run.warmup_steps) for run in sraven_runs("tablea1", "paper")}
    assert grid == set(product((1e-3, 3e-4), (0.1, 0.3), (1000, 3000)))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_the_figures_of_sraven_vary(preset: str) -> None:
    main = sraven(preset, "softmax", 0)
    names = ("n_layers", "d_model", "n_heads")

    def point(run: Experiment) -> dict[str, object]:
        return {**run.task, **{name: getattr(run.model, name) for name in names}, "steps": run.steps}

    allowed = {"fig4": {"n_layers", "d_model", "n_heads", "steps"}, "figa5": {"heldout_fraction"},
               "fig5c": {"n_heads", "n_features"}, "fig5a": {"n_layers"}, "tablea1": set()}  # fmt: skip
    for figure, axes in allowed.items():
        runs = sraven_runs(figure, preset)
        varied = {name for run in runs for name, value in point(run).items() if value != point(main)[name]}
        assert varied == axes, figure
        assert main.id in {run.id for run in runs}, "figures share the main comparison's runs"
    data = {run.steps for run in sraven_runs("fig4", preset)}
    assert data == {main.steps // 2, main.steps, 2 * main.steps}


def test_data_and_width_are_crossed_at_every_scale() -> None:
    for preset in PRESETS:
        depth = sraven_settings.SIZES[preset].n_layers
        runs = [run for run in sraven_runs("fig4", preset) if run.model.n_layers == depth]
        points = {(run.model.d_model, run.steps) for run in runs}
        assert points == set(product({width for width, _ in points}, {steps for _, steps in points}))


@pytest.mark.parametrize("figure", ["fig2b", "fig2d"])
def test_paper_latent_codes_use_96_examples_and_half_held_out(figure: str) -> None:
    runs = experiments(figure, "paper")
    assert {(run.task["n_examples"], run.task["heldout_fraction"]) for run in runs} == {(96, 0.5)}


def test_laptop_latent_codes_are_runs_of_figure_2c() -> None:
    needed = {run.id for run in experiments("fig2b", "laptop")}
    assert needed <= {run.id for run in experiments("fig2c", "laptop")}


def test_dropout_comparison_changes_dropout_alone() -> None:
    runs = experiments("dropout", "laptop")
    rates = {run.attention_dropout for run in runs}
    assert rates == {0.0, 0.1}
    without = {run.model_copy(update={"attention_dropout": 0.1}).id for run in runs}
    assert len(without) * 2 == len(runs)


def test_wide_heads_change_the_width_of_heads_alone() -> None:
    main = {(run.method, run.seed): run for run in experiments("fig2c", "laptop") if run.task["n_examples"] == 32
            and run.task["heldout_fraction"] == 0.7}  # fmt: skip
    runs = experiments("wide-heads", "laptop")
    assert {(run.method, run.seed) for run in runs} == {(method, seed) for method in METHODS for seed in (0, 1, 2)}
    for run in runs:
        assert run.model.d_model == run.model.qk_dim == run.model.v_dim
        narrow = run.model.model_copy(update={"qk_dim": 16, "v_dim": 16})
        assert run.model_copy(update={"model": narrow}).id == main[run.method, run.seed].id
    assert not experiments("wide-heads", "paper")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_grid_of_the_optimiser_changes_rate_and_warmup_alone(preset: str) -> None:
    """The shorter warm-up takes the part of training that the paper's longer one takes at most, a fiftieth."""
    runs = experiments("tuning", preset)
    rates, warmups = {run.learning_rate for run in runs}, {run.warmup_steps for run in runs}
    assert rates == ({3e-4, 1e-3, 3e-3} if preset == "laptop" else {1e-3})
    usual = runs[0].warmup_steps
    assert warmups == {usual, 3000 if preset == "paper" else runs[0].steps // 50}
    alike = {run.model_copy(update={"warmup_steps": usual, "learning_rate": 1e-3}).id for run in runs}
    assert len(alike) * len(rates) * len(warmups) == len(runs)
    main = {run.id for run in sraven_runs("tablea1", preset)}
    assert {run.id for run in runs if (run.warmup_steps, run.learning_rate) == (usual, 1e-3)} <= main


@pytest.mark.parametrize("preset", PRESETS)
def test_one_part_of_the_seed_is_drawn_anew_at_a_time(preset: str) -> None:
    def drawn(run: Experiment) -> dict[str, object]:
        tables = {name: table.tolist() for name, table in run.build_task().tables("train").items()}
        weights = run.seed if run.init_seed is None else run.init_seed
        return {"data": tables.pop("seed"), "split": tables, "first weights": weights}

    runs = experiments("seeds", preset)
    first = {(run.task_name, run.method): drawn(run) for run in runs if ablations.part_of(run) is None}
    assert len(first) == 4
    for run in runs:
        usual = first[run.task_name, run.method]
        anew = [part for part, value in drawn(run).items() if value != usual[part]]
        assert anew == [part for part in (ablations.part_of(run),) if part]


@pytest.mark.parametrize("preset", PRESETS)
def test_model_and_optimisation_of_the_paper(preset: str) -> None:
    for run in experiments("fig2c", preset):
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
        experiments("fig2c", "papper")
    with pytest.raises(ValueError, match=r"unknown figure 'fig2': did you mean 'fig2"):
        experiments("fig2", "paper")
    with pytest.raises(ValueError, match=r"unknown preset 'papper': did you mean 'paper'\?"):
        fuzzy_logic("papper", "hyla", 0)
    for make in (fuzzy_logic, sraven):
        with pytest.raises(ValueError, match=r"unknown method 'hylla': did you mean 'hyla'\?"):
            make("paper", "hylla", 0)
