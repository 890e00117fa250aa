"""Sphinx extension: let this project's docstrings read well, on top of napoleon, which takes care of `Args:`.

One-line sections (`Returns: text`, and `Source:` and `Differs:`, which are our own) become fields, and an indented
formula becomes a literal block. Words in quotes are code, and constants list their entries. Signatures and fields lose
what says nothing to a reader, and show the value of a default that the source names.
"""

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

_FIELD = re.compile(r"(Returns|Raises|Source|Differs): +(\S.*)")
_ERROR = re.compile(r"([\w.]*(?:Error|Exception)) (.*)")
# What is code already, or else a word in quotes, alone, as a keyword's value, or in a pair such as ("attn", 0).
_QUOTED = re.compile(r'(``.+?``|`[^`]+`)|(\("[a-z]\w*", \w+\)|(?:\b\w+=)?"[a-z][\w:]*")')


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


def _literals(lines: list[str]) -> list[str]:
    """Mark words in quotes as code, which typographic quotes would spoil."""
    return [_QUOTED.sub(lambda match: match[1] or f"``{match[2]}``", line) for line in lines]


def _meaning(value: Any) -> str:
    """Say what an entry of a constant is: its fields, what a function's docstring begins with, or the value itself."""
    if inspect.isclass(value):
        return f"``{value.__name__}``"
    if hasattr(value, "_asdict"):
        return ", ".join(f"{name} ``{field!r}``" for name, field in value._asdict().items())
    if callable(value):
        return (inspect.getdoc(value) or value.__name__).splitlines()[0]
    return ", ".join(f"``{part!r}``" for part in (value if isinstance(value, tuple) else (value,)))


def _entries(value: Any, *keys: Any) -> list[str]:
    """Return the entries of a constant as a list, those of nested mappings with all their keys."""
    if isinstance(value, Mapping):
        return [line for key, part in value.items() for line in _entries(part, *keys, key)]
    if isinstance(value, list):
        return [f"- {_meaning(part)}" for part in value]
    return [f"- {', '.join(f'``{key!r}``' for key in keys)}: {_meaning(value)}"]


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring's lines in place, before napoleon does."""
    if lines and re.match(r"Alias for field number \d+", lines[0]):
        lines.clear()  # Python's own words on a field of a NamedTuple, whose name and type say more.
        return
    if what == "data" and isinstance(obj, (Mapping, list)):
        lines += ["", *_entries(obj), ""]
    lines[:] = _fields(_formulas(_literals(lines)))
    if what in ("attribute", "data", "property"):
        # Napoleon takes what precedes a colon on such a docstring's first line for a type; shield it by a comment.
        lines[:0] = ["..", ""]


def of_fields(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show a validated class by its fields' types: pydantic's own signature has the conditions, too."""
    if not (inspect.isclass(obj) and issubclass(obj, BaseModel)):
        return signature, returns
    parameters = [
        inspect.Parameter(
            field,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if info.is_required() else info.default,
            annotation=info.annotation,
        )
        for field, info in obj.model_fields.items()
    ]
    return stringify_signature(inspect.Signature(parameters), unqualified_typehints=True), None


def show_values(app: Sphinx, obj: Any, bound_method: bool) -> None:
    """Show what a default is, `10000`, where autodoc preserves the name that the source has for it, `PROBLEMS`."""
    signature = getattr(obj, "__signature__", None)
    if signature is None or not inspect.isfunction(obj):
        return
    code, defaults = obj.__code__, obj.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    values = {**dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True)),
              **(obj.__kwdefaults__ or {})}  # fmt: skip
    parameters = [
        parameter.replace(default=values[name])
        if name in values and _is_literal(values[name]) and not _is_literal(parameter.default)
        else parameter
        for name, parameter in signature.parameters.items()
    ]
    obj.__signature__ = signature.replace(parameters=parameters)


def _is_literal(default: object) -> bool:
    try:
        ast.literal_eval(repr(default))
    except (SyntaxError, ValueError):
        return False
    return True


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", of_fields)
    app.connect("autodoc-before-process-signature", show_values, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
