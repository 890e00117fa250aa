"""SRAVEN for language models and by the share of tasks trained on: prompts, replies, and splits that hang together."""

import re
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.tasks.sraven import (
    RULES,
    TRAIN_FRACTIONS,
    SRaven,
    best_guess,
    connected_split,
    parse_answer,
    prompt,
    rule_groups,
)

# --- prompts ---------------------------------------------------------------------------------------------------


@given(index=st.integers(0, 6), k=st.integers(2, 4), n_values=st.integers(5, 40), explain=st.booleans())
def test_a_prompt_shows_the_eight_panels_and_hides_the_answer(index: int, k: int, n_values: int, explain: bool) -> None:
    task = SRaven(n_features=k, n_values=n_values)
    batch = task.batch("heldout", 0, 7)
    asked = prompt(task, batch, index, explain)
    grid = task.panels(batch)[index]
    shown = [list(map(int, panel.split())) for panel in re.findall(r"\(([\d ]+)\)", asked.text)]
    assert shown == grid.reshape(9, k).tolist()[:8]
    assert asked.text.count("?  ") + asked.text.count("  ?\n") == 1
    assert parse_answer(task, asked.answer) == tuple(grid[-1, -1].tolist())
    assert ("rules" in asked.text) is explain


def test_a_prompt_reads_as_it_should() -> None:
    task = SRaven(n_features=2)
    batch = task.pack(torch.arange(18).reshape(1, 3, 3, 2) % 8, torch.tensor([[0, 1]]), torch.zeros(1, 3, 2).long())
    text, answer = prompt(task, batch)
    assert text.splitlines()[-5:] == [
        "(0 1)  (2 3)  (4 5)",
        "(6 7)  (0 1)  (2 3)",
        "(4 5)  (6 7)  ?",
        "",
        "Which numbers belong in place of the question mark? End your reply with the 2 numbers in their order, in "
        "parentheses.",
    ]
    assert answer == "(0 1)"
    assert sum(line.startswith("- ") for line in text.splitlines()) == len(RULES)
    with pytest.raises(ValueError, match="index=1 is out of range: use 0 to 0"):
        prompt(task, batch, 1)


def test_what_a_prompt_shows_is_enough_to_solve_it() -> None:
    """The panels read back from the text have the problem's most probable answer."""
    task = SRaven(n_features=2)
    batch = task.batch("test", 0, 20)
    panels = []
    for index in range(20):
        found = re.findall(r"\(([\d ]+)\)", prompt(task, batch, index).text)
        panels.append([[int(symbol) for symbol in panel.split()] for panel in [*found, "0 0"]])
    read = task.pack(torch.tensor(panels).reshape(20, 3, 3, 2), batch.rules, batch.permutations)
    assert torch.equal(best_guess(task, read.inputs)[0], best_guess(task, batch.inputs)[0])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("(3 1 0 7)", (3, 1, 0, 7)),
        ("Row 3, so 2 + 1 = 3.\nThe answer is **[3, 1,0, 7]**.", (3, 1, 0, 7)),
        ("(1 2 3 4) or rather\n\n(3 1 0 7)\n", (3, 1, 0, 7)),
        ("By rule 4\n3 1 0 7", (3, 1, 0, 7)),
        ("(3 1 0 7 2)", None),
        ("(3 1 0)", None),
        ("(3 1 0 8)", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_replies_are_read(reply: str, answer: tuple[int, ...] | None) -> None:
    assert parse_answer(SRaven(), reply) == answer


# --- splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", TRAIN_FRACTIONS)
@pytest.mark.parametrize("index", [0, 2])
def test_splits_that_others_use_are_connected_and_disjoint(fraction: float, index: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = connected_split(fraction, index)
    assert not caught
    train, heldout = (set(map(tuple, task.multisets[pool].tolist())) for pool in ("train", "heldout"))
    assert len(train) == {0.01: 4, 0.1: 33, 0.9: 297}[fraction]
    assert train.isdisjoint(heldout)
    assert len(train | heldout) == 330
    assert {rule for multiset in train for rule in multiset} == set(range(8))
    assert rule_groups(task) == [sorted(RULES, key=list(RULES).index)]
    assert {tuple(rules) for rules in task.batch("train", 0, 200).rules.tolist()} <= train
    assert {tuple(rules) for rules in task.batch("heldout", 0, 200).rules.tolist()} <= heldout


def test_splits_of_one_fraction_differ_by_their_index() -> None:
    seeds = [connected_split(0.01, index).seed for index in range(4)]
    assert seeds == sorted(set(seeds))
    assert connected_split(0.5, 3, n_features=3, n_values=11) == SRaven(3, 11, heldout_fraction=0.5, seed=3)


def test_the_seeds_passed_over_are_those_that_are_not_connected() -> None:
    first = connected_split(0.01).seed
    assert first > 0
    for seed in range(first):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(rule_groups(SRaven(heldout_fraction=0.99, seed=seed))) > 1


def test_rules_that_no_training_task_has_are_named_and_stand_alone() -> None:
    with pytest.warns(UserWarning, match="leaves rules that are in no training task"):
        task = SRaven(n_features=2, heldout_fraction=0.97)
    groups = rule_groups(task)
    (multiset,) = task.multisets["train"].tolist()[:1]
    assert sum(map(len, groups)) == 8
    names = [list(RULES)[rule] for rule in sorted(set(multiset))]
    assert any(set(names) <= set(group) for group in groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_fraction": 0.01, "n_features": 2}, r"0.01 of 36 rule multisets are 1, which cannot connect 8 rules by "
         r"2 at a time: use 0.19 or more, or more features"),
        ({"train_fraction": 0.8, "n_features": 1}, "cannot connect 8 rules by 1 at a time: use two features"),
        ({"train_fraction": 0.0}, r"train_fraction=0.0 is not between 0 and 1"),
        ({"train_fraction": 1.0}, r"train_fraction=1.0 is not between 0 and 1"),
        ({"train_fraction": 0.1, "index": -1}, r"index=-1 is out of range"),
        ({"train_fraction": 0.1, "n_features": 9}, r"n_features=9 is out of range"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connected_split(**arguments)
