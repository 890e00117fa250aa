"""Sphinx extension: say in the footer, and wherever a page has `{{ commit }}`, which commit the book was built from.

`{{ repository }}` is the address of the repository, which only _config.yml knows.

The date is the commit's, not the build's: two clean builds of one commit are the same bytes. git is asked once per
build, at its start: what the build or others change meanwhile must not give its pages different stamps.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from hyla_repro.paths import commit

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"\{\{ *commit *\}\}")
_REPOSITORY = re.compile(r"\{\{ *repository *\}\}")


def day_of(stamp: str, root: Path = ROOT) -> str:
    """Return the day of a commit; nothing for a stamp that names none."""
    name = re.match("[0-9a-f]+(?=$|-dirty$)", stamp)
    if not name:
        return ""
    command = ["git", "-C", str(root), "show", "--no-patch", "--format=%cs", name[0]]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def stamp_footer(app: Sphinx, config: Config) -> None:
    """Put the commit below every page; this rewrites pages when it changes, but executes nothing."""
    stamp = config.commit_stamp = commit(ROOT)  # type: ignore[attr-defined]
    shown, day = f"<code>{stamp}</code>", day_of(stamp)
    repository = config.html_theme_options.get("repository_url")
    if repository and re.fullmatch("[0-9a-f]+", stamp):
        shown = f'<a href="{repository}/commit/{stamp}">{shown}</a>'
    options = {
        **config.html_theme_options,
        "extra_footer": f"<p>Built from commit {shown}{f' of {day}' if day else ''}.</p>",
    }
    config.html_theme_options = options  # type: ignore[attr-defined]


def substitute(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the marks in a page's source, and remember the pages that have the commit."""
    address = app.config.html_theme_options.get("repository_url", "")
    source[0] = _REPOSITORY.sub(address, source[0])
    if not _MARK.search(source[0]):
        return
    stamp = app.config.commit_stamp
    source[0] = _MARK.sub(stamp, source[0])
    app.env.metadata[docname]["commit"] = stamp


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Return the pages that name another commit."""
    now = app.config.commit_stamp
    return [name for name, facts in env.metadata.items() if facts.get("commit", now) != now and name in env.found_docs]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("commit_stamp", "unknown", "", [str])
    app.connect("config-inited", stamp_footer)
    app.connect("source-read", substitute)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
