"""Negative controls: no rule says "reproduced" of models that were never trained, or of labels that mean nothing.

untrained_scores.csv holds the scores of the initial weights of every committed run, over 500 sequences each, and of the
runs on synthetic tasks their loss on 512 training sequences; `untrained.py` adds rows.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from untrained import TABLE, untrained

from hyla_repro.book.verdicts import claims, verdict
from hyla_repro.experiment import Experiment
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.effects import NOT_TESTED, REPRODUCED
from hyla_repro.results.store import PAPER, Store
from hyla_repro.results.summary import Results
from hyla_repro.studies import experiments
from hyla_repro.studies.attention_paths.runs import HEADS
from hyla_repro.studies.fuzzy_logic.runs import DECODING, EMBEDDING, fuzzy_logic
from hyla_repro.studies.language.runs import METHODS as LANGUAGE
from hyla_repro.studies.language.runs import language
from hyla_repro.studies.layer_drop.runs import CURVES, SCORES
from hyla_repro.studies.primal_dual.runs import DISTANCES
from hyla_repro.studies.sraven.runs import MEAN_CODES, RULE_DECODING, sraven

Shuffle = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
Tables = dict[str, pd.DataFrame]

# What no control can be made of, and why it may stand all the same.
LIVE = {
    "identity": "is algebra, and holds for any weights",
    "3-ambiguity": "counts problems, without any model",
    "3-ambiguity-any": "counts problems, without any model",
    "aaren-exact": "is algebra, and holds for any weights",
    "aaren-parameters": "counts parameters",
    "aaren-memory": "counts bytes",
    "aaren-separable": "is algebra for Aaren, and random weights make no other code separable",
    "primal-svr": "is algebra, and holds for any keys",
    "primal-cost": "counts products",
    "paths-hyla": "is algebra, and holds for any weights",
    **dict.fromkeys(
        (
            "paths-narrow",
            "paths-falls",
            "paths-correlated",
            "paths-adversarial",
            "paths-aligned",
            "paths-exact",
            "paths-error",
            "paths-pruning",
            "paths-descent",
        ),
        "is computed of the theory, and its rule tried both ways beside the study's other tests",
    ),
}
NO_LABELS = dict.fromkeys(
    ("a3-test", "a3-unknown", "6-n-gram", "6-n-gram-milton", "recall-softmax"),
    "compares methods with a number: there is nothing to shuffle, and untrained models fail it",
)
NO_LABELS["aaren-series"] = (
    "asks for no great difference, which labels without meaning do not make; untrained models do"
)
# Once they are committed, these belong to OF_METHODS.
NO_RUNS = {
    "2c-wide-heads": "no run with wide heads is committed; its rule is that of 2c-main",
    "4-hyla-long": "no run of 48 000 steps is committed; its rule is that of a1-sraven-main",
}  # fmt: skip
# By the names of methods, and by the places along an axis.
OF_METHODS = {"2c-main", "2c-heldout", "4-hyla-small", "4-hyla-tuned", "a1-code-twice", "a1-code-twice-mean",
              "a1-softmax-between", "a1-both-components", "a1-experts", "a1-sraven-main", "a1-sraven-order",
              "a1-sraven-both-components", "a1-sraven-experts",
              "6-near", "6-between", "6-near-milton", "6-between-milton", "primal-bn-series",
              "primal-sh-series", "primal-bn-sh-series", "aaren-query-fuzzy-logic",
              "aaren-hyla-fuzzy-logic", "primal-bn-fuzzy-logic", "primal-sh-fuzzy-logic",
              "aaren-query-sraven", "aaren-hyla-sraven", "primal-bn-sraven", "primal-sh-sraven",
              "recall-linear", "recall-hyla", "recall-hyla-softmax", "recall-aaren"}  # fmt: skip
OF_AXES = {"2c-examples", "2c-heldout", "4a-data", "4a-width", "4b-depth", "a4-loss", "a5-heldout", "5c-one-head",
           "5d-features"}  # fmt: skip
OF_CODES = {"2b-decoding", "2d-clusters", "5a-clusters", "5e-addition", "5f-decoding", "5f-late", "decodability",
            "primal-heads", "primal-heads-unit", "paths-trained-drop", "paths-trained-code", "drop-attention",
            "drop-cosine", "drop-residual", "drop-joint", "drop-stages", "drop-first", "drop-rank", "drop-flip",
            "drop-flip-heldout"}  # fmt: skip

_DRAWS = 20
# A rule may say so by luck in 2.5 % of draws, and then more than three of twenty do once in six hundred cases; all else
# that is here is drawn with fixed seeds.
_MOST = 3

_AXES = ["n_examples", "heldout_fraction", "steps", "d_model", "n_layers", "n_heads", "n_features", "attention_dropout",
         "warmup_steps"]  # fmt: skip
_SCORES = ["test", "heldout", "unknown_terms", "train_loss", "validation"]


@cache
def runs_of(figure: str, preset: str) -> tuple[Experiment, ...]:
    return tuple(experiments(figure, preset))


@cache
def committed() -> tuple[pd.DataFrame, Tables]:
    """Return the committed runs of preset laptop, and all tables that claims read."""
    store, known = Store(committed_only=True), {run.id for run in runs_of("all", "laptop")}
    rows = [row for identity, row in store.committed_runs().items() if identity in known]
    names = [
        PAPER,
        *(
            analysis.table
            for analysis in (DECODING, EMBEDDING, RULE_DECODING, MEAN_CODES, DISTANCES, HEADS, SCORES, CURVES)
        ),
    ]
    return pd.DataFrame(rows), {name: store.table(name) for name in names}


class Replaced(Store):
    """Committed results, but for rows of runs and for tables that are given."""

    def __init__(self, rows: pd.DataFrame | None = None, tables: Tables | None = None) -> None:
        super().__init__(committed_only=True)
        every, known = committed()
        self._rows, self._tables = (every if rows is None else rows).set_index("id", drop=False), known | (tables or {})

    def table(self, name: str) -> pd.DataFrame:
        return self._tables[name]

    def runs(self, wanted: Iterable[Experiment]) -> pd.DataFrame:
        rows = self._rows.loc[[run.id for run in wanted if run.id in self._rows.index]]
        return rows.dropna(axis="columns", how="all").reset_index(drop=True)

    def analysis(self, analysis: Analysis, wanted: Iterable[Experiment]) -> pd.DataFrame:
        facts = pd.DataFrame([{"id": run.id, "variant": run.method, "seed": run.seed} for run in wanted])
        return self._tables[analysis.table].merge(facts, on="id")


def answers(store: Store, names: Collection[str]) -> dict[str, str]:
    results = Results("laptop", lambda figure, preset: list(runs_of(figure, preset)), store)
    found = [verdict(claim, results) for claim in every_claim() if claim.id in names]
    assert all(one.outcome.words for one in found)
    return {one.claim.id: one.answer for one in found}


def reproduced(store: Store, names: Collection[str]) -> set[str]:
    """Return which of these claims come out as reproduced."""
    return {name for name, answer in answers(store, names).items() if answer == REPRODUCED}


@cache
def every_claim() -> tuple:
    return tuple(claim for claim in claims(Store(committed_only=True)) if not claim.level)


def test_every_claim_has_its_controls() -> None:
    names = {claim.id for claim in every_claim()}
    assert OF_METHODS | OF_AXES | OF_CODES | NO_LABELS.keys() | NO_RUNS.keys() | LIVE.keys() == names


def test_the_controls_read_what_the_verdicts_read() -> None:
    """Without changes the store says what the committed one does, so a "no" below is the change's."""
    names = {"2c-main", "2c-examples", "4a-data", "a1-experts", "a3-unknown"}
    assert reproduced(Replaced(), names | {"a1-sraven-main", "5f-late"}) == names


