"""Where things are: the repository's folders, and the folder of runs."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
DATA = ROOT / "data"
FIGURES = ROOT / "figures"
# Where chapters draw: a build never writes a committed file.
DRAWN = BOOK / "_build" / "figures"


def runs_folder() -> Path:
    """Return the folder of runs: HYLA_REPRO_RUNS if set, else `runs` beside the library."""
    return Path(os.environ.get("HYLA_REPRO_RUNS", ROOT / "runs")).expanduser()
