"""The settings of multi-query associative recall, checked and without torch."""

from dataclasses import dataclass
from typing import Any

from hyla_repro.errors import whole_number


@dataclass(frozen=True)
class MQARSettings:
    """Pairs of a key and a value, then every key once more at some later place, where its value is asked for.

    Token 0 fills the places between; keys are the tokens below vocab_size // 2, values the others, and no pairs share
    one. A question stands at the first token of one of the slots of two tokens that follow the pairs; slot i, from 0,
    is drawn with weight (i + 1) ** (power - 1), without replacement.

    Args:
        n_pairs: pairs of key and value, and so questions.
        n_tokens: of a sequence, at least four for each pair.
        vocab_size: tokens there are.
        power: above 0; 1 spreads the questions evenly, small ones put most of them soon after the pairs.
        seed: draws every batch.

    Raises: ValueError for sizes or a power out of range.

    Source: Arora et al., "Zoology" (arXiv 2312.04927) and its release, zoology/data/associative_recall.py with
        random_non_queries=False. Its Figure 2 has 8192 tokens, power 0.01, and pairs in contexts of (4, 64), (8, 128),
        (16, 256) and (64, 512).
    Differs: every training batch is fresh, where the release draws 100 000 sequences and repeats them.
    """

    n_pairs: int = 4
    n_tokens: int = 64
    vocab_size: int = 8192
    power: float = 0.01
    seed: int = 0

    version, metric, scale, short_name = 1, "accuracy", 100.0, "mqar"
    evaluation_splits, selected_by, lower_is_better = ("test",), "test", False
    names_model_size, stackable = True, ()

    def __post_init__(self) -> None:
        whole_number("n_pairs", self.n_pairs, 1, "there is something to ask for", 2**14)
        whole_number("n_tokens", self.n_tokens, 4 * self.n_pairs, "a pair and its slot have two tokens each", 2**16)
        whole_number("vocab_size", self.vocab_size, 2 * self.n_pairs + 2, "half are keys, but for token 0", 2**16)
        whole_number("seed", self.seed, 0, "it is one word of the random numbers' key", 2**32 - 1)
        if not isinstance(self.power, (int, float)) or not 0.0 < self.power <= 1.0:
            raise ValueError(f"power={self.power!r} is out of range: use a number above 0, up to 1")

    @property
    def summary(self) -> str:
        return f"MQAR {self.n_pairs} pairs in {self.n_tokens} tokens of {self.vocab_size}"

    @property
    def n_read(self) -> int:
        return self.n_tokens

    @property
    def model_sizes(self) -> dict[str, Any]:
        return {"n_positions": self.n_tokens, "vocab_size": self.vocab_size}
