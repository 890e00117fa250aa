"""What the chapter on language claims, and the rules that decide it."""

from collections.abc import Callable

import pandas as pd

from hyla_repro.results.claims import OURS, Claim, Outcome, missing
from hyla_repro.results.effects import MIN_SEEDS, Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error
from hyla_repro.studies.language.analysis import by_seed, main_task, n_gram_bits
from hyla_repro.studies.language.runs import METHODS

# Rates are chosen on the validation plays, so claims are decided on others.
_TEXTS = {"test": "plays that were held back", "heldout": "another writer (Milton)"}


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    found = []
    for split, where in _TEXTS.items():
        end = "" if split == "test" else "-milton"
        on = f"bits per character on {where}"
        found += [
            Claim(f"6-near{end}", "fig6", "language", "HYLA's loss is nearer to softmax attention's than to linear "
                  f"attention's, on {where}.", "curves, no table" if split == "test" else OURS,
                  f"{on}: distance of HYLA from linear attention minus that from softmax attention",
                  _rule(split, nearer_to_softmax)),
            Claim(f"6-between{end}", "fig6", "language", "Linear attention with RMSHead lies between linear attention "
                  f"and HYLA, on {where}.", "curves, no table" if split == "test" else OURS,
                  f"{on}: linear attention minus linear + RMSHead, and this minus HYLA", _rule(split, in_between)),
            Claim(f"6-n-gram{end}", "fig6", "language", f"Every method beats a 5-gram model, on {where}.", OURS,
                  f"{on}: 5-gram model minus each method", _rule(split, beat_counting)),
        ]  # fmt: skip
    return found


def _rule(
    split: str, effects: Callable[[pd.DataFrame, Results, str], tuple[Effect, ...]]
) -> Callable[[Results], Outcome]:
    def decide(results: Results) -> Outcome:
        # The text of another preset may lack the split.
        if split not in main_task(results.preset).evaluation_splits:
            return missing()
        losses = by_seed(results, split)
        complete = losses.reindex(columns=METHODS).dropna() if len(losses) else losses
        if len(complete) < MIN_SEEDS:
            return missing()
        shown = ", ".join(f"{NAMES[m]} {mean_and_error(losses[m].mean(), losses[m].sem(), 3)}" for m in METHODS)
        return Outcome(shown, effects(complete, results, split))

    return decide


def nearer_to_softmax(losses: pd.DataFrame, results: Results, split: str) -> tuple[Effect, ...]:
    """Return how much nearer HYLA is to softmax attention than to linear attention, seed by seed."""
    far, near = ((losses["hyla"] - losses[other]).abs() for other in ("linear", "softmax"))
    return (paired("nearer to softmax attention by", far - near, digits=3),)


def in_between(losses: pd.DataFrame, results: Results, split: str) -> tuple[Effect, ...]:
    """Return the two steps from linear attention over RMSHead to HYLA, seed by seed."""
    steps = (("linear", "linear_rms_head"), ("linear_rms_head", "hyla"))
    return tuple(paired(f"{NAMES[a]} minus {NAMES[b]}", losses[a] - losses[b], digits=3) for a, b in steps)


def beat_counting(losses: pd.DataFrame, results: Results, split: str) -> tuple[Effect, ...]:
    """Return by how much each method's loss is below that of counting."""
    line = n_gram_bits(main_task(results.preset).text, split)
    return tuple(paired(f"5-gram minus {NAMES[m]}", line - losses[m], digits=3) for m in METHODS)
