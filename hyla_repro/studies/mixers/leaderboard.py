"""The leaderboard: rows of models that are not ours, kept in data/leaderboard.csv, among our committed ones."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from hyla_repro.files import unseal
from hyla_repro.results.markdown import frame, table
from hyla_repro.results.store import Store
from hyla_repro.studies.mixers.benchmarking import enter
from hyla_repro.studies.mixers.rows import CELLS, COLUMNS, beside, in_words, seeds_of

FILE = "leaderboard.csv"
# Smoke runs say that a model can be trained, and nothing of what it learns.
PRESETS = ("laptop", "paper")
_TITLES = {"fuzzy_logic": "Fuzzy logic (R²)", "sraven": "SRAVEN (accuracy)"}
_FACTS = ("n_parameters", "shapes", "source")


class Cited(NamedTuple):
    """What others print of SRAVEN: mean and standard deviation or error, as printed, in percent."""

    model: str
    trained_on: str
    score: str


# *Compositional generalization through gradient search in nonparametric latent space*, ICLR 2026. How many features and
# values their problems have, and whether columns are permuted, is not known here, so none of it can be ranked.
CITED = (
    Cited("Abduction Transformer", "1 % of rule combinations", "46.1 ± 4.2"),
    Cited("GPT-5", "nothing (zero-shot)", "41.0"),
    Cited("decoder-only transformer", "1 % of rule combinations", "28.8 ± 1.3"),
)


def rows(store: Store | None = None) -> pd.DataFrame:
    """Return the runs of models that are not ours: `rows.COLUMNS`, what is known of the model, cost and provenance."""
    found = (store or Store()).table(FILE)
    return found if "name" in found else pd.DataFrame(columns=["id", *COLUMNS, *_FACTS[1:]])


def standings(preset: str, store: Store | None = None) -> dict[str, pd.DataFrame]:
    """Return, by task, all models of a preset as `rows.ranked` gives them."""
    return {task: beside(rows(store), task, preset, seeds_of(preset), store) for task in CELLS}


def add(path: Path, store: Store | None = None) -> str:
    """Add the runs of a file that `Benchmark.save` wrote, and return a line that says what was added.

    Raises: ValueError for a file that was altered or is none, runs of another protocol, a smoke run, a seed that is
        missing, or a name that stands for another model there. OSError if it cannot be read.
    """
    store = store or Store()
    try:
        saved = unseal(path.read_bytes())
        runs = pd.DataFrame(saved["runs"])
        identities = [
            enter(
                run["task"], run["preset"], run["seed"], run["name"], build=object, **{key: run[key] for key in _FACTS}
            )
            for run in saved["runs"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no whole file of `Benchmark.save` ({error}): save the result again") from error
    if [run.id for run in identities] != list(runs["id"]):
        raise ValueError(f"{path} has runs of other settings than those of this version: train them again")
    if set(runs["preset"]) - set(PRESETS):
        raise ValueError(f"{path} has runs of preset smoke: the leaderboard takes {' and '.join(PRESETS)}")
    for (task, preset), part in runs.groupby(["task", "preset"]):
        if missing := set(seeds_of(preset)) - set(part["seed"]):
            raise ValueError(f"{path} lacks seeds {sorted(missing)} of {task} at {preset}: rows have all of them")
    there = rows(store)
    both = runs.merge(there, on=["name", "task", "preset"], suffixes=("", "_there"))
    if any((both[fact] != both[f"{fact}_there"]).any() for fact in _FACTS):
        raise ValueError(f"name={saved['name']!r} is another model's on the leaderboard: give yours another")
    new = runs[~runs["id"].isin(there["id"])]
    if new.empty:
        return f"nothing new: the runs of {saved['name']} are on the leaderboard"
    whole = pd.concat([part for part in (there, new) if len(part)], ignore_index=True)
    store.write({FILE: whole.to_csv(index=False).encode()})
    return f"added {len(new)} runs of {saved['name']}"


def section(store: Store | None = None) -> str:
    """Return the tables of the leaderboard's page, as MyST."""
    parts, guests = [], set(rows(store)["name"])
    for preset in PRESETS:
        for task, ranked in standings(preset, store).items():
            if len(ranked):
                named = ranked.assign(model=[f"**{name}**" if name in guests else name for name in ranked["model"]])
                parts += [f"## {_TITLES[task]}, preset `{preset}`", frame(in_words(named))]
    cited = table(["model", "trained on", "held-out accuracy, %"], [list(line) for line in CITED])
    return "\n\n".join([*parts, "## SRAVEN elsewhere, not ranked", cited])
