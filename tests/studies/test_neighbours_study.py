"""The chapters on neighbours: codes taken apart, heads told apart, regressions solved, costs counted, tables made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.attention import HypernetworkAttention
from hyla_repro.experiment import Experiment
from hyla_repro.models.transformer import Transformer
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies import aaren, experiments, neighbour_runs, neighbours, primal_dual
from hyla_repro.studies.aaren import analysis as of_aaren
from hyla_repro.studies.aaren.codes import code_table, double_differences, matrix_table
from hyla_repro.studies.neighbour_runs import series
from hyla_repro.studies.primal_dual import analysis as of_primal
from hyla_repro.studies.primal_dual.codes import distance_table, head_outputs


def weights_of(run: Experiment) -> bytes:
    model = Transformer(run.model).initialize(run.seed + 1)
    return safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- codes ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(2, 9))
def test_a_sum_of_two_terms_has_no_double_differences_and_other_codes_have(seed: int, length: int) -> None:
    padding = (torch.arange(9) >= torch.tensor([[length], [9]])).expand(2, 9)
    separable = (draw(2, 3, 9, 1, seed=seed) + draw(2, 3, 1, 9, seed=seed + 1)).exp()
    differences, present = double_differences(separable, padding)
    assert differences.abs().max() < 1e-12
    # Four neighbours below the diagonal, the last two tokens of the first sequence being `length` and the one before.
    assert present.sum((1, 2, 3)).tolist() == [(n - 1) * (n - 2) // 2 for n in (length, 9)]
    differences, _ = double_differences(separable * draw(2, 3, 9, 9, seed=seed).exp(), padding)
    assert differences.abs().max() > 0.1
    # Values of padding, or above the diagonal, are never looked at.
    hidden = separable.masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), float("nan"))
    torch.testing.assert_close(double_differences(hidden, padding)[0], double_differences(separable, padding)[0])


def test_only_the_code_of_a_learned_query_is_separable(write_archive: Callable[[], object]) -> None:
    write_archive()
    runs = [series("smoke", method, 0) for method in ("softmax_causal", "aaren")]
    table = code_table(runs, [weights_of(run) for run in runs])
    assert list(table.columns) == ["id", "model", "layer", "residual"]
    residuals = table.groupby("id")["residual"]
    assert residuals.min()[runs[0].id] > 0.01
    assert residuals.max()[runs[1].id] == 0.0
    assert table.groupby("model").size().to_dict() == {"trained": 4, "untrained": 4}

    logs = matrix_table(runs, [weights_of(run) for run in runs])
    whole = logs[logs["id"] == runs[1].id].pivot(index="query", columns="key", values="log_code")
    assert whole.shape == (29, 29)
    torch.testing.assert_close(np.exp(whole.to_numpy()[-1]).sum(), 1.0, atol=1e-3, rtol=0)


# --- heads ---------------------------------------------------------------------------------------------------


def test_head_outputs_are_what_the_layers_mix() -> None:
    run = series("smoke", "softmax", 0)
    model, inputs = Transformer(run.model).initialize(3), draw(2, 29, 12).float()
    outputs = head_outputs(model, inputs)
    assert [part.shape for part in outputs] == [(2, 4, 29, 16)] * 2
    block = model.blocks[0]
    normed = block.norm1(model.embedding(inputs))
    expected, _ = block.attention(normed, normed, normed, score_bias=block.position(29))
    mixed = block.attention.out_proj(outputs[0].transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, expected)
    layers = [module for module in model.modules() if isinstance(module, HypernetworkAttention)]
    assert not any(layer.out_proj._forward_pre_hooks for layer in layers), "hooks are gone"


def test_distances_are_of_heads_and_steps_that_are_there(write_archive: Callable[[], object]) -> None:
    write_archive()
    run = series("smoke", "softmax_bn", 0)
    content = weights_of(run)
    table = distance_table([run], [content])
    assert table.groupby(["model", "layer"]).size().tolist() == [1] * 4
    assert table["unit_distance"].between(0.5, 2).all()
    # A head that puts nothing out is as far from the others as these are long.
    named = safetensors.torch.load(content)
    named["blocks.0.attention.in_proj_weight"][128:] = 0
    silent = distance_table([run], [safetensors.torch.save(named)])
    first = silent[(silent["model"] == "trained") & (silent["layer"] == 1)]
    assert first[["distance", "unit_distance", "length"]].to_numpy().max() == 0.0


# --- regressions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax", "bn_beta06", "bn_beta1_rescale", "sh_scale2", "bnsh_beta1_rescale_scale3"])
def test_golden_regressions(name: str, golden: Path) -> None:
    arrays = np.load(golden / "related" / "primal_dual" / f"{name}.npz")
    mean, scale = arrays["mu"], arrays["r"]
    beta, limit, epsilon = (arrays[key].item() for key in ("beta", "C", "epsilon"))
    keys, queries = ((arrays[key] - beta * mean) * scale for key in ("train_keys", "queries"))
    found = of_primal.svr_head(keys, queries, arrays["targets"], limit, epsilon)
    np.testing.assert_allclose(found.predictions, arrays["predictions"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.attention, found.predictions, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.duals.sum(0), 0.0, atol=1e-9)
    assert np.abs(found.duals).max() <= limit


def test_all_kinds_of_attention_are_regressions_and_a_wrong_one_is_not() -> None:
    found = of_primal.regressions()
    assert of_primal.regression_table(found)["prediction and attention differ by"].tolist() == ["less than 1e-8"] * 4
    assert [len(head.duals) for head in found.values()] == [24, 24, 12, 12]
    wrong = {"softmax": found["softmax"]._replace(attention=found["BN"].attention)}
    assert "1e-8" not in of_primal.regression_table(wrong).loc["softmax", "prediction and attention differ by"]


# --- cost ----------------------------------------------------------------------------------------------------


def test_products_of_scaled_heads_by_hand() -> None:
    ratios = of_primal.counted((4096,), width=64)
    # Queries and the mixing projection stay; keys, values, scores and mixing fall with the windows.
    whole = 4096 * 64 * 64 * 4 + 2 * 4096**2 * 64
    for name, share in (("1, 1, 2, 2", 0.75), ("1, 2, 4, 8", 15 / 32)):
        own = 4096 * 64 * 64 * (2 + 2 * share) + 2 * 4096**2 * 64 * share
        assert ratios.loc[4096, name] == pytest.approx(own / whole)


def test_exponents_of_known_growth() -> None:
    tokens = [2**k for k in range(8, 15)]
    table = pd.DataFrame([{"attention": name, "tokens": n, "seconds": 1e-5 * n**power} for n in tokens
                          for name, power in (("Aaren", 1.0), ("softmax with a cache", 2.0))])  # fmt: skip
    assert of_aaren.exponents(table).to_dict() == {"Aaren": 1.0, "softmax with a cache": 2.0}


def test_what_streaming_remembers() -> None:
    assert of_aaren.bytes_after(7)["aaren"] == of_aaren.bytes_after(70)["aaren"] == 4 * 8 * (1 + 32)
    assert of_aaren.bytes_after(7)["cache"] == 7 * 2 * 256 * 4
    assert of_aaren.parameter_counts() == {"transformer": 3_152_384, "aaren": 3_152_896}
    assert of_aaren.errors().max() < 1e-12


# --- runs and tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_every_neighbour_has_its_runs_and_its_control(preset: str) -> None:
    runs = {figure: experiments(figure, preset) for figure in ("aaren", "primal", "aaren-codes", "primal-heads")}
    trained = {run.method for figure in ("aaren", "primal") for run in runs[figure] if run.task_name != "series"}
    assert {*neighbour_runs.OF_AAREN, *neighbour_runs.OF_PRIMAL_DUAL, *neighbours.CONTROLS.values()} <= trained
    assert {run.id for run in runs["aaren-codes"]} <= {run.id for run in runs["aaren"]}
    assert {run.id for run in runs["primal-heads"]} <= {run.id for run in runs["primal"]}
    tests = {run.evaluation_sequences for run in runs["primal"] if run.task_name == "series"}
    assert tests == (set() if preset == "paper" else {370}), "the sizes of the papers' models are not known"
    assert {study.name for study in (aaren.AAREN, primal_dual.PRIMAL_DUAL)} == {"aaren", "primal_dual"}


class Made(Store):
    """A store of runs whose scores follow from method and seed, and whose means over three seeds are round."""

    def _shift(self, run: Experiment) -> int:
        return (run.seed - 1) * (1 + len(run.method))

    def runs(self, wanted: list[Experiment]) -> pd.DataFrame:
        places = {method: place for place, method in enumerate(NAMES)}
        score = {run.id: 0.5 + 0.01 * places[run.method] + 0.001 * self._shift(run) for run in wanted}
        return pd.DataFrame([{**run.row(), "test": score[run.id], "heldout": score[run.id] - 0.2} for run in wanted])


def test_tables_show_scores_and_paired_differences() -> None:
    results = Results("laptop", experiments, Made())
    table = neighbours.beside(results).set_index("row")
    assert table.index.tolist() == [NAMES[m] for m in (*neighbour_runs.OF_AAREN, *neighbour_runs.OF_PRIMAL_DUAL)]
    places = {method: place for place, method in enumerate(NAMES)}
    for method, control in neighbours.CONTROLS.items():
        lead = places[method] - places[control]
        shown = table.loc[NAMES[method], "fuzzy logic, minus control"]
        assert shown.startswith(f"{lead:.1f} ".replace("-", "−"))
    shown = neighbours.on_tasks(results, "aaren", ("softmax", "aaren"))
    assert shown["seeds"].tolist() == [3, 3, 3, 3]
    assert shown["held-out (%)"].iloc[0].replace("\N{NO-BREAK SPACE}", " ") == "30.0 ± 0.5"
    on_series = neighbours.on_series(results, "aaren", ("softmax_causal", "aaren"), "softmax_causal")
    assert on_series["seeds"].tolist() == [10, 10]
    assert on_series.iloc[0, 2] == ""


def test_tables_without_runs_are_empty() -> None:
    class Nothing(Store):
        def runs(self, wanted: list[Experiment]) -> pd.DataFrame:
            return pd.DataFrame()

    results = Results("laptop", experiments, Nothing())
    assert neighbours.beside(results).empty
    assert neighbours.on_tasks(results, "primal", ("softmax",)).empty
    assert neighbours.on_series(results, "primal", ("softmax",), "softmax").empty
