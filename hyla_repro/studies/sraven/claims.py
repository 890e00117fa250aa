"""What the chapters on SRAVEN claim, and the rules that decide it (Figures 3 to 5 and their appendices)."""

from functools import cache

import pandas as pd

from hyla_repro.experiment import Experiment
from hyla_repro.results.claims import MISSING, NO_NUMBER, OURS, Claim, Outcome, at_an_end, missing
from hyla_repro.results.effects import CONTRADICTED, MIN_SEEDS, REPRODUCED, UNDECIDED, Effect, paired, unpaired
from hyla_repro.results.methods import METHODS, NAMES
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results, percent_interval, share_interval
from hyla_repro.studies.rules import (
    LABELS,
    cut,
    ends,
    enough_seeds,
    gains,
    hyla_leads,
    leads,
    listed,
    main_point,
    means,
    trend,
)
from hyla_repro.studies.sraven.pairs import leads_of_the_pair
from hyla_repro.studies.sraven.runs import MEAN_CODES, RULE_DECODING, TASK

_PROBLEMS = 8000


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [*_facts(), *_scaling(), *_codes()]


def _facts() -> list[Claim]:
    fresh = f"95 % interval on one side of 0.5 %; {_PROBLEMS:,} fresh problems of training tasks".replace(",", " ")
    return [
        Claim("3-ambiguity", "fig3", "facts", "Fewer than 0.5 % of SRAVEN problems have an answer that differs from "
              "the right one in every symbol.", "below 0.5 %", f"share of such problems, {fresh}",
              rarely_wholly_ambiguous, live=True),
        Claim("3-ambiguity-any", "fig3", "facts", "Fewer than 0.5 % of SRAVEN problems are ambiguous: another set of "
              "rules fits and gives another answer.", "below 0.5 %", f"share of such problems, {fresh}",
              rarely_ambiguous, live=True),
    ]  # fmt: skip


def _scaling() -> list[Claim]:
    return [
        Claim("4a-data", "fig4", "scaling", "Accuracy on held-out tasks grows with the number of training problems, "
              "and so of steps.", NO_NUMBER, "held-out accuracy at the largest number minus that at the smallest, each "
              "method", trend("fig4", TASK, "steps", rises=True)),
        Claim("4a-width", "fig4", "scaling", "It grows with the width of the model.", NO_NUMBER,
              "held-out accuracy of the widest model minus that of the narrowest, each method",
              trend("fig4", TASK, "d_model", rises=True)),
        Claim("4b-depth", "fig4", "scaling", "It grows with the number of layers.", NO_NUMBER,
              "held-out accuracy of the deepest model minus that of the shallowest, each method",
              trend("fig4", TASK, "n_layers", rises=True)),
        Claim("4-hyla-small", "fig4", "advantage", "HYLA leads where data and models are small.", NO_NUMBER,
              "held-out accuracy with the fewest problems and the narrowest model: HYLA minus softmax and linear "
              "attention", hyla_leads_when_small),
        Claim("4-hyla-long", "fig4", "advantage", "HYLA leads on SRAVEN once everybody has learned: with six times the "
              "steps.", OURS, "preset laptop, 48 000 steps, held-out accuracy: HYLA minus softmax and linear "
              "attention", hyla_leads("long", TASK)),
        Claim("4-hyla-tuned", "fig4", "advantage", "HYLA leads softmax attention on SRAVEN where each has its best "
              "learning rate and warm-up.", OURS, "preset laptop, best of six settings of the optimiser for each, "
              "chosen by held-out accuracy as in the paper: HYLA minus softmax attention", hyla_leads_tuned),
        Claim("a4-loss", "fig4", "scaling", "The training loss falls with data, width and depth.", NO_NUMBER,
              "training loss at the end, smallest minus largest, each method and each of the three", loss_falls),
        Claim("a5-heldout", "figa5", "scaling", "Accuracy falls with the fraction of tasks held out.", NO_NUMBER,
              "held-out accuracy at the smallest fraction minus that at the largest, each method",
              trend("figa5", TASK, "heldout_fraction", rises=False)),
        Claim("5c-one-head", "fig5c", "scaling", "With a single head, models generalise clearly worse.", NO_NUMBER,
              "held-out accuracy with the main comparison's heads minus that with one head, each method",
              one_head_is_worse),
        Claim("5d-features", "fig5c", "scaling", "SRAVEN is harder with more features.", NO_NUMBER,
              "training loss per symbol with the most features minus that with the fewest, each method (Welch: tasks "
              "differ); a symbol is as hard to guess whatever K is", harder_with_features),
    ]  # fmt: skip


