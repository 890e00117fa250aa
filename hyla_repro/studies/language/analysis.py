"""Losses of the language runs in bits per character, beside what counting reaches."""

from functools import lru_cache

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from hyla_repro.results.effects import paired
from hyla_repro.results.methods import NAMES
from hyla_repro.results.summary import Results, mean_and_error
from hyla_repro.studies.language.runs import METHODS, SIZES, TASK, TINY
from hyla_repro.tasks.language import Language, n_gram_loss, texts

ORDER = 5
TEXTS = {"validation": "validation plays", "test": "test plays", "heldout": "Milton"}


def main_task(preset: str) -> Language:
    """Return the task of a preset's main comparison."""
    size = SIZES[preset]
    return Language(size.text, size.tokenizer, size.context)


@lru_cache(maxsize=8)
def n_gram_bits(text: str, split: str, order: int = ORDER) -> float:
    """Return the loss of an n-gram model of a committed text's characters, in bits per character."""
    train, test = (texts.tokens(text, "characters", part) for part in ("train", split))
    return n_gram_loss(train, test, order, texts.vocabulary_size(text, "characters")) / np.log(2)


def bits(runs: pd.DataFrame, task: Language) -> pd.DataFrame:
    """Return the runs of a task's text, their losses in bits per character instead of nats per token."""
    own = runs[(runs["text"] == task.text) & (runs["tokenizer"] == task.tokenizer)]
    splits = [split for split in task.evaluation_splits if split in own]
    return own.assign(**{split: task.bits_per_character(1.0, split) * own[split] for split in splits})


def by_seed(results: Results, split: str) -> pd.DataFrame:
    """Return the loss of the main comparison in bits per character, by seed (rows) and method (columns)."""
    best = results.best("fig6", TASK)
    if best.empty:
        return best
    return bits(best, main_task(results.preset)).pivot(index="seed", columns="variant", values=split)


def lines(task: Language) -> dict[str, float]:
    """Return the 5-gram model's bits per character on every split of a committed text, nothing for other texts."""
    facts = texts.facts(task.text)
    if facts is None or "file" not in facts:
        return {}
    return {split: n_gram_bits(task.text, split) for split in task.evaluation_splits}


def ends(runs: pd.DataFrame, task: Language) -> pd.DataFrame:
    """Return last losses by method, in bits per character with their 95 % interval over seeds, and in nats per token.

    Args:
        runs: those of each method's best rate, in bits per character.
    """
    splits = {split: name for split, name in TEXTS.items() if split in runs}
    line, rows = lines(task), {}
    for method in METHODS:
        own = runs[runs["variant"] == method]
        if len(own):
            rows[NAMES[method]] = {name: _in_both_units(own[split], task, split) for split, name in splits.items()}
    if line:
        rows["5-gram model"] = {name: _in_both_units(pd.Series([line[split]]), task, split)
                                for split, name in splits.items()}  # fmt: skip
    return pd.DataFrame(rows).T


def _in_both_units(losses: pd.Series, task: Language, split: str) -> str:
    effect = paired("", losses, digits=3)
    text = f"{effect}" if effect.n > 1 else f"{effect.value:.3f}"
    return f"{text}; {effect.value / task.bits_per_character(1.0, split):.3f}"


def rates(runs: pd.DataFrame, task: Language) -> pd.DataFrame:
    """Return the first seed's loss on validation in bits per character, by method and rate, the best marked."""
    first = bits(runs[runs["seed"] == 0], task)
    table = (
        first.pivot(index="variant", columns="learning_rate", values="validation").reindex(METHODS).dropna(how="all")
    )
    best = table.idxmin(axis=1)

    def shown(method: str, rate: float, loss: float) -> str:
        # A rate that is not trained yet leaves its cell empty.
        return "" if np.isnan(loss) else f"{loss:.3f}" + (" (best)" if best[method] == rate else "")

    marked = {rate: [shown(method, rate, loss) for method, loss in column.items()] for rate, column in table.items()}
    return pd.DataFrame(marked, index=[NAMES[method] for method in table.index]).rename_axis(columns="learning rate")


def tiny(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the loss on the last tenth of tiny Shakespeare in nats per character, beside the published one."""
    own = runs[runs["text"] == TINY]
    ours = mean_and_error(own["validation"].mean(), own["validation"].sem(), 3) if len(own) else "not trained"
    rows = {"nanoGPT's recipe, its text (published)": "1.88", f"ours, our text, {len(own)} seeds": ours}
    if len(own):
        counted = n_gram_bits(TINY, "validation") * np.log(2)
        rows["5-gram model, our text"] = f"{counted:.3f}"
    return pd.DataFrame({"nats per character": rows})


def samples(table: pd.DataFrame) -> Styler:
    """Return what the models wrote, a row for each method, in lines as written."""
    written = {NAMES[method]: part["written"].iloc[0].strip() for method, part in table.groupby("variant", sort=False)}
    shown = pd.DataFrame({"what it writes": written})
    return shown.style.format(escape="html").set_table_attributes('class="dataframe written"')
