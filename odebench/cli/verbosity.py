"""How much is said on standard error while something runs: -q and -v, options of every command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, get_type_hints

import typer


class Verbosity(IntEnum):
    """Warnings and errors alone; progress as well; also what stages and checks took, and the weights."""

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


def _telling(level: Verbosity) -> Callable[[bool], bool]:
    def chosen(value: bool) -> bool:
        if value:
            set_verbosity(level)
        return value

    return chosen


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_telling(Verbosity.QUIET), help="Say only warnings, errors and the result."),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_telling(Verbosity.VERBOSE), help="Also say what each part took."),
]


def with_verbosity(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that also takes -q and -v, whose values are not passed on."""

    @functools.wraps(function)
    def command(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        return function(*arguments, **options)

    hints = {**get_type_hints(function, include_extras=True), "quiet": Quiet, "verbose": Verbose}
    own = [one.replace(annotation=hints[one.name]) for one in inspect.signature(function).parameters.values()]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hints[name])
        for name in ("quiet", "verbose")
    ]
    command.__annotations__ = hints
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return command
