"""Whether an entry's model is accepted: the findings that refuse it, and notes for readers."""

from __future__ import annotations

from collections.abc import Iterator

from odebench.evaluation.checks.rule import COUNT_THRESHOLD
from odebench.numerics.statistics import wilson_lower
from odebench.result.outcome import CheckId, Flag
from odebench.result.schema import Check
from odebench.submission.finding import Finding, finding
from odebench.submission.verification.jobs import Inspected

_REFUSED = {
    CheckId.GRADIENT_AVAILABILITY: "gradient",
    CheckId.LOGITS_NOT_PROBABILITIES: "probabilities",
    CheckId.ITERATIVE_BEATS_SINGLE_STEP: "gradient",
    CheckId.RANDOM_NOISE: "gradient",
    CheckId.BATCH_INDEPENDENCE: "batch",
    CheckId.GRADIENT_FIDELITY: "gradient",
    CheckId.STATE: "state",
    CheckId.USEFUL_GRADIENT: "gradient",
    CheckId.MEMORISED_IMAGES: "memorised",
}
"""The checks whose flag refuses a model, with the rule of the finding."""


def refusals(where: str, whose: str, inspected: Inspected) -> Iterator[Finding]:
    """The findings that refuse a model. `where` is the file that they point to, `whose` names the weights."""
    if inspected.error is not None:
        yield finding(where, None, "model", f"{whose}: {inspected.error}")
    if inspected.changes_in_eval is not None:
        said = "evaluation must leave the model unchanged: nothing may learn or keep count"
        yield finding(where, None, "training", f"{whose}: {inspected.changes_in_eval}; {said}")
    for check in inspected.checks:
        if check.status == "flag" and check.id in _REFUSED and check.speaks_of == "model":
            yield finding(where, None, _REFUSED[CheckId(check.id)], f"{whose}: {_measured(check)}; {check.why}")
        elif check.id == CheckId.DETERMINISM and check.status == "flag" and not check.evidence.get("seeded", True):
            said = "it draws random numbers that no seed reaches, so nobody can find its letters again; use torch's"
            yield finding(where, None, "unseeded", f"{whose}: {said} global generators")
        elif check.id == CheckId.SOLVER_FAILURE and _fails_clean(check):
            said = f"{check.evidence['clean']} of {check.n} clean images have no finite logits; fix that first"
            yield finding(where, None, "failure", f"{whose}: {said}")
    state = next((check for check in inspected.checks if check.id == CheckId.STATE), None)
    if state is not None and state.status == "skipped" and state.speaks_of == "settings":
        yield finding(where, None, "state", f"{whose}: whether it keeps a state cannot be seen: {state.why}")
    fidelity = next((check for check in inspected.checks if check.id == CheckId.GRADIENT_FIDELITY), None)
    unconfirmed = Flag.OPAQUE_GRADIENT in inspected.flags and Flag.RANDOMISED not in inspected.flags
    if unconfirmed and fidelity is not None and fidelity.status == "skipped":
        said = f"its gradient cannot be confirmed ({fidelity.why}), so white-box attacks may learn nothing"
        yield finding(where, None, "gradient", f"{whose}: {said}")


def acceptance_notes(whose: str, inspected: Inspected) -> Iterator[str]:
    """What readers should know of a model and does not refuse it."""
    if Flag.RANDOMISED in inspected.flags:
        yield f"{whose} is randomised: compared by figures, shown, and not ranked"
    for check in inspected.checks:
        if check.status == "flag" and check.id not in (*_REFUSED, CheckId.DETERMINISM) and not _fails_clean(check):
            yield f"{whose}, check {check.id}, {check.name}: {_measured(check)}; {check.why}"


def _fails_clean(check: Check) -> bool:
    clean = check.evidence.get("clean")
    return isinstance(clean, int) and wilson_lower(clean, check.n or 0) > COUNT_THRESHOLD


def _measured(check: Check) -> str:
    if check.k is not None:
        return f"{check.name}, {check.k} of {check.n} images"
    return f"{check.name}, {check.figure:.3g} (threshold {check.threshold:g})"
