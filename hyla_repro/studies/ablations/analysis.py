"""Whether composition follows decodability: what a probe reads from a run's code, beside the run's held-out score."""

import pandas as pd

from hyla_repro.results.store import Store
from hyla_repro.studies.fuzzy_logic import runs as fuzzy_logic
from hyla_repro.studies.sraven import runs as sraven


def probes_and_scores(store: Store, preset: str) -> pd.DataFrame:
    """Return one row per run whose code was probed, of the depth of the main comparison.

    Returns: task, variant, seed, `probe` (fuzzy logic: AUC of terms, SRAVEN: accuracy of rules in aligned streams; last
        layer, held-out tasks, in [0, 1]), and the run's scores `heldout` and `test` in [0, 1].
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
    """Return the mean of a score over the last layer of every trained run, as `probe` by `id`."""
    if table.empty:
        return pd.DataFrame({"id": pd.Series(dtype=str), "probe": pd.Series(dtype=float)})
    trained = table[(table["model"] == "trained") & (table["layer"] == table["layer"].max())]
    return trained.groupby("id")[score].mean().rename("probe").reset_index()
