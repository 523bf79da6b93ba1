"""YAML files that users write: read strictly, with the line of every value for errors."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from odebench.errors import OdebenchError, UsageError, in_words
from odebench.io.text import unseen
from odebench.io.yaml_loader import Loader, QuickLoader

Where = tuple[str | int, ...]
"""The place of a value: keys of mappings and positions in lists, from the outside in."""

Parts = Mapping[tuple[str, ...], type[BaseModel]]
"""The pydantic models inside a model, by the keys that lead to them."""

Item = TypeVar("Item")
Model = TypeVar("Model", bound=BaseModel)


MAX_BYTES = 1_000_000
MAX_NUMBER = 300
"""The most characters of a number: Python takes long to read much longer ones, and refuses to write them."""
_DECIMAL = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9_]*)", re.ASCII),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(e[-+]?[0-9]+)?|[-+]?\.inf|\.nan", re.ASCII | re.IGNORECASE
    ),
}
"""Numbers, by their tag, that are the same to YAML and to a reader: not 0764 and 8:20, which are 500."""
_ODD = re.compile("\t|\ufeff|!|[|>][-+0-9]*#")
"""Where libyaml reads other than PyYAML: tabs, byte order marks, tags, a comment after the mark of a block."""


class DocumentError(UsageError):
    """A value of a file is wrong. The message is the file, the `line`, if one is known, and what is `said`."""

    def __init__(self, source: str, line: int | None, said: str) -> None:
        super().__init__(f"{source}{'' if line is None else f', line {line}'}: {said}")
        self.line = line
        self.said = said


@dataclass(frozen=True)
class Document:
    """The content of a YAML file and the line of each value. `source` is the name of the file in errors."""

    source: str
    value: Any
    lines: Mapping[Where, int]

    def line(self, where: Where) -> int:
        """The line of a value, or of the nearest one around it that the file has."""
        while where not in self.lines:
            where = where[:-1]
        return self.lines[where]

    def error(self, where: Where, message: str) -> DocumentError:
        """An error about the value at `where`."""
        return DocumentError(self.source, self.line(where), message)

    def blame(self, where: Where, call: Callable[[], Item]) -> Item:
        """What `call` returns; an OdebenchError that it raises becomes one about the value at `where`."""
        try:
            return call()
        except DocumentError:
            raise
        except OdebenchError as error:
            raise self.error(where, str(error)) from error

    def check_distinct(self, where: Where, values: Sequence[Any], what: str) -> None:
        """Raises DocumentError if a list at `where` has one value twice; `what` is what it lists."""
        for index, value in enumerate(values):
            first = values.index(value)
            if first < index:
                raise self.error(
                    (*where, index),
                    f"{what} {_written(value)} appears twice, first in line {self.line((*where, first))}; remove one",
                )

    def check_known(self, where: Where, given: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raises DocumentError, with the nearest known key, for a key at `where` that is not known."""
        for key in given:
            if key not in known:
                raise self.error((*where, key), f"unknown {what} {key!r};{near_word(key, known)}")

    def validate(self, model: type[Model], parts: Parts) -> Model:
        """The document as a pydantic model; `parts` are the models inside it, by their keys without positions. Raises
        DocumentError for the first value that does not fit, with the nearest known key for an unknown one."""
        found, errors = self.check(model, parts)
        if found is None:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise DocumentError(self.source, errors[0].line, f"{errors[0].said}{more}")
        return found

    def check(self, model: type[Model], parts: Parts) -> tuple[Model | None, list[DocumentError]]:
        """The document as a pydantic model and no errors, or None and all errors, of which `validate` raises one."""
        try:
            return model.model_validate(self.value), []
        except ValidationError as error:
            # a missing key is often one that is misspelt, and the misspelt key says more
            found = sorted(
                _innermost(error.errors()[:MAX_ERRORS]),
                key=lambda one: (one["type"] == "missing", self.line(one["loc"])),
            )
            return None, [self.error(one["loc"], _described(one, model, parts)) for one in found]


MAX_ERRORS = 100
"""The most errors that are reported: a file of thousands of wrong keys is not worth more."""


