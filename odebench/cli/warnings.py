"""Warnings about evaluations that are probably not what a user wants. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from odebench.attack.definition import NamedAttack, load_attack
from odebench.evaluation.plan import DEFAULT_N, Plan
from odebench.protocol.spec import Evaluation

FEW_STEPS = 0.5
"""Steps of an attack, as a share of its default, below which it is called weak."""


def before_run(plan: Plan) -> Iterator[str]:
    """What to tell before an evaluation begins, one line each."""
    evaluation = plan.evaluation
    yield from _weak(load_attack(evaluation.attack.name), evaluation)
    solver, horizon = evaluation.solver, evaluation.horizon
    if solver is not None and solver.step is not None and horizon is not None and solver.step > horizon:
        yield (
            f"warning: a step of {solver.step:g} is longer than the horizon {horizon:g}: {solver.method} takes a "
            f"single step of {horizon:g}; give a shorter --step"
        )


def _weak(attack: NamedAttack, evaluation: Evaluation) -> Iterator[str]:
    usual, given = attack.parameters.get("steps"), evaluation.attack.parameters.get("steps")
    if isinstance(usual, int) and isinstance(given, int) and given < FEW_STEPS * usual:
        yield (
            f"warning: {attack.name} with {given} step{'s' * (given > 1)} is weak, its default is {usual}: what "
            "withstands it may not be robust"
        )


def few_images(n: int, *, total: int) -> Iterator[str]:
    """What to tell after an evaluation of `n` images, which the user chose, of a split of `total`: a line or none."""
    most = min(total, DEFAULT_N)
    if n < most:
        half = 100 * 1.96 * 0.5 / math.sqrt(n)
        yield f"note: {n} of {total} images: intervals of up to ±{half:.0f} points; -n {most} narrows them"
