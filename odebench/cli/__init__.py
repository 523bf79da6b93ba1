"""The command line: results to standard output, progress and errors to standard error, one line an error."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from odebench.errors import OdebenchError

app = typer.Typer(
    name="odebench",
    help="The robustness benchmark for Neural ODE image classifiers.",
    epilog="First time: odebench run --model kd-ode --attack pgd, then: odebench leaderboard",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command line and exits: 0 done, 1 an error of ours or the data, 2 wrong usage, 130 interrupted."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = app(prog_name="odebench", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:
            _complain("interrupted; the same command goes on where it stopped")
        return code if isinstance(code, int) else 0
    except OdebenchError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command goes on where it stopped", 130)
    except BrokenPipeError:
        # The reader has gone: nothing more can be said, also not when the interpreter flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except Exception as error:
        message: Any = getattr(error, "format_message", None)
        if message is not None:  # a wrong option or argument
            return _complain(message().replace("\n", " "), int(getattr(error, "exit_code", 2)))
        if os.environ.get("ODEBENCH_DEBUG"):
            raise
        line = " ".join(str(error).split())[:300]
        return _complain(f"{type(error).__name__}: {line} (ODEBENCH_DEBUG=1 shows where; please report it)")


def _complain(line: str, code: int = 1) -> int:
    print(f"odebench: {line}", file=sys.stderr)
    return code


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from odebench import __version__

        print(f"odebench {__version__}")
        raise typer.Exit


# The commands register themselves with the app.
from odebench.cli import run, board, listing  # noqa: E402, I001

__all__ = ["app", "board", "listing", "main", "run"]
