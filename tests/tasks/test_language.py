"""Language modelling: texts, tokenizers, windows, the n-gram line, and large texts made into token numbers."""

import json
import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyla_repro import paths
from hyla_repro.errors import DataError
from hyla_repro.tasks.language import Language, known_texts, n_gram_loss, prepare_text, texts

SHAKESPEARE = Language(context=16)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of prepared texts of its own, and no text remembered from before or after."""
    monkeypatch.setenv("HYLA_REPRO_TEXTS", str(tmp_path / "texts"))
    caches = (texts._facts, texts._whole, texts.tokens, texts.codec)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def copied(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the committed texts that a test may damage."""
    shutil.copytree(paths.DATA / "corpora", no_cache / "data" / "corpora")
    monkeypatch.setattr(paths, "DATA", no_cache / "data")
    return no_cache / "data" / "corpora"


# --- the committed text ---------------------------------------------------------------------------------------


def test_plays_are_in_one_split_alone_and_the_other_writer_in_none_that_is_trained_on() -> None:
    facts = json.loads((paths.DATA / "corpora" / "shakespeare.json").read_text())
    works = [work for members in facts["splits"].values() for work in members]
    assert len(works) == len(set(works)) == 42 + 2
    assert list(facts["splits"]["heldout"]) == ["paradise_lost_(no_introduction)", "paradise_regained"]
    assert [len(facts["splits"][split]) for split in ("validation", "test")] == [3, 3]
    ranges = sorted(place for members in facts["splits"].values() for place in members.values())
    whole = lzma.decompress((paths.DATA / "corpora" / "shakespeare.txt.xz").read_bytes()).decode()
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == len(whole)


def test_splits_begin_with_their_works() -> None:
    assert texts.characters("shakespeare", "train").startswith("ANTONY AND CLEOPATRA\n")
    assert texts.characters("shakespeare", "heldout").lstrip().startswith("PARADISE LOST\n")
    assert "OTHELLO" not in texts.characters("shakespeare", "test")


def test_tiny_shakespeare_is_cut_at_nine_tenths_and_has_nothing_that_is_held_back() -> None:
    train, validation = (texts.characters("tiny_shakespeare", split) for split in ("train", "validation"))
    assert len(train) / (len(train) + len(validation)) == pytest.approx(0.9, abs=1e-5)
    whole = texts.characters("shakespeare", "train")
    assert all(part in whole for part in (train[:100_000], validation[-90_000:]))


def test_no_window_of_training_is_in_the_other_plays() -> None:
    train = texts.characters("shakespeare", "train")
    for split in ("validation", "test", "heldout"):
        other = texts.characters("shakespeare", split)
        found = sum(other[start : start + 80] in train for start in range(0, len(other) - 80, 2003))
        assert found == 0


# --- batches --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.sampled_from(["train", "validation", "test", "heldout"]))
def test_a_window_is_text_and_its_targets_are_the_same_text_one_further(seed: int, step: int, split: str) -> None:
    task = Language(context=20, seed=seed)
    batch = task.batch(split, step, 3)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    for window, target in zip(batch.inputs, batch.targets, strict=True):
        assert task.decode(window) + task.decode(target[-1:]) in texts.characters("shakespeare", split)


def test_a_batch_is_a_function_of_seed_split_and_step() -> None:
    first = SHAKESPEARE.batch("train", 3, 5).inputs
    assert torch.equal(first, Language(context=16).batch("train", 3, 8).inputs[:5])
    others = (Language(context=16, seed=1).batch("train", 3, 5), SHAKESPEARE.batch("train", 4, 5))
    assert not any(torch.equal(first, other.inputs) for other in others)


def test_windows_start_everywhere_alike() -> None:
    tables = {"seed": torch.tensor(0), "tokens": torch.arange(1016, dtype=torch.int16)}
    starts = torch.cat([SHAKESPEARE.draw("train", tables, step, 5000).inputs[:, 0] for step in range(20)])
    counts = torch.bincount(starts, minlength=1000)
    assert counts.numel() == 1000  # the last window's last target is the last token
    assert counts.min() > 50
    assert counts.max() < 160


def test_numbers_above_the_range_of_int16_come_back_whole() -> None:
    numbers = torch.from_numpy(np.arange(40_000, 40_050, dtype=np.uint16).view(np.int16))
    batch = SHAKESPEARE.draw("train", {"seed": torch.tensor(0), "tokens": numbers}, 0, 50)
    assert batch.inputs.min() >= 40_000
    assert batch.targets.max() <= 40_049


def test_loss_and_score_are_the_cross_entropy_by_hand() -> None:
    batch = SHAKESPEARE.batch("test", 0, 4)
    outputs = torch.randn(4, 16, SHAKESPEARE.vocab_size, generator=torch.Generator().manual_seed(0))
    likely = outputs.softmax(-1).gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(SHAKESPEARE.score(outputs, batch), -likely.log().mean(-1))
    torch.testing.assert_close(SHAKESPEARE.loss(outputs, batch), -likely.log().mean())


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outputs has shape \(4, 1, 82\): this task needs \(4, 16, 82\)"):
        SHAKESPEARE.loss(torch.zeros(4, 1, 82), SHAKESPEARE.batch("train", 0, 4))


