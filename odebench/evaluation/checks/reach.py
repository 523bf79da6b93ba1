"""Whether the steps of an attack can cross the ball."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from odebench.attack.definition import NamedAttack
from odebench.evaluation.checks.rule import skipped, threshold_check
from odebench.result.outcome import CheckId
from odebench.result.schema import Check


def reach(definition: NamedAttack, parameters: Mapping[str, JsonValue]) -> Check:
    """Check 14: whether the steps can cross the ball.

    Steps times step length must be 2 epsilon from a random start (to reach the far side), epsilon without one.
    """
    if not definition.fixed_budget:
        return skipped(CheckId.REACH, speaks_of="settings", why=f"{definition.name} minimises the norm: it has no ball")
    if "relative_step" not in parameters:
        return skipped(CheckId.REACH, speaks_of="settings", why=f"{definition.name} takes no steps of a fixed length")
    total = float(str(parameters["steps"])) * float(str(parameters["relative_step"]))
    needed = 2.0 if parameters.get("random_start") else 1.0
    return threshold_check(
        CheckId.REACH,
        speaks_of="settings",
        flagged=total < needed - 1e-9,
        figure=total,
        threshold=needed,
        why="steps x step in units of epsilon: below the threshold the attack cannot cross its ball; lengthen the step",
    )
