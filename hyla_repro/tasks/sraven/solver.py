"""All answers of a SRAVEN problem: every rule for every feature over every correspondence of the columns.

A correspondence says which positions of the columns show one feature. For each tuple of positions, one per column, the
solver asks which rules fit the rows that are complete and the shown part of the last row, and what they continue it
with; a correspondence joins such tuples so that every position is used once. Tuples are few (K**G), so rules are
tried on them once, and correspondences (K! ** (G - 1)) only look up whether all their tuples are fitted.
"""

from collections.abc import Callable
from functools import cache
from itertools import permutations, product
from math import factorial
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from hyla_repro.tasks.sraven.rules import RULES
from hyla_repro.tasks.sraven.task import SRaven, SRavenBatch

_CHUNK = 500
_MOST_CORRESPONDENCES = 20_000


class Explanations(NamedTuple):
    """Ways to read problems; those of one problem stand together, in the order of the problems.

    Position i of the last column shows what position correspondences[c, i] of column c shows; rules[i] continues it
    with answers[i].
    """

    problems: Int[Tensor, " e"]
    correspondences: Int[Tensor, "e column k"]
    rules: Int[Tensor, "e k"]
    answers: Int[Tensor, "e k"]


class Answers(NamedTuple):
    """Answers that differ; those of one problem stand together, in the order of the problems."""

    problems: Int[Tensor, " a"]
    answers: Int[Tensor, "a k"]


def explanations(task: SRaven, inputs: Float[Tensor, "b t f"]) -> Explanations:
    """Return every explanation of the shown panels: a correspondence, and a rule for each feature.

    Raises: ValueError for inputs that are no problems of this task, or a task with too many correspondences.
    """
    return _solve(task, inputs, all_rules=True)


def answer_sets(task: SRaven, inputs: Float[Tensor, "b t f"]) -> Answers:
    """Return all answers of each problem, each once: those that some explanation of the shown panels gives.

    A grid that no rules explain has none. Rules may repeat and may form any multiset, held out or not.

    Raises: ValueError for inputs that are no problems of this task, or a task with too many correspondences.
    """
    found = _solve(task, inputs, all_rules=False)
    rows = torch.cat([rearrange(found.problems, "e -> e 1"), found.answers], dim=-1).unique(dim=0)
    return Answers(rows[:, 0], rows[:, 1:])


def is_ambiguous(task: SRaven, inputs: Float[Tensor, "b t f"]) -> Bool[Tensor, " b"]:
    """Return whether a problem has more than one answer.

    With 4 features of 8 values 24 % have (20 000 test problems, 95 % interval 23.6 to 24.8). In over half of those,
    another rule fits the features as they are and parts in the last row: addition and difference, say, where the
    second symbol is 0 or 4 in both rows above. The rest has another answer by another correspondence only. Most
    differ in one symbol or two.

    Raises: ValueError for inputs that are no problems of this task, or a task with too many correspondences.
    """
    return torch.bincount(answer_sets(task, inputs).problems, minlength=len(inputs)) > 1


def is_wholly_ambiguous(task: SRaven, batch: SRavenBatch) -> Bool[Tensor, " b"]:
    """Return whether a problem has an answer that differs from the right one in every symbol.

    The release counts these as ambiguous, a few more than here: 25 of 8 000 test problems by its rules, 23 by ours. Of
    20 000 test problems 0.25 % are (95 % interval 0.19 to 0.33), of held-out ones 0.22 %.

    Raises: ValueError for inputs that are no problems of this task, or a task with too many correspondences.
    Source: authors' data/raven.py, check_is_ambiguous.
    Differs: there, distribute-three also fits rows that repeat a symbol (Deviation D14).
    """
    found = answer_sets(task, batch.inputs)
    others = (found.answers != batch.targets[found.problems]).all(-1)
    return torch.bincount(found.problems[others], minlength=len(batch.targets)) > 0


def hypotheses(task: SRaven) -> int:
    """Return how many explanations there are to try: correspondences times a rule for every feature."""
    return factorial(task.n_features) ** (task.grid_size - 1) * len(RULES) ** task.n_features


