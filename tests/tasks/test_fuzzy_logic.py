"""Fuzzy logic functions: hand-worked truth values, counts, disjoint splits and batches as pure functions."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyla_repro.tasks import TASKS
from hyla_repro.tasks.fuzzy_logic import (
    SPLITS,
    FuzzyLogic,
    FuzzyLogicBatch,
    evaluate,
    formula,
    function_images,
    split_matrix,
)

seeds = st.integers(0, 2**32 - 1)


def rows(functions: Tensor) -> set[frozenset[int]]:
    return {frozenset(row) for row in functions.tolist()}


# --- the operators ------------------------------------------------------------------------------------------


def test_golden_functions(golden: Path) -> None:
    """Fifty functions evaluated by the authors' release."""
    with np.load(golden / "fuzzy_logic_functions.npz") as archive:
        terms, x = torch.from_numpy(archive["terms"]), torch.from_numpy(archive["x"])
        y = torch.from_numpy(archive["y"])
    actual = evaluate(terms.long(), x.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(actual, y, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("terms", "x", "value"),
    [
        ([[1, 1]], [0.25, 0.75], 0.25),  # x1 and x2
        ([[0, 0]], [0.25, 0.75], 0.25),  # not x1 and not x2: min(0.75, 0.25)
        ([[0, 1]], [0.25, 0.75], 0.75),  # not x1 and x2: min(0.75, 0.75)
        ([[1, 0], [0, 1]], [0.25, 0.75], 0.75),  # exclusive or: max(min(.25, .25), min(.75, .75))
        ([[1, 1], [0, 0]], [0.5, 0.5], 0.5),
        ([[1, 1, 0]], [1.0, 1.0, 1.0], 0.0),
        ([[1, 1, 0], [1, 1, 1]], [1.0, 1.0, 1.0], 1.0),
        ([[1, 0, 1], [0, 0, 1]], [0.375, 0.125, 0.5], 0.5),  # max(min(.375,.875,.5), min(.625,.875,.5))
    ],
)
def test_worked_truth_values(terms: list[list[int]], x: list[float], value: float) -> None:
    assert evaluate(torch.tensor([terms]), torch.tensor([[x]])).tolist() == [[value]]


@pytest.mark.parametrize("n_variables", [1, 2, 3])
def test_crisp_inputs_follow_boolean_logic(n_variables: int) -> None:
    """At truth values 0 and 1 a term is true exactly where every variable equals the term's digit."""
    corners = list(product([0, 1], repeat=n_variables))
    for one, other in combinations(corners, 2):
        values = evaluate(torch.tensor([[one, other]]), torch.tensor([corners], dtype=torch.float32))
        assert values.tolist() == [[float(corner in (one, other)) for corner in corners]]


@given(st.data())
def test_evaluate_equals_python_min_and_max(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    digit, truth = st.integers(0, 1), st.integers(0, 2**24).map(lambda i: i / 2**24)
    terms = data.draw(st.lists(st.lists(digit, min_size=n, max_size=n), min_size=k, max_size=k))
    x = data.draw(st.lists(truth, min_size=n, max_size=n))
    literals = [[v if digit else 1 - v for v, digit in zip(x, term, strict=True)] for term in terms]
    expected = max(min(literal) for literal in literals)
    assert evaluate(torch.tensor([terms]), torch.tensor([[x]])).item() == expected


# --- counts and splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "n_train", "n_heldout"), [(0.3, 47, 19), (0.5, 33, 33), (0.7, 20, 46)])
def test_counts_of_the_paper(fraction: float, n_train: int, n_heldout: int) -> None:
    task = FuzzyLogic(heldout_fraction=fraction)
    sizes = {name: len(functions) for name, functions in task.functions.items()}
    assert sizes == {"train": n_train, "heldout": n_heldout, "unknown_terms": 6}
    assert task.terms.shape == (16, 4)
    assert task.n_known_terms == 12
    assert task.terms.tolist() == [[int(digit) for digit in f"{i:04b}"] for i in range(16)]


@pytest.mark.parametrize(
    ("n_variables", "n_terms", "n_known", "n_unknown"), [(3, 2, 15, 1), (5, 3, 2024, 56), (4, 1, 12, 4), (2, 1, 3, 1)]
)
def test_counts_of_other_sizes(n_variables: int, n_terms: int, n_known: int, n_unknown: int) -> None:
    functions = FuzzyLogic(n_variables=n_variables, n_terms=n_terms, heldout_fraction=0.5).functions
    assert len(functions["train"]) + len(functions["heldout"]) == n_known
    assert len(functions["heldout"]) == n_known // 2
    assert len(functions["unknown_terms"]) == n_unknown


@given(seeds, st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]))
def test_splits_are_disjoint_and_complete(seed: int, fraction: float) -> None:
    pools = {name: rows(pool) for name, pool in FuzzyLogic(seed=seed, heldout_fraction=fraction).functions.items()}
    assert not pools["train"] & pools["heldout"]
    assert pools["train"] | pools["heldout"] == set(map(frozenset, combinations(range(12), 2)))
    assert pools["unknown_terms"] == set(map(frozenset, combinations(range(12, 16), 2)))


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(10))
def test_terms_of_heldout_functions_occur_in_training(seed: int, fraction: float) -> None:
    """Held-out functions are new combinations of known terms, but for one term of seed 0 with 70 % held out."""
    functions = FuzzyLogic(seed=seed, heldout_fraction=fraction).functions
    unseen = set(functions["heldout"].flatten().tolist()) - set(functions["train"].flatten().tolist())
    known_exception = (seed, fraction) == (0, 0.7)
    assert unseen == ({7} if known_exception else set())
    with_unseen = [function for function in functions["heldout"].tolist() if unseen & set(function)]
    assert len(with_unseen) == (11 if known_exception else 0)


