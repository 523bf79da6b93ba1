"""The command `odebench` itself, with which all others are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from odebench.cli.verbosity import Quiet, Verbose, Verbosity, set_verbosity, with_verbosity

Callback = TypeVar("Callback", bound=Callable[..., Any])


OTHER_NAMES = {
    **dict.fromkeys(("evaluate", "eval", "attack", "test", "bench", "benchmark"), "run"),
    **dict.fromkeys(("rank", "ranking", "table", "board"), "leaderboard"),
    **dict.fromkeys(("submit", "add", "new"), "new-entry"),
    **dict.fromkeys(("check", "checks"), "diagnose"),
    **dict.fromkeys(("describe", "explain", "glossary"), "info"),
    **dict.fromkeys(("list", "ls"), "models"),
    "grid": "sweep",
}
"""What people type first, and the command that does it."""
_WITHIN = {
    "changes": "a field of the recipe goes with --set, such as --set epochs=3",
    "parameter": "a parameter of the attack goes with --parameter, such as --parameter steps=10",
}
"""What an option that does not exist may be meant for, by the parameter of the command that takes it."""


class Group(TyperGroup):
    """All commands; a name of `OTHER_NAMES` is answered with the command's own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is asked for. Raises UsageError of typer's."""
        if args[0] in OTHER_NAMES and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {OTHER_NAMES[args[0]]!r}?")
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """A command that refuses an option given twice, of which click would take the last, unless it takes several; an
    empty value, which as a path would be the current folder; and values without their option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left after the options. Raises UsageError of typer's."""
        if not ctx.resilient_parsing:
            try:
                values, words, given = self.make_parser(ctx).parse_args(args=list(args))
            except Exception as error:
                # typer brings its own copy of click from some version on, so the class is known by its name alone
                near = {*(getattr(error, "possibilities", None) or ())} - {"--help"}
                if type(error).__name__ == "NoSuchOption" and not near:
                    meant = [said for name, said in _WITHIN.items() if name in {each.name for each in self.params}]
                    ctx.fail("; ".join([f"No such option: {getattr(error, 'option_name', error)}", *meant]))
                raise
            if any(option.name == "help" for option in given):
                return super().parse_args(ctx, args)
            if words and all(each.param_type_name == "option" for each in self.params):
                wanted = [max(each.opts, key=len) for each in self.params if each.required and each not in given]
                shown = " ".join(f"{option} {word}" for option, word in zip(wanted, words, strict=False))
                advice = f"write {shown}" if shown else "this command takes options alone"
                ctx.fail(f"{' '.join(words)!r} stands without an option; {advice}")
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
    cls=Group,
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
