"""What the chapters on other papers' attention share: their runs on our two tasks and on time series, and effects."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.models.config import TransformerConfig
from hyla_repro.results.effects import MIN_SEEDS, Effect, paired
from hyla_repro.results.methods import METHODS, NAMES, architecture
from hyla_repro.results.summary import Results, mean_and_error
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven
from hyla_repro.studies.study import PRESETS
from hyla_repro.tasks.series.settings import SeriesSettings

SERIES = "series"
OF_AAREN = ("softmax_causal", "aaren", "hyla_learned_query")
OF_PRIMAL_DUAL = ("softmax_bn", "softmax_sh", "softmax_bn_sh", "hyla_bn", "hyla_sh")
# What a row is to be compared with: it differs from its control by one idea.
CONTROLS = {
    "softmax_causal": "softmax", "aaren": "softmax_causal", "hyla_learned_query": "aaren", "softmax_bn": "softmax",
    "softmax_sh": "softmax", "softmax_bn_sh": "softmax", "hyla_bn": "hyla", "hyla_sh": "hyla",
}  # fmt: skip
TASKS = {fuzzy_logic.TASK: "fuzzy logic", sraven.TASK: "SRAVEN"}
# None at the paper's scale: which sizes the papers' models of time series have is not known here.
SERIES_SEEDS = {"smoke": (0,), "laptop": tuple(range(10)), "paper": ()}
_STEPS = {"smoke": 60, "laptop": 400, "paper": 400}


def composition(preset: str, methods: tuple[str, ...]) -> list[Experiment]:
    """Return the main comparison of both tasks for these methods, with three seeds and the settings of all others."""
    return [
        *fuzzy_logic.grid(preset, methods, [(32, 0.7)]),
        *sraven.grid(preset, methods, [sraven.SIZES[preset]]),
    ]


def beside_controls(preset: str, methods: tuple[str, ...]) -> list[Experiment]:
    """Return the runs of these methods on both tasks, and those of softmax, linear attention and HYLA."""
    return composition(preset, (*METHODS, *methods))


def series(preset: str, method: str, seed: int, data_set: str = "japanese_vowels") -> Experiment:
    """Return one run of time-series classification: 2 layers of width 64 with 4 heads, read out at the mean step.

    These sizes are those of small transformers for such series, and were not searched over; 400 steps see every
    training series about 47 times.
    """
    settings = SeriesSettings(data_set)
    fitting: dict[str, Any] = settings.model_sizes
    return Experiment(
        task_name=SERIES,
        task={"data_set": data_set},
        model=TransformerConfig(
            n_layers=2, d_model=64, n_heads=4, qk_dim=64, v_dim=64, d_ff=128,
            **fitting, **architecture(method),
        ),
        steps=_STEPS[choose("preset", preset, PRESETS)],
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup_steps=_STEPS[preset] // 10,
        attention_dropout=0.1,
        evaluation_sequences=settings.facts.n_test,
        seed=seed,
    )  # fmt: skip


def series_runs(preset: str, methods: Iterable[str]) -> list[Experiment]:
    """Return the runs of these methods on Japanese vowels, seed by seed."""
    return [series(preset, method, seed) for seed in SERIES_SEEDS[preset] for method in methods]


def scores(results: Results, figure: str, task: str, split: str) -> pd.DataFrame:
    """Return scores in percent by seed (rows) and method (columns); empty without runs."""
    best = results.best(figure, task)
    return 100 * best.pivot(index="seed", columns="variant", values=split) if len(best) else best


def complete(table: pd.DataFrame, methods: Iterable[str]) -> bool:
    """Return whether enough seeds have all of these methods."""
    wanted = list(methods)
    return set(wanted) <= set(table.columns) and len(table[wanted].dropna()) >= MIN_SEEDS


def minus(table: pd.DataFrame, one: str, other: str, digits: int = 1) -> Effect:
    """Return the effect of one method minus another, seed by seed."""
    return paired(f"{NAMES[one]} minus {NAMES[other]}", table[one] - table[other], digits)


def on_series(results: Results, figure: str, methods: Iterable[str], control: str) -> pd.DataFrame:
    """Return the accuracy on test series by method, and its difference from a control, in points."""
    table = scores(results, figure, SERIES, "test")
    rows = {}
    for method in (method for method in methods if method in table):
        effect = "" if method == control or control not in table else paired("", table[method] - table[control], 2)
        rows[NAMES[method]] = {"accuracy (%)": mean_and_error(table[method].mean(), table[method].sem(), 2),
                               "seeds": table[method].count(), f"minus {NAMES[control]}": str(effect)}  # fmt: skip
    return pd.DataFrame(rows).T


def on_tasks(results: Results, figure: str, methods: Iterable[str]) -> pd.DataFrame:
    """Return scores on training and on held-out tasks by task and method, of those that have runs."""
    rows = []
    for task, title in TASKS.items():
        splits = {"training tasks (%)": "test", "held-out (%)": "heldout"}
        tables = {name: scores(results, figure, task, split) for name, split in splits.items()}
        counts = tables["held-out (%)"].count()
        for method in (method for method in methods if method in counts):
            cells = {name: mean_and_error(t[method].mean(), t[method].sem()) for name, t in tables.items()}
            rows.append({"task": title, "attention": NAMES[method], **cells, "seeds": counts[method]})
    return pd.DataFrame(rows)


def by_task(results: Results, figure: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Return scores in percent by task and split: `test` on training tasks, and `heldout`."""
    return {
        f"{title} (%)": {split: scores(results, figure, task, split) for split in ("test", "heldout")}
        for task, title in TASKS.items()
    }


def beside(results: Results) -> pd.DataFrame:
    """Return held-out scores of all neighbours and their differences from their controls, a column per task."""
    rows: dict[str, dict[str, str]] = {}
    for task, title in TASKS.items():
        for figure, methods in (("aaren", OF_AAREN), ("primal", OF_PRIMAL_DUAL)):
            table = scores(results, figure, task, "heldout")
            for method in (method for method in methods if method in table):
                control = CONTROLS[method]
                row = rows.setdefault(method, {"row": NAMES[method], "control": NAMES[control]})
                row[f"{title}, held-out (%)"] = mean_and_error(table[method].mean(), table[method].sem())
                if control in table:
                    row[f"{title}, minus control"] = str(minus(table, method, control)._replace(name=""))
    return pd.DataFrame(rows.values()).fillna("")