def test_the_split_depends_on_the_seed_alone() -> None:
    splits = [rows(FuzzyLogic(seed=seed).functions["train"]) for seed in range(20)]
    assert all(one != other for one, other in combinations(splits, 2))
    assert rows(FuzzyLogic(seed=3, n_examples=7).functions["train"]) == splits[3]
    # Every function is held out for some seed: the draw favours none (20 of 66 trained, so 0.7**100 each).
    trained = [rows(FuzzyLogic(seed=seed).functions["train"]) for seed in range(100)]
    assert len(set.union(*trained)) == 66
    assert not set.intersection(*trained)


def test_a_split_seed_draws_the_split_and_nothing_else() -> None:
    task, one, other = FuzzyLogic(seed=3, split_seed=5), FuzzyLogic(seed=3), FuzzyLogic(seed=5)
    assert rows(task.functions["train"]) == rows(other.functions["train"])
    drawn, usual = (made.batch("train", 2, 4) for made in (task, one))
    assert torch.equal(drawn.inputs[..., :-1], usual.inputs[..., :-1])
    assert not torch.equal(drawn.targets, usual.targets)


@pytest.mark.parametrize("split", SPLITS)
def test_batches_use_the_functions_of_their_split_only(split: str) -> None:
    task = FuzzyLogic(n_examples=3, seed=5)
    pool = SPLITS[split][0]
    drawn = rows(task.batch(split, 0, 2000).terms)
    # 2000 draws from at most 46 functions miss one of them with probability below 1e-17.
    assert drawn == rows(task.functions[pool])
    used = {term for function in drawn for term in function}
    assert used <= (set(range(12, 16)) if pool == "unknown_terms" else set(range(12)))


# --- batches ------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from(sorted(SPLITS)), st.integers(0, 2**34), st.integers(1, 5))
def test_inputs_reproduce_the_targets(seed: int, split: str, step: int, size: int) -> None:
    task = FuzzyLogic(n_variables=3, n_examples=7, seed=seed, heldout_fraction=0.5)
    batch = task.batch(split, step, size)
    assert batch.inputs.shape == (size, 7, 4)
    assert batch.targets.shape == (size, 1)
    assert batch.terms.shape == (size, 2)
    assert (batch.inputs >= 0).all()
    assert (batch.inputs <= 1).all()
    x, shown = batch.inputs[..., :-1], batch.inputs[..., -1]
    digits = task.terms[batch.terms]
    expected = evaluate(digits, x)
    assert torch.equal(shown[:, :-1], expected[:, :-1])
    assert torch.equal(batch.targets[:, 0], expected[:, -1])
    assert (shown[:, -1] == 0).all()


