"""The stages of the worst case: cheap attacks first, the same stages for every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from odebench.attack.builtin import (
    APGD_CE,
    APGD_T,
    BOUNDARY,
    FAB_T,
    FGSM,
    NOISE,
    PGD,
    PGD_MARGIN,
    SMOOTHED,
    SPSA,
    SQUARE,
    SUBSTITUTE,
    TRANSFER,
)
from odebench.attack.definition import AttackDefinition, Stage

TRIPWIRE_IMAGES = 20
"""How many standing images of a chunk a tripwire is laid for."""


def stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """The stages of an effort (docs/protocol.md, "Attacks and budgets").

    fast: fgsm (linf only), pgd 20, apgd-ce 50, apgd-t min(3, classes - 1) x 50, transfer, square 500. standard: these,
    then apgd-ce 100, apgd-t min(9, classes - 1) x 100, fab-t, square 5,000, and spsa against a model whose gradient
    could not be confirmed. fast-2 and standard-2 spend on margins and targets what these spend on queries.
    """
    if parameters["effort"] in ("fast-2", "standard-2"):
        return _second_version(str(parameters["effort"]), norm=norm, n_classes=n_classes)
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


def claim_stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """The stages of claims: those that fell honest models, and no others."""
    few = _stage(PGD_MARGIN, steps=20, targets=min(5, n_classes - 1), restarts=1)
    return tuple(replace(stage, quick=True) for stage in (*_first(norm), few))


def _second_version(effort: str, *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """fast-2: steps along the cross-entropy, margins of nine classes, three tripwires, the boundary,
    and in doubt all that needs no gradient's goodwill. standard-2 has more steps, targets and queries."""
    many, few = min(9, n_classes - 1), min(3, n_classes - 1)
    longer = effort == "standard-2"
    found = [*_first(norm), _stage(PGD_MARGIN, steps=40, targets=many, restarts=1)]
    if longer:
        found.append(_stage(PGD_MARGIN, steps=60, targets=many, restarts=1))
        found.append(_stage(APGD_T, targets=many, steps=50))
    else:
        found.append(_stage(APGD_T, targets=few, steps=20))
    # The boundary attack also fells an honest image at times: one says nothing yet.
    tripwires = (
        (_stage(SQUARE, queries=100), 1),
        (_stage(TRANSFER, steps=50), 1),
        (_stage(BOUNDARY, steps=6, starts=1, halvings=14), 2),
    )
    for tripwire, doubtful in tripwires:
        name = f"{tripwire.name} on {TRIPWIRE_IMAGES}"
        found.append(replace(tripwire, name=name, most_images=TRIPWIRE_IMAGES, doubtful=doubtful))
    followed = _stage(BOUNDARY, steps=12, starts=many, halvings=7)
    found.append(followed)
    close = _stage(BOUNDARY, steps=12, starts=many, halvings=14)
    by_differences = BOUNDARY.complete({**followed.parameters, "differences": True})
    in_doubt = [
        _stage(NOISE, draws=20),
        _stage(SMOOTHED, steps=20, targets=many, draws=16, directions=64),
        replace(close, parameters={**close.parameters, "drop_far": False}),
        replace(followed, name=f"{followed.name} by differences", parameters=by_differences),
        _stage(SUBSTITUTE, steps=30, targets=few, epochs=20),
        _stage(SQUARE, queries=5000 if longer else 500),
        _stage(TRANSFER, steps=50),
    ]
    found += [replace(stage, only_in_doubt=True) for stage in in_doubt]
    return tuple(replace(stage, quick=True) for stage in found)


def _first(norm: str) -> list[Stage]:
    """What fells most images: the same in every effort of the second version."""
    single = [_stage(FGSM)] if norm == "linf" else []
    return [*single, _stage(PGD, steps=20), _stage(APGD_CE, steps=50)]


def _stage(definition: AttackDefinition, **given: int) -> Stage:
    """A stage named by its attack and the numbers given, such as "apgd-t 3x50"."""
    numbers = "x".join(str(value) for value in given.values())
    name = f"{definition.name} {numbers}".strip()
    return Stage(name, definition, definition.complete(given))
