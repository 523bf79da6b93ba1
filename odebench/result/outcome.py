"""Names of what a result says: the five outcomes of an image, the flags of a result, the numbers of the checks."""

from __future__ import annotations

from enum import Enum, IntEnum

WRONG = "m"
"""The clean image is misclassified."""
UNSOLVED = "u"
"""The solver fails on the clean image."""
FOOLED = "f"
"""An adversarial image within epsilon is misclassified."""
FAILED = "x"
"""The solver fails on an image within epsilon."""
ROBUST = "r"
"""Every candidate of the attack is classified correctly."""

OUTCOMES = WRONG + UNSOLVED + FOOLED + FAILED + ROBUST
SUCCESSFUL = FOOLED + FAILED
"""The attack succeeded: a failure is never robustness."""
CORRECT = SUCCESSFUL + ROBUST
"""The clean image is classified correctly, so it is attacked."""


MEANINGS = {
    ROBUST: "robust, classified correctly at every candidate within epsilon",
    FOOLED: "fooled, misclassified at an adversarial image within epsilon",
    FAILED: "failed, the solver fails or a logit is not finite at an image within epsilon",
    WRONG: "misclassified, or tied, without an attack",
    UNSOLVED: "unsolved, the solver fails or a logit is not finite without an attack",
}
"""What each outcome stands for, for people."""


class Flag(str, Enum):
    """The flags of a result that are not the names of checks; as text they are their values."""

    BATCH_COUPLED = "batch-coupled"
    RANDOMISED = "randomised"
    OPAQUE_GRADIENT = "opaque-gradient"
    NO_TRANSFER = "no-transfer"
    UNSEEDED = "unseeded"
    FEW_CANDIDATES = "few-candidates"

    def __str__(self) -> str:
        return self.value


class CheckId(IntEnum):
    """The numbers of the checks; `docs/diagnosis.md` explains each."""

    @property
    def label(self) -> str:
        """The name of the check in results, such as "batch independence"."""
        if self is CheckId.LOGITS_NOT_PROBABILITIES:
            return "logits, not probabilities"
        return self.name.lower().replace("_", " ")

    GRADIENT_AVAILABILITY = 1
    DETERMINISM = 2
    LOGITS_NOT_PROBABILITIES = 3
    BLACK_BOX = 4
    ITERATIVE_BEATS_SINGLE_STEP = 5
    CONVERGENCE = 6
    INCOMPLETE_OPTIMISATION = 7
    SILENT_SUCCESS = 8
    UNBOUNDED_ATTACK = 9
    MONOTONE_BUDGET = 10
    RANDOM_NOISE = 11
    TRANSFER = 12
    RECOMPUTATION = 13
    REACH = 14
    BATCH_INDEPENDENCE = 15
    SOLVER_GAP = 16
    GRADIENT_FIDELITY = 17
    SOLVER_FAILURE = 18
    STATE = 19
    USEFUL_GRADIENT = 20
    ZERO_GRADIENTS = 21
    MEMORISED_IMAGES = 22


EXAMINATION = (
    CheckId.ITERATIVE_BEATS_SINGLE_STEP,
    CheckId.RANDOM_NOISE,
    CheckId.GRADIENT_FIDELITY,
    CheckId.STATE,
    CheckId.USEFUL_GRADIENT,
    CheckId.ZERO_GRADIENTS,
)
"""The checks that look for masked gradients. A model is examined once its results hold all of them."""
