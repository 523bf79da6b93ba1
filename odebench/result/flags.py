"""The flags of a result: computed in one place when it is written and when it is read. And of a broken attack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from odebench.protocol.spec import Evaluation, radius
from odebench.result.outcome import UNSOLVED, WRONG, CheckId, Flag
from odebench.result.schema import Check, Result

CANDIDATES = "candidates"
"""The attack that judges candidates made elsewhere."""
MANY_INVALID = 0.5
"""The share of attacked images whose candidates are invalid from which on the attack is called broken."""
_NAMED_OTHERWISE = (CheckId.DETERMINISM, CheckId.BATCH_INDEPENDENCE)
"""Checks whose flags have names of their own: randomised and batch-coupled."""


def flags_of(evaluation: Evaluation, checks: Sequence[Check], told: Collection[str]) -> tuple[str, ...]:
    """The flags of a result: the checks that flag by their names, then the others.

    `told` holds those of opaque-gradient, no-transfer and few-candidates that the run raised.
    """
    return (*flagged_checks(checks), *(flag.value for flag in raised_flags(evaluation, checks, told)))


def flagged_checks(checks: Sequence[Check]) -> list[str]:
    """The names of the checks that flag, without those whose flags have names of their own."""
    return [check.name for check in checks if check.status == "flag" and check.id not in _NAMED_OTHERWISE]


def raised_flags(evaluation: Evaluation, checks: Sequence[Check], told: Collection[str]) -> list[Flag]:
    """The flags beside the names of checks that follow from evaluation and checks.

    Those that a run alone can know are raised if they are in `told` and can be true of this evaluation: a gradient is
    opaque only if check 17 was made, transfer was left out only without sources, and only a file lacks candidates.
    """
    solver, attack = evaluation.solver, evaluation.attack
    flagged = {check.id for check in checks if check.status == "flag"}
    raised = {
        Flag.BATCH_COUPLED: (solver is not None and solver.couples_batch) or CheckId.BATCH_INDEPENDENCE in flagged,
        Flag.RANDOMISED: CheckId.DETERMINISM in flagged,
        Flag.OPAQUE_GRADIENT: any(check.id == CheckId.GRADIENT_FIDELITY for check in checks),
        Flag.NO_TRANSFER: not attack.sources,
        Flag.UNSEEDED: any(
            check.id == CheckId.DETERMINISM and not check.evidence.get("seeded", True) for check in checks
        ),
        Flag.FEW_CANDIDATES: attack.name == CANDIDATES,
    }
    return [flag for flag in Flag if raised[flag] and (flag not in _TOLD or flag in told)]


_TOLD = (Flag.OPAQUE_GRADIENT, Flag.NO_TRANSFER, Flag.FEW_CANDIDATES)
"""Flags that only a run can know, because nothing else in its result shows them."""


def broken_attack(result: Result) -> Iterator[str]:
    """A warning for each epsilon at which most candidates are invalid: images that withstood them may not be robust."""
    for item in result.epsilons:
        attacked = sum(letter not in (WRONG, UNSOLVED) for letter in item.outcomes)
        invalid = item.figures.invalid
        if attacked and invalid >= MANY_INVALID * attacked:
            yield (
                f"at epsilon {radius(item.epsilon)} {invalid} candidates of {attacked} attacked images are "
                "invalid, not finite or outside the ball, and fool nobody: mend the attack"
            )