@given(seeds, st.sampled_from(sorted(SPLITS)), st.integers(0, 2**34), st.integers(1, 7), st.integers(0, 7))
def test_batch_is_a_pure_function_and_larger_ones_append(
    seed: int, split: str, step: int, size: int, extra: int
) -> None:
    def sizes(task: FuzzyLogic) -> tuple[FuzzyLogicBatch, FuzzyLogicBatch]:
        return task.batch(split, step, size), task.batch(split, step, size + extra)

    task = FuzzyLogic(n_examples=5, seed=seed)
    small, large = sizes(task)
    task.batch(split, step + 1, 3)
    again, _ = sizes(FuzzyLogic(n_examples=5, seed=seed))
    torch.manual_seed(0)
    repeated, _ = sizes(task)
    for ours, bigger, other, same in zip(small, large, again, repeated, strict=True):
        assert torch.equal(ours, bigger[:size])
        assert torch.equal(ours, other)
        assert torch.equal(ours, same)


def test_streams_differ_between_splits_steps_and_seeds() -> None:
    batches = [FuzzyLogic(n_examples=5).batch(split, 0, 3).inputs for split in SPLITS]
    batches.append(FuzzyLogic(n_examples=5).batch("train", 1, 3).inputs)
    batches.append(FuzzyLogic(n_examples=5, seed=1).batch("train", 0, 3).inputs)
    assert all(not torch.equal(one, other) for one, other in combinations(batches, 2))


def test_training_and_test_streams_share_functions_but_no_sequence() -> None:
    """An evaluation that repeated training's first batches would measure memory."""
    task = FuzzyLogic(n_examples=2)
    train, test = (torch.cat([task.batch(s, step, 500).inputs for step in range(4)]) for s in ("train", "test"))
    seen = {tuple(x) for x in train[:, 0, :-1].tolist()}
    assert not seen & {tuple(x) for x in test[:, 0, :-1].tolist()}
    assert rows(task.batch("train", 0, 500).terms) == rows(task.batch("test", 0, 500).terms)


@pytest.mark.parametrize("pool", ["train", "heldout"])
def test_fixed_query_streams_ask_the_same_question(pool: str) -> None:
    task = FuzzyLogic(n_examples=5, seed=2)
    x = torch.cat([task.batch(f"{pool}_fixed_query", step, 7).inputs for step in range(3)])[..., :-1]
    assert (x[:, -1] == x[0, -1]).all()
    assert len(x[:, 0].unique(dim=0)) == 21
    other = FuzzyLogic(n_examples=5, seed=3).batch(f"{pool}_fixed_query", 0, 1).inputs
    assert not torch.equal(other[0, -1], x[0, -1])


@pytest.mark.parametrize("pool", ["train", "heldout"])
def test_fixed_context_streams_show_the_same_inputs(pool: str) -> None:
    task = FuzzyLogic(n_examples=32, seed=2)
    batch = task.batch(f"{pool}_fixed_context", 0, 21)
    x = batch.inputs[..., :-1]
    assert (x[:, :-1] == x[:1, :-1]).all()
    assert len(x[:, -1].unique(dim=0)) == 21
    # Two sequences of one function then show the same values, of another function other values.
    values = batch.inputs[:, :-1, -1]
    functions = batch.terms.unique(dim=0, return_inverse=True)[1]
    for one, other in combinations(range(21), 2):
        assert torch.equal(values[one], values[other]) == bool(functions[one] == functions[other])


