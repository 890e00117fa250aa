"""What the chapters on SRAVEN claim, and the rules that decide it (Figures 3 to 5 and their appendices)."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd

from hyla_repro.experiment import Experiment
from hyla_repro.results.claims import MISSING, Claim, Outcome
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, mean_and_error, percent_interval, share_interval
from hyla_repro.studies.rules import LABELS, MIN_SEEDS, apart, cut, ends, enough_seeds, main_point, means, trend
from hyla_repro.studies.sraven.codes import similarity
from hyla_repro.studies.sraven.runs import MEAN_CODES, RULE_DECODING, TASK
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES

_PAIR = ("addition", "difference")


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    codes = "each method, seed by seed by more than two standard errors"
    return [
        Claim("3-ambiguity", "fig3", "Fewer than 0.5 % of SRAVEN problems are ambiguous.", "below 0.5 %",
              "95 % interval below 0.5 % for problems with an answer that differs from the right one in every symbol, "
              "as the release counts them; 8 000 fresh problems of training tasks", rarely_ambiguous, live=True),
        Claim("4a-data", "fig4", "Accuracy on held-out tasks grows with the number of training problems.",
              "read off the plot", "mean held-out accuracy at the largest number above that at the smallest, each "
              "method", trend("fig4", TASK, "steps", rises=True)),
        Claim("4a-width", "fig4", "It grows with the width of the model.", "read off the plot",
              "mean held-out accuracy of the widest model above that of the narrowest, each method",
              trend("fig4", TASK, "d_model", rises=True)),
        Claim("4b-depth", "fig4", "It grows with the number of layers.", "read off the plot",
              "mean held-out accuracy of the deepest model above that of the shallowest, each method",
              trend("fig4", TASK, "n_layers", rises=True)),
        Claim("4-hyla-small", "fig4", "HYLA leads where data and models are small.", "read off the plot",
              "fewest problems and narrowest model: HYLA's mean held-out accuracy leads softmax and linear attention "
              "each, seed by seed, by more than two standard errors", hyla_leads_when_small),
        Claim("a4-loss", "fig4", "The training loss falls with data, width and depth.", "read off the plot",
              "mean training loss at the end, largest against smallest, each method and each of the three",
              loss_falls),
        Claim("a5-heldout", "figa5", "Accuracy falls with the fraction of tasks held out.", "read off the plot",
              "mean held-out accuracy at the largest fraction below that at the smallest, each method",
              trend("figa5", TASK, "heldout_fraction", rises=False)),
        Claim("5a-clusters", "fig5a", "In the final layer, latent codes cluster by rule.", "t-SNE picture",
              "the 10 nearest codes are of the same rule more often than before training and than by chance, "
              f"{codes}, and more often than in the first layer", clusters_by_rule),
        Claim("5c-one-head", "fig5c", "With a single head, models generalise clearly worse.", "read off the plot",
              "held-out accuracy with the main comparison's heads above that with one head, each method, seed by seed "
              "by more than two standard errors", one_head_is_worse),
        Claim("5d-features", "fig5c", "SRAVEN is harder with more features.", "read off the plot",
              "mean held-out accuracy with the most features below that with the fewest, each method",
              trend("fig5c", TASK, "n_features", rises=False)),
        Claim("5e-addition", "fig5e", "The mean codes of addition and difference are close.", "read off the plot",
              "last layer, cosine similarity of the two above the mean over all other pairs of rules, and by more than "
              "before training, " + codes,
              addition_near_difference),
        Claim("5f-decoding", "fig5f", "Rules can be decoded from the latent code, also on held-out tasks.",
              "read off the plot", "last layer, held-out accuracy above that of the best constant answer and that "
              f"before training, {codes}", rule_decodable),
        Claim("5f-late", "fig5f", "They are decoded best in late layers.", "read off the plot",
              "the layer with the highest mean accuracy is in the second half, each method",
              best_in_late_layers),
    ]  # fmt: skip


def rarely_ambiguous(results: Results) -> Outcome:
    """Decide how rare ambiguous problems are."""
    return _ambiguity(8000)


@cache
def _ambiguity(problems: int) -> Outcome:
    from hyla_repro.tasks import SRaven
    from hyla_repro.tasks.sraven import evaluation_set, is_ambiguous, is_wholly_ambiguous

    task = SRaven()
    batch = evaluation_set(task, ["test"], problems).problems["test"]
    wholly, several = int(is_wholly_ambiguous(task, batch).sum()), int(is_ambiguous(task, batch.inputs).sum())
    text = f"{percent_interval(wholly, problems)}; with more than one answer {percent_interval(several, problems)}"
    return Outcome(text, share_interval(wholly, problems)[1] < 0.005)


def hyla_leads_when_small(results: Results) -> Outcome:
    width = min(run.model.d_model for run in results.wanted("fig4", TASK))
    table = cut(results, "fig4", TASK, "steps", at={"d_model": width})
    if table is None:
        return Outcome(MISSING, None)
    first = table.columns[0]
    by_seed = table[first].unstack("variant")
    leads = {other: apart(by_seed["hyla"] - by_seed[other]) for other in ("softmax", "linear")}
    each = ", ".join(f"{NAMES[m]} {by_seed[m].mean():.1f}" for m in METHODS)
    text = ", ".join(f"HYLA minus {NAMES[other]} {words}" for other, (words, _) in leads.items())
    return Outcome(f"{LABELS['steps'](first)}, width {width}: {each}; seed by seed, {text}",
                   all(clear for _, clear in leads.values()))  # fmt: skip


def loss_falls(results: Results) -> Outcome:
    texts, falls = [], []
    for axis in ("steps", "d_model", "n_layers"):
        table = cut(results, "fig4", TASK, axis, "train_loss")
        if table is None:
            return Outcome(MISSING, None)
        averages = means(table)
        texts.append(f"{LABELS[axis](table.columns[-1])}: {ends(table, 2)}")
        falls.append(bool((averages[table.columns[-1]] < averages[table.columns[0]]).all()))
    return Outcome("nats, smallest to " + "; to ".join(texts), all(falls))


def one_head_is_worse(results: Results) -> Outcome:
    table, main = cut(results, "fig5c", TASK, "n_heads"), main_point(TASK, results.preset)["n_heads"]
    if table is None:
        return Outcome(MISSING, None)
    gains = {method: apart(table.loc[method][main] - table.loc[method][1]) for method in METHODS}
    both = means(table)
    text = ", ".join(f"{NAMES[m]} {both.loc[m, 1]:.1f} → {both.loc[m, main]:.1f} ({gains[m][0]})" for m in METHODS)
    return Outcome(f"1 head → {main} (gain seed by seed): {text}", all(clear for _, clear in gains.values()))


# --- latent codes ----------------------------------------------------------------------------------------------------


def _main_depth(results: Results, figure: str) -> list[Experiment]:
    depth = main_point(TASK, results.preset)["n_layers"]
    return [run for run in results.wanted(figure, TASK) if run.model.n_layers == depth]


def _probes(results: Results) -> pd.DataFrame | None:
    """Return the probes of the main comparison on the paper's streams, in percent; None unless all seeds are there."""
    table = results.store.analysis(RULE_DECODING, _main_depth(results, "fig5f"))
    if not enough_seeds(table):
        return None
    table = table[table["stream"] == "unpermuted"].set_index(["model", "layer", "variant", "seed"])
    return 100 * table[["accuracy", "chance", "neighbours", "neighbours_chance"]]


