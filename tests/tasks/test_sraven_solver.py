"""The solver against a search by hand through everything, what is ambiguous, and the ideal solver's calibration."""

import warnings
from itertools import permutations, product
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyla_repro.tasks import SRaven
from hyla_repro.tasks.sraven import (
    RULES,
    SRavenBatch,
    answer_sets,
    beliefs,
    best_guess,
    explanations,
    hypotheses,
    is_ambiguous,
    is_wholly_ambiguous,
)

seeds = st.integers(0, 2**32 - 1)
SMALL = [(1, 3, 3), (1, 5, 3), (2, 3, 3), (2, 4, 3), (2, 5, 3), (1, 4, 4), (2, 5, 4)]


def make_task(n_features: int = 4, n_values: int = 8, grid_size: int = 3, **settings: float) -> SRaven:
    """A task whose warnings are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SRaven(n_features, n_values, grid_size, **settings)


def sets_of(task: SRaven, inputs: Tensor) -> list[set[tuple[int, ...]]]:
    found: list[set[tuple[int, ...]]] = [set() for _ in inputs]
    problems, answers = answer_sets(task, inputs)
    for problem, answer in zip(problems.tolist(), answers.tolist(), strict=True):
        assert tuple(answer) not in found[problem]
        found[problem].add(tuple(answer))
    return found


# --- against a search through everything ----------------------------------------------------------------------


def continues(name: str, rows: list[list[int]], n: int) -> int | None:
    """Return the one symbol that completes the last row so that all rows follow the rule, else None."""
    fitting = []
    for symbol in range(n):
        complete = [*rows[:-1], [*rows[-1], symbol]]
        if name == "distribute_three":
            fits = all(len(set(row)) == len(row) and set(row) == set(complete[0]) for row in complete)
        elif name == "addition":
            fits = all(row[-1] == sum(row[:-1]) % n for row in complete)
        elif name == "difference":
            fits = all(row[0] == sum(row[1:]) % n for row in complete)
        else:
            step = {"constant": 0, "plus_1": 1, "plus_2": 2, "minus_1": -1, "minus_2": -2}[name]
            fits = all(row[c + 1] == (row[c] + step) % n for row in complete for c in range(len(row) - 1))
        if fits:
            fitting.append(symbol)
    assert len(fitting) <= 1
    return fitting[0] if fitting else None


def search(panels: list, k: int, n: int, grid: int) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return all (rules, answer), both by position of the last column, over permutations of every column."""
    found = set()
    for columns in product(permutations(range(k)), repeat=grid):
        options = []
        for feature in range(k):
            places = [order[feature] for order in columns]
            rows = [[panels[r][c][places[c]] for c in range(grid - (r == grid - 1))] for r in range(grid)]
            options.append([(i, continues(name, rows, n)) for i, name in enumerate(RULES)])
        for choice in product(*options):
            if all(symbol is not None for _, symbol in choice):
                placed = sorted(zip(columns[-1], choice, strict=True))
                found.add((tuple(c[0] for _, c in placed), tuple(c[1] for _, c in placed)))
    return found


@given(st.sampled_from(SMALL), seeds, st.sampled_from(["train", "heldout", "heldout_unpermuted"]))
def test_the_solver_finds_what_a_search_finds(sizes: tuple[int, int, int], seed: int, split: str) -> None:
    task = make_task(*sizes, heldout_fraction=0.25, seed=seed)
    batch = task.batch(split, 0, 3)
    panels = task.panels(batch).tolist()
    found = explanations(task, batch.inputs)
    for problem, answers in enumerate(sets_of(task, batch.inputs)):
        expected = search(panels[problem], *sizes)
        assert answers == {answer for _, answer in expected}
        own = found.problems == problem
        pairs = zip(found.rules[own].tolist(), found.answers[own].tolist(), strict=True)
        assert {(tuple(rules), tuple(answer)) for rules, answer in pairs} == expected


@given(st.lists(st.integers(0, 4), min_size=16, max_size=16))
def test_panels_that_follow_no_rule_have_the_answers_of_a_search(symbols: list[int]) -> None:
    """Mostly none at all, and then no row."""
    task = make_task(n_features=2, n_values=5)
    shown = torch.nn.functional.one_hot(torch.tensor(symbols), 5).float()
    inputs = torch.cat([shown, torch.zeros(2, 5)]).unsqueeze(0)
    panels = torch.tensor([*symbols, 0, 0]).reshape(3, 3, 2).tolist()
    assert sets_of(task, inputs) == [{answer for _, answer in search(panels, 2, 5, 3)}]


