"""YAML files that a user writes: read strictly, with the line of every value at hand for errors."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from odebench.errors import OdebenchError, UsageError

Where = tuple[str | int, ...]
"""Where a value stands: keys of mappings and positions in lists, from the outside in."""

Parts = Mapping[tuple[str, ...], type[BaseModel]]
"""The models inside a model, by the keys that lead to them."""

Item = TypeVar("Item")
Model = TypeVar("Model", bound=BaseModel)


class DocumentError(UsageError):
    """A file says something that cannot be; the message begins with the file and the line."""


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and the line of each of its values. `source` is how errors call the file."""

    source: str
    value: Any
    lines: Mapping[Where, int]

    def line(self, where: Where) -> int:
        """The line of a value, or of the nearest one around it where the file does not spell it out."""
        while where not in self.lines:
            where = where[:-1]
        return self.lines[where]

    def error(self, where: Where, message: str) -> DocumentError:
        """An error about the value at `where`."""
        return DocumentError(f"{self.source}, line {self.line(where)}: {message}")

    def blame(self, where: Where, call: Callable[[], Item]) -> Item:
        """What `call` returns; an error of ours that it raises is one about the value at `where`."""
        try:
            return call()
        except DocumentError:
            raise
        except OdebenchError as error:
            raise self.error(where, str(error)) from error

    def check_distinct(self, where: Where, values: Sequence[Any], what: str) -> None:
        """Raises DocumentError where a list at `where` names one value twice; `what` is what it lists."""
        for index, value in enumerate(values):
            first = values.index(value)
            if first < index:
                raise self.error(
                    (*where, index),
                    f"{what} {_written(value)} stands here twice, first in line {self.line((*where, first))}; "
                    "strike one of them",
                )

    def check_known(self, where: Where, given: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raises DocumentError, with the nearest right word, for a key at `where` that is not known."""
        for key in given:
            if key not in known:
                raise self.error((*where, key), f"unknown {what} {key!r};{near_word(key, known)}")

    def validate(self, model: type[Model], parts: Parts) -> Model:
        """The document as a pydantic model. `parts` are the models inside it, by their keys, lists left out.

        Raises DocumentError for the first value that does not fit, with the nearest right word for an unknown key.
        """
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            # a key that is missing is often one that is misspelt, so this is said first
            found = sorted(
                _innermost(list(error.errors())), key=lambda one: (one["type"] == "missing", self.line(one["loc"]))
            )
            first = found[0]
            where: Where = first["loc"]
            inside = tuple(part for part in where[:-1] if isinstance(part, str))
            known = parts.get(inside) if inside else model
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            if first["type"] == "extra_forbidden" and known is not None:
                message = f"unknown key {where[-1]!r};{near_word(str(where[-1]), known.model_fields)}"
            elif first["type"] == "missing":
                message = f"{_spelled(where[:-1])}has no {str(where[-1])!r}; add it"
            elif first["type"] == "too_short" and first["input"] in ([], ()):
                message = f"{_spelled(where)}is empty; name at least one, or strike the line"
            else:
                expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
                expected = expected.replace("a valid tuple", "a list").replace("a valid dictionary", "keys and values")
                given = "" if isinstance(first["input"], Mapping) else f"cannot be {_written(first['input'])}: "
                message = f"{_spelled(where)}{given}{expected}" if given else f"{_spelled(where).strip()}: {expected}"
            raise self.error(where, f"{message}{more}") from error


def near_word(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words, and all of them, as the end of an error."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return (f" did you mean {near[0]!r}?" if near else "") + f" known: {', '.join(names)}"


def read_document(path: Path) -> Document:
    """A YAML file with its lines. Raises DocumentError for one that cannot be read, is no YAML, or says a key twice."""
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path} is not a text in UTF-8: {error.reason} at byte {error.start}") from error
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise DocumentError(f"{path} is empty")
        lines: dict[Where, int] = {}
        value = _value(loader, root, (), lines, source)
    except RecursionError as error:
        raise DocumentError(f"{path} is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise DocumentError(f"{path}{line}: this is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise DocumentError(f"{path}: this is no YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()
    return Document(source, value, lines)


def _value(loader: yaml.SafeLoader, node: yaml.Node, where: Where, lines: dict[Where, int], source: str) -> Any:
    """The plain value of a node; fills in the lines of all that it holds."""
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*where, index), lines, source) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    loader.flatten_mapping(node)
    found: dict[str, Any] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise DocumentError(f"{source}, line {line}: a key is one word, not a list or keys and values")
        name = str(key.value)
        place = (*where, name)
        if name in found:
            first = lines[place]
            raise DocumentError(f"{source}, line {line}: the key {name!r} stands here twice, first in line {first}")
        lines[place] = line
        found[name] = _value(loader, item, place, lines, source)
    return found


def _innermost(errors: Sequence[Any]) -> list[Any]:
    """The errors without those that only follow from others: a list that is too short without its bad items."""
    places = [one["loc"] for one in errors]
    return [
        one
        for one in errors
        if not any(len(place) > len(one["loc"]) and place[: len(one["loc"])] == one["loc"] for place in places)
    ]


def _spelled(where: Where) -> str:
    """The keys of a place, such as "sections.models", and a space; nothing for the whole file."""
    keys = [part for part in where if isinstance(part, str) and part.isidentifier()]
    return f"{'.'.join(keys)} " if keys else ""


def _written(value: Any) -> str:
    """A value in few words, as an error quotes it."""
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
