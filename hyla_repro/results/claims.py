"""What a claim is: a statement of the paper, the rule that decides it, and what our runs say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hyla_repro.results.summary import Results

MISSING = "not all runs yet"


class Outcome(NamedTuple):
    """What our runs say about a claim: in words, whether it holds, or None where they cannot tell."""

    ours: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and the rule that decides it.

    Args:
        figure: the chapter that has it.
        published: the paper's number, as text.
        rule: the decision in words, as the report prints it.
        decide: the decision in code, from the results of one preset.
        level: whether the claim is about a number, which only the paper's own settings can decide.
        live: whether it is decided by computing, without runs.
    """

    id: str
    figure: str
    statement: str
    published: str
    rule: str
    decide: Callable[[Results], Outcome]
    level: bool = False
    live: bool = False