# --- tokenizers -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.sampled_from(texts.facts("shakespeare")["alphabet"]), max_size=60))  # type: ignore[index]
def test_encoding_and_decoding_give_the_text_back(text: str) -> None:
    for tokenizer in ("characters", "bpe_1024"):
        task = Language(tokenizer=tokenizer)
        assert task.decode(task.encode(text)) == text


def test_pieces_give_the_whole_split_back_and_are_fewer() -> None:
    task, text = Language(tokenizer="bpe_1024"), texts.characters("shakespeare", "test")
    numbers = texts.tokens("shakespeare", "bpe_1024", "test")
    assert task.decode(torch.from_numpy(numbers.astype(np.int64))) == text
    assert numbers.max() < task.vocab_size == 1024
    assert texts.characters_per_token("shakespeare", "bpe_1024", "test") == pytest.approx(len(text) / len(numbers))


def test_bits_per_character_do_not_depend_on_the_tokenizer() -> None:
    """The same probability of a text, written per character and per piece, is the same number of bits."""
    nats = 1000.0
    by_character, by_piece = Language(), Language(tokenizer="bpe_1024")
    text = texts.characters("shakespeare", "test")
    pieces = len(texts.tokens("shakespeare", "bpe_1024", "test"))
    expected = nats / np.log(2) / len(text)
    assert by_character.bits_per_character(nats / len(text), "test") == pytest.approx(expected)
    assert by_piece.bits_per_character(nats / pieces, "test") == pytest.approx(expected)


def test_unknown_characters_of_a_prompt_are_named() -> None:
    with pytest.raises(ValueError, match=r"characters 'é😀' are not in this text's alphabet"):
        SHAKESPEARE.encode("né😀")


# --- what cannot be -------------------------------------------------------------------------------------------


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown text 'shakespear': did you mean 'shakespeare'\?"):
        Language(text="shakespear")
    with pytest.raises(ValueError, match="unknown tokenizer of shakespeare 'bpe_512': did you mean 'bpe_1024'"):
        Language(tokenizer="bpe_512")
    with pytest.raises(ValueError, match="unknown split 'heldout'"):
        Language(text="tiny_shakespeare").batch("heldout", 0, 1)
    with pytest.raises(ValueError, match="context=1 is out of range: use 2 to 1048576"):
        Language(context=1)


def test_a_context_longer_than_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context=125672 is longer than the validation split of 'tiny_shakespeare'"):
        Language(text="tiny_shakespeare", context=125_672).batch("validation", 0, 1)
    assert Language(text="tiny_shakespeare", context=125_671).batch("validation", 0, 1).inputs.shape == (1, 125_671)


def test_an_altered_text_is_refused(copied: Path) -> None:
    path = copied / "shakespeare.txt.xz"
    whole = lzma.decompress(path.read_bytes())
    path.write_bytes(lzma.compress(whole.replace(b"Hamlet", b"Omelet", 1)))
    with pytest.raises(DataError, match=r"shakespeare.txt.xz was altered \(its digest differs\): restore it"):
        Language(context=16).batch("train", 0, 1)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"shakespeare.txt.xz cannot be read"):
        Language(context=16).batch("train", 0, 1)


def test_a_tokenizer_that_is_altered_or_of_another_vocabulary_is_refused(copied: Path) -> None:
    path, facts = copied / "shakespeare.bpe_1024.json", copied / "shakespeare.json"
    path.write_text(path.read_text().replace('"merges"', ' "merges"'))
    with pytest.raises(DataError, match=r"bpe_1024.json was altered"):
        Language(tokenizer="bpe_1024", context=16).batch("train", 0, 1)
    known = json.loads(facts.read_text())
    known["tokenizers"] = {"bpe_512": {"file": path.name, "sha256": None}}
    facts.write_text(json.dumps(known))
    texts._facts.cache_clear()
    with pytest.raises(DataError, match=r"has another vocabulary: 1024 tokens, and 512 are needed"):
        Language(tokenizer="bpe_512", context=16).batch("train", 0, 1)


def test_a_text_that_is_not_prepared_says_how_it_can_be(no_cache: Path) -> None:
    task = Language(text="c4", tokenizer="bpe_32000", context=16)
    assert task.vocab_size == 32_000
    assert task.evaluation_splits == ("validation",)
    with pytest.raises(
        DataError, match=r"text 'c4' is not prepared in .*: `hyla-repro text c4` does it, which needs a "
    ):
        task.batch("train", 0, 1)


# --- counting -------------------------------------------------------------------------------------------------