@given(seeds, st.sampled_from([(1, 8, 3), (2, 8, 3), (3, 8, 3), (4, 8, 3), (4, 5, 3), (5, 11, 3), (3, 6, 4)]))
def test_the_true_answer_is_always_found(seed: int, sizes: tuple[int, int, int]) -> None:
    task = make_task(*sizes, seed=seed)
    for split in ("train", "heldout"):
        batch = task.batch(split, 1, 5)
        for answers, target in zip(sets_of(task, batch.inputs), batch.targets.tolist(), strict=True):
            assert tuple(target) in answers


@given(seeds)
def test_every_explanation_explains(seed: int) -> None:
    """Each one's features, read off along its correspondence, follow its rules to its answer; one is the truth."""
    task = SRaven(seed=seed)
    batch = task.batch("test", 0, 3)
    grid, found, names = task.panels(batch).tolist(), explanations(task, batch.inputs), list(RULES)
    for problem, columns, rules, answer in zip(*(part.tolist() for part in found), strict=True):
        assert columns[-1] == [0, 1, 2, 3]
        assert all(sorted(order) == [0, 1, 2, 3] for order in columns)
        for i in range(4):
            rows = [[grid[problem][r][c][columns[c][i]] for c in range(3 - (r == 2))] for r in range(3)]
            assert continues(names[rules[i]], rows, 8) == answer[i]
    for problem in range(3):
        own = found.problems == problem
        true_rules = batch.rules[problem, batch.permutations[problem, -1]]
        places = batch.permutations[problem].argsort(-1)[:, batch.permutations[problem, -1]]
        assert (
            (found.rules == true_rules).all(-1) & (found.correspondences == places).all(-1).all(-1) & own
        ).sum() == 1


@given(seeds, st.permutations(range(4)), st.integers(0, 2))
def test_order_within_a_column_does_not_matter(seed: int, order: list[int], column: int) -> None:
    """Of the last column, the answers follow the order."""
    task = SRaven(seed=seed)
    batch = task.batch("heldout", 0, 4)
    panels = task.panels(batch)
    panels[:, :, column] = panels[:, :, column][..., order]
    moved = task.pack(panels, batch.rules, batch.permutations)
    before, after = sets_of(task, batch.inputs), sets_of(task, moved.inputs)
    if column == 2:
        before = [{tuple(answer[i] for i in order) for answer in answers} for answers in before]
    assert before == after


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SRaven()
    inputs = task.batch("test", 0, 23).inputs
    whole = explanations(task, inputs)
    monkeypatch.setattr("hyla_repro.tasks.sraven.solver._CHUNK", 5)
    for one, other in zip(whole, explanations(task, inputs), strict=True):
        assert torch.equal(one, other)


# --- by hand --------------------------------------------------------------------------------------------------


def one_feature(rows: list[list[int]], n: int = 8) -> set[int]:
    """Return the answers of a problem with one feature."""
    task = make_task(n_features=1, n_values=n)
    shown = torch.tensor([symbol for row in rows for symbol in row])
    inputs = torch.cat([torch.nn.functional.one_hot(shown, n).float(), torch.zeros(1, n)]).unsqueeze(0)
    return {answer[0] for answer in sets_of(task, inputs)[0]}


@pytest.mark.parametrize(
    ("rows", "answers"),
    [
        ([[1, 1, 1], [2, 2, 2], [7, 7]], {7}),
        ([[1, 2, 3], [6, 7, 0], [7, 0]], {1}),
        ([[1, 2, 3], [5, 1, 6], [7, 7]], {6}),  # addition alone: the second row is no progression
        ([[1, 4, 5], [3, 0, 3], [2, 3]], {5, 7}),  # the second symbols are 4 and 0: addition or difference
        ([[1, 4, 5], [3, 0, 3], [2, 4]], {6}),  # and both say the same
        ([[1, 2, 3], [3, 1, 2], [2, 1]], {3}),  # distribute-three
        ([[1, 2, 3], [2, 3, 1], [2, 2]], set()),  # it repeats no symbol
        ([[1, 2, 3], [2, 3, 1], [2, 5]], set()),  # and takes none from elsewhere
        ([[1, 2, 3], [1, 2, 3], [2, 3]], {1, 4, 5}),  # distribute-three, +1 or addition
        ([[1, 1, 2], [1, 2, 1], [1, 2]], set()),  # its symbols are distinct
        ([[0, 0, 0], [0, 0, 0], [5, 5]], {5, 2, 0}),  # constant, addition or difference
    ],
)
def test_answers_by_hand(rows: list[list[int]], answers: set[int]) -> None:
    assert one_feature(rows) == answers


