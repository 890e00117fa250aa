"""Where things are: the code, the folders of the project that it works on, and the folder of runs."""

import os
from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
# A study of your own need not live in this repository: HYLA_REPRO_ROOT names the folder of its book/, data/, figures/.
ROOT = Path(os.environ.get("HYLA_REPRO_ROOT", CODE)).expanduser().resolve()
BOOK, DATA, FIGURES = ROOT / "book", ROOT / "data", ROOT / "figures"
# Where chapters draw: a build never writes a committed file.
DRAWN = BOOK / "_build" / "figures"


def runs_folder() -> Path:
    """Return the folder of runs: HYLA_REPRO_RUNS if set, else `runs` beside the book."""
    return Path(os.environ.get("HYLA_REPRO_RUNS", ROOT / "runs")).expanduser()


def texts_folder() -> Path:
    """Return the folder of prepared texts: HYLA_REPRO_TEXTS if set, else `texts` beside the book."""
    return Path(os.environ.get("HYLA_REPRO_TEXTS", ROOT / "texts")).expanduser()