def _solve(task: SRaven, inputs: Float[Tensor, "b t f"], all_rules: bool) -> Explanations:
    shown, parts = _shown(task, inputs), []
    sizes = (task.n_features, task.grid_size)
    tuples, matchings = _tuples(*sizes).to(shown.device), _matchings(*sizes).to(shown.device)
    for start in range(0, len(shown), _CHUNK):
        fits, answers = _fits(shown[start : start + _CHUNK], task.n_values, tuples)
        if not all_rules:
            fits = _one_rule_per_answer(fits, answers)
        found = _join(fits, answers, matchings)
        parts.append(found._replace(problems=found.problems + start))
    return Explanations(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _shown(task: SRaven, inputs: Float[Tensor, "b t f"]) -> Int[Tensor, "b row column k"]:
    """Return the symbols of the grid, with zeros in the last panel."""
    if inputs.shape[1:] != (task.n_tokens, task.n_inputs) or not len(inputs):
        raise ValueError(
            f"inputs of shape {tuple(inputs.shape)} are no problems of this task: "
            f"need (problems, {task.n_tokens} tokens, {task.n_inputs} values)"
        )
    count = factorial(task.n_features) ** (task.grid_size - 1)
    if count > _MOST_CORRESPONDENCES:
        raise ValueError(
            f"n_features={task.n_features} in {task.grid_size} columns have {count} correspondences: the solver "
            f"takes up to {_MOST_CORRESPONDENCES}, so use fewer features"
        )
    symbols, n_shown = inputs.argmax(-1), task.n_tokens - task.n_features
    packed = F.one_hot(symbols, task.n_values)
    packed[:, n_shown:] = 0
    if wrong := (inputs != packed).any(-1).any(-1).nonzero().flatten().tolist():
        raise ValueError(
            f"inputs of problem {wrong[0]} are no grid ({len(wrong)} of {len(inputs)} are not): "
            "need one-hot symbols in every panel but the last, and zeros there"
        )
    grid = task.grid_size
    return rearrange(symbols, "b (row column k) -> b row column k", row=grid, column=grid)


@cache
def _tuples(k: int, grid: int) -> Int[Tensor, "n column"]:
    """Return all tuples of positions, one per column; the last column's position runs fastest."""
    return torch.tensor(list(product(range(k), repeat=grid)))


@cache
def _matchings(k: int, grid: int) -> Int[Tensor, "m column k"]:
    """Return the correspondences, each seen from the positions of the last column."""
    orders = product(permutations(range(k)), repeat=grid - 1)
    return torch.tensor([[*order, tuple(range(k))] for order in orders])


def _fits(
    shown: Int[Tensor, "b row column k"], n_values: int, tuples: Int[Tensor, "n column"]
) -> tuple[Bool[Tensor, "b n rule"], Int[Tensor, "b n rule"]]:
    """Return which rules fit the symbols at a tuple of positions, and how they continue the last row."""
    columns = torch.arange(tuples.shape[1], device=shown.device)
    rows = rearrange(shown[:, :, columns, tuples], "b row n column -> b n row column")
    fits, answers = [], []
    for name, rule in RULES.items():
        fit, answer = _fits_distribution(rows) if name == "distribute_three" else _fits_rule(rows, rule, n_values)
        fits.append(fit)
        answers.append(answer)
    return torch.stack(fits, dim=-1), torch.stack(answers, dim=-1)


def _fits_rule(
    rows: Int[Tensor, "b n row column"], rule: Callable[[Tensor, int], Tensor], n_values: int
) -> tuple[Tensor, Tensor]:
    """A rule whose numbers are the row itself: every panel but the last is one of them, or follows from the first."""
    made = rule(rows[..., :-1], n_values)
    same = made == rows
    same[..., -1, -1] = True
    return same.all(-1).all(-1), made[..., -1, -1]


def _fits_distribution(rows: Int[Tensor, "b n row column"]) -> tuple[Tensor, Tensor]:
    """Distinct symbols, the same in every complete row, of which the last row shows all but one."""
    ordered = rows[..., :-1, :].sort(-1).values
    symbols, last = ordered[..., 0, :], rows[..., -1, :-1]
    same = (ordered == rearrange(symbols, "b n column -> b n 1 column")).all(-1).all(-1)
    distinct = (symbols[..., 1:] > symbols[..., :-1]).all(-1)
    matches = rearrange(last, "b n c -> b n c 1") == rearrange(symbols, "b n s -> b n 1 s")
    # Shown symbols that are among the set, each another one, leave exactly one out.
    left = ~matches.any(-2)
    return same & distinct & (left.sum(-1) == 1), symbols.gather(-1, left.int().argmax(-1, keepdim=True))[..., 0]


def _one_rule_per_answer(fits: Bool[Tensor, "b n rule"], answers: Int[Tensor, "b n rule"]) -> Bool[Tensor, "b n rule"]:
    """Keep the first of the fitting rules that give the same answer."""
    count = fits.shape[-1]
    earlier = torch.ones(count, count, dtype=torch.bool, device=fits.device).tril(-1)
    same = rearrange(answers, "b n rule -> b n rule 1") == rearrange(answers, "b n other -> b n 1 other")
    return fits & ~(same & earlier & rearrange(fits, "b n other -> b n 1 other")).any(-1)


def _join(
    fits: Bool[Tensor, "b n rule"], answers: Int[Tensor, "b n rule"], matchings: Int[Tensor, "m column k"]
) -> Explanations:
    """Return the correspondences whose tuples are all fitted, once for every choice of rules."""
    _, grid, k = matchings.shape
    places = k ** torch.arange(grid - 1, -1, -1, device=matchings.device)
    joined = reduce(matchings * rearrange(places, "column -> column 1"), "m column k -> m k", "sum")
    fitted = fits.any(-1)
    possible = fitted[:, joined[:, 0]]
    for tuples in joined.unbind(-1)[1:]:
        possible = possible & fitted[:, tuples]
    problems, chosen = possible.nonzero(as_tuple=True)
    at = (rearrange(problems, "j -> j 1"), joined[chosen])
    allowed, counts = fits[at], fits[at].sum(-1)
    # Number every choice, then read the number's digits as places among the allowed rules of each feature.
    source = torch.arange(len(problems), device=fits.device).repeat_interleave(counts.prod(-1))
    first = counts.prod(-1).cumsum(0) - counts.prod(-1)
    number, digits = torch.arange(len(source), device=fits.device) - first[source], []
    for count in counts[source].unbind(-1):
        digits.append(number % count)
        number = number // count
    ranked = allowed.int().argsort(stable=True, dim=-1, descending=True)[source]
    rules = ranked.gather(-1, torch.stack(digits, dim=-1).unsqueeze(-1))[..., 0]
    given = answers[at][source].gather(-1, rules.unsqueeze(-1))[..., 0]
    return Explanations(problems[source], matchings[chosen][source], rules, given)
