"""Checks that compare attacks: on which images one succeeds where a stronger one does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import JsonValue

from odebench.attack.trace import Trace
from odebench.evaluation.checks.rule import count_check, skipped, threshold_check
from odebench.result.outcome import CORRECT, ROBUST, SUCCESSFUL, CheckId
from odebench.result.schema import Check

OutcomeArray = np.ndarray
"""One letter of odebench.result.outcome per image."""

UNSETTLED_THRESHOLD = 0.05


def _successful(outcomes: OutcomeArray) -> np.ndarray:
    return np.isin(outcomes, list(SUCCESSFUL))


def _attacked(outcomes: OutcomeArray) -> int:
    """How many images were classified correctly when clean."""
    return int(np.isin(outcomes, list(CORRECT)).sum())


def _only_by_probe(probe: OutcomeArray, reference: OutcomeArray) -> int:
    """On how many images the probe succeeds and the reference does not."""
    return int((_successful(probe) & (reference == ROBUST)).sum())


def black_box(by_queries: int, n: int) -> Check:
    """Check 4 (AutoAttack; Carlini et al. 2019): images on which square, a search without gradients, succeeds
    after every white-box attack has failed."""
    return count_check(
        CheckId.BLACK_BOX,
        speaks_of="model",
        k=by_queries,
        n=n,
        why="images fooled by queries alone after every gradient attack had failed: the gradients mislead; give square "
        "more queries, and attack through a differentiable approximation of what masks them",
    )


def single_step(iterated: OutcomeArray, single: OutcomeArray, *, reaches: bool = True) -> Check:
    """Check 5 (Carlini et al. 2019; Athalye et al. 2018): images on which FGSM succeeds and PGD does not.

    It speaks of the settings where PGD's steps do not reach across its ball (check 14).
    """
    return count_check(
        CheckId.ITERATIVE_BEATS_SINGLE_STEP,
        speaks_of="model" if reaches else "settings",
        k=_only_by_probe(single, iterated),
        n=_attacked(iterated),
        why="images that one step fools and many steps do not: the loss is rugged near the image, or the steps are "
        "badly set (see reach); trust transfer and black-box attacks more",
    )


def convergence(iterated: OutcomeArray, longer: OutcomeArray, restarted: OutcomeArray) -> Check:
    """Check 6 (Carlini et al. 2019): images on which PGD succeeds only with twice the steps, or only from a second
    start; the larger of the two counts."""
    more, again = _only_by_probe(longer, iterated), _only_by_probe(restarted, iterated)
    return count_check(
        CheckId.CONVERGENCE,
        speaks_of="settings",
        k=max(more, again),
        n=_attacked(iterated),
        why="images that twice the steps or another start fools: the attack has not converged; give it more steps "
        "and restarts",
        evidence={"twice_the_steps": more, "another_start": again},
    )


def incomplete_optimisation(trace: Trace) -> Check:
    """Check 7 (Pintor et al. 2022): flags where more than 0.05 of the loss's rise comes in the last tenth of the
    steps, in the median over the images."""
    if not trace.losses:
        return skipped(CheckId.INCOMPLETE_OPTIMISATION, speaks_of="settings", why="no image is classified correctly")
    median = float(np.median(trace.unsettled()))
    return threshold_check(
        CheckId.INCOMPLETE_OPTIMISATION,
        speaks_of="settings",
        flagged=median > UNSETTLED_THRESHOLD,
        figure=median,
        threshold=UNSETTLED_THRESHOLD,
        why="share of the loss's rise in the last tenth of the steps: the attack stopped while the loss still rose; "
        "give it more or longer steps",
    )


def silent_success(trace: Trace, n: int) -> Check:
    """Check 8 (Pintor et al. 2022): images that were adversarial on the attack's path and are not at its end."""
    return count_check(
        CheckId.SILENT_SUCCESS,
        speaks_of="settings",
        k=trace.silent_successes,
        n=n,
        why="images fooled on the attack's path and not at its end: an attack that returns its last point overstates "
        "robustness; keep the first success, as every evaluation here does",
        evidence={"median_loss": list(trace.median_losses())} if trace.losses else {},
    )


def unbounded(attacked: OutcomeArray, grey: OutcomeArray) -> Check:
    """Check 9 (Carlini et al. 2019; Adversarial Robustness Toolbox): images that plain grey, which lies
    within linf 0.5 of every image, fools and PGD within that radius does not."""
    return count_check(
        CheckId.UNBOUNDED_ATTACK,
        speaks_of="model",
        k=_only_by_probe(grey, attacked),
        n=_attacked(attacked),
        why="images that plain grey fools and PGD within 0.5 does not: the gradients mislead, or vanish; look for "
        "saturated logits, rounding and randomness",
        evidence={"grey": int(_successful(grey).sum()), "attack": int(_successful(attacked).sum())},
    )


def monotone_budget(by_epsilon: Mapping[float, OutcomeArray]) -> Check:
    """Check 10 (Carlini et al. 2019): images robust at a larger radius, and in another run not at a smaller one."""
    epsilons = sorted(by_epsilon)
    if len(epsilons) < 2:
        why = "one radius alone has nothing to be compared with; give several, such as --epsilon 0.05,0.1"
        return skipped(CheckId.MONOTONE_BUDGET, speaks_of="settings", why=why)
    n = _attacked(by_epsilon[epsilons[0]])
    lost = np.zeros(len(by_epsilon[epsilons[0]]), dtype=bool)
    for smaller, larger in pairwise(epsilons):
        lost |= _successful(by_epsilon[smaller]) & (by_epsilon[larger] == ROBUST)
    accuracy: list[JsonValue] = [int((by_epsilon[epsilon] == ROBUST).sum()) / len(lost) for epsilon in epsilons]
    return count_check(
        CheckId.MONOTONE_BUDGET,
        speaks_of="settings",
        k=int(lost.sum()),
        n=n,
        why="images robust at a larger radius and fooled at a smaller one: the attack fails in the larger ball; give "
        "it more steps, and carry successes upward as the worst case does",
        evidence={"epsilons": list(epsilons), "robust_accuracy": accuracy, "clean_accuracy": n / len(lost)},
    )


def random_noise(iterated: OutcomeArray, noise: OutcomeArray, *, reaches: bool = True) -> Check:
    """Check 11 (Carlini et al. 2019): images that random points fool and PGD does not.

    It speaks of the settings where PGD's steps do not reach across its ball (check 14).
    """
    return count_check(
        CheckId.RANDOM_NOISE,
        speaks_of="model" if reaches else "settings",
        k=_only_by_probe(noise, iterated),
        n=_attacked(iterated),
        why="images that random points fool and a gradient attack does not: its gradients are worse than chance; look "
        "for what masks them",
    )


def transferred(by_source: int, n: int, sources: Sequence[str]) -> Check:
    """Check 12 (Carlini et al. 2019): images on which candidates crafted on other models succeed after every
    white-box attack has failed."""
    if not sources:
        why = "there is no other model to craft candidates on; name one as a source"
        return skipped(CheckId.TRANSFER, speaks_of="model", why=why)
    return count_check(
        CheckId.TRANSFER,
        speaks_of="model",
        k=by_source,
        n=n,
        why="images fooled by candidates of other models after every gradient attack on this one had failed: its own "
        "gradients mislead; trust the transfer, and craft on more sources",
        evidence={"sources": list(sources)},
    )
