"""The settings of language modelling, checked and without torch."""

from dataclasses import dataclass

from hyla_repro.errors import whole_number
from hyla_repro.tasks.language import texts


@dataclass(frozen=True)
class LanguageSettings:
    """The next token of a text, for every token of a window drawn from it.

    Args:
        text: one of `known_texts()`.
        tokenizer: `characters`, or `bpe_N` for a byte-pair encoding of N tokens trained on the training split.
        context: tokens in a window.
        seed: draws the windows of every batch.

    Raises:
        ValueError: unknown text or tokenizer, a context that is out of range.

    Source: paper, section on language modelling; it trains on C4, with 32 000 tokens of SentencePiece.
    Differs: the committed text is Shakespeare's works, and its held-out writer is Milton.
    """

    text: str = "shakespeare"
    tokenizer: str = "characters"
    context: int = 128
    seed: int = 0

    version = 1
    metric = "nats per token"
    names_model_size = True
    stackable = ()
    evaluation_splits = ("validation", "test", "heldout")
    selected_by = "validation"
    lower_is_better = True
    scale = 1.0

    def __post_init__(self) -> None:
        texts.vocabulary_size(self.text, self.tokenizer)
        whole_number("context", self.context, 2, "a window has at least two tokens", 2**20)
        whole_number("seed", self.seed, 0, "it is one word of the random numbers' key", 2**32 - 1)
        # Not every text has all of the splits.
        object.__setattr__(self, "evaluation_splits", texts.splits(self.text)[1:])

    @property
    def short_name(self) -> str:
        return self.text

    @property
    def summary(self) -> str:
        return f"{self.text} by {self.tokenizer}, context {self.context}"

    @property
    def n_tokens(self) -> int:
        return self.context

    @property
    def n_read(self) -> int:
        return self.context

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return texts.vocabulary_size(self.text, self.tokenizer)

    @property
    def model_sizes(self) -> dict[str, int]:
        return {"n_positions": self.context, "vocab_size": self.vocab_size}
