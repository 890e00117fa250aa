"""Sphinx extension: read, and so execute, every notebook again when data/ or the library changed.

Sphinx re-reads a page when its own source changes, but a chapter's figures come from committed data and library
code. One digest covers both for all notebooks: coarse, yet never stale, and a chapter has nothing to declare.
Results in a private folder of runs (HYLA_REPRO_RUNS) are not watched: build from clean to show those.
"""

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
logger = logging.getLogger(__name__)


def digest(root: Path = ROOT) -> str:
    """Return the SHA-256 of all names and contents below data/ and of the library's modules."""
    files = [*(root / "data").rglob("*"), *(root / "hyla_repro").rglob("*.py")]
    total = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def runs_code(page: Path) -> bool:
    """Return whether a page is a notebook, or a text with cells, as its head then says."""
    return page.suffix == ".ipynb" or page.read_text(encoding="utf-8").startswith("---\nfile_format: mystnb\n")


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Return all pages that run code if the digest is not the one that they were last read with."""
    before, now = getattr(env, "notebook_dependencies", None), digest()
    # Saved with the environment, hence only when the build, executions included, has succeeded.
    env.notebook_dependencies = now  # type: ignore[attr-defined]
    if before in (None, now):
        return []
    notebooks = sorted(name for name in env.found_docs if runs_code(Path(env.doc2path(name))))
    logger.info("data or library changed: %d notebooks will be executed again", len(notebooks))
    return notebooks


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