def _beats(table: pd.DataFrame, score: str, chance: str) -> tuple[dict[str, str], bool]:
    """Return by method what the last layer's codes give, with the controls, and whether it is clearly above both."""
    last = table.index.get_level_values("layer").max()
    trained, control = (table.xs((name, last), level=("model", "layer")) for name in ("trained", "untrained"))
    words, clear = {}, True
    for method in METHODS:
        ours, untrained = trained.loc[method], control.loc[method]
        words[method] = f"{NAMES[method]} {ours[score].mean():.0f} % ({untrained[score].mean():.0f} %)"
        floor = pd.concat([untrained[score], ours[chance]], axis=1).max(axis=1)
        clear &= apart(ours[score] - floor)[1]
    return words, clear


def clusters_by_rule(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    words, clear = _beats(table, "neighbours", "neighbours_chance")
    means = table.loc["trained"].groupby(level=("variant", "layer"))["neighbours"].mean().unstack()
    rises = bool((means.iloc[:, -1] > means.iloc[:, 0]).all())
    return Outcome(f"neighbours of the same rule, last layer (untrained): {', '.join(words.values())}; chance "
                   f"{table['neighbours_chance'].mean():.0f} %; first layer: "
                   f"{', '.join(f'{NAMES[m]} {means.loc[m].iloc[0]:.0f} %' for m in METHODS)}",
                   clear and rises)  # fmt: skip


def rule_decodable(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    words, clear = _beats(table, "accuracy", "chance")
    chance = f"best constant answer {table['chance'].mean():.0f} %"
    return Outcome(f"last layer (untrained): {', '.join(words.values())}; {chance}", clear)


def best_in_late_layers(results: Results) -> Outcome:
    table = _probes(results)
    if table is None:
        return Outcome(MISSING, None)
    means = table.loc["trained"].groupby(level=("variant", "layer"))["accuracy"].mean().unstack().reindex(METHODS)
    text = ", ".join(f"{NAMES[m]} {' '.join(f'{value:.0f}' for value in means.loc[m])}" for m in METHODS)
    return Outcome(f"accuracy (%) by layer: {text}", bool((means.idxmax(axis=1) > means.shape[1] / 2).all()))


def addition_near_difference(results: Results) -> Outcome:
    table = results.store.analysis(MEAN_CODES, _main_depth(results, "fig5e"))
    if table.empty:
        return Outcome(MISSING, None)
    leads = leads_of_the_pair(table).dropna()
    trained, control = leads.loc["trained"], leads.loc["untrained"].clip(lower=0)
    counts = trained.groupby(level="variant").size().reindex(METHODS).fillna(0)
    if counts.min() < MIN_SEEDS:
        return Outcome(MISSING, None)
    text = ", ".join(f"{NAMES[m]} {trained.loc[m].mean():.3f} ({control.loc[m].mean():.3f})" for m in METHODS)
    return Outcome(f"cosine of addition and difference minus that of other pairs (untrained): {text}".replace("-", "−"),
                   all(apart(trained.loc[m] - control.loc[m])[1] for m in METHODS))  # fmt: skip


def leads_of_the_pair(means: pd.DataFrame, rules: Sequence[str] = SRAVEN_RULES) -> pd.Series:
    """Return the cosine of addition and difference minus the mean over other pairs, by model, variant and seed.

    Args:
        means: rows of `mean_code_table` with variant and seed; their last layer counts.
        rules: those whose pairs are compared.
    """
    pairs = [pair for pair in combinations(rules, 2) if pair != _PAIR]

    def lead(part: pd.DataFrame) -> float:
        matrix = similarity(part)
        return float(matrix.loc[_PAIR] - np.nanmean([matrix.loc[pair] for pair in pairs]))

    last = means[means["layer"] == means["layer"].max()]
    return last.groupby(["model", "variant", "seed"])[list(last.columns)].apply(lead)


def table_of_leads(means: pd.DataFrame, without: str = "constant") -> pd.DataFrame:
    """Return `leads_of_the_pair` by method, over all pairs of rules and over those without one rule.

    Returns: for both, the means after and before training, and by how much they differ, seed by seed.
    """
    others = [rule for rule in SRAVEN_RULES if rule != without]
    tables = {}
    for name, rules in (("all pairs", SRAVEN_RULES), (f"without {without}", others)):
        leads = leads_of_the_pair(means, rules).unstack("model")
        gains = (leads["trained"] - leads["untrained"]).groupby(level="variant").agg(["mean", "sem"])
        words = [mean_and_error(row["mean"], row["sem"], 3) for _, row in gains.iterrows()]
        averages = leads.groupby(level="variant").mean()[["trained", "untrained"]].map("{:.3f}".format)
        tables[name] = averages.assign(difference=words)
    return pd.concat(tables, axis="columns").reindex(METHODS).rename(index=NAMES).rename_axis(None)
