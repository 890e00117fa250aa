"""Texts as files of token numbers: what there is, which characters each split has, and its tokens.

Without torch, and without numpy until tokens are asked for.

A committed text is one compressed file and a JSON that says which ranges of its characters each split has. A prepared
text (`prepare.py`) is a folder with the token numbers of each split, which are mapped into memory and never read whole.
"""

import json
import lzma
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hyla_repro import paths
from hyla_repro.errors import DataError, MissingPackageError, choose
from hyla_repro.files import sha256

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "validation", "test", "heldout")
FACTS = "text.json"


class PublicText(NamedTuple):
    """A text on the Hugging Face hub: the arguments of `datasets.load_dataset`, and the splits that it has."""

    path: str
    name: str
    splits: tuple[str, ...]


# Too large to commit: `hyla-repro text NAME` prepares them where there is a network.
PUBLIC = {
    "c4": PublicText("allenai/c4", "en", ("train", "validation")),
    "wikitext_103": PublicText("Salesforce/wikitext", "wikitext-103-raw-v1", ("train", "validation", "test")),
}


def _committed(name: str) -> Path:
    # A project of your own may have texts of its own; all others come with the code.
    own = paths.DATA / "corpora"
    return (own if own.is_dir() else paths.SHIPPED / "corpora") / f"{name}.json"


def prepared_folder(name: str) -> Path:
    """Return where a prepared text is, or would be."""
    return paths.texts_folder() / name


def known_texts() -> list[str]:
    """Return the names of all texts: committed ones, public ones, and those that were prepared here."""
    committed = sorted(path.stem for path in _committed("*").parent.glob("*.json") if "." not in path.stem)
    prepared = sorted(path.parent.name for path in paths.texts_folder().glob(f"*/{FACTS}"))
    return list(dict.fromkeys([*committed, *PUBLIC, *prepared]))


@lru_cache(maxsize=32)
def _facts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): make the text again, or restore it from git") from error


def facts(name: str) -> Mapping[str, Any] | None:
    """Return what is known of a text, None for a public one that is not prepared here.

    Raises: ValueError for an unknown text, naming those there are; DataError for a file that cannot be read.
    """
    choose("text", name, known_texts())
    for path in (_committed(name), prepared_folder(name) / FACTS):
        if path.exists():
            return _facts(path)
    return None


def splits(name: str) -> tuple[str, ...]:
    """Return the splits of a text, `train` first."""
    known = facts(name)
    return PUBLIC[name].splits if known is None else tuple(split for split in SPLITS if split in known["splits"])


def tokenizers(name: str) -> list[str]:
    """Return the tokenizers that a text can be read with; `bpe_N` has N tokens."""
    known = facts(name)
    if known is None:
        return ["bpe_32000"]
    return [*(["characters"] if "alphabet" in known else []), *known.get("tokenizers", {})]


def vocabulary_size(name: str, tokenizer: str) -> int:
    """Return how many tokens there are, by the alphabet or by the tokenizer's name.

    Raises: ValueError for a tokenizer that this text does not have.
    """
    choose(f"tokenizer of {name}", tokenizer, tokenizers(name))
    if tokenizer == "characters":
        known = facts(name)
        assert known is not None
        return len(known["alphabet"])
    return int(tokenizer.rpartition("_")[2])


def characters(name: str, split: str) -> str:
    """Return a split of a committed text.

    Raises: DataError for a file that is missing or not what its digest says; ValueError for an unknown split.
    """
    known = facts(name)
    if known is None or "file" not in known:
        raise ValueError(f"text {name!r} is kept as token numbers: read it with `tokens`")
    members = known["splits"][choose(f"split of {name}", split, splits(name))]
    whole = _whole(_committed(name).parent / known["file"], known["sha256"])
    return "".join(whole[start:end] for start, end in members.values())


@lru_cache(maxsize=2)
def _whole(path: Path, digest: str) -> str:
    try:
        content = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it with `git checkout data`") from error
    if sha256(content) != digest:
        raise DataError(f"{path} was altered (its digest differs): restore it with `git checkout data`")
    return content.decode()


