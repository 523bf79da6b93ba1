"""The stages of the worst case: cheap attacks first, the same stages for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from odebench.attack.builtin import APGD_CE, APGD_T, FAB_T, FGSM, PGD, SPSA, SQUARE, TRANSFER
from odebench.attack.definition import AttackDefinition, Stage


def stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """The stages of effort "fast" or "standard" (docs/protocol.md, "Attacks and budgets").

    fast: fgsm (linf only), pgd 20, apgd-ce 50, apgd-t min(3, classes - 1) x 50, transfer, square 500. standard: these,
    then apgd-ce 100, apgd-t min(9, classes - 1) x 100, fab-t, square 5,000, and spsa against a model whose gradient
    could not be confirmed.
    """
    others = n_classes - 1
    fast = [
        _stage(PGD, steps=20),
        _stage(APGD_CE, steps=50),
        _stage(APGD_T, targets=min(3, others), steps=50),
        _stage(TRANSFER, steps=50),
        _stage(SQUARE, queries=500),
    ]
    if norm == "linf":
        fast.insert(0, _stage(FGSM))
    if parameters["effort"] == "fast":
        return tuple(fast)
    standard = [
        _stage(APGD_CE, steps=100),
        _stage(APGD_T, targets=min(9, others), steps=100),
        _stage(FAB_T, targets=min(9, others), steps=100),
        _stage(SQUARE, queries=5000),
        replace(_stage(SPSA, targets=min(3, others), steps=50), only_unconfirmed=True),
    ]
    return tuple([*fast, *standard])


def _stage(definition: AttackDefinition, **given: int) -> Stage:
    """A stage named by its attack and the numbers given, such as "apgd-t 3x50"."""
    numbers = "x".join(str(value) for value in given.values())
    name = f"{definition.name} {numbers}".strip()
    return Stage(name, definition, definition.complete(given))
