"""What the pages that can be played with need of the results, as scripts: trained weights, tasks, problems of SRAVEN.

Everything is written when the book is built, from the committed weights and the tasks themselves, so nothing of it can
be older than they are. Scripts, because a page that is opened from a disk may load those and nothing else.
"""

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import to_hex

from hyla_repro import paths
from hyla_repro.attention.variants import VARIANTS
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import model_name
from hyla_repro.models.position import relative_position_buckets
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.studies.style import COLORS, PALETTE
from hyla_repro.studies.trained import trained_models
from hyla_repro.tasks.fuzzy_logic import FuzzyLogic
from hyla_repro.tasks.sraven import SRaven, SRavenBatch, answer_sets
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

SOURCES = paths.CODE / "book" / "play"
# Those of `hyla_repro.load(name)`.
MODELS = tuple(f"{method}-{task}" for task in ("fuzzy-logic", "sraven-k2") for method in METHODS)
_SEED = 0
# Those of the figures: for values from 0 to 1, and for values of both signs.
_COLORMAPS = {"values": "viridis", "signed": "RdBu_r"}
_STOPS = 17
# How many problems the page has by features of a panel and pool of tasks. Only with two features are there weights,
# and only for those does it matter which tasks were held out.
_PROBLEMS = {1: {"train": 60}, 2: {"train": 100, "heldout": 100}, 3: {"train": 60}, 4: {"train": 60}}


def runs() -> dict[str, Experiment]:
    """Return the runs whose weights are played with, by the name that `load` knows them by."""
    found = trained_models()
    return {name: found[name][_SEED] for name in MODELS}


def weights_script(name: str) -> str:
    """Return a script that holds the safetensors file of a model, byte for byte.

    Raises: DataError for weights that are missing or altered.
    """
    content = Store(paths.DATA, committed_only=True).read(model_name(runs()[name]))
    return f'hylaPlay.weights["{name}"] = "{base64.b64encode(content).decode()}";\n'


def facts() -> dict[str, Any]:
    """Return all that the pages need besides weights: methods, colours, models, functions and problems.

    Returns: numbers, texts, lists and mappings alone. Scores are those of the models' runs, R2 or accuracy as
        fractions; `buckets` are those of relative positions by number of tokens.
    """
    rows = Store(paths.DATA, committed_only=True).committed_runs()
    models = {name: _model(run, rows[run.id]) for name, run in runs().items()}
    lengths = sorted({model["config"]["n_positions"] for model in models.values()})
    return {
        "methods": [{"name": name, "label": NAMES[name], "color": to_hex(COLORS[name])} for name in METHODS],
        "colormaps": {name: _stops(colormap) for name, colormap in _COLORMAPS.items()},
        "models": models,
        "buckets": {n: relative_position_buckets(n).tolist() for n in lengths},
        "fuzzyLogic": _fuzzy_logic(runs()["hyla-fuzzy-logic"]),
        "sraven": {
            "rules": SRAVEN_RULES, "levels": {k: _level(k) for k in _PROBLEMS},
            "colors": [to_hex(color) for color in PALETTE[: max(_PROBLEMS)]],
        },
    }  # fmt: skip


def facts_script() -> str:
    """Return the script that makes the pages' one global name, `hylaPlay`, with the facts."""
    return f"var hylaPlay = {{ weights: {{}}, facts: {json.dumps(facts(), separators=(',', ':'))} }};\n"


def write(folder: Path) -> None:
    """Write the pages' own scripts and style, the facts and the weights into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.iterdir()):
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "facts.js").write_text(facts_script(), encoding="utf-8")
    for name in MODELS:
        (folder / f"{name}.js").write_text(weights_script(name), encoding="utf-8")


def _stops(colormap: str) -> list[list[int]]:
    """Return red, green and blue, 0 to 255, at equal steps."""
    steps = [i / (_STOPS - 1) for i in range(_STOPS)]
    return matplotlib.colormaps[colormap](steps, bytes=True)[:, :3].tolist()


def _model(run: Experiment, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": run.method, **VARIANTS[run.model.variant]._asdict(), "config": run.model.model_dump(),
        "steps": run.steps, "preset": row["preset"], "seed": run.seed, "test": row["test"], "heldout": row["heldout"],
    }  # fmt: skip


def _fuzzy_logic(run: Experiment) -> dict[str, Any]:
    task = FuzzyLogic(**run.task, seed=run.seed)
    pools = {pool: functions.tolist() for pool, functions in task.functions.items()}
    return {"terms": task.terms.tolist(), "functions": pools}


def _level(n_features: int) -> dict[str, list[dict[str, Any]]]:
    with warnings.catch_warnings():
        # With one feature, what is held out is a rule that no training task has; nobody trains on it here.
        warnings.simplefilter("ignore", UserWarning)
        task = SRaven(n_features=n_features)
    splits, counts = {"train": "test", "heldout": "heldout"}, _PROBLEMS[n_features]
    return {pool: _problems(task, task.batch(splits[pool], 0, count)) for pool, count in counts.items()}


def _problems(task: SRaven, batch: SRavenBatch) -> list[dict[str, Any]]:
    """Return the symbols of the whole grid, rules, places and all right answers of each problem."""
    found = answer_sets(task, batch.inputs)
    return [
        {
            "symbols": panels.flatten().tolist(), "rules": batch.rules[i].tolist(),
            "permutations": batch.permutations[i].tolist(), "answers": found.answers[found.problems == i].tolist(),
        }
        for i, panels in enumerate(task.panels(batch))
    ]  # fmt: skip