def _codes() -> list[Claim]:
    aligned = "streams whose columns permute features alike, where places tell nothing"
    return [
        Claim("5a-clusters", "fig5a", "code", "In the final layer, latent codes cluster by rule.", "t-SNE picture",
              "how often the 10 nearest codes of the last layer are of the same rule, minus the same before training, "
              f"minus chance, and minus the first layer, each method; {aligned}", clusters_by_rule),
        Claim("5e-addition", "fig5e", "code", "The mean codes of addition and difference are close.", NO_NUMBER,
              "last layer: how much larger the cosine similarity of the two is than the mean over all other pairs, "
              "minus the same before training, as it is and in units of the spread over pairs, each method",
              addition_near_difference),
        Claim("5f-decoding", "fig5f", "code", "Rules can be decoded from the latent code, also on held-out tasks.",
              NO_NUMBER, "accuracy in the last layer on held-out tasks minus that before training, and minus that of "
              f"the best constant answer, each method; {aligned}", rule_decodable),
        Claim("5f-late", "fig5f", "code", "They are decoded best in late layers.", NO_NUMBER,
              "mean accuracy of the second half of the layers minus the best layer of the first half, each method, and "
              f"this minus the same before training; {aligned}", best_in_late_layers),
    ]  # fmt: skip


# --- facts of the task -----------------------------------------------------------------------------------------------


def rarely_wholly_ambiguous(results: Results) -> Outcome:
    """Decide how rare problems are with an answer that differs in every symbol."""
    return _below_half_a_percent(_ambiguity(_PROBLEMS)[0])


def rarely_ambiguous(results: Results) -> Outcome:
    """Decide how rare problems are with more than one answer."""
    return _below_half_a_percent(_ambiguity(_PROBLEMS)[1])


def _below_half_a_percent(count: int, problems: int = _PROBLEMS) -> Outcome:
    low, high = share_interval(count, problems)
    verdict = REPRODUCED if high < 0.005 else CONTRADICTED if low > 0.005 else UNDECIDED
    return Outcome(percent_interval(count, problems), verdict=verdict)


@cache
def _ambiguity(problems: int) -> tuple[int, int]:
    """Return how many problems have an answer that differs in every symbol, and how many another answer at all."""
    from hyla_repro.tasks import SRaven
    from hyla_repro.tasks.sraven import evaluation_set, is_ambiguous, is_wholly_ambiguous

    task = SRaven()
    batch = evaluation_set(task, ["test"], problems).problems["test"]
    return int(is_wholly_ambiguous(task, batch).sum()), int(is_ambiguous(task, batch.inputs).sum())


# --- accuracy and loss -----------------------------------------------------------------------------------------------


def _weak(test: pd.DataFrame | None, column: object) -> str:
    """Return a warning where methods have hardly learned their training tasks, or nearly all of them."""
    return "" if test is None else at_an_end(means(test)[column].loc[list(METHODS)].tolist(), "training tasks")


def hyla_leads_when_small(results: Results) -> Outcome:
    """Decide whether HYLA leads with the fewest problems and the narrowest model."""
    at = {"d_model": min(run.model.d_model for run in results.wanted("fig4", TASK))}
    table = cut(results, "fig4", TASK, "steps", at=at)
    if table is None:
        return missing()
    first = table.columns[0]
    scores = table[first].unstack("variant")
    text = ", ".join(f"{NAMES[m]} {scores[m].mean():.1f}" for m in METHODS)
    effects = (paired(f"HYLA minus {NAMES[m]}", scores["hyla"] - scores[m]) for m in ("softmax", "linear"))
    return Outcome(f"{LABELS['steps'](first)}, width {at['d_model']}: {text}", tuple(effects),
                   weak=_weak(cut(results, "fig4", TASK, "steps", "test", at=at), first))  # fmt: skip


