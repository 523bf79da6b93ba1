"""What a result says twice must be the same twice: measures, checks, flags and credit against letters and evaluation.

Pure functions of a result's plain JSON, whose types have been looked at already; `odebench.result.schema` compares
run key, digest, letters and figures itself. This stops whoever edits a part of a result, and nobody who makes one up.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from odebench.numerics.statistics import wilson_lower
from odebench.protocol.spec import radius

COUNT_THRESHOLD = 0.01
"""A count k of n flags when the one-sided 95% Wilson lower bound of k/n is above this: 5 of 200, 9 of 500."""
CANDIDATES = "candidates"
"""The attack that judges what was made elsewhere."""
OTHER_FLAGS = ("batch-coupled", "randomised", "opaque-gradient", "no-transfer", "unseeded", "few-candidates")
"""Flags that are no checks of this name."""
SAID_OTHERWISE = (2, 15)
"""Checks whose flags go by another name: randomised, batch-coupled."""
_ROUNDING = 1e-6

Raw = Mapping[str, Any]


def disagreements(raw: Raw) -> Iterator[str]:
    """Where a result contradicts itself beside its letters, a sentence each."""
    for look in _LOOKS:
        yield from look(raw)


def _created(raw: Raw) -> Iterator[str]:
    try:
        moment = datetime.fromisoformat(raw["created"].replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() != timedelta(0):
        yield f"created: {raw['created']!r} is no time in UTC, such as 2026-01-31T12:00:00+00:00"


def _legends(raw: Raw) -> Iterator[str]:
    first, at = raw["epsilons"][0]["felled_by"]["legend"], radius(raw["epsilons"][0]["epsilon"])
    for item in raw["epsilons"]:
        legend = item["felled_by"]["legend"]
        if legend != first:
            yield f"epsilon {radius(item['epsilon'])}: felled_by has another legend than at {at}"
        if strange := [letter for letter in legend if len(letter) != 1 or letter not in string.ascii_letters]:
            yield f"epsilon {radius(item['epsilon'])}: {strange[0]!r} in the legend of felled_by is not one letter"


def _credit(raw: Raw) -> Iterator[str]:
    attack, legend = raw["evaluation"]["attack"], raw["epsilons"][0]["felled_by"]["legend"]
    if attack["name"] == CANDIDATES:
        credited = f"{CANDIDATES} of {attack['parameters'].get('credit')}"
        if list(legend.values()) != [credited]:
            yield f"felled_by names {list(legend.values())}, the evaluation {credited!r}"


def _quantiles(raw: Raw) -> Iterator[str]:
    for item in raw["epsilons"]:
        where, found = f"epsilon {radius(item['epsilon'])}: norm_quantiles", item["figures"]["norm_quantiles"]
        if found is None:
            continue
        values = [found[name] for name in ("q05", "q25", "q50", "q75", "q95")]
        if "f" not in item["outcomes"]:
            yield f"{where} are given, but no image is fooled"
        if values != sorted(values):
            yield f"{where} do not rise"
        if values[0] < 0 or values[-1] > item["epsilon"] * (1 + _ROUNDING) + _ROUNDING:
            yield f"{where} lie outside the ball of radius {radius(item['epsilon'])}"


def _nfe(raw: Raw) -> Iterator[str]:
    for name, found in raw["nfe"].items():
        if found is None:
            continue
        if raw["evaluation"]["solver"] is None:
            yield f"nfe.{name} is given, but nothing is integrated"
        if not 0 <= found["mean"] <= found["max"] or not 0 <= found["p95"] <= found["max"]:
            yield f"nfe.{name}: mean {found['mean']:g} and p95 {found['p95']:g} are not within 0 and {found['max']}"


def _cost(raw: Raw) -> Iterator[str]:
    for name, value in raw["cost"].items():
        if value < 0:
            yield f"cost.{name} is {value:g}, below 0"


def _sources(raw: Raw) -> Iterator[str]:
    given, found = set(raw["evaluation"]["attack"]["sources"]), set(raw["found"]["sources_sha256"])
    if given != found:
        yield f"found.sources_sha256 names {sorted(found)}, the evaluation's sources are {sorted(given)}"


def _checks(raw: Raw) -> Iterator[str]:
    checks = raw["checks"]
    numbers = [check["id"] for check in checks]
    if numbers != sorted(set(numbers)):
        yield f"checks: the numbers {numbers} do not rise, each once"
    for check in checks:
        if what := _check(check, images=raw["evaluation"]["dataset"]["n"]):
            yield f"check {check['id']}, {check['name']}: {what}"
    letters = [item["outcomes"] for item in raw["epsilons"]]
    failed = sum("u" in image or "x" in image for image in zip(*letters, strict=True))
    correct = sum(letter in "fxr" for letter in letters[0])
    for check in checks:
        if check["id"] == 18 and check["k"] not in (None, failed):
            yield f"check 18, {check['name']}: k is {check['k']}, but the letters say {failed}"
        if check["id"] == 1 and check["n"] not in (None, correct):
            yield f"check 1, {check['name']}: n is {check['n']}, but the letters say {correct}"


def _check(check: Raw, *, images: int) -> str:
    """What is wrong with one check; empty where nothing is."""
    status, k, n, figure, threshold = (check[name] for name in ("status", "k", "n", "figure", "threshold"))
    if status == "skipped":
        given = [name for name in ("figure", "threshold", "k", "n") if check[name] is not None]
        return f"it is skipped, but has {', '.join(given)}" if given else ""
    if figure is None or threshold is None:
        return "it was made, but has no figure or no threshold"
    if (k is None) != (n is None):
        return "k and n are given together or not at all"
    if k is None:
        beyond = _BEYOND.get(check["id"])
        if beyond is not None and beyond(figure, threshold) and status != "flag":
            return f"{figure:g} is on the wrong side of {threshold:g}, but the status is {status}"
        return ""
    if k > n or n > images:
        return f"{k} of {n} of {images} images cannot be"
    bound = wilson_lower(k, n)
    if abs(figure - bound) > 1e-9 or threshold != COUNT_THRESHOLD:
        return f"figure and threshold are {figure:.6g} and {threshold:g}, but {k} of {n} say {bound:.6g} and 0.01"
    expected = "flag" if bound > COUNT_THRESHOLD else "pass"
    return "" if status == expected else f"the status is {status}, but {k} of {n} say {expected}"


_BEYOND: dict[int, Callable[[float, float], bool]] = {
    2: float.__gt__,
    7: float.__gt__,
    14: lambda total, needed: total < needed - 1e-9,
    17: float.__lt__,
}
"""On which side of its threshold the figure of a check always flags."""


def _flags(raw: Raw) -> Iterator[str]:
    flags, checks = raw["flags"], raw["checks"]
    named = [check["name"] for check in checks if check["status"] == "flag" and check["id"] not in SAID_OTHERWISE]
    of_checks = [flag for flag in flags if flag not in OTHER_FLAGS]
    if of_checks != named:
        yield f"the flags are {_listed(of_checks)}, but the checks that flag {_listed(named)}"
    if len(set(flags)) < len(flags):
        yield f"the flags {_listed(flags)} repeat one"
    for flag, raised in _raised(raw, checks):
        if (flag in flags) != raised:
            stands = "stands" if flag in flags else "is missing"
            yield f"the flag {flag} {stands}, but checks and evaluation say otherwise"


def _raised(raw: Raw, checks: Sequence[Raw]) -> Iterator[tuple[str, bool]]:
    """Flags beside the checks that follow from what the result holds, and whether they do. Of those that follow from
    what it does not hold only where they cannot stand."""
    solver, attack, flags = raw["evaluation"]["solver"], raw["evaluation"]["attack"], raw["flags"]
    coupled = solver is not None and solver["step"] is None and solver["backend"] == "torchdiffeq"
    flagged = {check["id"] for check in checks if check["status"] == "flag"}
    yield "batch-coupled", coupled or 15 in flagged
    yield "randomised", 2 in flagged
    yield "unseeded", any(check["id"] == 2 and not check["evidence"].get("seeded", True) for check in checks)
    yield "opaque-gradient", "opaque-gradient" in flags and any(check["id"] == 17 for check in checks)
    yield "no-transfer", "no-transfer" in flags and not attack["sources"]
    yield "few-candidates", "few-candidates" in flags and attack["name"] == CANDIDATES


def _listed(flags: Sequence[str]) -> str:
    return ", ".join(flags) or "none"


_LOOKS = (_created, _legends, _credit, _quantiles, _nfe, _cost, _sources, _checks, _flags)
