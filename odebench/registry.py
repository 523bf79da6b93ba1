"""Names of models, attacks and data sets, built in or from plugins."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from odebench.errors import OdebenchError, unknown_name


class RegistryError(OdebenchError):
    """A plugin clashes with another name, or cannot be loaded."""


@dataclass(frozen=True)
class RegistryEntry:
    """A name, where its definition is ("module:attribute"), one line about it, and "built in" or its plugin."""

    name: str
    target: str
    summary: str
    origin: str


class Registry:
    """The names of one kind: models, attacks or data sets.

    Built-in names are those of the definitions in the module `built_in`, in its order. Plugins add names by entry
    points of `group`; their modules are not imported before `load`. No plugin can take a name that is taken.
    """

    def __init__(self, kind: str, group: str, *, built_in: str) -> None:
        self.kind, self.group, self.built_in = kind, group, built_in
        self._lent: dict[str, Any] = {}

    def entries(self) -> dict[str, RegistryEntry]:
        """All entries by name. Raises RegistryError, naming both sides, where two claim one name."""
        found = dict(_built_in(self.built_in))
        for point in _points(entry_points, self.group, tuple(sys.path)):
            origin = _distribution(point)
            entry = RegistryEntry(point.name, point.value, f"from the plugin {origin}", origin)
            other = found.get(entry.name)
            if other is not None and (other.target, other.origin) != (entry.target, entry.origin):
                raise RegistryError(
                    f"two {self.kind}s are called {entry.name!r}: {other.target} ({other.origin}) and "
                    f"{entry.target} ({entry.origin}); rename or uninstall one of them"
                )
            found[entry.name] = entry
        return found

    def entry(self, name: str) -> RegistryEntry:
        """The entry of `name`. Raises UsageError with the nearest match and the list."""
        known = self.entries()
        if name not in known:
            raise unknown_name(self.kind, name, known)
        return known[name]

    @contextmanager
    def lending(self, definitions: Mapping[str, Any]) -> Iterator[None]:
        """Knows these definitions by name, too, while inside; they are listed nowhere."""
        before, self._lent = self._lent, {**self._lent, **definitions}
        try:
            yield
        finally:
            self._lent = before

    def load_built_in(self, name: str) -> Any:
        """The definition of a built-in name; None for any other: to load a plugin's would run its code."""
        return self.load(name) if name in _built_in(self.built_in) else None

    def load(self, name: str) -> Any:
        """The definition that `name` stands for, imported now. Raises UsageError for an unknown name, and
        RegistryError for a plugin that cannot be imported or whose definition has another name."""
        if name in self._lent:
            return self._lent[name]
        entry = self.entry(name)
        which = f"the {self.kind} {name!r} ({entry.origin})"
        try:
            value = load_target(entry.target)
        except Exception as error:  # a plugin's module may raise anything
            raise RegistryError(f"{which} cannot be loaded: {type(error).__name__}: {error}") from error
        if getattr(value, "name", name) != name:
            raise RegistryError(f"{which} cannot be used: {entry.target} calls itself {value.name!r}")
        return value


def load_target(target: str) -> Any:
    """The attribute that "module:attribute" names. Raises ImportError, AttributeError or ValueError."""
    module, separator, attribute = target.partition(":")
    if not separator:
        raise ValueError(f"{target!r} is not of the form module:attribute")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


@cache
def _built_in(module: str) -> dict[str, RegistryEntry]:
    """The entries of the definitions in a module: all its values that have a name and a summary."""
    return {
        value.name: RegistryEntry(value.name, f"{module}:{attribute}", value.summary, "built in")
        for attribute, value in vars(importlib.import_module(module)).items()
        if hasattr(value, "name") and hasattr(value, "summary")
    }


@lru_cache(maxsize=32)
def _points(find: Callable[..., Iterable[EntryPoint]], group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group, sorted. Looked for once per search path, because reading a protocol asks often."""
    return tuple(sorted(find(group=group), key=lambda point: (point.name, point.value)))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed distribution"
