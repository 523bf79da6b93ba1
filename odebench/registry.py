"""Names of models, attacks and data sets: strings until they are used, built in or from an entry point."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from odebench.errors import OdebenchError, unknown_name


class RegistryError(OdebenchError):
    """A plugin clashes with another name, or cannot be loaded."""


@dataclass(frozen=True)
class RegistryEntry:
    """A name, where its object lives ("module:attribute"), one line about it, and who brings it."""

    name: str
    target: str
    summary: str
    origin: str


class Registry:
    """Names of one kind. Built-in names cannot be shadowed; two plugins with one name are an error.

    Plugins announce themselves by an entry point of `group`. Nothing is imported before `load`.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, tuple[str, str]]) -> None:
        self.kind = kind
        self.group = group
        self._builtins = {
            name: RegistryEntry(name, target, summary, "built in") for name, (target, summary) in builtins.items()
        }

    def entries(self) -> dict[str, RegistryEntry]:
        """All entries by name. Raises RegistryError, naming both sides, where two claim one name."""
        found = dict(self._builtins)
        for point in _points(entry_points, self.group, tuple(sys.path)):
            entry = RegistryEntry(
                point.name, point.value, f"from the plugin {_distribution(point)}", _distribution(point)
            )
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

    def load(self, name: str) -> Any:
        """The definition that `name` stands for, imported now. Raises UsageError or RegistryError."""
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


@lru_cache(maxsize=32)
def _points(find: Callable[..., Iterable[EntryPoint]], group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group, in order; looked for once a search path, since a protocol asks very often."""
    return tuple(sorted(find(group=group), key=lambda point: (point.name, point.value)))


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unnamed distribution"
