"""Checks of the solver: whether finer steps move outcomes, and how often it fails."""

from __future__ import annotations

from odebench.evaluation.checks.rule import count_check, skipped
from odebench.evaluation.verdict import Judge
from odebench.numerics.shapes import Images, Labels
from odebench.protocol.spec import Norm, Solver
from odebench.result.outcome import FAILED, ROBUST, UNSOLVED, CheckId
from odebench.result.schema import Check


def finer(solver: Solver) -> Solver:
    """The solver with half the step, or a tenth of the tolerances and ten times the step limit."""
    if solver.step is not None:
        return solver.model_copy(update={"step": solver.step / 2})
    tighter = {name: getattr(solver, name) / 10 for name in ("rtol", "atol")}
    return solver.model_copy(update={**tighter, "max_steps": 10 * (solver.max_steps or 1)})


_SOLVER_FAILED = "images lost to a failing solver: they are counted as errors; raise the step limit or loosen the field"
_NO_SOLVER = (
    "images whose logits are not finite: they are counted as errors; look for a division by zero, a logarithm or an "
    "overflow in the model"
)


def solver_gap(
    judge: Judge, images: Images, labels: Labels, candidates: Images, *, norm: Norm, epsilon: float
) -> Check:
    """Check 16 (Ott et al. 2021): images whose outcome, clean or at the candidate, changes under a finer solver.

    `images` are classified correctly under the solver of `judge`; `candidates` holds one for each.
    """
    declared = judge.classifier.solver
    if declared is None:
        return skipped(
            CheckId.SOLVER_GAP, speaks_of="model", why="the model integrates nothing that odebench could refine"
        )
    if not len(images):
        return skipped(CheckId.SOLVER_GAP, speaks_of="model", why="no image is classified correctly")
    refined = judge.classifier.modified(solver=finer(declared))
    fine = Judge(refined, alone=judge.alone, passes=judge.passes, seed=judge.seed)
    moved = fine.clean(images, labels) != ROBUST
    before, after = (
        one.candidates(images, labels, candidates, norm=norm, epsilon=epsilon).letters for one in (judge, fine)
    )
    moved |= before != after
    return count_check(
        CheckId.SOLVER_GAP,
        speaks_of="model",
        k=int(moved.sum()),
        n=len(images),
        why="images whose letter moves under half the step or a tenth of the tolerance: the solver's error decides, "
        "not the field; declare a finer solver, or say that the discretisation is the model",
        evidence={"declared": str(declared), "finer": str(finer(declared))},
    )


def solver_failure(outcomes: str, *, solver: Solver | None) -> Check:
    """Check 18: images on which the solver failed, or a logit was not finite, clean (u) or under attack (x)."""
    clean, attacked = outcomes.count(UNSOLVED), outcomes.count(FAILED)
    return count_check(
        CheckId.SOLVER_FAILURE,
        speaks_of="model",
        k=clean + attacked,
        n=len(outcomes),
        why=_NO_SOLVER if solver is None else _SOLVER_FAILED,
        evidence={"clean": clean, "attacked": attacked},
    )
