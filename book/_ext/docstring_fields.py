"""Sphinx extension: let this project's docstrings read well, on top of napoleon, which takes care of `Args:`.

One-line sections (`Returns: text`, and `Source:` and `Differs:`, which are our own) become fields, and an indented
formula becomes a literal block. Signatures and fields lose what says nothing to a reader.
"""

import re
from typing import Any

from sphinx.application import Sphinx

_FIELD = re.compile(r"(Returns|Raises|Source|Differs): +(\S.*)")
_ERROR = re.compile(r"([\w.]*(?:Error|Exception)) (.*)")


def _fields(lines: list[str]) -> list[str]:
    """Turn `Returns: text` and the lines that belong to it into `:returns: text`."""
    result, inside = [], False
    for line in lines:
        match = _FIELD.match(line)
        inside = bool(match) or (inside and bool(line.strip()) and not re.match(r"\w+:$", line))
        if match:
            name, text = match.groups()
            error = _ERROR.match(text) if name == "Raises" else None
            field = f":raises {error[1]}: {error[2]}" if error else f":{name}: {text}"
            # Docutils wants a blank line before a field list; between fields it does no harm.
            result += ["", field]
        else:
            result.append(f"    {line.strip()}" if inside else line)
    return result


def _formulas(lines: list[str]) -> list[str]:
    """Mark indented blocks that follow a blank line as literal, those of sections excepted."""
    result: list[str] = []
    last, blank = "", False
    for line in lines:
        indented = line.startswith("    ")
        if indented and blank and last and not last.startswith("    ") and not last.endswith(":"):
            result += [".. code-block:: text", ""]
        result.append(line)
        last, blank = (line, False) if line.strip() else (last, True)
    return result


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring's lines in place, before napoleon does."""
    if lines and re.match(r"Alias for field number \d+", lines[0]):
        lines.clear()  # Python's own words on a field of a NamedTuple, whose name and type say more.
        return
    lines[:] = _fields(_formulas(lines))
    if what in ("attribute", "data", "property"):
        # Napoleon takes what precedes a colon on such a docstring's first line for a type; shield it by a comment.
        lines[:0] = ["..", ""]


def shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show a validated field, `Annotated[int, Ge(ge=1)]`, as the `int` that it is."""
    if signature is not None:
        signature = re.sub(r"~?(?:typing\.)?Annotated\[([^,\]]+),[^\]]*\]", r"\1", signature)
    return signature, returns


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", shorten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
