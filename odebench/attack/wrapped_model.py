"""What an attack sees of a model: logits and their true gradient, with solver failures recorded."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odebench.model.classifier import Classifier

MAX_RECORDED = 1000
"""How many failing inputs one surface keeps; later ones are dropped, so that memory stays flat."""


class WrappedModel(nn.Module):
    """A classifier as a module: logits of images, zero where it failed.

    Inputs at which it failed are kept in `failures`: each is a candidate afterwards. Gradients that are not
    finite are zero, so that one failing image stays where it is and disturbs nothing; so are those of a model
    that is cut off from its input, which check 1 flags. Passes are counted an image in `forward_images` and
    `backward_images`. With `precision` bf16 the model runs under autocast, which is for proposals alone; `exact` is
    then a second surface of the same classifier in fp32, for an attack that must know whether an image has fallen. Of a
    randomised model it shows the mean logits of several `passes`, and so the mean of their gradients (EOT: Athalye et
    al. 2018). With `alone` each image is asked about by itself, as it is judged where letters depend on the batch.
    `provisional`: another surface is attacked after this one.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        precision: str = "fp32",
        passes: int = 1,
        alone: bool = False,
        provisional: bool = False,
    ) -> None:
        super().__init__()
        self.alone, self.provisional = alone, provisional
        self.classifier = classifier
        self.precision = precision
        self.passes = passes
        self.n_classes = classifier.n_classes
        self.failures: list[Tensor] = []
        self.forward_images = self.backward_images = 0
        self.twin = None if precision == "fp32" else WrappedModel(classifier, passes=passes, alone=alone)
        if self.twin is not None:
            self.twin.failures = self.failures
        self.eval()

    @property
    def exact(self) -> WrappedModel:
        """The surface of the same classifier in fp32: itself where it is that already."""
        return self if self.twin is None else self.twin

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
        """Logits, differentiable in `images`; the model gets a copy, so it cannot change the attack's."""
        if self.passes > 1:
            return torch.stack([self._once(images) for _ in range(self.passes)]).mean(0)
        return self._once(images)

    def _once(self, images: Tensor) -> Tensor:
        if self.alone and len(images) > 1:
            return torch.cat([self._pass(image) for image in torch.split(images, 1)])
        return self._pass(images)

    def _pass(self, images: Tensor) -> Tensor:
        self.forward_images += len(images)
        guarded: Tensor = _Guarded.apply(images, self)
        with torch.autocast(guarded.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            answer = self.classifier.answer(guarded)
        if answer.failed.any() and len(self.failures) < MAX_RECORDED:
            self.failures.extend(images[answer.failed].detach().clone())
        logits = answer.logits.float()
        if guarded.requires_grad and not logits.requires_grad:
            logits = logits + 0 * guarded.flatten(1).sum(1, keepdim=True)
        return logits


class _Guarded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, surface: WrappedModel) -> Tensor:
        ctx.surface = surface
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        ctx.surface.backward_images += len(gradient)
        return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0), None
