"""Whether composition follows decodability: what a probe reads from a run's code, beside the run's held-out score."""

import pandas as pd

from hyla_repro.results.effects import rank_correlation
from hyla_repro.results.store import Store
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven

TASK_NAMES = {fuzzy_logic.TASK: "fuzzy logic", sraven.TASK: "SRAVEN"}


def probes_and_scores(store: Store, preset: str) -> pd.DataFrame:
    """Return one row per run whose code was probed, of the depth of the main comparison.

    Returns: task, variant, seed, `probe` (fuzzy logic: AUC of terms, SRAVEN: accuracy of rules in aligned streams; last
        layer, held-out tasks, in [0, 1]), `untrained`, the same of its weights before training, and the run's scores
        `heldout` and `test` in [0, 1].
    """
    terms = _last_layer(store.analysis(fuzzy_logic.DECODING, fuzzy_logic.latent(preset)), "auc")
    depth = sraven.SIZES[preset].n_layers
    wanted = [run for run in sraven.codes(preset) if run.model.n_layers == depth]
    rules = store.analysis(sraven.RULE_DECODING, wanted)
    rules = _last_layer(rules[rules["stream"] == "aligned"] if len(rules) else rules, "accuracy")
    runs = store.runs([*fuzzy_logic.latent(preset), *wanted])
    probes = pd.concat([terms, rules])
    return runs[["id", "task", "variant", "seed", "heldout", "test"]].merge(probes, on="id") if len(runs) else runs


def _last_layer(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return the mean of a score over the last layer of every run, as `probe` and `untrained` by `id`."""
    if table.empty:
        return pd.DataFrame({"id": pd.Series(dtype=str), "probe": pd.Series(dtype=float), "untrained": []})
    last = table[table["layer"] == table["layer"].max()]
    means = last.pivot_table(score, index="id", columns="model")
    return means.rename(columns={"trained": "probe"}).rename_axis(columns=None).reset_index()


def correlations(probes: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of probe and held-out score with 95 % intervals, over all runs and by task.

    Args:
        probes: what `probes_and_scores` returns.

    Returns: a row per task, and one over both, for ranks within the tasks, since their scores have different units.
        `given training score` is the partial correlation, which leaves out what goes with the score on training tasks.
        `before training` has the probe of the same weights before their first step, `gain` the difference of the two.
    """
    probes = probes.assign(gain=probes["probe"] - probes["untrained"])
    ranks = probes.groupby("task")[["probe", "untrained", "gain", "heldout", "test"]].rank(pct=True)
    parts = {TASK_NAMES[task]: ranks[probes["task"] == task] for task in TASK_NAMES if task in set(probes["task"])}
    rows = {name: _correlation(part) for name, part in [*parts.items(), ("both, ranks within each", ranks)]}
    return pd.DataFrame(rows).T


def _correlation(ranks: pd.DataFrame) -> dict[str, object]:
    rho = ranks.corr(method="spearman")
    # Three runs have no interval.
    whole = rank_correlation("", ranks["probe"].tolist(), ranks["heldout"].tolist()) if len(ranks) > 3 else ""
    given = _partial(rho.loc["probe", "heldout"], rho.loc["probe", "test"], rho.loc["heldout", "test"])
    return {
        "runs": len(ranks), "probe with held-out score": str(whole).strip(),
        "before training": _words(rho.loc["untrained", "heldout"]), "gain": _words(rho.loc["gain", "heldout"]),
        "with training score": _words(rho.loc["probe", "test"]),
        "training with held-out score": _words(rho.loc["heldout", "test"]),
        "probe with held-out, given training score": _words(given),
    }  # fmt: skip


def _partial(first: float, second: float, third: float) -> float:
    """Return the correlation of x and y given z, from those of x and y, x and z, y and z."""
    return float((first - second * third) / ((1 - second**2) * (1 - third**2)) ** 0.5)


def _words(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")
