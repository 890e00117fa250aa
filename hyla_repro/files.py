"""Files that are whole or not there, and that say when they were altered: atomic writes, digests, sealed JSON."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of content."""
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its path only ever holds the old or the new content, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # What fails after opening does not say where.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def seal(facts: dict[str, Any]) -> bytes:
    """Return facts as JSON that ends in the digest of its own text, which is computed with the digest left empty."""
    text = json.dumps(facts | {"sha256": ""}, indent=1) + "\n"
    return text.replace('"sha256": ""', f'"sha256": "{sha256(text.encode())}"').encode()


def unseal(content: bytes) -> dict[str, Any]:
    """Return the facts of a sealed text.

    Raises: ValueError if any byte of it was altered.
    """
    match = re.search(rb'"sha256": "([0-9a-f]{64})"\n}\n\Z', content)
    if not match or sha256(content.replace(match[1], b"")) != match[1].decode():
        raise ValueError("its digest does not match")
    facts = json.loads(content)
    del facts["sha256"]
    return facts
