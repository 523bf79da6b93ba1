"""The model that an attack gets: logits and their true gradient, with solver failures recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odebench.attack.received import Received
from odebench.attack.zero_gradient import completed
from odebench.model.classifier import Answer, Classifier
from odebench.numerics.seeding import OwnNumbers
from odebench.numerics.shapes import Images, Logits

MAX_RECORDED = 1000
"""How many failing inputs one wrapped model keeps. Later ones are dropped, so that memory stays flat."""


class WrappedModel(nn.Module):
    """A classifier as a module: the logits of images, zero where it failed.

    - `failures` are the inputs at which it failed: each is judged as a candidate afterwards.
    - A gradient that is not finite is replaced by zero, so that a failing image stays where it is and disturbs no
      other. It is also zero for a model that is cut off from its input, which check 1 flags.
    - Pixels whose gradient is exactly zero take that of a point nearby, at the scale of the attack that
      `at_scale_of` names (odebench.attack.zero_gradient).
    - `forward_images` and `backward_images` count the images that went through.
    - `precision` "bf16" runs the model under autocast, to propose candidates. `fp32` is the same classifier in fp32,
      for an attack that has to know whether a candidate is adversarial.
    - `passes`: the logits are the mean over so many passes of a randomised model, and so are their gradients
      (expectation over transformation, Athalye et al. 2018).
    - `alone`: each image goes through by itself, as it is judged where outcomes depend on the batch.
    - `numbers` are the random numbers that the model draws, its own: a model which seeds the generators does not move
      those of the attack, and one that is randomised draws others at each call.
    - `received` takes note of some of the gradients as the model gave them, where there is one.
    - `provisional`: another model is attacked after this one, beginning where the attack on this one ended.
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
        self.received: Received | None = None
        self._scale: tuple[str, float] | None = None
        self._other = None if precision == "fp32" else WrappedModel(classifier, passes=passes, alone=alone)
        self.numbers = OwnNumbers()
        if self._other is not None:
            self._other.failures, self._other.numbers = self.failures, self.numbers
        self.eval()

    @property
    def fp32(self) -> WrappedModel:
        """The same classifier in fp32: this object, if that is its precision."""
        return self if self._other is None else self._other

    exact = fp32
    """The name that attacks of earlier plugins use."""

    def at_scale_of(self, norm: str, epsilon: float) -> None:
        """Says in which ball the model is attacked from now on."""
        for wrapped in {self, self.fp32}:
            wrapped._scale = (norm, epsilon)

    def forward(self, images: Images) -> Logits:
        """The logits, differentiable in `images`. The model gets a copy and cannot change the attack's images."""
        if self.passes > 1:
            return torch.stack([self._once(images) for _ in range(self.passes)]).mean(0)
        return self._once(images)

    def _once(self, images: Tensor) -> Tensor:
        if self.alone and len(images) > 1:
            return torch.cat([self._pass(image) for image in torch.split(images, 1)])
        return self._pass(images)

    def _pass(self, images: Tensor) -> Tensor:
        self.forward_images += len(images)
        call = _Call(images.detach(), self)
        guarded: Tensor = _Guarded.apply(images, call)
        answer = self._answer(guarded)
        if answer.failed.any() and len(self.failures) < MAX_RECORDED:
            self.failures.extend(images[answer.failed].detach().clone())
        logits = answer.logits.float()
        if logits.is_inference():
            logits = logits.clone()  # else no attack could go backward from it
        if guarded.requires_grad and not logits.requires_grad:
            logits = logits + 0 * guarded.flatten(1).sum(1, keepdim=True)
        noted: Tensor = _Noted.apply(logits, call)
        return noted

    def _answer(self, images: Tensor) -> Answer:
        bf16 = torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with self.numbers.drawn(), bf16:
            return self.classifier.answer(images)

    def _gradient(self, call: _Call, gradient: Tensor) -> Tensor:
        """The gradient that an attack sees: finite, and with no pixel at zero that is so at this very point alone."""
        self.backward_images += len(gradient)
        if self.received is not None and call.cotangent is not None:
            self.received.offer(call.images, call.cotangent, gradient)
        finite = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        if self._scale is None or call.cotangent is None:
            return finite
        norm, epsilon = self._scale
        whole, asked = completed(
            finite,
            call.images,
            call.cotangent,
            lambda points: self._answer(points).logits.float(),
            norm=norm,
            epsilon=epsilon,
        )
        self.forward_images += asked
        self.backward_images += asked
        return whole


@dataclass
class _Call:
    """One call of a model: the images, and the gradient of the loss in its logits once it is known."""

    images: Tensor
    model: WrappedModel
    cotangent: Tensor | None = None


class _Guarded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.call.model._gradient(ctx.call, gradients[0]), None


class _Noted(torch.autograd.Function):
    """The identity, which notes the gradient in the logits on its way back to the images."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.call.cotangent = gradients[0]
        return gradients[0], None
