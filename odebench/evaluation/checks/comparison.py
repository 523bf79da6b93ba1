"""Checks that compare what attacks fell: which images one brings down that a stronger one does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import JsonValue

from odebench.attack.trace import Trace
from odebench.evaluation.checks.rule import count_check, skipped, threshold_check
from odebench.result.outcome import SUCCESSFUL
from odebench.result.schema import Check

OutcomeArray = np.ndarray
"""A letter an image (docs/protocol.md): m, u, f, x or r."""

UNSETTLED_THRESHOLD = 0.05


def _fell(letters: OutcomeArray) -> np.ndarray:
    return np.isin(letters, list(SUCCESSFUL))


def _attacked(letters: OutcomeArray) -> int:
    """How many images were clean-correct."""
    return int((_fell(letters) | (letters == "r")).sum())


def _beyond(probe: OutcomeArray, reference: OutcomeArray) -> int:
    """How many images the probe fells and the reference does not."""
    return int((_fell(probe) & (reference == "r")).sum())


def black_box(by_queries: int, n: int) -> Check:
    """Check 4 (AutoAttack; Carlini et al. 2019): images that fall to square, a search without gradients, after every
    white-box attack has failed."""
    return count_check(
        4,
        "black box",
        speaks_of="model",
        k=by_queries,
        n=n,
        why="images felled by queries alone after every gradient attack had failed: the gradients mislead; give square "
        "more queries, and attack through a differentiable stand-in of what masks them",
    )


def single_step(iterated: OutcomeArray, single: OutcomeArray, *, reaches: bool = True) -> Check:
    """Check 5 (Carlini et al. 2019; Athalye et al. 2018): images that FGSM fells and PGD does not.

    It speaks of the settings where PGD's steps do not reach across its ball (check 14).
    """
    return count_check(
        5,
        "iterative beats single step",
        speaks_of="model" if reaches else "settings",
        k=_beyond(single, iterated),
        n=_attacked(iterated),
        why="images that one step fells and many steps do not: the surface is rugged near the image, or the steps are "
        "badly set (see reach); believe transfer and black-box attacks more",
    )


def convergence(iterated: OutcomeArray, longer: OutcomeArray, restarted: OutcomeArray) -> Check:
    """Check 6 (Carlini et al. 2019): images that twice the steps, or a second start, fell beyond the reference; the
    larger of the two."""
    more, again = _beyond(longer, iterated), _beyond(restarted, iterated)
    return count_check(
        6,
        "convergence",
        speaks_of="settings",
        k=max(more, again),
        n=_attacked(iterated),
        why="images that fall to twice the steps or to another start: the attack has not converged; give it more steps "
        "and restarts",
        evidence={"twice_the_steps": more, "another_start": again},
    )


def incomplete_optimisation(trace: Trace) -> Check:
    """Check 7 (Pintor et al. 2022): the share of the loss's rise that came in the last tenth of the steps, in the
    median over the images, above 0.05."""
    if not trace.losses:
        return skipped(7, "incomplete optimisation", speaks_of="settings", why="no image is classified correctly")
    median = float(np.median(trace.unsettled()))
    return threshold_check(
        7,
        "incomplete optimisation",
        speaks_of="settings",
        flagged=median > UNSETTLED_THRESHOLD,
        figure=median,
        threshold=UNSETTLED_THRESHOLD,
        why="share of the loss's rise in the last tenth of the steps: the attack was stopped while it still climbed; "
        "give it more or longer steps",
    )


def silent_success(trace: Trace, n: int) -> Check:
    """Check 8 (Pintor et al. 2022): images adversarial on the path of the attack and not at its end."""
    return count_check(
        8,
        "silent success",
        speaks_of="settings",
        k=trace.silent,
        n=n,
        why="images fooled on the attack's way and not at its end: an attack that returns its last point overstates "
        "robustness; keep the first fall, as every evaluation here does",
        evidence={"median_loss": list(trace.median_losses())} if trace.losses else {},
    )


def unbounded(attacked: OutcomeArray, grey: OutcomeArray) -> Check:
    """Check 9 (Carlini et al. 2019; Adversarial Robustness Toolbox): images felled by plain grey, which lies within
    linf 0.5 of every image, and not by PGD there."""
    return count_check(
        9,
        "unbounded attack",
        speaks_of="model",
        k=_beyond(grey, attacked),
        n=_attacked(attacked),
        why="images that plain grey fells and PGD within 0.5 does not: the gradients mislead, or vanish; look for "
        "saturated logits, rounding and randomness",
        evidence={"grey": int(_fell(grey).sum()), "attack": int(_fell(attacked).sum())},
    )


def monotone_budget(by_epsilon: Mapping[float, OutcomeArray]) -> Check:
    """Check 10 (Carlini et al. 2019): images that stand at a larger radius and fall at a smaller one, in independent
    runs."""
    epsilons = sorted(by_epsilon)
    if len(epsilons) < 2:
        why = "one radius alone has nothing to be compared with; give several, such as --epsilon 0.05,0.1"
        return skipped(10, "monotone budget", speaks_of="settings", why=why)
    n = _attacked(by_epsilon[epsilons[0]])
    lost = np.zeros(len(by_epsilon[epsilons[0]]), dtype=bool)
    for smaller, larger in pairwise(epsilons):
        lost |= _fell(by_epsilon[smaller]) & (by_epsilon[larger] == "r")
    accuracy: list[JsonValue] = [int((by_epsilon[epsilon] == "r").sum()) / len(lost) for epsilon in epsilons]
    return count_check(
        10,
        "monotone budget",
        speaks_of="settings",
        k=int(lost.sum()),
        n=n,
        why="images that stand at a larger radius and fall at a smaller one: the attack is lost in the larger ball; "
        "give it more steps, and carry falls upward as the worst case does",
        evidence={"epsilons": list(epsilons), "robust_accuracy": accuracy, "clean_accuracy": n / len(lost)},
    )


def random_noise(iterated: OutcomeArray, noise: OutcomeArray, *, reaches: bool = True) -> Check:
    """Check 11 (Carlini et al. 2019): images that random points fell and PGD does not.

    It speaks of the settings where PGD's steps do not reach across its ball (check 14).
    """
    return count_check(
        11,
        "random noise",
        speaks_of="model" if reaches else "settings",
        k=_beyond(noise, iterated),
        n=_attacked(iterated),
        why="images that random points fell and a gradient attack does not: its gradients are worse than chance; look "
        "for what masks them",
    )


def transferred(by_source: int, n: int, sources: Sequence[str]) -> Check:
    """Check 12 (Carlini et al. 2019): images that candidates crafted on other models fell after every white-box
    attack has failed."""
    if not sources:
        why = "there is no other model to craft candidates on; name one as a source"
        return skipped(12, "transfer", speaks_of="model", why=why)
    return count_check(
        12,
        "transfer",
        speaks_of="model",
        k=by_source,
        n=n,
        why="images felled by candidates of other models after every gradient attack on this one had failed: its own "
        "gradients mislead; believe the transfer, and craft on more sources",
        evidence={"sources": list(sources)},
    )
