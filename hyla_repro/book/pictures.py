"""Drawn pictures beside the committed ones: compared by what they show, and the committed ones refreshed.

The book and every chapter draw into book/_build; figures/ holds what the README shows and reviews look at. Another
instruction set rounds otherwise, so that a curve's edge is a shade lighter somewhere: 90 of 1.2 million pixels of
Figure A1, by one level of 255, between AVX-512 and AVX2. Committed pictures that look the same keep their bytes.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from hyla_repro import paths
from hyla_repro.errors import DataError
from hyla_repro.files import write_atomically

# Two pictures look the same if no colour of a pixel differs by more than LEVELS of 255, and not more than SHARE of the
# pixels differ at all. A line that moves by a pixel changes its edges by a hundred levels, and another shade of the
# thinnest curve more than this share; no eye sees what stays below both.
LEVELS = 4
SHARE = 1e-3


def read(path: Path) -> UInt8[np.ndarray, "h w rgb"]:
    """Return the pixels of a picture.

    Raises: DataError naming a file that is missing or cannot be read as a picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a broken PNG a SyntaxError
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def difference(drawn: Path, committed: Path) -> str:
    """Return in words how a drawn picture looks other than the committed one, or nothing if it looks the same.

    Raises: DataError if one of them is missing or cannot be read.
    """
    ours, theirs = read(drawn), read(committed)
    if ours.shape != theirs.shape:
        (high, wide), (old_high, old_wide) = ours.shape[:2], theirs.shape[:2]
        return f"is {wide} x {high} pixels large, committed are {old_wide} x {old_high}"
    levels = np.abs(ours.astype(np.int16) - theirs).max(axis=-1)
    changed = np.count_nonzero(levels)
    if levels.max() <= LEVELS and changed <= SHARE * levels.size:
        return ""
    return f"differs in {changed} of {levels.size} pixels, by up to {levels.max()} of 255 levels"


def differences(drawn: Path | None = None, committed: Path | None = None) -> dict[str, str]:
    """Return, by file name, what is wrong: pictures that look different, cannot be read, or are in one folder only.

    Args:
        drawn, committed: folders; book/_build/figures and figures/ if not given.

    Raises: DataError if nothing was drawn yet.
    """
    drawn, committed = drawn or paths.DRAWN, committed or paths.FIGURES
    ours, theirs = ({path.name for path in folder.glob("*.png")} for folder in (drawn, committed))
    if not ours:
        raise DataError(f"{drawn} holds no pictures: draw them with `make clean book`")
    found = dict.fromkeys(ours - theirs, "is not among the committed pictures")
    found |= dict.fromkeys(theirs - ours, "was not drawn")
    for name in ours & theirs:
        try:
            found[name] = difference(drawn / name, committed / name)
        except DataError as error:
            found[name] = str(error)
    return {name: words for name, words in sorted(found.items()) if words}


def refresh(drawn: Path | None = None, committed: Path | None = None) -> list[Path]:
    """Copy the drawn pictures that look different, or are new, over the committed ones, and return what was written.

    Raises: DataError if nothing was drawn yet, or what would be copied cannot be read.
    """
    drawn, committed = drawn or paths.DRAWN, committed or paths.FIGURES
    changed = [name for name in differences(drawn, committed) if (drawn / name).exists()]
    for name in changed:
        read(drawn / name)  # no broken picture may take the place of a whole one
    for name in changed:
        write_atomically(committed / name, (drawn / name).read_bytes())
    return [committed / name for name in changed]