def of_chosen_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out language models of the rates that only the first seed has: noise would choose these."""
    chosen = {language("laptop", method, seed).id for method in LANGUAGE for seed in (0, 1, 2)}
    return rows[(rows["task"] != "language") | rows["id"].isin(chosen)]


# --- models that were never trained ------------------------------------------------------------------------------


def untrained_scores() -> pd.DataFrame:
    scores = pd.read_csv(TABLE, dtype={"id": str}).set_index("id")
    rows, _ = committed()
    rows = of_chosen_rates(rows[rows["id"].isin(scores.index)])
    return rows.assign(**{name: scores[name].loc[rows["id"]].to_numpy() for name in _SCORES})


def test_untrained_scores_are_those_of_initial_weights() -> None:
    rows = pd.read_csv(TABLE, dtype={"id": str}).set_index("id")
    # The first runs' losses are of other sequences.
    for run in (fuzzy_logic("laptop", "aaren", 0), sraven("laptop", "hyla_bn", 1)):
        assert untrained(run) == pytest.approx(rows.loc[run.id].dropna().to_dict(), rel=2e-3)


def untrained_codes(random: np.random.Generator) -> Tables:
    """Return tables whose trained models are the untrained ones, read once more: all that differs is noise.

    Noise is as large as areas and accuracies of other initial weights differ, 0.02; planes are halved.
    """
    _, tables = committed()
    made = {}
    for name, scores in ((DECODING.table, ["auc", "f1"]), (RULE_DECODING.table, ["accuracy", "neighbours"])):
        control = tables[name][tables[name]["model"] == "untrained"]
        again = control[scores] + 0.02 * random.normal(size=(len(control), len(scores)))
        made[name] = pd.concat([control, control.assign(model="trained", **again)])
    means = tables[MEAN_CODES.table]
    control = means[means["model"] == "untrained"]
    heads = control.filter(like="head_")
    again = heads * (1 + 0.05 * random.normal(size=heads.shape))
    made[MEAN_CODES.table] = pd.concat([control, control.assign(model="trained", **again)])
    apart = tables[DISTANCES.table]
    control, sizes = apart[apart["model"] == "untrained"], ["distance", "unit_distance"]
    again = control[sizes] * (1 + 0.01 * random.normal(size=(len(control), 2)))
    made[DISTANCES.table] = pd.concat([control, control.assign(model="trained", **again)])
    for name, values in ((SCORES.table, ["score", "bare"]), (CURVES.table, ["test", "heldout", "loss"])):
        made[name] = untrained_layers(name, tables[name], values, random)
    plane = tables[EMBEDDING.table]
    plane = plane[plane["model"] == "untrained"]
    half = random.permutation(len(plane)) < len(plane) // 2
    made[EMBEDDING.table] = plane.assign(model=np.where(half, "trained", "untrained"))
    return made


def untrained_layers(name: str, table: pd.DataFrame, values: list[str], random: np.random.Generator) -> pd.DataFrame:
    """Return scores or curves of untrained models of eight layers, at every step that trained ones have.

    The files hold what `score_table` and `curve_table` make of the first weights of `deep("laptop")`, on 200 sequences.
    """
    control = pd.read_csv(Path(__file__).parent / f"untrained_{name}")
    control[values] *= 1 + 0.02 * random.normal(size=(len(control), len(values)))
    steps = table.loc[table["id"].isin(control["id"]), ["id", "step"]].drop_duplicates()
    return control.drop(columns="step").merge(steps)


def test_no_rule_is_passed_by_untrained_models() -> None:
    store = Replaced(untrained_scores(), untrained_codes(np.random.default_rng(0)))
    found = answers(store, {claim.id for claim in every_claim()} - LIVE.keys())
    assert {name for name, answer in found.items() if answer == REPRODUCED} == set()
    # Guards see that nothing was learned; all others have effects, and say no by those.
    assert {name for name, answer in found.items() if answer == NOT_TESTED} == {
        "2c-examples",
        "2c-heldout",
        "aaren-series",
        *NO_RUNS,
    }


def test_untrained_codes_pass_by_luck_at_most() -> None:
    random, found = np.random.default_rng(1), Counter[str]()
    names = OF_CODES - {"2d-clusters", "decodability"}  # slow, and read from scores that are trained
    for _ in range(_DRAWS):
        found.update(reproduced(Replaced(tables=untrained_codes(random)), names))
    assert all(count <= _MOST for count in found.values()), found


# --- labels that mean nothing ------------------------------------------------------------------------------------


def permuted(table: pd.DataFrame, keys: list[str], values: list[str], random: np.random.Generator) -> pd.DataFrame:
    """Return the table with rows of equal keys having each other's values."""
    table = table.reset_index(drop=True)
    target = table.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    # Sorted by group, once in the order of the table and once in a random one: rows meet within their group.
    here, there = np.lexsort((np.arange(len(table)), target)), np.lexsort((random.random(len(table)), target))
    changed = table.copy()
    changed.loc[here, values] = table.loc[there, values].to_numpy()
    return changed


