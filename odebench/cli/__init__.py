"""The command line: results to standard output, progress and errors to standard error, one line an error."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

import typer

from odebench.cli.root import app
from odebench.errors import OdebenchError, plain_words
from odebench.io.text import shown_streams

# isort: off
# The commands register themselves with the app, in this order.
import odebench.cli.run
import odebench.cli.show
import odebench.cli.diagnose
import odebench.cli.judge
import odebench.cli.sweep
import odebench.cli.leaderboard
import odebench.cli.examples
import odebench.cli.claims
import odebench.cli.compare
import odebench.cli.entry
import odebench.cli.verify
import odebench.cli.check_pr
import odebench.cli.list  # noqa: F401
# isort: on


_LONGEST = 2000
"""Characters of a line about an error."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error of ours or the data, 2 wrong usage, 130 interrupted."""
    with suppress(ValueError, AttributeError):  # a system without this signal
        signal.signal(signal.SIGTERM, _terminated)
    code = _exit_code()
    try:
        sys.stdout.flush()
    except OSError:  # said already; the interpreter would try again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


class _TerminatedError(BaseException):
    """The process was asked to end: scratch folders and processes go, as after Ctrl-C."""


def _terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _TerminatedError


def _exit_code() -> int:
    # A closed stream is None: what would be said there goes nowhere, and the work is done all the same.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with shown_streams():
        return _code_of_command()


def _code_of_command() -> int:
    try:
        code = app(prog_name="odebench", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:
            _complain("interrupted; a training resumes after its last complete epoch, an attack starts over")
        return code if isinstance(code, int) else 0
    except OdebenchError as error:
        return _complain(str(error), error.exit_code)
    except _TerminatedError:
        return _complain("ended; a training resumes after its last complete epoch, an attack starts over", 143)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted; a training resumes after its last complete epoch, an attack starts over", 130)
    except BrokenPipeError:  # the reader has gone: nothing more can be said
        return 1
    except OSError as error:
        return _complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except Exception as error:
        message: Any = getattr(error, "format_message", None)
        if message is not None:  # a wrong option or argument
            return _complain(plain_words(message()) + _values(error), int(getattr(error, "exit_code", 2)))
        if os.environ.get("ODEBENCH_DEBUG"):
            raise
        line = " ".join(str(error).split())[:300]
        return _complain(f"{type(error).__name__}: {line} (ODEBENCH_DEBUG=1 shows where; please report it)")


def _values(error: Exception) -> str:
    """The help of an option or argument that is missing: it says what there is, and which command lists it."""
    # typer brings its own copy of click from some version on, so the class is known by its name alone
    said = getattr(getattr(error, "param", None), "help", None) if type(error).__name__ == "MissingParameter" else None
    return f" {said}" if said else ""


def _complain(line: str, code: int = 1) -> int:
    if line:  # there is nothing to add where help was shown
        line = " ".join(line.splitlines())
        print(f"odebench: {line if len(line) <= _LONGEST else line[:_LONGEST] + '...'}", file=sys.stderr)
    return code
