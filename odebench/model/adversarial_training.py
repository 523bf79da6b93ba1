"""Adversarial images for a training: the inner maximisations of Madry's loss, TRADES and RSLAD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from odebench.model.losses import divergence
from odebench.numerics.projection import project
from odebench.numerics.shapes import Images, Labels, Logits
from odebench.protocol.recipe import Adversary

NEARBY = 1e-3
"""Standard deviation of the random start around an image, as in the authors' code of TRADES and RSLAD. At the image
itself the divergence of TRADES has no gradient."""


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
