"""What can be written into an entry.yaml without its author: sha256, bytes and parameters of the weights files."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odebench.errors import WeightError
from odebench.io.files import sha256_file, write_atomically
from odebench.io.safetensors_file import read_header
from odebench.io.yaml_document import Document, DocumentError, Where, parse_document, read_document
from odebench.submission.entry import ENTRY_FILE, Entry, shared_weights

_FILLED: dict[str, Any] = {"authors": ["-"], "licence": "MIT", "training": {"epochs": 1}}
"""What stands in for a key that is missing or wrong, so that the others can be looked at."""
_LISTS = ("datasets", "weights", "claims")
_OPTIONAL = {"arguments", "teacher", "paper", "weights", "claims", "solver"}


def fix_entry(folder: Path) -> list[str]:
    """Writes sha256 and bytes of the weights files in the repository, and the parameters of each data set, and says
    what changed: one line a value. All else of the file stays as it is.

    Raises DocumentError for a file that cannot be read, FileError where it cannot be written.
    """
    path = folder / ENTRY_FILE
    document = read_document(path)
    lines = path.read_bytes().decode("utf-8").splitlines(keepends=True)
    said = []
    expected = deepcopy(document.value)
    # from the end, since a line that is added moves those below
    for where, value in sorted(_wanted(folder, document), key=lambda one: document.line(one[0]))[::-1]:
        old = _at(document.value, where)
        if old == value and type(old) is type(value):
            continue
        changed, meant = list(lines), deepcopy(expected)
        _at(meant, where[:-1])[where[-1]] = value
        if _write(changed, document, where, value) and _reads_as("".join(changed), meant):
            lines, expected = changed, meant
            said.append(f"{path}: {_spelled(where)} is now {value}")
        else:
            said.append(f"{path}: write {_spelled(where)}: {value} yourself; its line could not be told")
    if said:
        write_atomically(path, "".join(lines).encode())
    return said[::-1]


def _reads_as(text: str, expected: Any) -> bool:
    try:
        return bool(parse_document(text, "").value == expected)
    except DocumentError:
        return False


def _wanted(folder: Path, document: Document) -> list[tuple[Where, Any]]:
    """The values that the weights files say, by place."""
    found: list[tuple[Where, Any]] = []
    value = document.value if isinstance(document.value, dict) else {}
    uses = {one.get("name"): at for at, one in enumerate(_items(value, "datasets"))}
    for at, weights in enumerate(_items(value, "weights")):
        name = weights.get("file")
        if not isinstance(name, str) or (".." in Path(name).parts[:1] and shared_weights(folder, name) is None):
            continue
        file = shared_weights(folder, name) or folder / name
        try:
            numbers = read_header(file).numbers
            sha256, size = sha256_file(file), file.stat().st_size
        except (WeightError, OSError):
            continue  # which validate reports
        found += [(("weights", at, "sha256"), sha256), (("weights", at, "bytes"), size)]
        if weights.get("dataset") in uses:
            found.append((("datasets", uses[weights.get("dataset")], "parameters"), numbers))
    return list(dict(found).items())


def _items(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = value.get(key)
    return [one if isinstance(one, dict) else {} for one in listed] if isinstance(listed, list) else []


def _at(value: Any, where: Where) -> Any:
    for part in where:
        value = value.get(part) if isinstance(value, dict) else value[part]
    return value


def _write(lines: list[str], document: Document, where: Where, value: Any) -> bool:
    """Writes a value into the line of its key; where there is no such key, after the line of another of its item."""
    key = where[-1]
    text = f'"{value}"' if isinstance(value, str) else str(value)
    if where in document.lines:
        row = document.line(where) - 1
        pattern = re.compile(rf"(?<![\w.])({key}:[ \t]*)(\"[^\"]*\"|'[^']*'|[^\s,}}#]*)")
        changed, count = pattern.subn(lambda match: f"{match[1].rstrip()} {text}", lines[row])
        if count == 1:
            lines[row] = changed
        return count == 1
    others = [place for place in document.lines if place[:-1] == where[:-1]]
    row = document.line(others[-1]) - 1 if others else -1
    match = re.fullmatch(r"(\s*)(- )?\w+:[^{}]*\n?", lines[row]) if others else None
    if match is None or any(document.line(place) == row + 1 for place in others[:-1]):
        return False
    lines[row] = f"{lines[row].rstrip()}\n{match[1]}{'  ' if match[2] else ''}{key}: {text}\n"
    return True


def _spelled(where: Where) -> str:
    return ".".join(str(part) for part in where)


def rest_of(document: Document, folder: Path) -> tuple[Entry, set[int]] | None:
    """The entry without what does not fit the schema, so that all else of it can be looked at, and the lines of what
    was left out; None where too much is missing. Lists lose the items that do not fit."""
    try:
        Entry.model_validate(document.value)
    except ValidationError as error:
        problems = error.errors()
    else:
        return None
    value: dict[str, Any] = deepcopy(document.value)
    dropped: set[tuple[str, int]] = set()
    for problem in problems:
        top, *inner = problem["loc"] or ("",)
        if top in _LISTS and inner and isinstance(inner[0], int):
            dropped.add((str(top), inner[0]))
        elif problem["type"] == "extra_forbidden" or top in _OPTIONAL:
            value.pop(str(top), None)
        elif top == "id":
            value["id"] = folder.name
        elif top in _FILLED:
            value[str(top)] = _FILLED[str(top)]
        else:
            return None
    for key in _LISTS:
        if key in value and isinstance(value[key], list):
            value[key] = [one for at, one in enumerate(value[key]) if (key, at) not in dropped]
    try:
        return Entry.model_validate(value), {document.line(problem["loc"]) for problem in problems}
    except ValidationError:
        return None
