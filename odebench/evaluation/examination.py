"""What an evaluation looks at on its first chunk once that has been attacked: does the model hide anything?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from odebench.attack.definition import DiagnosisDefinition, Stage, StagedAttackDefinition, load_attack
from odebench.attack.probes import probes
from odebench.evaluation.checks.comparison import random_noise, single_step
from odebench.evaluation.checks.model import gradient_availability, logits_not_probabilities, useless_gradients
from odebench.evaluation.checks.reach import reach
from odebench.evaluation.checks.rule import skipped
from odebench.evaluation.checks.state import Start, state
from odebench.evaluation.checks.usefulness import useful_gradient, zero_gradients
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.preflight import Preflight, fidelity_check
from odebench.evaluation.staged_attack import StagedAttack
from odebench.evaluation.verdict import Judge
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels
from odebench.progress import Step
from odebench.result.outcome import EXAMINATION, ROBUST, CheckId
from odebench.result.schema import Check

DOUBTFUL = frozenset(
    {
        CheckId.GRADIENT_AVAILABILITY,
        CheckId.LOGITS_NOT_PROBABILITIES,
        CheckId.ITERATIVE_BEATS_SINGLE_STEP,
        CheckId.UNBOUNDED_ATTACK,
        CheckId.RANDOM_NOISE,
        CheckId.GRADIENT_FIDELITY,
        CheckId.STATE,
        CheckId.USEFUL_GRADIENT,
    }
)
"""The checks that raise doubt about a model's gradients where they flag; others speak of randomness or the solver."""


@dataclass(frozen=True)
class Examination:
    """The checks made on the first chunk, and why its gradients are in doubt, a sentence each."""

    checks: tuple[Check, ...] = ()
    doubt: tuple[str, ...] = ()


def examine(
    attack: StagedAttack,
    found: Sequence[Outcomes],
    preflight: Preflight,
    stages: Sequence[Stage],
    others: Sequence[Check],
    start: Start | None,
    step: Step,
) -> Examination:
    """The checks 5, 11, 17, 19, 20 and 21, and the reasons for doubt.

    `attack` is made for the first chunk alone, `found` holds the outcomes there by epsilon, `others` the checks made
    before; `start` makes a fresh process of the model. A reason is a check that flags, a tripwire among the `stages`
    that succeeded, or a module handed over whose gradient could not be confirmed.
    """
    evaluation, judge, clean = attack.evaluation, attack.judge, preflight.first_clean
    threat = evaluation.threat_model
    norm, epsilon = threat.norm, threat.middle_epsilon
    definition, parameters = load_attack(evaluation.attack.name), evaluation.attack.parameters
    middle = found[threat.epsilons.index(epsilon)]
    correct = torch.from_numpy(clean == ROBUST)
    images, labels = attack.images[correct], attack.labels[correct]
    if attack.received is not None:
        attack.received.close()  # the probes below are no part of the attack
    others = [*others, *_first_looks(judge, images, labels)]
    if judge.passes > 1:
        why = "the model draws random numbers: it differs at every pass"
        nothing = tuple(skipped(check, speaks_of="model", why=why) for check in EXAMINATION)
        return Examination(nothing, _reasons(attack, found, stages, others))
    parts = probes({}, norm=norm, n_classes=judge.classifier.n_classes)
    single = Outcomes.of(clean, keep_candidates=True)
    attack.attack_images(epsilon, single, step, stages=[parts.single_step])
    checks: list[Check] = []
    with _state(attack, preflight, single, start) as finish:
        checks += [
            useful_gradient(judge.classifier, images, norm=norm, epsilon=epsilon, alone=judge.alone),
            zero_gradients(judge.classifier, images, labels, norm=norm, epsilon=epsilon, alone=judge.alone),
        ]
        if not isinstance(definition, DiagnosisDefinition):  # which makes these itself, on all images
            iterated, reaches = middle, reach(definition, parameters).status != "flag"
            if isinstance(definition, StagedAttackDefinition):
                # Its other stages would cover up that PGD fails.
                iterated = Outcomes.of(clean)
                attack.attack_images(epsilon, iterated, step, stages=[parts.iterated])
            noise = Outcomes.of(iterated.letters)
            attack.attack_images(epsilon, noise, step, stages=[parts.random])
            checks += [
                single_step(iterated.letters, single.letters, reaches=reaches),
                random_noise(iterated.letters, noise.letters, reaches=reaches),
                fidelity_check(judge, images, norm=norm, epsilon=epsilon, received=attack.received),
            ]
        checks.insert(0, finish())
    by_id = {check.id: check for check in (*others, *checks)}
    doubt = _reasons(attack, found, stages, list(by_id.values()))
    if preflight.gradient_unconfirmed:
        doubt = (*doubt, "the gradient of a module that was handed over could not be confirmed")
    return Examination(tuple(checks), doubt)


def _first_looks(judge: Judge, images: Images, labels: Labels) -> list[Check]:
    """The checks 1 and 3 on the first chunk alone, whatever part of the images is attacked: they decide on doubt."""
    if not len(images):
        return []
    with seeded(0):
        useless = useless_gradients(judge.classifier, images, labels)
        return [gradient_availability(useless, len(images)), logits_not_probabilities(judge.answer(images).logits)]


def _reasons(
    attack: StagedAttack, found: Sequence[Outcomes], stages: Sequence[Stage], checks: Sequence[Check]
) -> tuple[str, ...]:
    """What raises doubt: checks that flag, and tripwires that succeeded."""
    doubt = [
        f"check {check.id}, {check.name}, flags" for check in checks if check.status == "flag" and check.id in DOUBTFUL
    ]
    for stage in stages:
        epsilons = attack.evaluation.threat_model.epsilons if stage.tripwire else ()
        codes = [attack.code(stage, epsilon) for epsilon in epsilons]
        felled = np.any([np.isin(outcomes.felled_by, codes) for outcomes in found], axis=0)
        if felled.sum() >= stage.doubtful:
            doubt.append(f"{stage.name} succeeds on {int(felled.sum())} images after every gradient attack had failed")
    return tuple(doubt)


@contextmanager
def _state(
    attack: StagedAttack, preflight: Preflight, attacked: Outcomes, start: Start | None
) -> Iterator[Callable[[], Check]]:
    """Check 19, made once for all attacks that share a preflight, and finished by what this yields.

    Beside clean images the model is asked about candidates of one step, and halfway between images of two classes: a
    model that remembers images, and has no gradient near them, shows it there.
    """
    if preflight.state:
        yield lambda: preflight.state[0]
        return
    rows = np.flatnonzero(preflight.first_clean == ROBUST)
    images, labels, judge = attack.images[rows], attack.labels[rows], attack.judge
    judged = attacked.judged or {}
    points = {place: judged[row] for place, row in enumerate(rows.tolist()) if row in judged}
    for place in range(0, len(rows), 2):
        if len(others := (labels != labels[place]).nonzero().flatten()):
            points[place] = (images[place] + images[others[place % len(others)]]) / 2
    randomised = judge.passes > 1
    with state(judge.classifier, start, images, labels, points, alone=judge.alone, randomised=randomised) as finish:

        def kept() -> Check:
            preflight.state.append(finish())
            return preflight.state[0]

        yield kept
