"""Where things are: the code and its commit, the folders of the project that it works on, and the folder of runs."""

import os
import subprocess
from pathlib import Path

REPOSITORY = "https://github.com/hyla-repro/hyla-repro"
CODE = Path(__file__).resolve().parent.parent
# Whether the code lies in its repository; an installed package has no book beside it.
CHECKOUT = (CODE / "book" / "_toc.yml").exists()
# What comes with the code: all committed results or, inside a package, the texts and some weights.
SHIPPED = CODE / "data" if CHECKOUT else CODE / "hyla_repro" / "data"
# A study of your own need not live in this repository: HYLA_REPRO_ROOT names the folder of its book/, data/, figures/.
PROJECT = CHECKOUT or "HYLA_REPRO_ROOT" in os.environ
ROOT = Path(os.environ.get("HYLA_REPRO_ROOT", CODE if CHECKOUT else ".")).expanduser().resolve()
BOOK, FIGURES = ROOT / "book", ROOT / "figures"
DATA = ROOT / "data" if PROJECT else SHIPPED
# Where chapters draw: a build never writes a committed file.
DRAWN = BOOK / "_build" / "figures"


def runs_folder() -> Path:
    """Return the folder of runs: HYLA_REPRO_RUNS if set, else `runs` beside the book, or in the working directory."""
    return Path(os.environ.get("HYLA_REPRO_RUNS", ROOT / "runs")).expanduser()


def texts_folder() -> Path:
    """Return the folder of prepared texts: HYLA_REPRO_TEXTS if set, else `texts` where `runs` would be."""
    return Path(os.environ.get("HYLA_REPRO_TEXTS", ROOT / "texts")).expanduser()


def commit(root: Path = CODE) -> str:
    """Return the code's commit, with `-dirty` for uncommitted changes, or `unknown` outside a checkout."""
    # An unpacked archive or an installed package may lie inside another project's checkout: that commit would be a lie.
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
