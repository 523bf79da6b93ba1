"""Adversarial training: the images that Madry's loss, TRADES and RSLAD are computed on, and these losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from odebench.model.losses import LossFunction, divergence
from odebench.numerics.projection import project
from odebench.numerics.shapes import Images, Labels, Logits
from odebench.protocol.recipe import ADVERSARIAL_SHARE, Adversary

NEARBY = 1e-3
"""Standard deviation of the random start around an image, as in the authors' code of TRADES and RSLAD. At the image
itself the divergence of TRADES has no gradient."""


def adversarial_loss(
    module: nn.Module,
    images: Images,
    labels: Labels,
    *,
    adversary: Adversary,
    loss: LossFunction,
    generator: torch.Generator,
    targets: Logits | None = None,
) -> tuple[Logits, Float[Tensor, ""]]:
    """The logits and the loss of a batch: `loss` at adversarial images (Madry), or at both kinds (TRADES, RSLAD).

    The logits of TRADES and RSLAD are those at the clean images. `targets` are the teacher's logits at the clean
    images, also where the student sees others (as in ARD, Goldblum et al. 2020).
    """
    found = adversarial_images(module, images, labels, adversary=adversary, generator=generator, targets=targets)
    if adversary.kind == "madry":
        logits = module(found)
        return logits, loss(logits, labels, targets)
    logits, others = module(images), module(found)
    if adversary.kind == "rslad":
        near, far = loss(logits, labels, targets), loss(others, labels, targets)
        return logits, ADVERSARIAL_SHARE * far + (1 - ADVERSARIAL_SHARE) * near
    apart = divergence(logits, others)
    return logits, loss(logits, labels, targets) + cast(float, adversary.beta) * apart


def adversarial_images(
    module: nn.Module,
    images: Images,
    labels: Labels,
    *,
    adversary: Adversary,
    generator: torch.Generator,
    targets: Logits | None = None,
) -> Images:
    """Images in [0, 1] and within epsilon of `images`, after the adversary's steps along the sign of the gradient.

    "madry" ascends the cross-entropy from a start anywhere in the ball. From a start close to the image "trades"
    ascends the divergence from the logits at the clean images, and "rslad" that from `targets`, the teacher's logits
    there. The module is in evaluation mode meanwhile, and its parameters keep their gradients. All random numbers come
    from `generator`, which is on the CPU.
    """
    with _evaluating(module):
        if adversary.kind == "madry":
            noise = 2 * torch.rand(images.shape, generator=generator) - 1
            start = project(
                images, images + adversary.epsilon * noise.to(images), norm=adversary.norm, epsilon=adversary.epsilon
            )

            def gain(logits: Logits) -> Float[Tensor, ""]:
                return functional.cross_entropy(logits, labels)
        else:
            noise = torch.randn(images.shape, generator=generator)
            start = images + NEARBY * noise.to(images)
            if adversary.kind == "rslad":
                assert targets is not None, "rslad follows a teacher"
                followed = targets
            else:
                with torch.no_grad():
                    followed = module(images)

            def gain(logits: Logits) -> Float[Tensor, ""]:
                return divergence(followed, logits)

        return _ascended(module, images, start, gain, adversary=adversary)


def _ascended(
    module: nn.Module,
    images: Images,
    start: Images,
    gain: Callable[[Logits], Float[Tensor, ""]],
    *,
    adversary: Adversary,
) -> Images:
    found = start.detach()
    for _ in range(adversary.steps):
        found.requires_grad_()
        (slope,) = torch.autograd.grad(gain(module(found)), found)
        moved = found.detach() + adversary.step * slope.sign()
        found = project(images, moved, norm=adversary.norm, epsilon=adversary.epsilon)
    return found


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Puts the module into evaluation mode while inside; afterwards each submodule has the mode it had before."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