def test_hypotheses_are_counted() -> None:
    """Two columns to align with the last, eight rules for each of four features."""
    assert hypotheses(SRaven()) == 24**2 * 8**4
    assert hypotheses(make_task(n_features=1)) == 8


# --- ambiguity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_how_many_problems_are_ambiguous(split: str) -> None:
    """Under 0.5 %, the paper says, of those whose other answer differs in every symbol; a quarter have another one.

    3000 problems: the share of 0.0025 has standard deviation 0.0009, that of 0.24 has 0.008.
    """
    task = SRaven()
    batch = task.batch(split, 0, 3000)
    wholly, ambiguous = is_wholly_ambiguous(task, batch), is_ambiguous(task, batch.inputs)
    assert 0 < wholly.double().mean() < 0.005
    assert 0.21 < ambiguous.double().mean() < 0.27
    assert not (wholly & ~ambiguous).any()


def test_ambiguity_by_hand() -> None:
    """Two features; the first has answers 5 and 7 (see above), the second one."""
    task = make_task(n_features=2)
    rows = [[[1, 3], [4, 3], [5, 3]], [[3, 7], [0, 7], [3, 7]], [[2, 6], [3, 6], [5, 6]]]
    panels = torch.tensor([rows, rows])
    panels[1, 2, 1, 0] = 4  # addition and difference then give 6 both
    panels[1, 2, 2, 0] = 6
    batch = task.pack(panels, torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 3, 2, dtype=torch.long))
    assert sets_of(task, batch.inputs) == [{(5, 6), (7, 6)}, {(6, 6)}]
    assert is_ambiguous(task, batch.inputs).tolist() == [True, False]
    assert is_wholly_ambiguous(task, batch).tolist() == [False, False]
    wrong = SRavenBatch(batch.inputs, torch.tensor([[5, 0], [6, 6]]), batch.rules, batch.permutations)
    assert is_wholly_ambiguous(task, wrong).tolist() == [True, False]


# --- the ideal solver -----------------------------------------------------------------------------------------


def test_beliefs_by_hand() -> None:
    """One feature: addition or difference allow 8**6 grids each, distribute-three 56 * 6**3, a progression 8**3."""
    task = make_task(n_features=1)
    shown = torch.tensor([[1, 4, 5], [3, 0, 3], [2, 3, 0]]), torch.tensor([[1, 2, 3], [1, 2, 3], [2, 3, 0]])
    panels = torch.stack(shown).unsqueeze(-1)
    batch = task.pack(panels, torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 3, 1, dtype=torch.long))
    problems, answers, probabilities = beliefs(task, batch.inputs)
    assert [*zip(problems.tolist(), answers[:, 0].tolist(), strict=True)] == [(0, 5), (0, 7), (1, 1), (1, 4), (1, 5)]
    weights = torch.tensor([1 / (56 * 216), 8.0**-3, 8.0**-6], dtype=torch.float64)
    torch.testing.assert_close(probabilities[:2], torch.tensor([0.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(probabilities[2:], weights / weights.sum())
    guess, probability = best_guess(task, batch.inputs)
    assert guess[1].tolist() == [4]
    torch.testing.assert_close(probability, torch.stack([probabilities[0], probabilities[3]]))


def posterior(task: SRaven, panels: list, pool: list[list[int]]) -> dict[tuple[int, ...], float]:
    """Return the probability of each answer by Bayes' rule over all tasks and permutations, one after the other."""
    (k, n), names, weights = (task.n_features, task.n_values), list(RULES), {}
    grids = [n**3] * 5 + [n**6] * 2 + [comb(n, 3) * 6**3]
    for rules, columns in product(pool, product(permutations(range(k)), repeat=3)):
        answer, weight = [0] * k, 1.0
        for feature, rule in enumerate(rules):
            places = [order.index(feature) for order in columns]
            rows = [[panels[r][c][places[c]] for c in range(3 - (r == 2))] for r in range(3)]
            symbol = continues(names[rule], rows, n)
            weight *= 0 if symbol is None else 1 / grids[rule]
            answer[places[-1]] = symbol or 0
        weights[tuple(answer)] = weights.get(tuple(answer), 0.0) + weight
    return {answer: weight / sum(weights.values()) for answer, weight in weights.items() if weight}


@pytest.mark.parametrize("pool", [None, "train"])
def test_beliefs_follow_bayes_rule(pool: str | None) -> None:
    """Over all orders of all multisets: those with a rule twice can be laid out in fewer different ways."""
    task = make_task(n_features=2, n_values=4)
    batch = task.batch("test", 0, 6)
    tasks = torch.cat([part for name, part in task.multisets.items() if pool in (None, name)]).tolist()
    problems, answers, probabilities = beliefs(task, batch.inputs, pool)
    for problem, panels in enumerate(task.panels(batch).tolist()):
        own = problems == problem
        found = dict(zip(map(tuple, answers[own].tolist()), probabilities[own].tolist(), strict=True))
        assert {a: p for a, p in found.items() if p} == pytest.approx(posterior(task, panels, tasks))


@pytest.mark.parametrize(("split", "pool"), [("test", "train"), ("heldout", "heldout")])
def test_probabilities_are_calibrated(split: str, pool: str) -> None:
    """The ideal solver is right as often as it expects: the mean of right - p has deviation 0.0045 over 3000."""
    task = SRaven(seed=1)
    batch = task.batch(split, 0, 3000)
    guess, probability = best_guess(task, batch.inputs, pool)
    right = (guess == batch.targets).all(-1).double()
    assert abs(float((right - probability).mean())) < 4 * 0.0045
    assert 0.90 < float(probability.mean()) < 0.97
    # Where it is not sure either: the thousand least sure problems.
    unsure = probability < 0.8
    assert unsure.sum() > 100
    assert abs(float((right - probability)[unsure].mean())) < 4 * 0.5 / float(unsure.sum()) ** 0.5


def test_beliefs_sum_to_one() -> None:
    task = SRaven()
    inputs = task.batch("test", 0, 50).inputs
    for pool in (None, "train"):
        problems, answers, probabilities = beliefs(task, inputs, pool)
        total = torch.zeros(50, dtype=torch.float64).index_add(0, problems, probabilities)
        torch.testing.assert_close(total, torch.ones(50, dtype=torch.float64))
        assert torch.equal(torch.cat([problems.unsqueeze(1), answers], 1), torch.cat(
            [answer_sets(task, inputs).problems.unsqueeze(1), answer_sets(task, inputs).answers], 1))  # fmt: skip


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 36, 7), (3, 35, 8), (0, 36, 8)])
def test_inputs_of_another_task_are_refused(shape: tuple[int, ...]) -> None:
    text = rf"inputs of shape \({shape[0]}, {shape[1]}, {shape[2]}\) are no problems of this task: need \(problems, 36"
    for call in (answer_sets, explanations, is_ambiguous, beliefs, best_guess):
        with pytest.raises(ValueError, match=text):
            call(SRaven(), torch.zeros(shape))