def methods_shuffled(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return permuted(of_chosen_rates(rows), ["task", "seed", *_AXES], _SCORES, random)


def places_shuffled(rows: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    return permuted(rows, ["task", "seed", "variant"], _SCORES, random)


@pytest.mark.parametrize(
    ("shuffle", "names"), [(methods_shuffled, OF_METHODS), (places_shuffled, OF_AXES)], ids=["methods", "places"]
)
def test_labels_of_runs_decide(shuffle: Shuffle, names: set[str]) -> None:
    rows, _ = committed()
    random, found = np.random.default_rng(2), Counter[str]()
    for _ in range(_DRAWS):
        found.update(reproduced(Replaced(shuffle(rows, random)), names))
    assert all(count <= _MOST for count in found.values()), found


def test_the_rule_on_aarens_recall_does_not_tell_why() -> None:
    """HYLA passes it, too, whose query follows the question: so the claim is on what was learned alone."""
    rows, _ = committed()
    names = {"hyla": "aaren", "aaren": "hyla"}
    swapped = rows.assign(variant=rows["variant"].where(rows["task"] != "mqar", rows["variant"].replace(names)))
    for store in (Replaced(), Replaced(swapped)):
        assert reproduced(store, {"recall-aaren"}) == {"recall-aaren"}


def models_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return probes and codes of models of which nobody knows whether they are the trained or the untrained one."""
    probes, terms, means = (tables[analysis.table] for analysis in (RULE_DECODING, DECODING, MEAN_CODES))
    return {
        RULE_DECODING.table: permuted(probes, ["id", "stream", "layer"], ["accuracy", "neighbours"], random),
        # What belongs to one model changes its name together.
        DECODING.table: terms.assign(model=swapped_models(terms, random)),
        MEAN_CODES.table: means.assign(model=swapped_models(means, random)),
    }


def swapped_models(table: pd.DataFrame, random: np.random.Generator) -> pd.Series:
    """Return the names of models, for about half of the runs the other way round."""
    other = table["model"].map({"trained": "untrained", "untrained": "trained"})
    swapped = {identity for identity in sorted(set(table["id"])) if random.random() < 0.5}
    return table["model"].where(~table["id"].isin(swapped), other)


def centring_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return distances between heads of models of which nobody knows whether their keys are centred."""
    names = pd.DataFrame([{"id": run.id, "seed": run.seed} for run in runs_of("primal-heads", "laptop")])
    table = tables[DISTANCES.table].merge(names)
    shuffled = permuted(table, ["seed", "model", "layer"], ["distance", "unit_distance"], random)
    return {DISTANCES.table: shuffled.drop(columns="seed")}


def heads_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return scores that belong to other heads of their layer."""
    return {HEADS.table: permuted(tables[HEADS.table], ["id", "surrogate", "layer"], ["score"], random)}


def modules_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return scores of modules, and accuracies without as many of them, that belong to other modules."""
    scores, curves = tables[SCORES.table], tables[CURVES.table]
    return {
        SCORES.table: permuted(scores, ["id", "step"], ["score"], random),
        CURVES.table: permuted(curves, ["id", "step", "n"], ["test", "heldout", "loss"], random),
    }


def layers_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    probes = tables[RULE_DECODING.table]
    keys = ["id", "stream", "model"]
    return {RULE_DECODING.table: permuted(probes, keys, ["accuracy", "neighbours"], random)}


def rules_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return codes of rules that have each other's names, in every run others."""
    means = tables[MEAN_CODES.table]
    return {MEAN_CODES.table: permuted(means, ["id", "model", "layer"], ["rule"], random)}


def probes_shuffled(tables: Tables, random: np.random.Generator) -> Tables:
    """Return probes of runs that have each other's names."""
    made = {}
    for name in (DECODING.table, RULE_DECODING.table):
        table = tables[name]
        # Runs of one depth only, or the shallow ones would have layers that they lack.
        depth = table.groupby("id")["layer"].max()
        names = {}
        for layers in sorted(set(depth)):
            runs = sorted(depth.index[depth == layers])
            names |= dict(zip(runs, random.permutation(runs), strict=True))
        made[name] = table.assign(id=table["id"].map(names))
    return made


@pytest.mark.parametrize(
    ("shuffle", "names"),
    [
        (models_shuffled, {"2b-decoding", "5a-clusters", "5e-addition", "5f-decoding"}),
        (centring_shuffled, {"primal-heads", "primal-heads-unit"}),
        (heads_shuffled, {"paths-trained-drop", "paths-trained-code"}),
        (modules_shuffled, {name for name in OF_CODES if name.startswith("drop-")}),
        (layers_shuffled, {"5a-clusters", "5f-late"}),
        (rules_shuffled, {"5e-addition"}),
        (probes_shuffled, {"decodability"}),
    ],
    ids=["trained or not", "centred or not", "heads", "modules", "layers", "rules", "probes"],
)
def test_labels_of_codes_decide(shuffle: Callable[..., Tables], names: set[str]) -> None:
    _, tables = committed()
    random, found = np.random.default_rng(3), Counter[str]()
    for _ in range(_DRAWS):
        found.update(reproduced(Replaced(tables=shuffle(tables, random)), names))
    assert all(count <= _MOST for count in found.values()), found


def test_functions_of_the_same_target_are_told_apart_by_their_codes_alone() -> None:
    """Where functions change places within their target, only the target is left."""
    _, tables = committed()
    plane, random = tables[EMBEDDING.table], np.random.default_rng(4)
    shuffled = permuted(plane, ["id", "model", "target"], ["function"], random)
    assert reproduced(Replaced(tables={EMBEDDING.table: shuffled}), {"2d-clusters"}) == set()