def test_training_and_heldout_are_asked_the_same_fixed_query() -> None:
    task = FuzzyLogic(n_examples=5)
    train, heldout = (task.batch(f"{pool}_fixed_query", 0, 1).inputs for pool in ("train", "heldout"))
    assert torch.equal(train[0, -1], heldout[0, -1])


@pytest.mark.gpu
@pytest.mark.parametrize("split", SPLITS)
def test_cuda_batches_have_the_same_bits(split: str) -> None:
    task = FuzzyLogic()
    for ours, theirs in zip(task.batch(split, 5, 17), task.batch(split, 5, 17, "cuda"), strict=True):
        assert theirs.device.type == "cuda"
        assert torch.equal(ours, theirs.cpu())


# --- loss and score -----------------------------------------------------------------------------------------


def test_exact_answer_has_no_loss_and_score_one() -> None:
    task = FuzzyLogic(n_examples=7)
    batch = task.batch("test", 0, 11)
    answer = batch.targets.unsqueeze(-1)
    assert task.loss(answer, batch).item() == 0.0
    assert task.score(answer, batch).tolist() == [1.0] * 11


def test_outputs_for_another_number_of_sequences_are_refused() -> None:
    """One output would be compared with the targets of all sequences."""
    task = FuzzyLogic(n_examples=7)
    batch = task.batch("test", 0, 11)
    for call in (task.loss, task.score):
        with pytest.raises(ValueError, match=r"outputs has shape \(1, 1, 1\): this task needs \(11, 1, 1\)"):
            call(torch.zeros(1, 1, 1), batch)


def by_hand_batch() -> FuzzyLogicBatch:
    """Two sequences with targets (0, 1, 0.5) and (0.25, 0.25, 1); the inputs' own truth values do not matter."""
    inputs = torch.tensor([[[0.1, 0.0], [0.2, 1.0], [0.3, 0.0]], [[0.1, 0.25], [0.2, 0.25], [0.3, 0.0]]])
    return FuzzyLogicBatch(inputs, torch.tensor([[0.5], [1.0]]), torch.zeros(2, 1, dtype=torch.long))


def test_loss_and_score_by_hand() -> None:
    task, batch = FuzzyLogic(n_variables=1, n_terms=1, n_examples=3, heldout_fraction=0.5), by_hand_batch()
    outputs = torch.tensor([[[0.0]], [[0.75]]])
    # Squared errors 1/4 and 1/16; variances of the targets 1/6 and (2 * 1/16 + 1/4) / 3 = 1/8.
    assert task.loss(outputs, batch).item() == pytest.approx((1 / 4 + 1 / 16) / 2)
    assert task.score(outputs, batch).tolist() == pytest.approx([1 - 6 / 4, 1 - 8 / 16])
    # The mean of a sequence's own targets, here 1/2 and 1/2: exact for one, squared error 1/4 for the other.
    assert task.score(torch.full((2, 1, 1), 0.5), batch).tolist() == pytest.approx([1.0, -1.0])


def test_predicting_the_mean_of_the_sequence_scores_zero_on_average() -> None:
    """E[(y - mean)^2 / variance] = 1 by exchangeability of the N examples, for every N."""
    task = FuzzyLogic(n_examples=5)
    batch = task.batch("test", 0, 20_000)
    values = torch.cat([batch.inputs[:, :-1, -1], batch.targets], dim=-1)
    score = task.score(values.mean(-1)[:, None, None], batch)
    # (y - mean)^2 / variance is at most N - 1 = 4, so its mean over 20 000 has deviation below 0.015.
    assert abs(float(score.mean())) < 0.05


# --- pictures -----------------------------------------------------------------------------------------------


def test_formula_bars_the_negated_variables() -> None:
    assert formula(torch.tensor([[1, 0], [0, 1]])) == r"$x_1 \bar{x}_2 \vee \bar{x}_1 x_2$"


