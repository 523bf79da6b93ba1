"""The errors that a user may see. Each message says what was given, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class OdebenchError(Exception):
    """An error whose message is one plain line, which the command line prints before it exits with `exit_code`."""

    exit_code = 1


class UsageError(OdebenchError):
    """A request that cannot be met: an unknown name, a value out of range."""

    exit_code = 2


class DatasetError(OdebenchError):
    """A data set is missing, incomplete or damaged."""


class ModelError(OdebenchError):
    """A model cannot be built, or does not behave as a classifier."""


class ModelProcessError(OdebenchError):
    """A model cannot be run in a process of its own, or its process did not keep to the protocol."""


class ModelAnswerError(ModelProcessError):
    """A model in a process of its own raised an error instead of an answer; its process goes on."""


class WeightError(OdebenchError):
    """A weights file is missing, damaged, unsafe or from another model."""


class AttackError(OdebenchError):
    """An attack failed. A failed attack is never counted as robustness."""


class ResultError(OdebenchError):
    """A result cannot be read, or contradicts itself or another one."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the nearest match and the list of known names."""
    names = sorted(set(known))
    return UsageError(f"unknown {kind} {name!r};{nearest(name, names)} known: {', '.join(names) or 'none'}")


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """The question whether the most similar of some names was meant, with a space in front; empty if none is alike."""
    near = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=cutoff)
    return f" did you mean {near[0]!r}?" if near else ""


def first_problem(error: ValidationError) -> str:
    """The first value of a file that does not fit its schema: where it is, the value, and what is expected."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:_MOST_SHOWN] or "the file"
    given = "" if first["type"] in ("missing", "extra_forbidden") else _given(first["input"])
    return " ".join(f"{where}{given}: {in_words(first)}".split())


def _given(value: object) -> str:
    """A value as a sentence names it; nothing for those that hold others."""
    if not isinstance(value, str | int | float):
        return ""
    shown = ascii(value)
    return f" cannot be {shown if len(shown) <= _MOST_SHOWN else f'{shown[: _MOST_SHOWN - 3]}...'}"


_MOST_SHOWN = 80
_NAME = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}$"
_WORDS = (
    ("Value error, ", ""),
    (", unable to parse string as an integer", ""),
    (", unable to parse string as a number", ""),
    ("Extra inputs are not permitted", "it is unknown; remove it"),
    ("Field required", "it is missing"),
    ("Input should be an object", "it must be keys and values"),
    ("Input should be a valid dictionary or instance of", "it must be the keys and values of a"),
    ("Input should be", "it must be"),
    ("a valid tuple", "a list"),
    ("a valid list", "a list"),
    ("a valid array", "a list"),
    ("a valid dictionary", "keys and values"),
    ("a valid string", "a text"),
    ("a valid integer, got a number with a fractional part", "a whole number"),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    ("a valid boolean", "true or false"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "above"),
    ("less than", "below"),
    ("String should match pattern '^[0-9a-f]{64}$'", "it must be 64 of the letters 0-9 and a-f"),
    (f"String should match pattern '{_NAME}'", "it must be a name: no slash, no dot in front, at most 100 characters"),
    ("String should match pattern", "it must be of the form"),
    ("String should have at least 1 character", "it must not be empty"),
    ("String should have", "it must have"),
    ("Tuple should have", "it must have"),
    ("List should have", "it must have"),
    (" after validation", ""),
)


def in_words(error: Mapping[str, Any]) -> str:
    """What is expected where a value does not fit a schema, in plain words."""
    return plain_words(str(error["msg"]))


def plain_words(said: str) -> str:
    """What pydantic says of a value, in plain words; any other text as it is."""
    for theirs, ours in _WORDS:
        said = said.replace(theirs, ours)
    return said


def invalid_value(error: ValidationError) -> UsageError:
    """The error for the first value that does not fit a specification: its name, the value, what is expected."""
    first = error.errors()[0]
    expected = in_words(first)
    where = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{where} cannot be {first['input']!r}: {expected}" if where else expected)
