"""What `odebench info` says of the words of results: checks, flags, letters, efforts, the answers to claims."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from odebench.analysis.claims import ClaimVerdict
from odebench.attack.builtin import WORST_CASE
from odebench.cli.console import FLAG_ADVICE
from odebench.leaderboard.build import FLAG_MEANINGS
from odebench.result.outcome import EXAMINATION, MEANINGS, CheckId, Flag

CHECKS: dict[CheckId, tuple[str, str]] = {
    CheckId.GRADIENT_AVAILABILITY: (
        "counts images whose input gradient is all zero or not finite",
        "an attack by gradients cannot work there: look for saturated logits, rounding, or a detached graph",
    ),
    CheckId.DETERMINISM: (
        "looks whether five passes over one image give one answer",
        "make the model deterministic in evaluation mode; a random one is flagged `randomised` and not ranked",
    ),
    CheckId.LOGITS_NOT_PROBABILITIES: (
        "looks whether the outputs are probabilities",
        "hand over the logits, without softmax: probabilities saturate, and their gradients vanish",
    ),
    CheckId.BLACK_BOX: (
        "counts images fooled by queries alone after every gradient attack of the effort fast had failed",
        "the gradients mislead: give square more queries, and attack through an approximation of what masks them",
    ),
    CheckId.ITERATIVE_BEATS_SINGLE_STEP: (
        "counts images that one step (FGSM) fools and many steps (PGD) do not",
        "the loss is rugged, or the steps are badly set (see reach): trust transfer and black-box attacks more",
    ),
    CheckId.CONVERGENCE: (
        "counts images that twice the steps, or another random start, fools as well",
        "the attack has not converged: give it more steps and restarts",
    ),
    CheckId.INCOMPLETE_OPTIMISATION: (
        "looks whether the loss still rises in the last tenth of the steps",
        "the attack stopped too early: give it more or longer steps",
    ),
    CheckId.SILENT_SUCCESS: (
        "counts images that are adversarial on the path of PGD and not at its end",
        "an attack that returns its last point overstates robustness: keep the first success, as odebench does",
    ),
    CheckId.UNBOUNDED_ATTACK: (
        "counts images that plain grey fools and PGD with a huge epsilon does not",
        "the gradients mislead or vanish: look for saturated logits, rounding and randomness",
    ),
    CheckId.MONOTONE_BUDGET: (
        "counts images that are robust at a larger epsilon and fooled at a smaller one",
        "the attack fails in the larger ball: give it more steps",
    ),
    CheckId.RANDOM_NOISE: (
        "counts images that random points fool and PGD does not",
        "the gradients are worse than chance: look for what masks them",
    ),
    CheckId.TRANSFER: (
        "counts images fooled by candidates of other models after every gradient attack had failed",
        "the model's own gradients mislead: trust the transfer, and craft candidates on more sources",
    ),
    CheckId.RECOMPUTATION: (
        "compares the figures in a result file with its letters",
        "the file was altered or damaged: it is refused; run the evaluation again",
    ),
    CheckId.REACH: (
        "compares steps x step with epsilon: can the attack cross its ball?",
        "lengthen the step, or take more steps",
    ),
    CheckId.BATCH_INDEPENDENCE: (
        "looks whether an answer depends on the other images of the batch",
        "the model is judged one image at a time (`batch-coupled`): remove batch statistics and shared step sizes",
    ),
    CheckId.SOLVER_GAP: (
        "counts images whose letter changes with half the step, or a tenth of the tolerance",
        "the solver's error decides, not the field: declare a finer solver, or call the discretisation the model",
    ),
    CheckId.GRADIENT_FIDELITY: (
        "compares the gradient that the attack uses with differences of the logits in fp64",
        "the gradient is that of another function: use `direct` gradients, and look for masks",
    ),
    CheckId.SOLVER_FAILURE: (
        "counts images on which the solver fails, clean or under attack",
        "a failure is never robustness: it counts for the attack; allow more steps or a looser tolerance",
    ),
    CheckId.STATE: (
        "compares the model after the attack with a fresh copy in a new process",
        "find what the model keeps between calls, or how it knows its caller, and remove it",
    ),
    CheckId.USEFUL_GRADIENT: (
        "compares the gradient with differences over a quarter of epsilon, where attacks step",
        "the gradient leads nowhere at that scale: ripples, staircases or rounding mask it",
    ),
    CheckId.ZERO_GRADIENTS: (
        "counts images with pixels whose gradient is exactly zero",
        "never flags: attacks use the gradient a little further inside there",
    ),
    CheckId.MEMORISED_IMAGES: (
        "compares accuracy on test images, and on copies, with that on validation images, and looks for traces of "
        "stored images (`verify` only)",
        "the model knows the test images: train it on train images alone",
    ),
}
"""What each check looks at, and what to do if it flags. Thresholds: docs/protocol.md, section 4."""

VERDICTS: dict[ClaimVerdict, str] = {
    ClaimVerdict.not_run: "no results, or the claim is refused",
    ClaimVerdict.too_few_seeds: "fewer than eight train seeds are complete",
    ClaimVerdict.flagged: "a model that is compared has a flag about the model",
    ClaimVerdict.supported: "the gain is above zero, and its adjusted p below .05",
    ClaimVerdict.reversed: "the gain is below zero, and its adjusted p below .05",
    ClaimVerdict.masked: "a weak attack supports the claim, and the stronger one takes the gain back",
    ClaimVerdict.ruled_out: "a gain as large as the claim's margin is excluded by the interval",
    ClaimVerdict.inconclusive: "the interval holds both no gain and a gain as large as the margin",
}

WORDS: dict[str, str] = {
    "robust accuracy": "the share of all images that are classified correctly, clean and at every adversarial image "
    "that the attacks found within epsilon; a stronger attack may lower it",
    "rank": "1 plus the number of models that are significantly better",
    "carry-over": "an image that is fooled at one epsilon counts as fooled at every larger one, in tables and in what "
    "run and show print; the letters of a result are as they were found",
    "clean accuracy": "the share of images that are classified correctly without an attack",
    "epsilon": "the radius of the ball around an image that an attack may search, for pixels in [0, 1]",
    "adversarial example": "an image within epsilon of a test image that the model misclassifies",
    "norm": "how the distance to an image is measured: linf, the largest change of a pixel, or l2, the root of the "
    "sum of squares",
    "threat model": "a norm and its epsilons",
    "T": "the horizon: the field of a Neural ODE is integrated from 0 to T",
    "NFE": "evaluations of the vector field per image, clean and under attack",
    "teacher": "the model that another one is distilled from: it is trained first, by its own recipe",
    "student": "a model that is trained on the answers of a teacher, not on labels alone (distillation)",
    "surrogate": "a cheaper solver of the same weights that is attacked first; the declared solver verifies",
    "examined": "results of the model hold all checks that look for masked gradients: "
    + ", ".join(f"{check.label} ({check.value})" for check in EXAMINATION),
    "not examined": "no result of the model holds the checks that look for masked gradients, so it is not ranked; "
    "`odebench diagnose` makes them",
    "ranked": "the model has a worst-case result, is examined and not randomised; its rank is 1 plus the number of "
    "models that are significantly better",
    "unranked": "the model has no worst-case result, is randomised, or is not examined (see `not examined`)",
    "masked gradients": "gradients that do not lead to adversarial images that exist, so that attacks by gradient fail",
    "doubt": "a check about gradients flags, or a tripwire succeeds: the worst case then adds attacks that false "
    "gradients do not mislead, and the result says why",
    "tripwire": "a short attack on the first standing images; if it succeeds (boundary: on two), the model is in doubt",
    "stage": "one of the attacks that the worst case runs in turn, on the images that still stand; `odebench info "
    "fast-2` lists them",
    "felled by": "in a result's JSON (`felled_by`), the stage that first fooled each image: a code per image, and the "
    "legend of the codes",
    "chunk": "the images, usually 100, that an attack is run on together; whole chunks are verified",
    "train seed": "the seed of a training: where a table gives several, its figures are means over them",
    "margin": "the gain that a claim speaks of, in points: an interval that excludes it rules the claim out",
    "recipe": "all that determines a training: model, data, schedule, loss, teacher and train seed",
    "candidate": "an image that an attack proposes; the verdict decides whether it fools the model",
    "fooled": "misclassified at an adversarial image within epsilon: letter f",
    "invalid": "a candidate that is not finite, or more than 1e-6 outside the ball of a fixed-budget attack",
    "run key": "the digest of all that determines a result: a finished run is found by it, and skipped",
    "interim": "not all train seeds that the claim registers are complete",
    "protocol": "a named, versioned grid of evaluations; `odebench protocols` lists them",
}

LISTS: dict[str, dict[str, Any]] = {
    "letter": {"summary": "what became of an image, one letter per image in a result", **MEANINGS},
    "flag": {
        "summary": "a warning beside a figure, which stays as it is: the name of a check that flags, or one of these",
        "flags": [flag.value for flag in Flag],
    },
    "check": {
        "summary": "an automated test of a model or of an attack's settings; `odebench info 16` explains one",
        "checks": [f"{check.value} {check.label}" for check in CHECKS],
    },
    "effort": {
        "summary": "how much the worst case spends; `odebench info fast-2` explains one",
        "efforts": list(WORST_CASE.choices["effort"]),
    },
}
"""The kinds of words, each with all words of that kind; known by their plural, too."""

ALSO = {
    "T": ("horizon",),
    "masked gradients": ("masked", "gradient masking", "obfuscated gradients"),
    "adversarial example": ("adversarial image",),
    "epsilon": ("radius",),
}
"""Other names of a word."""


def explained(name: str) -> list[dict[str, Any]]:
    """What is known of a word, a check by name or number, a flag, a letter or an effort: nothing, one or several."""
    return [about for names, about in _terms() if _plain(name) in map(_plain, names)]


def terms() -> list[str]:
    """All names that are explained, but for the numbers of checks."""
    return [names[0] for names, _ in _terms()]


def _plain(name: str) -> str:
    # Letters keep their case: T is the horizon. Of longer names case, hyphens and underscores do not matter.
    return name if len(name) == 1 else " ".join(re.sub("[-_]", " ", name.lower()).split())


def _terms() -> Iterator[tuple[list[str], dict[str, Any]]]:
    for check, (looks_at, advice) in CHECKS.items():
        about = {"name": check.label, "kind": f"check {check.value}", "summary": looks_at, "if it flags": advice}
        yield [check.label, str(check.value), f"check {check.value}"], about
    for flag in Flag:
        yield (
            [flag.value],
            {"name": flag.value, "kind": "flag", "summary": FLAG_MEANINGS[flag], "what to do": FLAG_ADVICE[flag]},
        )
    for letter, meaning in MEANINGS.items():
        yield [letter], {"name": letter, "kind": "letter of an image", "summary": meaning}
    for effort in WORST_CASE.choices["effort"]:
        yield (
            [effort, f"{WORST_CASE.name} {effort}"],
            {"name": effort, "kind": "effort of worst-case", **_effort(str(effort))},
        )
    for verdict, meaning in VERDICTS.items():
        yield [verdict.value], {"name": verdict.value, "kind": "answer to a claim", "summary": meaning}
    for word, about in LISTS.items():
        yield [word, f"{word}s"], {"name": word, "kind": "word", **about}
    for word, meaning in WORDS.items():
        yield [word, *ALSO.get(word, ())], {"name": word, "kind": "word", "summary": meaning}


def _effort(effort: str) -> dict[str, Any]:
    parameters = WORST_CASE.complete({"effort": effort})
    usual = WORST_CASE.stages(parameters, norm="linf", n_classes=10)
    in_doubt = WORST_CASE.stages(parameters, norm="linf", n_classes=10, in_doubt=True)
    return {
        "stages": [stage.name for stage in usual],
        "in doubt also": [stage.name for stage in in_doubt if stage not in usual],
        "passes": sum(stage.passes for stage in usual),
    }
