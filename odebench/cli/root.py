"""The command `odebench` itself, with which all others are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from odebench.cli.verbosity import Quiet, Verbose, Verbosity, set_verbosity, with_verbosity

Callback = TypeVar("Callback", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command that refuses an option given twice, of which click would take the last, unless it takes several; and
    an empty value, which as a path would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left after the options. Raises UsageError of typer's."""
        if not ctx.resilient_parsing:
            values, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                value = values.get(option.name)
                if "" in (value if isinstance(value, list | tuple) else [value]):
                    advice = "give a value" if option.required else "give a value, or leave it out"
                    ctx.fail(f"{max(option.opts, key=len)} is empty; {advice}")
                if option.param_type_name == "option" and not option.multiple and given.count(option) > 1:
                    ctx.fail(f"{max(option.opts, key=len)} is given twice; it takes one value, so remove one")
        return super().parse_args(ctx, args)


EVERYDAY, STUDIES, SUBMITTING = "Everyday", "Studies", "Submitting a model"
_PANELS = {
    **dict.fromkeys(("sweep", "protocols", "claims", "compare", "judge", "examples", "schema"), STUDIES),
    **dict.fromkeys(("new-entry", "validate", "verify", "check-pr"), SUBMITTING),
}
"""The group of each command in the help; all others are everyday ones."""


class _App(typer.Typer):
    def command(self, name: str | None = None, **more: Any) -> Callable[[Callback], Callback]:
        def register(function: Callback) -> Callback:
            panel = _PANELS.get(name or function.__name__, EVERYDAY)
            options: dict[str, Any] = {"cls": Command, "rich_help_panel": panel, **more}
            super(_App, self).command(name, **options)(with_verbosity(function))
            return function

        return register


app = _App(
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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.USUAL)
    if version:
        from odebench import __version__

        print(f"odebench {__version__}")
        raise typer.Exit
