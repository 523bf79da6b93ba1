"""Whether the answers of a model in a process of its own are what they pass for: looked at outside, on drawn points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from odebench.errors import ModelError, ModelProcessError
from odebench.evaluation.checks.gradient import NOTHING, WRONG_COSINE, WRONG_SHARE
from odebench.evaluation.checks.replay import cosines
from odebench.model.process_classifier import ProcessClassifier
from odebench.model.solver import integrate
from odebench.numerics.shapes import Images

FEWEST = 4
"""So many gradients must be comparable."""
INTEGRATED = 8
"""How many images are integrated outside."""
LOGIT_TOLERANCE, ADAPTIVE_TOLERANCE = 1e-4, 1e-2
"""By what share of the largest |logit| a logit may differ; steps that a solver chooses itself may fall otherwise."""
ADAPTIVE_NFE = 0.1
"""By what share the mean NFE of a solver that chooses its steps may differ; that of a fixed step may not at all."""


@dataclass(frozen=True)
class Lie:
    """An answer that is not that of the model: the rule of the finding, and a sentence."""

    rule: str
    said: str


@dataclass(frozen=True)
class Integrated:
    """On how many points a field was integrated outside (None: there is no field), and what was found."""

    points: int | None
    lies: tuple[Lie, ...]


def false_gradients(classifier: ProcessClassifier) -> tuple[Lie, ...]:
    """Whether gradients that attacks and checks were given are those of the logits.

    Some of them were drawn as they came. Each is held against differences in fp64 of what it was the gradient
    of, along random directions (`cosines`): so a process cannot tell attacks by their images or by their losses. Raises
    ModelError.
    """
    drawn = list(classifier.drawn)
    if not drawn:
        return ()
    try:
        # Steps that a solver shares among a batch are those of an image alone in a batch of one.
        alone = classifier.solver is not None and classifier.solver.couples_batch
        found = cosines(classifier, drawn, alone=alone, generator=_system_generator())
    except ModelError:
        return ()  # it cannot be asked in fp64, of which check 17 says what is to be said
    asked = found[found < NOTHING]
    wrong = int((asked < WRONG_COSINE).sum())
    if len(asked) < FEWEST or wrong <= WRONG_SHARE * len(asked):
        return ()
    said = f"{wrong} of {len(asked)} gradients, drawn from those that attacks were given, are not those of its logits"
    return (Lie("gradient", said),)


def _system_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def integrated_outside(classifier: ProcessClassifier, images: Images) -> Integrated:
    """The field of a process, asked step by step and integrated here, against its own answers on a few drawn images.

    Raises ModelError.
    """
    if classifier.horizon is None or classifier.solver is None or not len(images):
        return Integrated(None, ())
    points = images[torch.randperm(len(images), generator=_system_generator())[:INTEGRATED]]
    process, solver = classifier.process, classifier.solver
    coupled = solver.couples_batch
    alone = torch.split(points, 1) if coupled else (points,)

    def field(t: Tensor, state: Tensor) -> Tensor:
        return process.part("field", torch.as_tensor(t, dtype=state.dtype), state, shape=tuple(state.shape))

    logits, failed, nfe = [], [], []
    try:
        with torch.no_grad():
            for part in alone:
                start = process.part("stem", part, shape=None)
                found = integrate(field, start, horizon=classifier.horizon, solver=solver)
                logits.append(process.part("head", found.state, shape=(len(part), classifier.n_classes)))
                failed.append(found.failed | ~logits[-1].isfinite().all(1))
                nfe.append(found.nfe)
            answers = [classifier.answer(part) for part in alone]
    except ModelProcessError as error:
        raise ModelError(str(error)) from error
    fine = ~torch.cat(failed)
    said = torch.cat([one.failed for one in answers])
    if (said == fine).any():
        differ = int((said == fine).sum())
        return Integrated(len(points), (_lie(differ, len(points), "fail where its field does not, or the other way"),))
    here, there = torch.cat(logits)[fine], torch.cat([one.logits for one in answers])[fine]
    tolerance = ADAPTIVE_TOLERANCE if solver.adaptive else LOGIT_TOLERANCE
    gap = (here - there).abs().amax(1) if len(here) else torch.zeros(0)
    other = int((gap > tolerance * here.abs().amax(1).clamp_min(1e-12)).sum()) if len(here) else 0
    lies = [_lie(other, len(points), "have other logits than its field, integrated outside")] if other else []
    told = [one.nfe for one in answers]
    counts = [count for count in told if count is not None]
    if len(counts) < len(told):
        lies.append(Lie("solver", "it does not say how often its field is evaluated"))
    else:
        says, true = torch.cat(counts).double(), torch.cat(nfe).double()
        if solver.adaptive:
            says, true = says.mean(0, keepdim=True), true.mean(0, keepdim=True)
        wrong = (says - true).abs() > (ADAPTIVE_NFE if solver.adaptive else 0) * true
        for row in wrong.nonzero().flatten().tolist()[:1]:
            lies.append(Lie("solver", f"it says NFE {says[row]:g}, integrated outside {true[row]:g}"))
    return Integrated(len(points), tuple(lies))


def _lie(k: int, n: int, what: str) -> Lie:
    return Lie("solver", f"{k} of {n} images {what}: its answers are not those of the solver that it names")
