"""How much is said on standard error while something runs: -q and -v."""

from __future__ import annotations

from enum import IntEnum


class Verbosity(IntEnum):
    """Warnings and errors alone; progress as well; also what each stage cost, and the weights."""

    QUIET = 0
    USUAL = 1
    VERBOSE = 2


_level = Verbosity.USUAL


def set_verbosity(level: Verbosity) -> None:
    """Sets how much this command says."""
    global _level
    _level = level


def verbosity() -> Verbosity:
    """How much this command says."""
    return _level
