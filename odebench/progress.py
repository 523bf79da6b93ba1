"""How long work tells of its progress without printing: the library calls, the command line draws."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Step(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        """Tell that `amount` more is done; `note` is a short state such as a loss."""


class Progress(Protocol):
    """Where work reports to."""

    def track(self, name: str, *, total: float, done: float = 0) -> AbstractContextManager[Step]:
        """Begin a piece of work of `total` units, of which `done` are done already."""

    def say(self, line: str) -> None:
        """Tell one line that is worth keeping."""


class _SilentStep:
    def advance(self, amount: float = 1, *, note: str = "") -> None:
        pass


class Silent:
    """Progress that nobody watches."""

    @contextmanager
    def track(self, name: str, *, total: float, done: float = 0) -> Iterator[Step]:
        yield _SilentStep()

    def say(self, line: str) -> None:
        pass


SILENT: Progress = Silent()
