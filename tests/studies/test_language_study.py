"""The study of language: its runs, its rules, and what is read of the codes of characters."""

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save

from hyla_repro.results.effects import CONTRADICTED, NOT_TESTED, REPRODUCED, decide
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies import experiments
from hyla_repro.studies.language import analysis, claims, codes, runs
from hyla_repro.training.stack import Stack


def losses(**means: float) -> pd.DataFrame:
    """Return losses of three seeds around the means, in bits per character."""
    noise = np.random.default_rng(0).normal(0, 0.005, (3, len(means)))
    return pd.DataFrame(noise + np.array(list(means.values())), index=[0, 1, 2], columns=list(means))


THE_PAPERS = losses(softmax=2.2, linear=2.7, linear_rms_head=2.4, hyla=2.3)
RESULTS = Results("laptop", lambda figure, preset: experiments(figure, preset))


def test_rules_reproduce_the_papers_order_and_no_other() -> None:
    swapped = THE_PAPERS.rename(columns={"hyla": "linear", "linear": "hyla"})
    for rule in (claims.nearer_to_softmax, claims.in_between):
        assert decide(rule(THE_PAPERS, RESULTS, "test")) == REPRODUCED
        assert decide(rule(swapped, RESULTS, "test")) == CONTRADICTED
        assert (
            decide(rule(losses(softmax=2.3, linear=2.3, linear_rms_head=2.3, hyla=2.3), RESULTS, "test")) != REPRODUCED
        )


def test_a_method_that_does_not_beat_counting_decides_for_all() -> None:
    line = analysis.n_gram_bits("shakespeare", "validation")
    assert line == pytest.approx(2.272, abs=0.001)
    better = losses(softmax=line - 0.1, linear=line - 0.1, linear_rms_head=line - 0.1, hyla=line - 0.1)
    assert decide(claims.beat_counting(better, RESULTS, "validation")) == REPRODUCED
    assert (
        decide(claims.beat_counting(better.assign(linear=better["linear"] + 0.2), RESULTS, "validation"))
        == CONTRADICTED
    )


def test_a_single_seed_decides_nothing() -> None:
    rule = next(claim for claim in claims.claims(None) if claim.id == "6-near").decide
    alone = Results("smoke", lambda figure, preset: experiments(figure, preset))
    assert rule(alone).answer == NOT_TESTED


def test_every_method_has_the_same_rates_and_everything_else_equal() -> None:
    tried = [run for run in runs.main("laptop") if run.seed == 0]
    assert len(tried) == len(runs.METHODS) * len(runs.RATES["laptop"]) == 12
    alike = {
        run.model_copy(update={"learning_rate": 1.0, "model": run.model.model_copy(update={"variant": "hyla"})}).id
        for run in tried
    }
    assert len(alike) == 1
    assert {run.model.position for run in tried} == {"rotary"}


def test_chosen_rates_are_trained_with_the_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runs.CHOSEN, "laptop", {"hyla": 6e-3, "softmax": 1e-3})
    more = [(run.method, run.seed, run.learning_rate) for run in runs.main("laptop") if run.seed]
    assert more == [("softmax", 1, 1e-3), ("hyla", 1, 6e-3), ("softmax", 2, 1e-3), ("hyla", 2, 6e-3)]


def _row(variant: str, rate: float, validation: float) -> dict:
    run = runs.language("laptop", variant, 0, rate)
    return run.row() | {"validation": validation, "test": validation, "heldout": validation}


def test_rates_stand_beside_each_other_with_the_best_marked() -> None:
    table = pd.DataFrame([_row("softmax", 1e-3, 1.5), _row("hyla", 1e-3, 1.6), _row("softmax", 3e-3, 1.4)])
    shown = analysis.rates(table, analysis.main_task("laptop"))
    assert shown.loc["HYLA"].tolist() == [f"{1.6 / np.log(2):.3f} (best)", ""]
    assert shown.loc["softmax attention"].tolist() == [f"{1.5 / np.log(2):.3f}", f"{1.4 / np.log(2):.3f} (best)"]