@lru_cache(maxsize=16)
def tokens(name: str, tokenizer: str, split: str) -> "np.ndarray":
    """Return the token numbers of a split, as uint16.

    Raises: ValueError for an unknown text, tokenizer or split; DataError for files that are missing or altered.
    """
    vocabulary_size(name, tokenizer)
    choose(f"split of {name}", split, splits(name))
    known = facts(name)
    if known is None:
        raise DataError(
            f"text {name!r} is not prepared in {prepared_folder(name)}: `hyla-repro text {name}` does it, which needs "
            "a network"
        )
    if "file" in known:
        return codec(name, tokenizer).encode(characters(name, split))
    part = known["splits"][split]
    path = prepared_folder(name) / part["file"]
    if not path.exists() or path.stat().st_size != 2 * part["tokens"]:
        raise DataError(f"{path} should have {part['tokens']} tokens of 2 bytes: prepare the text again")
    import numpy as np

    # Copy-on-write, as torch takes no read-only arrays; only the pages that are drawn are ever read.
    return np.memmap(path, dtype=np.uint16, mode="c")


def characters_per_token(name: str, tokenizer: str, split: str) -> float:
    """Return how many characters a token of a split stands for on average: it turns nats per token into characters'."""
    known = facts(name)
    if tokenizer == "characters" or known is None:
        return 1.0
    if "file" in known:
        return len(characters(name, split)) / len(tokens(name, tokenizer, split))
    part = known["splits"][split]
    return part["characters"] / part["tokens"]


# --- characters and pieces ---------------------------------------------------------------------------------


class Characters:
    """Every character a token, numbered in the order of the alphabet."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._numbers = {ord(character): number for number, character in enumerate(alphabet)}

    def encode(self, text: str) -> "np.ndarray":
        """Return token numbers.

        Raises: ValueError naming characters that the alphabet lacks.
        """
        if unknown := sorted(set(text) - set(self.alphabet)):
            raise ValueError(f"characters {''.join(unknown)!r} are not in this text's alphabet {self.alphabet!r}")
        import numpy as np

        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        table = np.zeros(max(self._numbers) + 1, dtype=np.uint16)
        table[list(self._numbers)] = list(self._numbers.values())
        return table[points]

    def decode(self, numbers: Any) -> str:
        """Return the text of token numbers."""
        return "".join(self.alphabet[int(number)] for number in numbers)


class Pieces:
    """Byte-pair encoding from a file of the package `tokenizers`."""

    def __init__(self, path: Path, size: int, digest: str | None = None) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingPackageError("byte-pair encoding needs `pip install hyla-repro[language]`") from None
        try:
            content = path.read_bytes()
            self._tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # `tokenizers` raises bare exceptions
            raise DataError(f"{path} is no tokenizer ({error}): restore it, or prepare the text again") from error
        if digest is not None and sha256(content) != digest:
            raise DataError(f"{path} was altered (its digest differs): restore it, or prepare the text again")
        if (found := self._tokenizer.get_vocab_size()) != size:
            raise DataError(f"{path} has another vocabulary: {found} tokens, and {size} are needed")

    def encode(self, text: str) -> "np.ndarray":
        """Return token numbers."""
        import numpy as np

        # By paragraphs: one string of millions of characters is slow, and pieces do not reach over empty lines.
        parts = text.replace("\n\n", "\n\n\0").split("\0")
        encoded = self._tokenizer.encode_batch(parts, add_special_tokens=False)
        return np.fromiter((number for part in encoded for number in part.ids), dtype=np.uint16)

    def decode(self, numbers: Any) -> str:
        """Return the text of token numbers."""
        return self._tokenizer.decode([int(number) for number in numbers], skip_special_tokens=False)


@lru_cache(maxsize=8)
def codec(name: str, tokenizer: str) -> Characters | Pieces:
    """Return what turns a text's characters into tokens and back.

    Raises: ValueError for an unknown text or tokenizer; DataError for a tokenizer's file that is missing, altered or of
        another vocabulary; MissingPackageError without the package that byte-pair encoding needs.
    """
    size, known = vocabulary_size(name, tokenizer), facts(name)
    if known is None:
        raise DataError(f"text {name!r} is not prepared in {prepared_folder(name)}: `hyla-repro text {name}` does it")
    if tokenizer == "characters":
        return Characters(known["alphabet"])
    folder = _committed(name).parent if "file" in known else prepared_folder(name)
    entry = known["tokenizers"][tokenizer]
    return Pieces(folder / entry["file"], size, entry["sha256"])
