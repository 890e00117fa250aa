"""Sphinx extension: read pages, and so execute notebooks, on several cores: jupyter-book has no option for it."""

import os
from typing import Any

from sphinx.application import Sphinx

# A kernel with PyTorch takes about 600 MB.
_MOST = 4


def declare(app: Sphinx) -> None:
    """Say of two extensions that jupyter-book loads that they are safe: one numbers what is read, one serves LaTeX."""
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        app.extensions[name].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, Any]:
    app.parallel = max(app.parallel, min(os.cpu_count() or 1, _MOST))
    # Kernels beside each other, each with a thread per core, wait for one another's threads most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app.connect("builder-inited", declare)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
