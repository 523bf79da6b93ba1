"""What the command line prints: progress with the time left, and results in 80 columns."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from odebench.cli.verbosity import Verbosity, verbosity
from odebench.io.text import ascii_only, hanging, raw_stream, shown, spelled_for
from odebench.leaderboard.build import FLAG_MEANINGS
from odebench.leaderboard.figures import CARRY_OVER, carried_figures
from odebench.progress import SILENT, Step
from odebench.protocol.spec import radius
from odebench.render.diagnosis import bars_text, curve_text, curves, nfe_bars
from odebench.render.markdown_tables import horizon_of
from odebench.result.flags import broken_attack
from odebench.result.outcome import Flag
from odebench.result.schema import Check, Figure, Result

FLAG_ADVICE: dict[str, str] = {
    Flag.RANDOMISED: "make the model deterministic in evaluation mode, such as by a fixed seed, to have it ranked",
    Flag.BATCH_COUPLED: "give --backend torchode, which takes steps image by image",
    Flag.NO_TRANSFER: "name another model by sources=... or --source",
    Flag.UNSEEDED: "draw random numbers from torch's global generator",
    Flag.FEW_CANDIDATES: "craft candidates for all images",
    Flag.OPAQUE_GRADIENT: "expose stem, field, head, horizon and solver, so that odebench integrates the field",
}
"""What to do about the flags that are no checks."""


class PlainConsole(Console):
    """A console that shows the texts that it is given: only what it draws itself steers a terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = raw_stream(sys.stderr if stderr else sys.stdout)
        super().__init__(file=stream, highlight=False, markup=False)

    def print(self, *parts: Any, **options: Any) -> None:
        """Prints texts, their unseen characters escaped, and tables."""
        super().print(*(self.spelled(part) if isinstance(part, str) else part for part in parts), **options)

    def spelled(self, text: str) -> str:
        """A text as this console can show it."""
        return spelled_for(self.file, shown(text))


class _ScreenStep:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        if note:
            self._progress.update(self._task, advance=amount, note=shown(note))
        else:
            self._progress.advance(self._task, amount)


LINE_SECONDS = 30.0
"""From line to line about work in progress, where there is no terminal."""


class _LineStep:
    def __init__(self, progress: ScreenProgress, name: str, total: float, done: float) -> None:
        self._progress, self._name, self._total, self._done, self._first = progress, name, total, done, done
        self._began = self._said = time.monotonic()

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            share = min(1.0, self._done / self._total) if self._total else 1.0
            said = [f"{self._name}: {share:.0%}"]
            if self._done > self._first:
                left = (now - self._began) * max(0.0, self._total - self._done) / (self._done - self._first)
                said.append(f"about {duration(left)} left")
            self._progress.say(", ".join([*said, *([note] if note else [])]))


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 90:
        return f"{max(1.0, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