def test_an_n_gram_model_is_a_distribution_and_matches_the_formula_by_hand() -> None:
    train = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    # Unigrams: N = 8, T = 3; after 0 (which the last token does not end): 1 three times, 2 once.
    unigram = [(4 + 3 / 3) / 11, (3 + 1) / 11, (1 + 1) / 11]
    after_0 = [(0 + 2 * unigram[0]) / 6, (3 + 2 * unigram[1]) / 6, (1 + 2 * unigram[2]) / 6]
    assert sum(after_0) == pytest.approx(1)
    for token in range(3):
        expected = -(np.log(unigram[0]) + np.log(after_0[token])) / 2
        assert n_gram_loss(train, np.array([0, token]), 2, 3) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_of_all_texts_of_one_length_add_up_to_one(order: int) -> None:
    train = np.random.default_rng(0).integers(0, 3, 60)
    every = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    total = sum(np.exp(-4 * n_gram_loss(train, text, order, 3)) for text in every)
    assert total == pytest.approx(1)


def test_counting_learns_from_the_text_and_not_from_another() -> None:
    train, test = (texts.tokens("tiny_shakespeare", "characters", split) for split in ("train", "validation"))
    losses = [n_gram_loss(train[:300_000], test[:30_000], order, 82) for order in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)
    shuffled = np.random.default_rng(0).permutation(train[:300_000])
    assert n_gram_loss(shuffled, test[:30_000], 4, 82) > losses[0] - 0.05
    with pytest.raises(ValueError, match="order=10 with 82 tokens is out of range"):
        n_gram_loss(train, test, 10, 82)


# --- large texts ----------------------------------------------------------------------------------------------


def _documents(folder: Path) -> dict:
    """Documents in the form of C4's, served by `datasets` from files."""
    import datasets

    lines = texts.characters("tiny_shakespeare", "validation").split("\n\n")
    for split, part in (("train", lines[:400]), ("validation", lines[400:500])):
        rows = [json.dumps({"text": line, "timestamp": "2019", "url": "none"}) for line in part]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    cache = str(folder / "cache")
    return {s: datasets.load_dataset("json", data_files=f, split="train", streaming=True, cache_dir=cache)
            for s, f in files.items()}  # fmt: skip


def test_a_prepared_text_is_the_same_task(no_cache: Path) -> None:
    folder = prepare_text("small", 5000, 400, _documents(no_cache))
    assert sorted(path.name for path in folder.iterdir()) == [
        "text.json", "tokenizer.json", "train.tokens", "validation.tokens",
    ]  # fmt: skip
    assert "small" in known_texts()
    task = Language("small", "bpe_400", 16)
    assert (task.vocab_size, task.evaluation_splits) == (400, ("validation",))
    numbers = texts.tokens("small", "bpe_400", "train")
    assert isinstance(numbers, np.memmap)
    assert 5000 <= len(numbers) < 6000
    window = task.batch("train", 7, 1).inputs[0]
    original = "<|end|>".join(row["text"] for row in _documents(no_cache)["train"])
    assert task.decode(window) in original
    characters = json.loads((folder / "text.json").read_text())["splits"]["train"]["characters"]
    assert texts.characters_per_token("small", "bpe_400", "train") == characters / len(numbers)


def test_preparing_again_or_half_a_text_leaves_nothing_behind(no_cache: Path) -> None:
    documents = {"train": [{"text": "to be or not to be"}], "validation": [{"words": "none"}]}
    with pytest.raises(
        ValueError, match="the validation split of 'small' has no text: its documents need a field 'text'"
    ):
        prepare_text("small", 100, 300, documents)
    assert not list((no_cache / "texts").iterdir())
    prepare_text("small", 100, 300, {"train": documents["train"]})
    with pytest.raises(DataError, match="has this text already"):
        prepare_text("small", 100, 300, documents)


@pytest.mark.parametrize(
    ("name", "tokens", "vocab_size", "message"),
    [
        ("c5", 10, 300, "unknown text 'c5'"),
        ("c4", 0, 300, "tokens=0 is out of range"),
        ("c4", 10, 70_000, "vocab_size=70000 is out of range: use 257 to 65536"),
    ],
)
def test_a_text_that_cannot_be_prepared_is_named(
    no_cache: Path, name: str, tokens: int, vocab_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_text(name, tokens, vocab_size)


def test_without_a_network_the_error_names_the_command(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach 'allenai/c4' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"`hyla-repro text c4` needs a network, and allenai/c4 cannot be fetched"):
        prepare_text("c4", 10)
    assert not (no_cache / "texts").exists()


def test_truncated_token_numbers_are_refused(no_cache: Path) -> None:
    folder = prepare_text("small", 100, 300, {"train": [{"text": "to be or not to be " * 30}]})
    with (folder / "train.tokens").open("ab") as file:
        file.truncate(20)
    with pytest.raises(DataError, match=r"train.tokens should have \d+ tokens of 2 bytes: prepare the text again"):
        Language("small", next(iter(texts.facts("small")["tokenizers"])), 4).batch("train", 0, 1)  # type: ignore[index]
