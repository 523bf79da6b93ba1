"""FGSM, PGD and Carlini-Wagner through foolbox.

Without `fallen` each attack runs to its end and returns what foolbox returns, image by image. The model must be frozen:
foolbox's backward pass would also fill the gradients of its parameters.
"""

from __future__ import annotations

from typing import Any

import eagerpy
import torch
from foolbox import PyTorchModel, attacks
from torch import nn

from odebench.attack.early_stopping import IsAdversarial, with_early_stopping
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels


def fgsm(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
) -> Images:
    """One step of length `epsilon` along the gradient (l2) or its sign (linf), by Goodfellow et al. (2015).

    There is nothing to stop early, so `fallen` is not called.
    """
    attack = {"linf": attacks.LinfFastGradientAttack, "l2": attacks.L2FastGradientAttack}[norm](random_start=False)
    with seeded(seed):
        return _run(attack, model, images, labels, epsilon=epsilon)


def pgd(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    relative_step: float,
    random_start: bool,
    start: Images | None = None,
) -> Images:
    """The last iterate of projected gradient ascent on the cross-entropy (Madry et al. 2018), norm linf or l2.

    A step is `relative_step` x epsilon long; with foolbox's default of epsilon / 30 the steps do not cross the ball.
    With `start` the attack begins at these points.
    """
    kinds = {"linf": attacks.LinfProjectedGradientDescentAttack, "l2": attacks.L2ProjectedGradientDescentAttack}
    attack = kinds[norm](rel_stepsize=relative_step, steps=steps, random_start=random_start or start is not None)
    drawn = attack.get_random_start
    if start is not None:
        attack.get_random_start = lambda *_: eagerpy.astensor(start)
    else:  # drawn on the CPU, whose random numbers are the same everywhere
        attack.get_random_start = lambda around, radius: eagerpy.astensor(
            drawn(eagerpy.astensor(around.raw.cpu()), radius).raw.to(images.device)
        )

    def run(active: nn.Module) -> Images:
        return _run(attack, active, images, labels, epsilon=epsilon)

    return with_early_stopping(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def cw(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    searches: int,
    steps: int,
    step: float,
    initial_constant: float,
) -> Images:
    """Carlini and Wagner's search (2017) for the smallest l2 perturbation, which may be longer than `epsilon`.

    foolbox's abort_early stays off: it looks at the summed loss, so that an image's result would depend on the others.
    An image without a solution, which foolbox returns all zero, comes back unchanged.
    """
    attack = attacks.L2CarliniWagnerAttack(
        binary_search_steps=searches,
        steps=steps,
        stepsize=step,
        initial_const=initial_constant,
        abort_early=False,
    )

    def run(active: nn.Module) -> Images:
        found = _run(attack, active, images, labels)
        unsolved = (found == 0).flatten(1).all(1)
        return torch.where(unsolved[:, None, None, None], images, found)

    return with_early_stopping(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def _run(attack: Any, model: nn.Module, images: Images, labels: Labels, **budget: float) -> Images:
    # Without a device foolbox would move the model to cuda:0 where there is one.
    wrapped = PyTorchModel(model, bounds=(0, 1), device=images.device)
    found: Images = attack.run(wrapped, images, labels.long(), **budget)
    return found.detach()
