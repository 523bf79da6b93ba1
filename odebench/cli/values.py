"""Reading the values of options: numbers, lists, ranges of seeds, settings, solvers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from odebench.errors import UsageError, invalid_value

if TYPE_CHECKING:
    from pydantic import JsonValue

    from odebench.protocol.spec import Solver

Name = TypeVar("Name", bound=str)
MAX_SEEDS = 1000
"""The most seeds of a range."""


def number(text: str | None, name: str) -> float | None:
    """The value of a numeric option; None if it is not given. Raises UsageError."""
    from odebench.protocol.spec import parse_number

    return None if text is None else parse_number(text, name=name)


def one_of(option: str, text: str, first: Name, second: Name) -> Name:
    """The value of an option that takes one of two words. Raises UsageError."""
    if text not in (first, second):
        raise UsageError(f"{option} is {first} or {second}, not {text!r}")
    return first if text == first else second


def distinct(values: Sequence[Hashable], what: str) -> None:
    """Raises UsageError where one of the values stands there twice."""
    for value in values:
        if values.count(value) > 1:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UsageError(f"{what} {shown} is given twice; remove one")


def listed(texts: Iterable[str], what: str) -> list[str]:
    """The values of an option that is repeated or holds several, such as ode,kd-ode. Raises UsageError."""
    found = [part.strip() for text in texts for part in text.split(",")]
    if "" in found:
        article = "an" if what[0] in "aeio" else "a"
        raise UsageError(f"{article} {what} is missing before or after a comma in {','.join(texts)!r}")
    distinct(found, what)
    return found


def horizons(texts: list[str] | None) -> list[float | None]:
    """The values of --horizon; None alone where there is none. Raises UsageError."""
    found = [number(text, "horizon") for text in listed(texts or [], "horizon")]
    distinct(found, "horizon")
    return found or [None]


def seeds(texts: list[str] | None) -> list[int]:
    """The train seeds of texts such as 0,1 and 0-2; 0 alone where there are none. Raises UsageError."""
    found: list[int] = []
    for text in listed(texts or ["0"], "train seed"):
        ends = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", text, re.ASCII)
        first, last = (0, -1) if ends is None else (int(ends[1]), int(ends[2] or ends[1]))
        if not first <= last < first + MAX_SEEDS:
            raise UsageError(f"train seed {text!r} is neither an integer of at least 0 nor a range such as 0-2")
        found += range(first, last + 1)
    distinct(found, "train seed")
    return found


def radii_of(texts: list[str] | None, attack: str, norm: str | None) -> tuple[float, ...] | None:
    """The epsilons of all --epsilon together, rising; None if there is none. Raises UsageError."""
    from odebench.attack.definition import load_attack
    from odebench.protocol.spec import parse_epsilons

    return parse_epsilons(",".join(texts), load_attack(attack).norm(norm)) if texts else None


def settings(pairs: list[str] | None) -> dict[str, JsonValue]:
    """The values of NAME=VALUE options by name: parsed as JSON if possible, else text. Raises UsageError."""
    found: dict[str, JsonValue] = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise UsageError(f"{pair!r} is not of the form name=value, such as epochs=30")
        if name in found:
            raise UsageError(f"{name} is given twice; remove one")
        try:
            found[name] = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except RecursionError as error:
            raise UsageError(f"the value of {name[:40]} is nested too deeply") from error
        except ValueError:
            found[name] = text
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def solver(
    method: str | None, step: str | None, tolerance: str | None, backend: str | None, max_steps: int | None
) -> Solver | None:
    """The solver that the options describe; None if there is none of them. Raises UsageError."""
    from pydantic import ValidationError

    from odebench.protocol.spec import FIXED_STEP_STAGES, Solver

    if method is None:
        given = {"--step": step, "--tolerance": tolerance, "--backend": backend, "--max-steps": max_steps}
        if idle := [option for option, value in given.items() if value is not None]:
            such = "dopri5" if step is None else "rk4"
            raise UsageError(f"{', '.join(idle)} without a --solver, such as --solver {such}")
        return None
    try:
        if method in FIXED_STEP_STAGES:
            if (tolerance, max_steps) != (None, None) or backend not in (None, "torchdiffeq"):
                raise UsageError(f"{method} takes fixed steps, on torchdiffeq: give --step alone")
            return Solver(method=method, backend="torchdiffeq", step=number(step or "0.25", "step"))
        rtol = number(tolerance or "1e-3", "tolerance")
        return Solver.model_validate(
            {
                "method": method,
                "backend": backend or "torchode",
                "rtol": rtol,
                "atol": rtol,
                "max_steps": 1000 if max_steps is None else max_steps,
                "step": number(step, "step"),
            }
        )
    except ValidationError as error:
        raise invalid_value(error) from error


def coarse_solver(text: str) -> Solver | None:
    """The solver that METHOD:STEP describes. Raises UsageError."""
    method, _, step = text.partition(":")
    return solver(method, step or None, None, None, None)
