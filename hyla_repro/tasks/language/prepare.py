"""Large texts become token numbers: streamed once, tokenised once, and kept as files that are mapped into memory."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hyla_repro.errors import DataError, MissingPackageError, choose, whole_number
from hyla_repro.files import sha256
from hyla_repro.tasks.language.texts import FACTS, PUBLIC, SPLITS, prepared_folder

_TOKENIZER = "tokenizer.json"
_END = "<|end|>"
_FOR_TRAINING = 100_000
_TOGETHER = 1000


def prepare_text(
    name: str,
    tokens: int,
    vocab_size: int = 32_000,
    documents: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
) -> Path:
    """Write a text's token numbers, and return the folder that has them.

    A byte-pair encoding is trained on the first 100 000 documents of the training split. Documents end with a token of
    their own. Nothing is left behind where this fails.

    Args:
        name: a public text, or a name of your own with documents.
        tokens: how many of the training split to keep at most; the other splits are kept up to a tenth of that.
        vocab_size: tokens of the encoding, up to 65 536, which two bytes number.
        documents: split to documents with a field `text`, as `datasets` serves them; a public text's if None.

    Raises:
        ValueError: an unknown text, splits that cannot be, a number out of range, or no text at all.
        MissingPackageError: without `hyla-repro[language]`.
        DataError: a text that cannot be fetched, such as without a network, or that is prepared already.
    """
    whole_number("tokens", tokens, 1, "a text has some")
    whole_number("vocab_size", vocab_size, 257, "256 bytes and an end of document", 1 << 16)
    if documents is None:
        documents = _public(choose("text", name, PUBLIC))
    if "train" not in documents or not set(documents) <= set(SPLITS):
        raise ValueError(f"splits {sorted(documents)}: a text has 'train' and any of {', '.join(SPLITS[1:])}")
    folder = prepared_folder(name)
    if folder.exists():
        raise DataError(f"{folder} has this text already: remove it to prepare it again")
    staging = folder.with_name(f".{name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _write(staging, name, documents, tokens, vocab_size)
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _public(name: str) -> dict[str, Iterable[Mapping[str, Any]]]:
    datasets = _import("datasets")
    path, configuration, splits = PUBLIC[name]
    try:
        return {s: datasets.load_dataset(path, configuration, split=s, streaming=True) for s in splits}
    except Exception as error:  # `datasets` and what it fetches with raise errors of many kinds
        raise DataError(
            f"`hyla-repro text {name}` needs a network, and {path} cannot be fetched ({type(error).__name__}: {error})"
            ". Prepare it on a machine that has one and copy the folder, or use 'shakespeare', which needs none"
        ) from error


def _import(package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError:
        raise MissingPackageError(f"preparing a text needs {package}: `pip install hyla-repro[language]`") from None


def _write(
    folder: Path, name: str, documents: Mapping[str, Iterable[Mapping[str, Any]]], tokens: int, size: int
) -> None:
    encoding = trained_encoding(islice(_strings(documents["train"]), _FOR_TRAINING), size)
    encoding.save(str(folder / _TOKENIZER))
    end = encoding.token_to_id(_END)
    parts = {}
    for split, source in documents.items():
        most = tokens if split == "train" else -(-tokens // 10)
        file = folder / f"{split}.tokens"
        parts[split] = {"file": file.name, **_encode(encoding, end, _strings(source), file, most)}
        if not parts[split]["tokens"]:
            raise ValueError(f"the {split} split of {name!r} has no text: its documents need a field 'text'")
    tokenizer = {"file": _TOKENIZER, "sha256": sha256((folder / _TOKENIZER).read_bytes())}
    facts = {"title": name, "tokenizers": {f"bpe_{encoding.get_vocab_size()}": tokenizer}, "splits": parts}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def _strings(documents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return (document["text"] for document in documents if document.get("text"))


def trained_encoding(texts: Iterator[str], vocab_size: int) -> Any:
    """Return a byte-level byte-pair encoding trained on texts, a `tokenizers.Tokenizer` that can write any text."""
    tokenizers = _import("tokenizers")
    encoding = tokenizers.Tokenizer(tokenizers.models.BPE())
    encoding.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoding.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[_END], initial_alphabet=alphabet, show_progress=False
    )
    encoding.train_from_iterator(texts, trainer)
    return encoding


def _encode(encoding: Any, end: int, texts: Iterator[str], file: Path, most: int) -> dict[str, int]:
    """Write token numbers until there are `most`, and return how many there are, and of how many characters."""
    count = characters = 0
    with file.open("wb") as out:
        while count < most and (group := list(islice(texts, _TOGETHER))):
            for text, encoded in zip(group, encoding.encode_batch(group), strict=True):
                if count >= most:
                    break
                numbers = np.array([*encoded.ids, end], dtype=np.uint16)
                out.write(numbers.tobytes())
                count, characters = count + len(numbers), characters + len(text)
    return {"tokens": count, "characters": characters}
