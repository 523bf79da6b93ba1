"""FGSM, PGD and Carlini-Wagner through foolbox.

Without `fallen` each runs to the end and returns what foolbox returns, image by image. The model must be frozen:
foolbox's backward pass would fill the gradients of its parameters too.
"""

from __future__ import annotations

from typing import Any

import eagerpy
import torch
from foolbox import PyTorchModel
from foolbox.attacks import (
    L2CarliniWagnerAttack,
    L2FastGradientAttack,
    L2ProjectedGradientDescentAttack,
    LinfFastGradientAttack,
    LinfProjectedGradientDescentAttack,
)
from jaxtyping import Float, Int
from torch import Tensor, nn

from odebench.attack.early_stopping import Fallen, pursued
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.seeding import seeded

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]


def fgsm(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
) -> Images:
    """One step of length `epsilon` along the (sign of the) gradient (Goodfellow et al. 2015), norm linf or l2.

    There is nothing to stop early, so `fallen` is not asked.
    """
    attack = {"linf": LinfFastGradientAttack, "l2": L2FastGradientAttack}[norm](random_start=False)
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
    fallen: Fallen | None = None,
    steps: int,
    relative_step: float,
    random_start: bool,
    start: Images | None = None,
) -> Images:
    """Projected gradient ascent of the cross-entropy (Madry et al. 2018); the last iterate, norm linf or l2.

    A step is `relative_step` x epsilon long; foolbox's own default of epsilon / 30 does not cross the ball. With
    `start` it begins at these points of the balls.
    """
    kind = {"linf": LinfProjectedGradientDescentAttack, "l2": L2ProjectedGradientDescentAttack}[norm]
    attack = kind(rel_stepsize=relative_step, steps=steps, random_start=random_start or start is not None)
    drawn = attack.get_random_start
    if start is not None:
        attack.get_random_start = lambda *_: eagerpy.astensor(start)
    else:  # on the CPU, whose random numbers are the same everywhere
        attack.get_random_start = lambda around, radius: eagerpy.astensor(
            drawn(eagerpy.astensor(around.raw.cpu()), radius).raw.to(images.device)
        )

    def run(asked: nn.Module) -> Images:
        return _run(attack, asked, images, labels, epsilon=epsilon)

    return pursued(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def cw(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    searches: int,
    steps: int,
    step: float,
    initial_constant: float,
) -> Images:
    """The smallest l2 perturbation found by Carlini and Wagner's search (2017); it may be longer than `epsilon`.

    abort_early stays off: it looks at the summed loss, so an image's result would depend on its neighbours. An
    unsolved image, which foolbox returns all zero, comes back as it was.
    """
    attack = L2CarliniWagnerAttack(
        binary_search_steps=searches,
        steps=steps,
        stepsize=step,
        initial_const=initial_constant,
        abort_early=False,
    )

    def run(asked: nn.Module) -> Images:
        found = _run(attack, asked, images, labels)
        unsolved = (found == 0).flatten(1).all(1)
        return torch.where(unsolved[:, None, None, None], images, found)

    return pursued(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def _run(attack: Any, model: nn.Module, images: Images, labels: Labels, **budget: float) -> Images:
    # The device is named, since foolbox would move the model to cuda:0 where there is one.
    asked = PyTorchModel(model, bounds=(0, 1), device=images.device)
    found: Images = attack.run(asked, images, labels.long(), **budget)
    return found.detach()
