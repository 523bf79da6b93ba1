"""The progress of a sweep on standard error: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from odebench.cli.console import PlainConsole, duration
from odebench.cli.verbosity import Verbosity, verbosity
from odebench.errors import OdebenchError
from odebench.io.text import shown
from odebench.sweep.scheduler import State, Task

_SHOWN = 6


class InterruptedSweepError(OdebenchError):
    """A sweep was interrupted; the message says what is kept."""

    exit_code = 130


class Watch:
    """A watcher of a sweep. In a terminal `live` shows a table; elsewhere each finished task is a line."""

    def __init__(self, name: str, console: PlainConsole, live: Live | None) -> None:
        self._name, self._console, self._live = name, console, live
        self.state: State | None = None

    def look(self, state: State) -> None:
        """Draws the table in a terminal; at first a line says how much there is to do."""
        if self.state is None and verbosity() is not Verbosity.QUIET:
            self.say(_extent(state))
        self.state = state
        if self._live is not None:
            self._live.update(_table(self._name, state))

    def done(self, task: Task, state: State) -> None:
        """Shows a line for a task that has ended, in a terminal for failures alone. A task that failed because another
        one did gets no line: the other one has it, and the cells are named at the end."""
        reason = state.failed.get(task.key)
        if (task.kind == "data" and reason is None) or any(needed in state.failed for needed in task.needs):
            return
        if verbosity() is Verbosity.QUIET and reason is None:
            return
        if self._live is None or reason is not None:
            done = state.of("evaluation", state.done) + state.of("evaluation", state.failed)
            left = state.seconds_left
            rest = "" if left is None else f", {duration(left)} left"
            ended = "done" if reason is None else f"failed: {reason}"
            self.say(f"[{done}/{state.total('evaluation')}{rest}] {task.title}: {ended}")

    def say(self, line: str) -> None:
        """Shows one line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def watching(name: str, *, replaces: bool = False) -> Iterator[Watch]:
    """A watcher for the time of a sweep; one that `replaces` results does not go on where it was interrupted."""
    console = PlainConsole(stderr=True)
    try:
        if not console.is_terminal:
            watch = Watch(name, console, None)
            yield watch
            return
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            watch = Watch(name, console, live)
            yield watch
    except KeyboardInterrupt:
        if watch.state is not None:
            state = watch.state
            finished, total = state.there + state.of("evaluation", state.done), state.there + state.total("evaluation")
            again = (
                "the same command begins anew; without --force it skips what has a result, be it old"
                if replaces
                else "the same command goes on"
            )
            raise InterruptedSweepError(f"interrupted; {finished} of {total} done and kept; {again}") from None
        raise


def _extent(state: State) -> str:
    evaluations, trainings = state.total("evaluation"), state.total("training")
    done = f", {state.there} done before" if state.there else ""
    first = f"; first {trainings} training{'s' * (trainings > 1)}: neither published nor cached" if trainings else ""
    return f"{evaluations} evaluation{'s' * (evaluations > 1)} to do{done}{first}"


def _table(name: str, state: State) -> Table:
    left = state.seconds_left
    table = Table(box=None, pad_edge=False, header_style="bold")
    name = shown(name)
    for column in (name, "done", "running", "failed", "of"):
        table.add_column(column, justify="left" if column == name else "right")
    for kind, title in (("training", "trainings"), ("evaluation", "cells")):
        numbers = (state.of(kind, state.done), state.of(kind, state.running), state.of(kind, state.failed))
        table.add_row(title, *map(str, numbers), str(state.total(kind)))
    table.add_row("time left", "..." if left is None else duration(left), "", "", "")
    table.add_row("running for", duration(time.monotonic() - state.began), "", "", "")
    for key in sorted(state.running)[:_SHOWN]:
        table.add_row(f"  {shown(state.tasks[key].title)}", style="dim")
    return table
