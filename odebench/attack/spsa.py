"""SPSA: an attack by gradients that are estimated from logits, for modules whose own gradient cannot be trusted."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from odebench.attack.autoattack import apgd_ce, apgd_targeted
from odebench.attack.early_stopping import IsAdversarial, strictly_correct
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.shapes import Images, Labels, Logits

PASS_IMAGES = 1000
"""The largest number of points in one pass."""
REACH = 0.02
"""Half the length of a difference along one pixel, as a share of epsilon in linf; the same length in l2."""


def spsa(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    targets: int,
    directions: int,
) -> Images:
    """The candidates of Auto-PGD along gradients that are estimated by simultaneous perturbation (SPSA: Spall 1992;
    Uesato et al. 2018).

    It ascends the cross-entropy for twice the `steps`, then goes towards each of the `targets` likeliest other classes
    for the images that remain. A gradient is the mean of central differences of the logits along `directions` random
    orthonormal directions (Choromanski et al. 2018): with as many as there are pixels and channels it is exact.
    """
    pixels = images[0].numel()
    reach = REACH * epsilon if norm == "linf" else REACH * epsilon / pixels**0.5
    # Always in fp32: differences of bf16 logits are noise.
    estimated = Estimated(model.fp32, directions=min(directions, pixels), reach=reach)
    given: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "seed": seed}
    succeeded = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def verified(rows: Tensor, candidates: Tensor) -> Tensor:
        adversarial = cast(IsAdversarial, fallen)(rows, candidates)
        succeeded[rows[adversarial]] = True
        return adversarial

    verify = None if fallen is None else verified
    found = apgd_ce(estimated, images, labels, fallen=verify, steps=2 * steps, **given)
    rows = (~succeeded).nonzero().flatten()
    if len(rows):
        again = None if verify is None else lambda some, candidates: verified(rows[some], candidates)
        aimed = apgd_targeted(
            estimated, images[rows], labels[rows], fallen=again, steps=steps, targets=targets, **given
        )
        with torch.no_grad():
            only_first = ~strictly_correct(model(found[rows]), labels[rows])
            only_first &= strictly_correct(model(aimed), labels[rows])
        found[rows] = torch.where(only_first[:, None, None, None], found[rows], aimed)
    return found


class Estimated(WrappedModel):
    """A model with the logits of `inner`, whose gradient is estimated from them.

    A difference is taken between `reach` times a direction to one side and to the other; a direction has entries of
    about 1.
    """

    def __init__(self, inner: WrappedModel, *, directions: int, reach: float) -> None:
        super().__init__(inner.classifier)
        self.inner, self.directions, self.reach = inner, directions, reach
        self.failures, self.provisional = inner.failures, inner.provisional

    def forward(self, images: Images) -> Logits:
        """The logits, with an estimated gradient in `images`."""
        logits: Tensor = _Differences.apply(images, self)
        return logits


class _Differences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, model: Estimated) -> Tensor:
        ctx.save_for_backward(images)
        ctx.model = model
        logits: Tensor = model.inner(images)
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (images,), model = ctx.saved_tensors, ctx.model
        pixels, count = images[0].numel(), model.directions
        frame, _ = torch.linalg.qr(torch.randn(pixels, count))
        directions = frame.T.reshape(count, 1, *images.shape[1:]).to(images.device) * pixels**0.5
        estimate = torch.zeros_like(images)
        at_once = max(1, PASS_IMAGES // (2 * len(images)))
        with torch.no_grad():
            for some in torch.split(directions, at_once):
                points = torch.cat([images + model.reach * some, images - model.reach * some])
                logits = model.inner(points.flatten(0, 1)).unflatten(0, (2, len(some), len(images)))
                slopes = ((logits[0] - logits[1]) * gradients[0]).sum(2) / (2 * model.reach)
                estimate += (slopes[:, :, None, None, None] * some).sum(0)
        # The directions are orthonormal times the root of the number of pixels, which is then their squared length.
        return estimate / pixels, None