class ScreenProgress:
    """Bars on standard error if it is a terminal; lines in any case."""

    def __init__(self) -> None:
        self._console = PlainConsole(stderr=True)

    @contextmanager
    def track(self, name: str, *, total: float, done: float = 0) -> Iterator[Step]:
        """A bar with the time left; without a terminal a line every 30 seconds; with -v what it took."""
        began = time.monotonic()
        with self._tracked(name, total=total, done=done) as step:
            yield step
        if verbosity() is Verbosity.VERBOSE:
            self.say(f"{name}: {duration(time.monotonic() - began)}")

    @contextmanager
    def _tracked(self, name: str, *, total: float, done: float) -> Iterator[Step]:
        if verbosity() is Verbosity.QUIET:
            with SILENT.track(name, total=total, done=done) as silent:
                yield silent
            return
        if not self._console.is_terminal:
            yield _LineStep(self, name, total, done)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            TextColumn("left"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(shown(name), total=total, completed=int(done), note="")
            yield _ScreenStep(progress, task)

    def say(self, line: str) -> None:
        """One line on standard error, unless -q was given."""
        if verbosity() is Verbosity.QUIET:
            return
        self._console.print(line, markup=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """One line on standard error that is told in any case."""
        self._console.print(line, markup=False, soft_wrap=True)


def print_table(columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()) -> None:
    """A plain table on standard output that fits its width."""
    console = PlainConsole()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(console.spelled, row))
    console.print(table)


def print_result(result: Result) -> None:
    """Prints a result: what was run, accuracy at each epsilon, the checks that flag."""
    console = PlainConsole()
    evaluation = result.evaluation
    data, attack = evaluation.dataset, evaluation.attack
    console.print(
        f"{evaluation.model.name} on {data.name} ({data.split}), {data.n} images, "
        f"{attack.name} in {evaluation.threat_model.norm}"
    )
    others = [f"candidates from {', '.join(attack.sources)}"] if attack.sources else []
    others += [f"{attack.surrogate.solver} first"] if attack.surrogate is not None else []
    if others:
        console.print("; ".join(others))
    if evaluation.solver is not None and result.nfe.clean is not None:
        console.print(f"{horizon_of(evaluation)}, {evaluation.solver}, NFE {_nfe(result)}")
    figures = carried_figures(result)
    rows = [
        [
            radius(one.epsilon),
            _percent(one.clean),
            _percent(one.robust),
            str(one.fooled),
            str(one.failed),
            str(item.figures.invalid),
        ]
        for one, item in zip(figures, result.epsilons, strict=True)
    ]
    print_table(["epsilon", "clean %", "robust %", "fooled", "failed", "invalid"], rows, right=(0, 1, 2, 3, 4, 5))
    if any(one.carried for one in figures):
        console.print(CARRY_OVER)
    for check in result.checks:
        if check.status == "flag":
            console.print(f"flag {check.id}, {check.name}: {_measured(check)}; {check.why}")
    passed = sum(check.status == "pass" for check in result.checks)
    for line in [*_other_flags(result), *(f"warning: {line}" for line in broken_attack(result))]:
        console.print(line)
    skipped = [check.name for check in result.checks if check.status == "skipped"]
    left = f" (not made: {', '.join(skipped)})" if skipped else ""
    console.print(f"{passed} of {len(result.checks)} checks passed{left}; intervals: 95% over images, not attacks")


def print_checks(result: Result) -> None:
    """Prints a table of a result's checks: status, what was found, and what that speaks of."""
    rows = [[str(check.id), check.name, check.status, _measured(check), check.speaks_of] for check in result.checks]
    print_table(["", "check", "status", "found", "speaks of"], rows, right=(0,))


def print_diagnosis(result: Result) -> None:
    """Prints a diagnosis: one line per check, what to do about those that flag, and the curves of the evidence."""
    console = PlainConsole()
    evaluation = result.evaluation
    data = evaluation.dataset
    solver = "" if evaluation.solver is None else f", {horizon_of(evaluation)}, {evaluation.solver}"
    console.print(f"{evaluation.model.name} on {data.name} ({data.split}), {data.n} images{solver}")
    print_checks(result)
    for check in result.checks:
        if check.status != "pass":
            said = "not made" if check.status == "skipped" else "flag"
            console.print(f"\n{check.id} {check.name}, {said}: {check.why}")
    for line in _other_flags(result):
        console.print(f"\n{line}")
    bars = nfe_bars(result)
    plain = ascii_only(sys.stdout)
    pictures = [curve_text(curve, plain=plain) for curve in curves(result)] + (
        [] if bars is None else [bars_text(bars)]
    )
    for picture in pictures:
        write_text("\n" + picture)
    console.print()


def _other_flags(result: Result) -> list[str]:
    """A line for each flag that is not the name of a check."""
    checks = {check.name for check in result.checks}
    others = [flag for flag in result.flags if flag not in checks]
    found = []
    for flag in others:
        advice = FLAG_ADVICE.get(flag)
        found.append(
            f"flag {flag}: {FLAG_MEANINGS.get(flag, 'see the result file')}" + ("" if advice is None else f"; {advice}")
        )
    return found


def _measured(check: Check) -> str:
    """What a check found: k of n images, or a quantity and its threshold."""
    if check.k is not None:
        return f"{check.k} of {check.n} images"
    if check.figure is None:
        return ""
    return f"{check.figure:.3g} (threshold {check.threshold:g})"


def _nfe(result: Result) -> str:
    clean, attacked = result.nfe.clean, result.nfe.adversarial
    text = f"{clean.mean:.3g} clean" if clean is not None else "?"
    return f"{text}, {attacked.mean:.3g} under attack" if attacked is not None else text


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def print_finding(finding: object) -> None:
    """Prints a finding in lines of at most 80 columns. The command that it ends in is one line, however long."""
    said, colon, options = str(finding).partition(": odebench ")
    print(hanging(re.sub(r"odebench (?=[a-z])", "odebench\0", f"{said}:" if colon else said)).replace("\0", " "))
    if colon:
        print(f"  odebench {options}")


def write_text(text: str) -> None:
    """Writes a text to standard output, with a line end."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
