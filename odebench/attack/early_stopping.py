"""Stopping an attack image by image at its first verified fall, whatever the attack."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.seeding import seeded

Fallen = Callable[[Tensor, Tensor], Tensor]
"""fallen(rows, candidates) -> mask: which of these rows of the attacked images truly fall to these candidates."""

Images = Float[Tensor, "batch channel height width"]


def pursued(
    attack: Callable[[nn.Module], Images],
    surface: WrappedModel,
    images: Images,
    labels: Int[Tensor, " batch"],
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None,
) -> Images:
    """The candidates of `attack`: run to the end without `fallen`, stopped at verified falls with it."""
    if fallen is None:
        with seeded(seed):
            return attack(surface)
    return pursue(attack, surface, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def pursue(
    attack: Callable[[nn.Module], Images],
    surface: WrappedModel,
    images: Images,
    labels: Int[Tensor, " batch"],
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen,
) -> Images:
    """The candidates of `attack`, in which an image is left alone from its first verified fall on.

    `attack` must ask its model about all images, in order, at each call. An image that the surface says has
    fallen within the budget is dropped at once, and all of them are verified together at the end. Those that
    `fallen` refuses run once more from the same random numbers, each suspicion verified on the spot; but not on a
    provisional surface, after which they are attacked on another one, from the point that was refused.
    """
    candidates = images.clone()
    everyone = torch.ones(len(images), dtype=torch.bool, device=images.device)
    felled = torch.zeros_like(everyone)
    for verify in (None,) if surface.provisional else (None, fallen):
        pack = _ActiveImages(surface, images, labels, everyone & ~felled, norm=norm, epsilon=epsilon, verify=verify)
        if not pack.live.any():
            break
        ran = pack.live.clone()
        with seeded(seed):
            try:
                last = attack(pack)
            except _AllDown:
                last = images
        candidates[ran] = torch.where(pack.down[:, None, None, None], pack.caught, last)[ran]
        if verify is not None:
            break
        rows = pack.down.nonzero().flatten()
        if len(rows):
            felled[rows] = fallen(rows, pack.caught[rows])
        # Whoever was never suspected has run to the end; only refused suspicions run again.
        felled |= ~pack.down
    return candidates


class _AllDown(Exception):
    """No image is left to attack."""


class _ActiveImages(nn.Module):
    """The surface for the images that are still standing; the others get constant logits, at no cost."""

    def __init__(
        self,
        surface: WrappedModel,
        images: Tensor,
        labels: Tensor,
        live: Bool[Tensor, " batch"],
        *,
        norm: str,
        epsilon: float,
        verify: Fallen | None,
    ) -> None:
        super().__init__()
        self.surface, self.images, self.labels, self.live = surface, images, labels, live
        self.norm, self.epsilon, self.verify = norm, epsilon, verify
        self.down = torch.zeros_like(live)
        self.caught = images.clone()
        self.eval()

    def forward(self, candidates: Images) -> Float[Tensor, "batch classes"]:
        rows = self.live.nonzero().flatten()
        logits: Tensor = self.surface(candidates[rows])
        self._catch(rows, candidates.detach()[rows], logits.detach())
        if not self.live.any():
            raise _AllDown
        full = logits.new_zeros(len(candidates), self.surface.n_classes)
        return full.index_copy(0, rows, logits)

    def _catch(self, rows: Tensor, candidates: Tensor, logits: Tensor) -> None:
        within = distance(self.images[rows], candidates, norm=self.norm) <= self.epsilon + ROUNDING
        suspect = within & ~strictly_correct(logits, self.labels[rows])
        rows, candidates = rows[suspect], candidates[suspect]
        if self.verify is not None and len(rows):
            confirmed = self.verify(rows, candidates)
            rows, candidates = rows[confirmed], candidates[confirmed]
        self.caught[rows] = candidates
        self.down[rows] = True
        self.live[rows] = False


def strictly_correct(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Whether the label's logit is above every other: a tie is not correct."""
    own = logits.gather(1, labels[:, None].long())
    return (logits >= own).sum(1) == 1
