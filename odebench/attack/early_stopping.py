"""Stopping any attack image by image, as soon as a candidate is verified to be adversarial."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels, Logits

IsAdversarial = Callable[[Tensor, Tensor], Tensor]
"""fallen(rows, candidates) -> mask: which of these candidates, made for the images at `rows`, are adversarial."""


def with_early_stopping(
    attack: Callable[[nn.Module], Images],
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None,
) -> Images:
    """The candidates of `attack`, which leaves an image alone once a candidate for it is verified by `fallen`. Without
    `fallen` the attack runs to its end.

    At each call `attack` must ask its model about all images, in order. An image is dropped at the first candidate
    within the budget that `model` misclassifies, and all of these are verified together at the end. The images whose
    candidate `fallen` refuses are attacked again from the same random numbers, with each candidate verified on the
    spot. Not so on a provisional model: the next model is attacked from the refused candidates instead.
    """
    if fallen is None:
        with seeded(seed):
            return attack(model)
    candidates = images.clone()
    remaining = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for verify in (None,) if model.provisional else (None, fallen):
        if not remaining.any():
            break
        active = _ActiveImages(model, images, labels, remaining, norm=norm, epsilon=epsilon, verify=verify)
        with seeded(seed):
            try:
                last = attack(active)
            except _NoneActive:
                last = images
        ends = torch.where(active.succeeded[:, None, None, None], active.adversarial, last)
        candidates[remaining] = ends[remaining]
        # An image that the model never misclassified has run to its end; only refused candidates are tried again.
        remaining = active.succeeded.clone()
        if verify is None and remaining.any():
            rows = remaining.nonzero().flatten()
            remaining[rows] = ~fallen(rows, active.adversarial[rows])
    return candidates


class _NoneActive(Exception):
    """All images have been dropped."""


class _ActiveImages(nn.Module):
    """A model that is only asked about the images under attack; the others get constant logits, at no cost.

    `succeeded` says which images have been dropped, `adversarial` holds the candidate at which each was. With `verify`
    a candidate must be confirmed first.
    """

    def __init__(
        self,
        model: WrappedModel,
        images: Images,
        labels: Labels,
        active: Bool[Tensor, " batch"],
        *,
        norm: str,
        epsilon: float,
        verify: IsAdversarial | None,
    ) -> None:
        super().__init__()
        self.model, self.images, self.labels, self.active = model, images, labels, active.clone()
        self.norm, self.epsilon, self.verify = norm, epsilon, verify
        self.succeeded = torch.zeros_like(active)
        self.adversarial = images.clone()
        self.eval()

    def forward(self, candidates: Images) -> Logits:
        rows = self.active.nonzero().flatten()
        logits: Tensor = self.model(candidates[rows])
        self._drop(rows, candidates.detach()[rows], logits.detach())
        if not self.active.any():
            raise _NoneActive
        full = logits.new_zeros(len(candidates), self.model.n_classes)
        return full.index_copy(0, rows, logits)

    def _drop(self, rows: Tensor, candidates: Images, logits: Logits) -> None:
        within = distance(self.images[rows], candidates, norm=self.norm) <= self.epsilon + ROUNDING
        suspect = within & ~strictly_correct(logits, self.labels[rows])
        rows, candidates = rows[suspect], candidates[suspect]
        if self.verify is not None and len(rows):
            confirmed = self.verify(rows, candidates)
            rows, candidates = rows[confirmed], candidates[confirmed]
        self.adversarial[rows] = candidates
        self.succeeded[rows] = True
        self.active[rows] = False


def strictly_correct(logits: Logits, labels: Labels) -> Bool[Tensor, " batch"]:
    """Whether the label's logit is above every other: a tie is not correct."""
    own = logits.gather(1, labels[:, None].long())
    return (logits >= own).sum(1) == 1
