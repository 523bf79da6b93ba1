"""The files of results: one JSON file per evaluation, read strictly, written whole, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odebench.errors import ResultError, first_problem
from odebench.io.files import write_atomically
from odebench.io.text import unseen
from odebench.protocol.spec import Evaluation
from odebench.result.consistency import disagreements
from odebench.result.schema import READABLE_VERSIONS, Result

EXAMPLES_FILE = "examples.json"
"""The file in folders of images beside results; it is not a result."""
MAX_BYTES = 200_000_000
"""A result of a million images and fifty epsilons is smaller."""


def result_path(folder: Path, evaluation: Evaluation) -> Path:
    """The path of an evaluation's result: <model>/<data set>-<attack>-<norm>-<run key>.json."""
    model, dataset = evaluation.model.name, evaluation.dataset.name
    name = f"{dataset}-{evaluation.attack.name}-{evaluation.threat_model.norm}-{evaluation.run_key[:16]}.json"
    return folder / model / name


def result_json(result: Result) -> str:
    """The text of a result file: indented JSON, with a new line at the end."""
    return json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_result(result: Result, folder: Path | str, *, replace: bool = False) -> Path:
    """Writes a result below `folder`, whole or not at all, and returns its path.

    Raises FileError, and unless `replace` ResultError where there is a result of this run key with other letters.
    """
    path = result_path(Path(folder), result.evaluation)
    if path.exists() and not replace and read_result(path).letters != result.letters:
        raise ResultError(
            f"{path} has the same run key and other letters: another model of the same class and weights? Tell them "
            "apart by evaluate(..., name=...) or arguments=..., or replace it"
        )
    write_atomically(path, result_json(result).encode())
    return path


def read_result(path: Path | str) -> Result:
    """Reads one result and recomputes its figures from its letters.

    Raises ResultError, in one line, for a file that is truncated, of another schema version, with unknown keys, with
    strings for numbers, or that contradicts itself.
    """
    path = Path(path)
    if path.suffix != ".json" and path.is_file():
        raise ResultError(f"{path} is not a result, whose name ends in .json")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ResultError(f"{path} is not a result: larger than {MAX_BYTES / 1e6:g} MB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path} is not whole JSON ({error}); delete it and run the evaluation again") from error
    return parse_result(text, path)


def parse_result(text: str, path: Path) -> Result:
    """The result of a text; `path` names it in errors, which are those of `read_result`."""
    try:
        raw: Any = json.loads(text, object_pairs_hook=_each_key_once)
    except _TwiceError as error:
        raise ResultError(f"{path} is not a result: the key {str(error)[:80]!a} appears twice in one object") from error
    except RecursionError as error:
        raise ResultError(f"{path} is not a result: nested too deeply") from error
    except ValueError as error:
        raise ResultError(f"{path} is not whole JSON ({error}); delete it and run the evaluation again") from error
    if (hidden := _hidden(raw, text)) is not None:
        raise ResultError(f"{path} is not a result: {hidden!a} has characters that cannot be seen, or that hide others")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(raw, dict) and (type(version) is not int or version not in READABLE_VERSIONS):
        version_text = repr(version)[:40]
        raise ResultError(
            f"{path} has schema version {version_text}, this odebench reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}; run the evaluation again or use the odebench that wrote it"
        )
    try:
        result = Result.model_validate_json(text)
    except ValidationError as error:
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ResultError(f"{path} is not a result: {first_problem(error)}{more}") from error
    for what in disagreements(result):
        raise ResultError(f"{path} is not a result: {' '.join(what.split())}")
    return result


def _hidden(raw: Any, text: str) -> str | None:
    """The first text among the keys and values of a JSON document that has unseen characters; None if none has."""
    if text.isascii() and "\\" not in text and "\x7f" not in text:
        return None  # nearly all results
    waiting: list[Any] = [raw]
    while waiting:
        value = waiting.pop()
        if (
            isinstance(value, str)
            and not value.isprintable()
            and any(letter in "\n\t" or unseen(letter) for letter in value)
        ):
            return value[:80]
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
    return None


class _TwiceError(Exception):
    """A key appears twice in one object, so that readers differ in the value that they take."""


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def result_files(folder: Path) -> Iterator[Path]:
    """All files below `folder` that should be results, by path."""
    yield from sorted(path for path in folder.rglob("*.json") if is_result_name(path.name))


def is_result_name(name: str) -> bool:
    """Whether a file of this name should be a result: JSON, not hidden, not the file of examples."""
    return name.endswith(".json") and not name.startswith(".") and name != EXAMPLES_FILE
