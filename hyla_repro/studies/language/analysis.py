"""Losses of the language runs in bits per character, beside what counting reaches."""

from functools import lru_cache

import numpy as np
import pandas as pd

from hyla_repro.results.summary import Results
from hyla_repro.studies.language.runs import SIZES, TASK
from hyla_repro.tasks.language import Language, n_gram_loss, texts

ORDER = 5


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
    return own.assign(**{split: task.bits_per_character(own[split], split) for split in task.evaluation_splits})


def by_seed(results: Results, split: str) -> pd.DataFrame:
    """Return the loss of the main comparison in bits per character, by seed (rows) and method (columns)."""
    best = results.best("fig6", TASK)
    if best.empty:
        return best
    return bits(best, main_task(results.preset)).pivot(index="seed", columns="variant", values=split)