def hyla_leads_tuned(results: Results) -> Outcome:
    """Decide whether HYLA leads softmax attention where both have their best setting of the optimiser."""
    wanted = {(run.learning_rate, run.warmup_steps) for run in results.wanted("tuning", TASK)}
    runs = results.runs("tuning", TASK)
    counts = runs.groupby(["learning_rate", "warmup_steps", "variant"]).size() if len(runs) else pd.Series(dtype=int)
    if (counts >= MIN_SEEDS).sum() < 2 * len(wanted):
        return missing(f"{len(runs)} of {len(results.wanted('tuning', TASK))} runs" if len(runs) else MISSING)
    table = results.by_method("tuning", TASK)
    best = ", ".join(f"{NAMES[m]} {table.loc[m, 'learning_rate']:g}, {table.loc[m, 'warmup_steps']:g}"
                     for m in ("softmax", "hyla"))  # fmt: skip
    return Outcome(f"{listed(table, ('softmax', 'hyla'))}; best learning rate and warm-up: {best}",
                   leads(results, "hyla", ["softmax"], "tuning", TASK))  # fmt: skip


def loss_falls(results: Results) -> Outcome:
    """Decide whether the training loss falls along all three axes."""
    texts: list[str] = []
    effects: list[Effect] = []
    for axis in ("steps", "d_model", "n_layers"):
        table = cut(results, "fig4", TASK, axis, "train_loss")
        if table is None:
            return missing()
        (first, *_, last) = table.columns
        texts.append(f"{LABELS[axis](last)}: {ends(table, 2)}")
        named = (effect._replace(name=f"{effect.name} to {LABELS[axis](last)}")
                 for effect in gains(table, first, last, rises=False, digits=2))  # fmt: skip
        effects += named
    return Outcome("nats, smallest to " + "; to ".join(texts), tuple(effects))


def one_head_is_worse(results: Results) -> Outcome:
    """Decide whether one head is worse than the main comparison's number of heads."""
    table, main = cut(results, "fig5c", TASK, "n_heads"), main_point(TASK, results.preset)["n_heads"]
    if table is None:
        return missing()
    both = means(table)
    text = ", ".join(f"{NAMES[m]} {both.loc[m, 1]:.1f} → {both.loc[m, main]:.1f}" for m in METHODS)
    return Outcome(f"1 head → {main}: {text}", gains(table, 1, main, rises=True),
                   weak=_weak(cut(results, "fig5c", TASK, "n_heads", "test"), 1))  # fmt: skip


def harder_with_features(results: Results) -> Outcome:
    """Decide whether symbols are harder to tell where panels have more features."""
    accuracy, loss = (cut(results, "fig5c", TASK, "n_features", score) for score in ("heldout", "train_loss"))
    if accuracy is None or loss is None:
        return missing()
    (first, *_, last) = loss.columns
    effects = tuple(unpaired(NAMES[m], loss.loc[m][last], loss.loc[m][first], digits=2) for m in METHODS)
    text = f"held-out accuracy (%), {LABELS['n_features'](first)} → {LABELS['n_features'](last)}: {ends(accuracy)}"
    return Outcome(f"{text}; loss per symbol in nats: {ends(loss, 2)}", effects,
                   weak=_weak(cut(results, "fig5c", TASK, "n_features", "test"), last))  # fmt: skip


# --- latent codes ----------------------------------------------------------------------------------------------------


def _main_depth(results: Results, figure: str) -> list[Experiment]:
    depth = main_point(TASK, results.preset)["n_layers"]
    return [run for run in results.wanted(figure, TASK) if run.model.n_layers == depth]


def _probes(results: Results) -> pd.DataFrame | None:
    """Return the probes of the main comparison on aligned streams, in percent; None unless all seeds are there.

    Returns: rows by model, layer, variant and seed.
    """
    table = results.store.analysis(RULE_DECODING, _main_depth(results, "fig5f"))
    if not enough_seeds(table):
        return None
    table = table[table["stream"] == "aligned"].set_index(["model", "layer", "variant", "seed"])
    return 100 * table[["accuracy", "chance", "neighbours", "neighbours_chance"]]


