"""What a claim is: a statement of the paper, the rule that decides it, and what our runs say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hyla_repro.results.effects import CONTRADICTED, NOT_TESTED, REPRODUCED, Effect, decide
from hyla_repro.results.summary import Results

MISSING = "not all runs yet"
NO_NUMBER = "no printed number"
OURS = "our own question"
# What claims are about, in the order of the report.
TOPICS = {
    "facts": "The identity, and facts of the tasks",
    "advantage": "HYLA's advantage",
    "code": "The latent code",
    "scaling": "Scaling and difficulty",
    "language": "Language",
    "neighbours": "Three neighbouring papers, and recall",
    "paths": "Attention paths, a fourth paper",
    "levels": "Levels of Table A1: held-out R² of fuzzy logic, accuracy of SRAVEN (%)",
}


# More effects than these are not all printed.
_SHOWN = 3
# Scores in percent where a comparison is marked weak: one of them below, or all of them above.
FLOOR, _CEILING = 10.0, 95.0


class Outcome(NamedTuple):
    """What our runs say about a claim.

    Args:
        ours: scores in words.
        effects: what must be above zero for the claim to hold; none where runs are missing.
        verdict: for a claim that is decided otherwise than by its effects.
        weak: why the answer says little, such as scores near the floor.
    """

    ours: str
    effects: tuple[Effect, ...] = ()
    verdict: str | None = None
    weak: str = ""

    @property
    def answer(self) -> str:
        """The verdict that follows."""
        return self.verdict or decide(self.effects)

    @property
    def evidence(self) -> str:
        """The effects with their 95 % intervals and the number of seeds; of many, the one that decides."""
        if not self.effects:
            return ""
        shown = list(map(str, self.effects))
        if len(shown) > _SHOWN:
            clear = sum(effect.low > 0 for effect in self.effects)
            closest = min(self.effects, key=lambda effect: effect.low / max(effect.high - effect.low, 1e-12))
            shown = [f"{clear} of {len(shown)} clear, least so {closest}"]
        counts = " or ".join(str(n) for n in sorted({effect.n for effect in self.effects}))
        return "; ".join([*shown, f"{counts} {self.effects[0].unit}"])

    @property
    def words(self) -> str:
        """Scores, evidence, and what makes the answer weak."""
        weak = f"**weak**: {self.weak}" if self.weak else ""
        return "; ".join(part for part in (self.ours, self.evidence, weak) if part)


def missing(ours: str = MISSING) -> Outcome:
    """Return the outcome of a claim whose runs are not all there."""
    return Outcome(ours, verdict=NOT_TESTED)


def at_an_end(scores: Sequence[float], of: str) -> str:
    """Return why scores in percent tell little: one is near the floor, or all are near the ceiling; else nothing."""
    if FLOOR <= min(scores) <= _CEILING:
        return ""
    end = "floor" if min(scores) < FLOOR else "ceiling"
    return f"near the {end}, {of} at " + ", ".join(f"{score:.0f}" for score in scores) + " %"


def exact(worst: float, bound: float) -> Outcome:
    """Return the outcome of an identity whose sides differ by `worst` at most.

    The digits below the bound depend on the processor, and a report must not.
    """
    if worst < bound:
        return Outcome(f"below {bound:.0e}".replace("e-0", "e-"), verdict=REPRODUCED)
    return Outcome(f"largest difference {worst:.0e}", verdict=CONTRADICTED)


@dataclass(frozen=True)
class Claim:
    """One statement of the paper and the rule that decides it.

    Args:
        figure: the chapter that has it.
        topic: one of `TOPICS`.
        published: the paper's number, as text.
        rule: the decision in words: what must be above zero, each with its whole interval.
        decide: the effects in code, from the results of one preset.
        chance: how likely the rule says "reproduced" if there is no effect.
        live: whether it is decided by computing, without runs.
    """

    id: str
    figure: str
    topic: str
    statement: str
    published: str
    rule: str
    decide: Callable[[Results], Outcome]
    chance: str = "at most 2.5 %"
    live: bool = False

    @property
    def level(self) -> bool:
        """Whether the claim is about a number, which only the paper's own settings can decide."""
        return self.topic == "levels"
