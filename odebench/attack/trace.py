"""What an attack did on its way: the loss at every step, the first point that seemed to fool, the last point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.projection import ROUNDING, distance


@dataclass
class Trace:
    """By an image's position: `losses`, the cross-entropy at each point that the attack asked about; `suspects`, the
    first of them within the budget that fooled the surface; `ends`, what the attack returned.

    `silent` counts images that fell on the path and not at its end.
    """

    losses: dict[int, list[float]] = field(default_factory=dict)
    suspects: dict[int, Tensor] = field(default_factory=dict)
    ends: dict[int, Tensor] = field(default_factory=dict)
    silent: int = 0

    @contextmanager
    def watching(
        self,
        surface: WrappedModel,
        rows: np.ndarray,
        images: Float[Tensor, "batch channel height width"],
        labels: Int[Tensor, " batch"],
        *,
        norm: str,
        epsilon: float,
    ) -> Iterator[None]:
        """Follows an attack on `rows` that asks `surface` about all of them, in order, at each call."""
        steps: list[Tensor] = []
        caught, suspects = torch.zeros(len(rows), dtype=torch.bool), images.clone()

        def note(_: object, asked: tuple[Tensor, ...], answer: Tensor) -> None:
            points, logits = asked[0].detach().cpu(), answer.detach().float().cpu()
            steps.append(torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none"))
            fooled = ~caught & ~strictly_correct(logits, labels)
            fooled &= distance(images, points, norm=norm) <= epsilon + ROUNDING
            suspects[fooled] = points[fooled]
            caught.logical_or_(fooled)

        hook = surface.register_forward_hook(note)
        try:
            yield
        finally:
            hook.remove()
        positions = rows.tolist()
        if steps:
            self.losses |= dict(zip(positions, torch.stack(steps, dim=1).tolist(), strict=True))
        self.suspects |= {position: suspects[index] for index, position in enumerate(positions) if caught[index]}

    def unsettled(self) -> list[float]:
        """For each image the share of the loss's whole rise that came in the last tenth of the steps.

        The loss is the largest so far, as an attack that keeps its best would have it (Pintor et al. 2022, on the
        running minimum of what is minimised).
        """
        shares = []
        for losses in self.losses.values():
            best = np.maximum.accumulate(np.asarray(losses))
            rise = best[-1] - best[0]
            before = best[-1 - max(1, len(best) // 10)] if len(best) > 1 else best[0]
            shares.append(float((best[-1] - before) / rise) if rise > 0 else 0.0)
        return shares

    def median_losses(self) -> list[float]:
        """The median of the loss over the images, step by step."""
        return [float(value) for value in np.median(np.asarray(list(self.losses.values())), axis=0)]
