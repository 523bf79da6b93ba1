"""The command `odebench` itself, with which all others are registered."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="odebench",
    help="The robustness benchmark for Neural ODE image classifiers.",
    epilog="First time: odebench run --model kd-ode --attack pgd, then: odebench leaderboard",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from odebench import __version__

        print(f"odebench {__version__}")
        raise typer.Exit
