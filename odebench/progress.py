"""How long-running work reports its progress: the library calls these methods, and the command line draws them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """A piece of work in progress."""

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        """Reports that `amount` more units are done; `note` is a short state such as a loss."""


class Progress(Protocol):
    """The receiver of progress reports."""

    def track(self, name: str, *, total: float, done: float = 0) -> AbstractContextManager[Step]:
        """Begins a piece of work of `total` units, of which `done` are already done."""

    def say(self, line: str) -> None:
        """Reports one line that is worth keeping."""


class _SilentStep:
    def advance(self, amount: float = 1, *, note: str = "") -> None:
        pass


class Silent:
    """Progress that is reported to nobody."""

    @contextmanager
    def track(self, name: str, *, total: float, done: float = 0) -> Iterator[Step]:
        yield _SilentStep()

    def say(self, line: str) -> None:
        pass


SILENT: Progress = Silent()
