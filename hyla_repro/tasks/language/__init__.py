"""Language: the next token of a text (section 6 of the paper)."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports

if TYPE_CHECKING:
    from hyla_repro.tasks.language.n_gram import n_gram_loss
    from hyla_repro.tasks.language.prepare import prepare_text
    from hyla_repro.tasks.language.settings import LanguageSettings
    from hyla_repro.tasks.language.task import Language, LanguageBatch
    from hyla_repro.tasks.language.texts import known_texts

__all__ = ["Language", "LanguageBatch", "LanguageSettings", "known_texts", "n_gram_loss", "prepare_text"]

_HOMES = {"n_gram_loss": "n_gram", "prepare_text": "prepare", "LanguageSettings": "settings", "known_texts": "texts"}
__getattr__, __dir__ = exports(__name__, {name: f"{__name__}.{_HOMES.get(name, 'task')}" for name in __all__})
