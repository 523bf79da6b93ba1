"""What a result says twice must be the same twice: figures, measures, checks, flags, credit, letters, evaluation.

`odebench.result.schema` compares run key, digest and letters itself. This finds an edit to a part of a result;
it cannot find a result that is made up as a whole.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from odebench.numerics.statistics import wilson_lower
from odebench.protocol.spec import radius
from odebench.result.flags import CANDIDATES, flagged_checks, raised_flags
from odebench.result.outcome import CORRECT, FAILED, FOOLED, UNSOLVED, CheckId, Flag
from odebench.result.schema import Check, Figure, Result, letter_figures

COUNT_THRESHOLD = 0.01
"""A count k of n flags when the one-sided 95% Wilson lower bound of k/n is above this: 5 of 200, 9 of 500."""
_ROUNDING = 1e-6


def disagreements(result: Result) -> Iterator[str]:
    """Where a result contradicts itself, one sentence each."""
    for comparison in _COMPARISONS:
        yield from comparison(result)


def _created(result: Result) -> Iterator[str]:
    try:
        moment = datetime.fromisoformat(result.created.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        yield f"created: {result.created!r} is no time in UTC, such as 2026-01-31T12:00:00+00:00"


def _legends(result: Result) -> Iterator[str]:
    first = result.epsilons[0]
    for item in result.epsilons:
        legend, where = item.felled_by.legend, f"epsilon {radius(item.epsilon)}"
        if legend != first.felled_by.legend:
            yield f"{where}: felled_by has another legend than at {radius(first.epsilon)}"
        width = result.schema_version
        if strange := [code for code in legend if len(code) != width or set(code) - set(string.ascii_letters)]:
            yield f"{where}: {strange[0]!r} in the legend of felled_by is not {width} letter{'s' * (width > 1)}"


def _figures(result: Result) -> Iterator[str]:
    for item in result.epsilons:
        for name, expected in letter_figures(item.outcomes).items():
            stored: Figure = getattr(item.figures, name)
            for part in ("value", "low", "high"):
                given, recomputed = getattr(stored, part), getattr(expected, part)
                if abs(given - recomputed) > 1e-9:
                    label = name if part == "value" else f"{name}.{part}"
                    yield (
                        f"epsilon {radius(item.epsilon)}: {label} is {given:.6g}, but the letters say {recomputed:.6g}"
                    )


def _credit(result: Result) -> Iterator[str]:
    attack, names = result.evaluation.attack, [*result.epsilons[0].felled_by.legend.values()]
    credited = f"{CANDIDATES} of {attack.parameters.get('credit')}"
    if attack.name == CANDIDATES and names != [credited]:
        yield f"felled_by names {names}, the evaluation {credited!r}"
    named = None if result.found.candidates is None else result.found.candidates.sha256
    asked = attack.parameters.get("file_sha256") if attack.name == CANDIDATES else None
    if result.schema_version > 1 and named != asked:
        yield f"found.candidates has sha256 {named}, the evaluation {asked}"


def _quantiles(result: Result) -> Iterator[str]:
    for item in result.epsilons:
        where, found = f"epsilon {radius(item.epsilon)}: norm_quantiles", item.figures.norm_quantiles
        if found is None:
            continue
        values = [found.q05, found.q25, found.q50, found.q75, found.q95]
        if FOOLED not in item.outcomes:
            yield f"{where} are given, but no image is fooled"
        if values != sorted(values):
            yield f"{where} do not rise"
        if values[0] < 0 or values[-1] > item.epsilon * (1 + _ROUNDING) + _ROUNDING:
            yield f"{where} lie outside the ball of radius {radius(item.epsilon)}"


def _nfe(result: Result) -> Iterator[str]:
    for name, found in (("clean", result.nfe.clean), ("adversarial", result.nfe.adversarial)):
        if found is None:
            continue
        if result.evaluation.solver is None:
            yield f"nfe.{name} is given, but nothing is integrated"
        if not 0 <= found.mean <= found.max or not 0 <= found.p95 <= found.max:
            yield f"nfe.{name}: mean {found.mean:g} and p95 {found.p95:g} are not within 0 and {found.max}"


def _cost(result: Result) -> Iterator[str]:
    cost = result.cost
    parts = {"cost": cost} | {f"cost.stages, {stage.name}": stage for stage in cost.stages}
    for where, part in parts.items():
        for name in ("forward", "backward", "seconds"):
            if (value := getattr(part, name)) < 0:
                yield f"{where}.{name} is {value:g}, below 0"
    names = [stage.name for stage in cost.stages]
    if len(set(names)) < len(names):
        yield f"cost.stages names {max(names, key=names.count)!r} twice"


def _sources(result: Result) -> Iterator[str]:
    given, found = set(result.evaluation.attack.sources), set(result.found.sources_sha256)
    if given != found:
        yield f"found.sources_sha256 names {sorted(found)}, the evaluation's sources are {sorted(given)}"


def _checks(result: Result) -> Iterator[str]:
    numbers = [check.id for check in result.checks]
    if numbers != sorted(set(numbers)):
        yield f"checks: the numbers {numbers} do not rise, each once"
    for check in result.checks:
        if what := _contradiction(check, images=result.evaluation.dataset.n):
            yield f"check {check.id}, {check.name}: {what}"
    outcomes = [item.outcomes for item in result.epsilons]
    failing = [letters for letters in outcomes if UNSOLVED in letters or FAILED in letters]
    failed = sum(UNSOLVED in image or FAILED in image for image in zip(*failing, strict=True))
    correct = sum(outcomes[0].count(letter) for letter in CORRECT)
    for check in result.checks:
        if check.id == CheckId.SOLVER_FAILURE and check.k not in (None, failed):
            yield f"check 18, {check.name}: k is {check.k}, but the letters say {failed}"
        if check.id == CheckId.GRADIENT_AVAILABILITY and check.n not in (None, correct):
            yield f"check 1, {check.name}: n is {check.n}, but the letters say {correct}"


def _contradiction(check: Check, *, images: int) -> str:
    """What is wrong with one check; empty where nothing is."""
    status, k, n, figure, threshold = check.status, check.k, check.n, check.figure, check.threshold
    if status == "skipped":
        given = [name for name in ("figure", "threshold", "k", "n") if getattr(check, name) is not None]
        return f"it is skipped, but has {', '.join(given)}" if given else ""
    if figure is None or threshold is None:
        return "it was made, but has no figure or no threshold"
    if k is None and n is None:
        beyond = _BEYOND.get(check.id)
        if beyond is not None and beyond(figure, threshold) and status != "flag":
            return f"{figure:g} is on the wrong side of {threshold:g}, but the status is {status}"
        return ""
    if k is None or n is None:
        return "k and n are given together or not at all"
    if k > n or n > images:
        return f"{k} of {n} of {images} images cannot be"
    bound = wilson_lower(k, n)
    if abs(figure - bound) > 1e-9 or threshold != COUNT_THRESHOLD:
        return f"figure and threshold are {figure:.6g} and {threshold:g}, but {k} of {n} say {bound:.6g} and 0.01"
    expected = "flag" if bound > COUNT_THRESHOLD else "pass"
    return "" if status == expected else f"the status is {status}, but {k} of {n} say {expected}"


_BEYOND: dict[int, Callable[[float, float], bool]] = {
    CheckId.DETERMINISM: float.__gt__,
    CheckId.INCOMPLETE_OPTIMISATION: float.__gt__,
    CheckId.REACH: lambda total, needed: total < needed - 1e-9,
    CheckId.GRADIENT_FIDELITY: float.__lt__,
    CheckId.USEFUL_GRADIENT: float.__lt__,
}
"""On which side of its threshold the figure of a check always flags."""


def _flags(result: Result) -> Iterator[str]:
    flags = result.flags
    of_checks, named = [flag for flag in flags if flag not in _OTHERS], flagged_checks(result.checks)
    if of_checks != named:
        yield f"the flags are {_listed(of_checks)}, but the checks that flag {_listed(named)}"
    if len(set(flags)) < len(flags):
        yield f"the flags {_listed(flags)} repeat one"
    raised = raised_flags(result.evaluation, result.checks, told=flags)
    for flag in Flag:
        if (flag in flags) != (flag in raised):
            state = "is there" if flag in flags else "is missing"
            yield f"the flag {flag} {state}, but checks and evaluation say otherwise"


_OTHERS = tuple(flag.value for flag in Flag)


def _listed(flags: Sequence[str]) -> str:
    return ", ".join(flags) or "none"


_COMPARISONS = (_figures, _created, _legends, _credit, _quantiles, _nfe, _cost, _sources, _checks, _flags)