def test_inputs_that_are_no_grid_are_refused() -> None:
    """The likeliest symbol of zeros or of NaN would be 0, and such a grid would have the answer 0."""
    task = SRaven()
    for token, value, wrong in ((3, float("nan"), 0.0), (3, 0.0, 0.0), (3, 0.5, 0.5), (3, 1.0, 1.0), (32, 1.0, 0.0)):
        inputs = task.batch("test", 0, 5).inputs
        inputs[2:4, token] = wrong
        inputs[2:4, token, 1] = value
        for call in (answer_sets, explanations, is_ambiguous, beliefs, best_guess):
            with pytest.raises(ValueError, match=r"inputs of problem 2 are no grid \(2 of 5 are not\): need one-hot"):
                call(task, inputs)


def test_problems_that_the_pool_cannot_have_drawn_are_named() -> None:
    """Their answers would have no probability, 0 / 0."""
    task = SRaven()
    inputs = torch.cat([task.batch(split, 0, 40).inputs for split in ("train", "heldout")])
    for call in (beliefs, best_guess):
        with pytest.raises(
            ValueError, match=r"problem \d+ is of no task of pool='train' \(\d+ of 80 are not\): name the pool"
        ):
            call(task, inputs, "train")
    impossible = torch.nn.functional.one_hot(
        torch.tensor([0, 1, 0, 0, 0, 0, 0, 0, 0] * 2).unflatten(0, (9, 2)), 8
    ).float()
    impossible[-1] = 0
    few = SRaven(n_features=2)
    assert len(answer_sets(few, impossible.flatten(0, 1)[None]).problems) == 0
    with pytest.raises(ValueError, match=r"problem 0 is of no task \(1 of 1 are not\)"):
        beliefs(few, impossible.flatten(0, 1)[None])


def test_too_many_correspondences_are_refused() -> None:
    task = SRaven(n_features=6)
    with pytest.raises(ValueError, match=r"n_features=6 in 3 columns have 518400 correspondences: .* up to 20000"):
        answer_sets(task, task.batch("test", 0, 1).inputs)


def test_unknown_pool_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown pool 'test': .*allowed are train, heldout"):
        beliefs(SRaven(), SRaven().batch("test", 0, 1).inputs, "test")
