"""Check that mystmd, the engine of jupyter-book 2, parses every page: `python tests/book/check_myst.py [MYST ...]`.

Version 1 builds the book; this keeps the way to its successor short. The pages are copied, so that nothing is left
beside them. Prints mystmd's errors and exits 1, or prints the number of pages. Addresses outside are not visited, and
the reference page, which is written by Sphinx's autodoc, is left out. MYST is the command, `npx` with a pinned mystmd
if not given.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["npx", "--yes", "mystmd@1.8.3"]
# What autodoc writes, and what only the network can tell.
_OTHERS = re.compile(r'Link for "https?://|Could not find .*api\.md')


def errors(output: str) -> list[str]:
    """Return the errors that mystmd reports, each once, with the page that it stands below."""
    found, page = [], ""
    for line in output.splitlines():
        if re.fullmatch(r"[\w.-]+\.(md|ipynb)", line.strip()):
            page = line.strip()
        elif "⛔" in line and not _OTHERS.search(line):
            found.append(f"{page}: {line.strip(' -⛔️')}")
    return list(dict.fromkeys(found))


def copy(folder: Path) -> int:
    """Copy the pages as they would be read, and return how many there are."""
    pages = [path for path in sorted((ROOT / "book").iterdir()) if path.suffix in (".md", ".ipynb")]
    (folder / "book/_ext").mkdir(parents=True)
    for path in (*pages, ROOT / "book/references.bib", ROOT / "book/myst.yml", ROOT / "book/_ext/play.mjs"):
        shutil.copyfile(path, folder / path.relative_to(ROOT))
    shutil.copytree(ROOT / "figures", folder / "figures")
    for path in ROOT.glob("*.md"):
        shutil.copyfile(path, folder / path.name)
    for name in ("api", "internals"):
        (folder / f"book/{name}.md").write_text(f"({name})=\n# Reference\n")
    return len(pages)


def main() -> int:
    command = sys.argv[1:] or COMMAND
    if shutil.which(command[0]) is None:
        print(f"{command[0]} is missing: install Node.js, which brings npx, to check the pages with mystmd")
        return 2
    with tempfile.TemporaryDirectory() as name:
        count = copy(Path(name))
        ran = subprocess.run(
            [*command, "build", "--site", "--strict"], cwd=f"{name}/book", capture_output=True, text=True
        )
    output = ran.stdout + ran.stderr
    if "Built" not in output:
        print(output)
        return 1
    found = errors(output)
    print("\n".join(found) if found else f"mystmd parses {count} pages")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