def near_word(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: the nearest known one, and all of them."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f" did you mean {near[0]!r}?" if near else "") + f" known: {', '.join(names)}"


def read_document(path: Path) -> Document:
    """A YAML file with its lines. Raises DocumentError if it cannot be read, is not YAML, or has a key twice."""
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DocumentError(source, None, f"it is larger than {MAX_BYTES / 1e6:g} MB")
        return parse_document(data.decode("utf-8"), source)
    except OSError as error:
        raise DocumentError(source, None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        said = f"it is not text in UTF-8: {error.reason} at byte {error.start}"
        raise DocumentError(source, None, said) from error


def parse_document(text: str, source: str) -> Document:
    """The YAML of a text, named `source` in errors. Raises DocumentError as `read_document` does."""
    try:
        if QuickLoader is not None and not _ODD.search(text):
            with suppress(yaml.YAMLError):  # which the other says in its words
                return _parsed(QuickLoader(text), source)
        return _parsed(Loader(text), source)
    except RecursionError as error:
        raise DocumentError(source, None, "it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise DocumentError(source, line, f"this is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DocumentError(source, None, f"this is not YAML: {' '.join(str(error).split())}") from error


def _parsed(loader: yaml.SafeLoader, source: str) -> Document:
    root = loader.get_single_node()
    if root is None:
        raise DocumentError(source, None, "it is empty")
    lines: dict[Where, int] = {}
    value = _value(loader, root, (), lines, source)
    return Document(source, value, lines)


def _value(loader: yaml.SafeLoader, node: yaml.Node, where: Where, lines: dict[Where, int], source: str) -> Any:
    """The plain value of a node; enters the lines of all values in it into `lines`."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*where, index), lines, source) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        if unseen(node.value):
            said = f"{_written(node.value)} has characters that cannot be seen, or that hide others; remove them"
            raise DocumentError(source, node.start_mark.line + 1, said)
        if len(node.value) > MAX_NUMBER and node.tag in _DECIMAL:
            said = f"{_written(node.value)} is a number of more than {MAX_NUMBER} characters"
            raise DocumentError(source, node.start_mark.line + 1, said)
        try:
            value = loader.construct_object(node, deep=True)
        # a tag such as !!int before a text that is not one
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            said = f"{_written(node.value)} is not what YAML reads it as ({kind}); put it in quotes"
            raise DocumentError(source, node.start_mark.line + 1, said) from error
        if node.tag in _DECIMAL and not _DECIMAL[node.tag].fullmatch(node.value):
            said = f"YAML does not read {_written(node.value)} as decimal (0764 and 8:20 are 500); write it so"
            raise DocumentError(source, node.start_mark.line + 1, said)
        return value
    loader.flatten_mapping(node)
    found: dict[str, Any] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise DocumentError(source, line, "a key is one word, not a list or keys and values")
        name = str(key.value)
        if unseen(name) or len(name) > MAX_NUMBER:
            said = f"{_written(name)} is not a key: it is too long, or has characters that cannot be seen"
            raise DocumentError(source, line, said)
        place = (*where, name)
        if name in found:
            first = lines[place]
            raise DocumentError(source, line, f"the key {name!r} appears twice, first in line {first}")
        lines[place] = line
        found[name] = _value(loader, item, place, lines, source)
    return found


def _described(error: Any, model: type[BaseModel], parts: Parts) -> str:
    """What is wrong with one value, and what is expected."""
    where: Where = error["loc"]
    inside = tuple(part for part in where[:-1] if isinstance(part, str))
    known = parts.get(inside) if inside else model
    if error["type"] == "extra_forbidden" and known is not None:
        return f"unknown key {where[-1]!r};{near_word(str(where[-1]), known.model_fields)}"
    if error["type"] == "missing":
        return f"{_spelled(where[:-1])}has no {str(where[-1])!r}; add it"
    if error["type"] == "too_short" and error["input"] in ([], ()):
        field = None if known is None else known.model_fields.get(str(where[-1]))
        strike = "" if field is not None and field.is_required() else ", or remove the line"
        return f"{_spelled(where)}is empty; name at least one{strike}"
    expected = in_words(error)
    if error["type"] in _NUMBERS and (number := _number_in(error["input"])) is not None:
        expected = f"YAML reads this as text; write {number} without quotes"
    given = "" if isinstance(error["input"], Mapping) else f"cannot be {_written(error['input'])}: "
    return f"{_spelled(where)}{given}{expected}" if given else f"{_spelled(where).strip()}: {expected}"


_NUMBERS = ("float_type", "int_type", "float_parsing", "int_parsing")


def _number_in(value: Any) -> str | None:
    """A number that YAML reads as text, such as 1e-3, in the form that YAML reads as a number; None for other texts."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    plain = repr(number)
    return plain if "e" not in plain or "." in plain else plain.replace("e", ".0e")


def _innermost(errors: Sequence[Any]) -> list[Any]:
    """The errors without those that only follow from others, such as a list too short without its bad items."""
    places = [one["loc"] for one in errors]
    return [
        one
        for one in errors
        if not any(len(place) > len(one["loc"]) and place[: len(one["loc"])] == one["loc"] for place in places)
    ]


def _spelled(where: Where) -> str:
    """The keys of a place and a space, such as "sections.models "; empty for the whole file."""
    keys = [part for part in where if isinstance(part, str) and part.isidentifier()]
    return f"{'.'.join(keys)} " if keys else ""


def _written(value: Any) -> str:
    """A value as an error quotes it, at most 60 characters."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
