"""What LLM-Drop states that small models can test, our own question on HYLA, and the rules that decide both."""

from collections.abc import Callable
from functools import lru_cache, partial

import pandas as pd

from hyla_repro.results.claims import OURS, Claim, Outcome, missing
from hyla_repro.results.effects import Effect, paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results
from hyla_repro.studies.layer_drop import analysis
from hyla_repro.studies.layer_drop.runs import CURVES, SCORES
from hyla_repro.studies.rules import enough_seeds
from hyla_repro.studies.sraven.runs import deep

# The paper's models do not follow a changing learning rate's start, and neither do stages that are compared.
_AFTER_WARMUP = 0.25
# Accuracies of methods that are this many points apart are not called equal.
_EQUAL = 5.0


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study, on the deep SRAVEN models; all but `flip` are on softmax attention alone."""
    kept = "accuracy above chance that is kept, in percent, on training tasks"
    half = f"{kept}, without half of the modules"
    equal = (
        "at the steps where methods are equally good: attention minus MLP with softmax, MLP minus attention with HYLA"
    )
    return [
        _claim("attention", "Softmax attention can be dropped at a lower price than MLPs or blocks.",
               "99 % kept without 8 attentions", f"{kept}, averaged over 1 to all layers: without attention minus "
               "without MLPs, and minus without blocks", attention_is_cheaper),
        _claim("cosine", "With softmax attention, least important first, by the cosine, beats a random order of "
               "attention and of MLPs.",
               "64.8 against 39.4 without 12", f"{half}: by the cosine minus the mean of five random orders",
               cosine_beats_random),
        _claim("residual", "With softmax attention, the score needs the residual connection.",
               "65.0 against 39.4 without 4", f"{kept}, without two modules: scored with the residual minus without it",
               residual_is_needed),
        _claim("joint", "With softmax attention, dropping attention and MLPs by one scale keeps more than dropping the "
               "better kind alone.", "curves, no table", f"{kept}, averaged over 1 to all layers: by the joint order "
               "minus the better kind at each number of modules", joint_is_best),
        _claim("stages", "Softmax attention changes the stream less than MLPs do, at every stage of training.",
               "curves, no table", "S averaged over all layers but the first: MLP minus attention, at the end and at "
               "every kept step after a quarter of training", attention_changes_less),
        _claim("first", "With softmax attention, the first layer changes the stream most.", "curves, no table",
               "S of the first layer minus the largest of the others, of attention and of MLPs, and each minus the "
               "same before training", first_is_largest),
        _claim("rank", "With softmax attention, what changes the stream little harms little when it is dropped alone.",
               OURS, "rank correlation over layers of S with the rise in loss, of attention and of MLPs",
               score_tells_harm),
        _claim("flip", "At equal accuracy, softmax attention keeps more without attention than without MLPs, and HYLA "
               "more without MLPs than without attention.", OURS, f"{half}, {equal}",
               partial(ordering_flips, split="test")),
        _claim("flip-heldout", "The same on held-out tasks.", OURS, f"as `drop-flip` on held-out tasks, {equal}",
               partial(ordering_flips, split="heldout")),
    ]  # fmt: skip


Rule = Callable[[pd.DataFrame, pd.DataFrame], Outcome]


@lru_cache(maxsize=2)
def _tables(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores and curves that all claims are decided by."""
    wanted = deep(results.preset)
    scores, curves = (analysis.rows(results.store, table, wanted) for table in (SCORES, CURVES))
    return scores, curves


def _claim(name: str, statement: str, published: str, rule: str, decide: Rule) -> Claim:
    def decided(results: Results) -> Outcome:
        scores, curves = _tables(results)
        if not len(curves) or not len(scores) or not enough_seeds(curves):
            return missing()
        return decide(scores, curves)

    return Claim(f"drop-{name}", "drop", "neighbours", statement, published, rule, decided)


def _of(table: pd.DataFrame, method: str = "softmax") -> pd.DataFrame:
    return table[table["variant"] == method]


def attention_is_cheaper(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare areas under the curves of softmax attention."""
    areas = analysis.areas(analysis.retained(analysis.last_steps(_of(curves))))
    effects = [paired(f"attention minus {analysis.KINDS[k]}", areas["attn"] - areas[k]) for k in ("mlp", "block")]
    return Outcome(_means(areas), tuple(effects))


def cosine_beats_random(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare the order by scores with random ones."""
    kept = analysis.retained(analysis.last_steps(_of(curves)))
    lead = analysis.halves(kept) - analysis.halves(kept, "random")
    return Outcome("", tuple(paired(analysis.KINDS[kind], lead[kind]) for kind in ("attn", "mlp")))


def residual_is_needed(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare scores of streams with scores of what modules return."""
    kept = analysis.retained(analysis.last_steps(_of(curves)))
    two = kept[(kept["n"] == 2) & kept["order"].isin(["score", "bare"])]
    table = two.pivot_table("kept", index=["target", "seed"], columns="order").dropna()
    lead = table["score"] - table["bare"]
    return Outcome("", tuple(paired(analysis.KINDS[kind], lead.loc[kind]) for kind in ("attn", "mlp")))


def joint_is_best(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare joint dropping with dropping the kind that is better at each number of modules."""
    lead = analysis.lead_of_joint(analysis.retained(analysis.last_steps(_of(curves))))
    return Outcome("", (paired("joint minus the better kind", lead),))


def attention_changes_less(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare scores of attention and of MLPs along training."""
    own = _of(scores)
    means = analysis.mean_by_stage(own[own["step"] >= _AFTER_WARMUP * own["steps"]])
    lead = (means["mlp"] - means["attn"]).unstack("step")
    return Outcome("", tuple(paired(f"step {step}", lead[step], digits=3) for step in lead))


def first_is_largest(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Compare the first layer with the others, and its lead with that of models before training."""
    own, effects = _of(scores), []
    for kind in ("attn", "mlp"):
        after, before = (
            analysis.first_layer_lead(part, kind) for part in (analysis.last_steps(own), own[own["step"] == 0])
        )
        effects += [paired(analysis.KINDS[kind], after, digits=3),
                    paired(f"{analysis.KINDS[kind]}, minus before training", after - before, digits=3)]  # fmt: skip
    return Outcome("", tuple(effects))


def score_tells_harm(scores: pd.DataFrame, curves: pd.DataFrame) -> Outcome:
    """Ask whether rank correlations are positive."""
    ranks = analysis.rank_correlations(analysis.single_losses(_of(scores), _of(curves)))
    return Outcome("", tuple(paired(analysis.KINDS[kind], ranks[kind], digits=2) for kind in ("attn", "mlp")))


def ordering_flips(scores: pd.DataFrame, curves: pd.DataFrame, split: str) -> Outcome:
    """Ask whether attention is what softmax attention can do without, and MLPs are what HYLA can."""
    at = analysis.matched(curves)
    if at.empty:
        return missing("no weights were kept along training")
    half, gap = analysis.halves(analysis.retained(at, split)), analysis.widest_gap(at)
    lead = half["attn"] - half["mlp"]
    effects: tuple[Effect, ...] = (paired(f"{NAMES['softmax']}, attention minus MLP", lead["softmax"]),
                                   paired(f"{NAMES['hyla']}, MLP minus attention", -lead["hyla"]))  # fmt: skip
    weak = f"accuracies of a seed differ by up to {gap:.1f} points" if gap > _EQUAL else ""
    return Outcome("", effects, weak=weak)


def _means(table: pd.DataFrame) -> str:
    return ", ".join(f"without {analysis.KINDS[kind]} {table[kind].mean():.1f}" for kind in table)