def test_function_images_hold_the_truth_values() -> None:
    """x1 runs along the columns and x2 along the rows; x3 and x4 stand at 0.2 and 0.7."""
    task = FuzzyLogic()
    images = function_images(task, [(0, 15), (3, 4)], size=5)
    assert list(images) == [formula(task.terms[list(pair)]) for pair in ((0, 15), (3, 4))]
    for pair, image in zip(((0, 15), (3, 4)), images.values(), strict=True):
        for row, column in np.ndindex(5, 5):
            x = torch.tensor([[[column / 4, row / 4, 0.2, 0.7]]])
            assert image[row, column] == pytest.approx(evaluate(task.terms[list(pair)].unsqueeze(0), x).item())


def test_split_matrix_counts_every_function_once() -> None:
    matrix = split_matrix(FuzzyLogic(heldout_fraction=0.7))
    assert matrix.shape == (16, 16)
    assert [(matrix == kind).sum() for kind in (1, 2, 3)] == [20, 46, 6]
    # Larger term against smaller: nothing on or above the diagonal, and known never meets unknown.
    assert (np.triu(matrix) == 0).all()
    assert (matrix[12:, :12] == 0).all()
    train = FuzzyLogic(heldout_fraction=0.7).functions["train"].tolist()
    assert {(row, column) for row, column in zip(*np.nonzero(matrix == 1), strict=True)} == {
        (max(pair), min(pair)) for pair in train
    }


def test_split_matrix_needs_two_terms() -> None:
    with pytest.raises(ValueError, match=r"functions of 2 terms, not n_terms=3"):
        split_matrix(FuzzyLogic(n_terms=3))


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_variables": 0}, r"n_variables=0 is out of range: use 1 to 10"),
        ({"n_variables": 11}, r"n_variables=11 is out of range"),
        ({"n_terms": 0}, r"n_terms=0 is too small"),
        ({"n_terms": 13}, r"n_terms=13 exceeds the 12 known terms of n_variables=4"),
        ({"n_examples": 1}, r"n_examples=1 is too small: use at least 2"),
        ({"unknown_fraction": 1.0}, r"unknown_fraction=1.0 is not in \[0, 1\)"),
        ({"unknown_fraction": -0.1}, r"unknown_fraction=-0.1"),
        ({"heldout_fraction": 0.0}, r"heldout_fraction=0.0 is not between 0 and 1"),
        ({"heldout_fraction": 1.0}, r"heldout_fraction=1.0 is not between 0 and 1"),
        ({"heldout_fraction": float("nan")}, r"heldout_fraction=nan"),
        ({"heldout_fraction": 0.01}, r"heldout_fraction=0.01 of 66 functions leaves a split empty: use 0.0152 to"),
        ({"seed": -1}, r"seed=-1 is out of range"),
        ({"split_seed": -1}, r"split_seed=-1 is out of range: use 0 to"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FuzzyLogic(**changes)


def test_bounds_that_the_error_recommends_work() -> None:
    """`use 0.0152 to 0.985`: advice that failed again would be worse than none."""
    for fraction in (0.0152, 0.985):
        functions = FuzzyLogic(heldout_fraction=fraction).functions
        assert min(len(functions["train"]), len(functions["heldout"])) == 1


def test_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'held_out': did you mean 'heldout'\?"):
        FuzzyLogic().batch("held_out", 0, 2)


def test_empty_split_is_named() -> None:
    with pytest.raises(ValueError, match=r"split='unknown_terms' is empty: 1 unknown terms make no function"):
        FuzzyLogic(n_variables=2, n_terms=2, heldout_fraction=0.5).batch("unknown_terms", 0, 2)


def test_the_task_is_registered_with_what_training_asks() -> None:
    task = TASKS["fuzzy_logic"](n_variables=3, n_examples=7, heldout_fraction=0.5, seed=1)
    assert (task.n_tokens, task.n_inputs, task.n_outputs, task.n_read) == (7, 4, 1, 1)
    assert task.evaluation_splits == ("test", "heldout", "unknown_terms")


def test_the_right_answer_scores_one() -> None:
    task = FuzzyLogic()
    batch = task.batch("test", 0, 50)
    assert (task.score(batch.targets.unsqueeze(-1), batch) == 1).all()
