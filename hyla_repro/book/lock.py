"""Which rules were fixed when: data/rules.lock holds every statement and rule that a claim ever had, oldest first."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hyla_repro.errors import DataError
from hyla_repro.files import sha256
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.results.claims import Claim

FILE = "rules.lock"


class Entry(NamedTuple):
    """A statement and its rule, from the day that they were fixed.

    Args:
        digest: of both.
        known: whether runs that decide it were finished by then.
        said: what this rule says of the runs that were finished when another replaced it; None for the last.
        note: why it changed, or what was known.
    """

    date: str
    statement: str
    rule: str
    digest: str
    known: bool
    said: str | None
    note: str


def digest(statement: str, rule: str) -> str:
    """Return sixteen digits that change with any letter of the two."""
    return sha256(f"{statement}\n{rule}".encode())[:16]


def entries(folder: DataFolder) -> dict[str, list[Entry]]:
    """Return the history of every claim by its id.

    Raises: DataError for a file that is no lock, or whose entries are not what their digests say.
    """
    try:
        found = {
            name: [Entry(**entry) for entry in versions] for name, versions in json.loads(folder.read(FILE)).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{FILE} cannot be read ({error}): restore it with `git checkout data`") from error
    for name, versions in found.items():
        for entry in versions:
            if entry.digest != digest(entry.statement, entry.rule):
                raise DataError(f"{FILE}: the entry of {name} from {entry.date} was altered: restore it with git")
    return found


def problems(claims: Iterable[Claim], locked: Mapping[str, list[Entry]]) -> list[str]:
    """Return what keeps claims and lock apart: a claim that vanished, one that is not locked, one that was changed."""
    now = {claim.id: claim for claim in claims}
    found = [f"{name} was a claim and is none any more: it keeps its place, whatever its runs say"
             for name in locked if name not in now]  # fmt: skip
    for name, claim in now.items():
        if name not in locked:
            found.append(f"{name} is not locked: `hyla-repro lock` does that, before its runs are looked at")
        elif locked[name][-1].digest != digest(claim.statement, claim.rule):
            found.append(f"{name} is not what was locked on {locked[name][-1].date}: `hyla-repro lock --why` says why")
    return found


def add(claims: Iterable[Claim], folder: DataFolder, verdicts: Mapping[str, str], known: bool, why: str) -> list[str]:
    """Lock new and changed claims as of today, and return their ids.

    Args:
        verdicts: what the rules before say of today's runs, by id, for those that are replaced.
        known: whether runs that decide them are finished.
        why: a sentence.

    Raises: ValueError for a claim that vanished, or without a reason.
    """
    locked = entries(folder) if FILE in folder.manifest() else {}
    claims = list(claims)
    vanished = [name for name in locked if name not in {claim.id for claim in claims}]
    if vanished:
        raise ValueError(f"claims vanished: {', '.join(vanished)}; bring them back, also those that fail")
    if not why.strip():
        raise ValueError("why is empty: say in a sentence what is locked, or why it changes")
    today, added = datetime.now(UTC).strftime("%Y-%m-%d"), []
    for claim in claims:
        versions = locked.setdefault(claim.id, [])
        sealed = digest(claim.statement, claim.rule)
        if versions and versions[-1].digest == sealed:
            continue
        if versions:
            versions[-1] = versions[-1]._replace(said=versions[-1].said or verdicts.get(claim.id))
        versions.append(Entry(today, claim.statement, claim.rule, sealed, known, None, why))
        added.append(claim.id)
    folder.write({FILE: dump(locked)})
    return added


def reported(page: str) -> dict[str, str]:
    """Return the verdicts of a report page by claim: what the rules that it was written with say."""
    return dict(re.findall(r"^\| \[([\w-]+)\]\([\w.-]+\) \| \*\*([\w ]+)\*\*", page, re.MULTILINE))


def dump(locked: Mapping[str, list[Entry]]) -> bytes:
    """Return the content of the file."""
    content: dict[str, Any] = {name: [entry._asdict() for entry in versions] for name, versions in locked.items()}
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def rule_changed(versions: Iterable[Entry]) -> bool:
    """Return whether a claim had several rules; its statement may change without."""
    return len({entry.rule for entry in versions}) > 1


def status(versions: list[Entry]) -> str:
    """Return in words when a rule was fixed, and what the first one said if it is another."""
    if not versions:
        return "not locked"
    first, last = versions[0], versions[-1]
    at_first, when = ("after first results" if entry.known else "before its runs" for entry in (first, last))
    if len(versions) == 1:
        return f"fixed {when}, {last.date}"
    if not rule_changed(versions):
        return f"fixed {at_first}, {first.date}; the words of its statement changed {when}, {last.date}"
    said = f"; the first rule ({first.date}) said: {first.said}" if first.said else ""
    return f"changed {when}, {last.date}{said}"