def test_last_losses_have_both_units_and_an_interval_where_seeds_allow_one() -> None:
    task = analysis.main_task("laptop")
    rows = [_row("hyla", 1e-3, 1.6), *(_row("linear", 1e-3, loss) for loss in (1.0, 2.0))]
    table = analysis.ends(analysis.bits(pd.DataFrame(rows), task), task)
    assert table.index.tolist() == ["linear attention", "HYLA", "5-gram model"]
    assert table.loc["HYLA"].tolist() == [f"{1.6 / np.log(2):.3f}; 1.600"] * 3
    # Student's t with two seeds: 12.706 times the standard error of the mean, which is half a nat.
    low, high = ((1.5 + sign * 12.7062 * 0.5) / np.log(2) for sign in (-1, 1))
    interval = f"{1.5 / np.log(2):.3f} (−{-low:.3f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high:.3f}); 1.500"
    assert table.loc["linear attention"].tolist() == [interval] * 3
    assert table.loc["5-gram model", "test plays"].startswith("2.427; 1.682")


def test_letters_are_told_by_codes_that_have_them_and_not_by_noise() -> None:
    letters = np.arange(6000) % len(codes.LETTERS)
    noise = np.random.default_rng(0).normal(size=(6000, 8))
    _, told = codes._told(noise, letters)
    assert told.mean() == pytest.approx(1 / 6, abs=0.03)
    _, told = codes._told(noise + 6 * np.eye(8)[letters], letters)
    assert told.min() > 0.95
    _, told = codes._told(np.ones((6000, 8)), letters)  # constant codes tell nothing, and divide by nothing
    assert told.tolist() == [1, 0, 0, 0, 0, 0]


def test_classes_of_characters() -> None:
    assert [codes.LETTERS[place] for place in codes.letter_of("aB \n,zU'")] == [
        "vowel", "capital", "space", "end of line", "other", "consonant", "capital", "other",
    ]  # fmt: skip


def test_tables_of_a_model_repeat_and_have_their_control() -> None:
    run = runs.language("smoke", "hyla", 0)
    weights = [save(Stack([run]).state_dict(0))]
    table = codes.letter_code_table([run], weights, windows=40)
    assert len(table) == 2 * run.model.n_layers * len(codes.LETTERS)
    trained, untrained = (table[table["model"] == model].drop(columns="model") for model in ("trained", "untrained"))
    pd.testing.assert_frame_equal(trained.reset_index(drop=True), untrained.reset_index(drop=True))
    assert np.diag(codes.similarity(trained[trained["layer"] == 1])) == pytest.approx(1)
    first, again = (codes.sample_table([run], weights)["written"].item() for _ in range(2))
    assert first == again
    assert first.startswith(codes.PROMPT)
    assert len(first) == len(codes.PROMPT) + 300


def test_a_model_goes_on_with_ones_own_words_in_its_own_characters() -> None:
    run = runs.language("smoke", "softmax", 0)
    (weights,) = (save(Stack([run]).state_dict(0)),)
    assert codes.go_on(run, weights, "To be").startswith("To be")
    for prompt, what in (("日", "日"), ("", "one token"), ("a" * 100, "32")):
        with pytest.raises(ValueError, match=what):
            codes.go_on(run, weights, prompt)


def test_rates_of_the_other_seeds_are_the_first_ones_best_on_validation() -> None:
    tried = [run for run in runs.main("laptop") if run.seed == 0]
    rows = Store(committed_only=True).runs(tried)
    assert len(rows) == len(tried) == 12
    best = rows.loc[rows.groupby("variant")["validation"].idxmin()].set_index("variant")["learning_rate"]
    assert best.to_dict() == runs.CHOSEN["laptop"]