def _last_layer(table: pd.DataFrame, score: str, chance: str) -> tuple[str, list[Effect]]:
    """Return a score of the last layer in words, and what it is above: its value before training, and by chance."""
    last = table.index.get_level_values("layer").max()
    trained, control = (table.xs((name, last), level=("model", "layer")) for name in ("trained", "untrained"))
    words, effects = [], []
    for method in METHODS:
        ours, untrained = trained.loc[method], control.loc[method]
        words.append(f"{NAMES[method]} {ours[score].mean():.0f} % ({untrained[score].mean():.0f} %)")
        effects += [
            paired(f"{NAMES[method]} minus untrained", ours[score] - untrained[score]),
            paired(f"{NAMES[method]} minus chance", ours[score] - ours[chance]),
        ]
    return f"last layer (untrained): {', '.join(words)}; chance {trained[chance].mean():.0f} %", effects


def clusters_by_rule(results: Results) -> Outcome:
    """Decide whether the last layer's codes cluster by rule."""
    table = _probes(results)
    if table is None:
        return missing()
    text, effects = _last_layer(table, "neighbours", "neighbours_chance")
    layers = table.loc["trained"]["neighbours"].unstack("layer")
    rise = layers[layers.columns.max()] - layers[1]
    effects += [paired(f"{NAMES[m]} minus first layer", rise.loc[m]) for m in METHODS]
    return Outcome(f"neighbours of the same rule, {text}; by layer: {_by_layer(table, 'neighbours')}", tuple(effects))


def rule_decodable(results: Results) -> Outcome:
    """Decide whether the last layer's codes tell of the rule."""
    table = _probes(results)
    if table is None:
        return missing()
    text, effects = _last_layer(table, "accuracy", "chance")
    return Outcome(text, tuple(effects))


def _by_layer(table: pd.DataFrame, score: str) -> str:
    averages = table.loc["trained"].groupby(level=("variant", "layer"))[score].mean().unstack().reindex(METHODS)
    return ", ".join(f"{NAMES[m]} {' '.join(f'{value:.0f}' for value in averages.loc[m])}" for m in METHODS)


def best_in_late_layers(results: Results) -> Outcome:
    """Decide whether rules are decoded best in the second half of the layers."""
    table = _probes(results)
    if table is None:
        return missing()
    layers = table["accuracy"].unstack("layer")
    late = layers.columns > layers.columns.max() / 2
    lead = (layers.loc[:, late].mean(axis=1) - layers.loc[:, ~late].max(axis=1)).unstack("model")
    learned = lead["trained"] - lead["untrained"]
    effects = tuple(paired(NAMES[m], lead.loc[m, "trained"]) for m in METHODS)
    effects += tuple(paired(f"{NAMES[m]}, minus before training", learned.loc[m]) for m in METHODS)
    return Outcome(f"accuracy (%) by layer: {_by_layer(table, 'accuracy')}", effects)


def addition_near_difference(results: Results) -> Outcome:
    """Decide whether training brings the mean codes of addition and difference together."""
    table = results.store.analysis(MEAN_CODES, _main_depth(results, "fig5e"))
    if not enough_seeds(table):
        return missing()
    plain, units = leads_of_the_pair(table).unstack("model"), leads_of_the_pair(table, in_units=True).unstack("model")
    effects = [paired(NAMES[m], (plain["trained"] - plain["untrained"]).loc[m], digits=3) for m in METHODS]
    effects += [
        paired(f"{NAMES[m]} in units of the spread", (units["trained"] - units["untrained"]).loc[m], digits=2)
        for m in METHODS
    ]
    text = ", ".join(f"{NAMES[m]} {plain.loc[m]['trained'].mean():.3f} ({plain.loc[m]['untrained'].mean():.3f})"
                     for m in METHODS).replace("-", "−")  # fmt: skip
    return Outcome(f"cosine of addition and difference minus that of other pairs (untrained): {text}", tuple(effects))
