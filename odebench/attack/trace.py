"""What an attack did on its way: the loss at every step, the first point that seemed adversarial, the last point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from odebench.attack.early_stopping import strictly_correct
from odebench.attack.wrapped_model import WrappedModel
from odebench.numerics.projection import ROUNDING, distance
from odebench.numerics.shapes import Images, Labels


@dataclass
class Trace:
    """The path of an attack for each image, by its position.

    `losses` holds the cross-entropy at each point that the attack asked about, `suspects` the first of these points
    within the budget that the model misclassified, `ends` the candidate that the attack returned. `silent_successes`
    counts the images with an adversarial point on their path but not at its end.
    """

    losses: dict[int, list[float]] = field(default_factory=dict)
    suspects: dict[int, Tensor] = field(default_factory=dict)
    ends: dict[int, Tensor] = field(default_factory=dict)
    silent_successes: int = 0

    @contextmanager
    def watching(
        self,
        model: WrappedModel,
        rows: np.ndarray,
        images: Images,
        labels: Labels,
        *,
        norm: str,
        epsilon: float,
    ) -> Iterator[None]:
        """Records an attack on the images at positions `rows` while inside. The attack must ask `model` about all of
        them, in order, at each call."""
        steps: list[Tensor] = []
        suspected, suspects = torch.zeros(len(rows), dtype=torch.bool), images.clone()

        def note(_: object, asked: tuple[Tensor, ...], answer: Tensor) -> None:
            points, logits = asked[0].detach().cpu(), answer.detach().float().cpu()
            steps.append(torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none"))
            fooled = ~suspected & ~strictly_correct(logits, labels)
            fooled &= distance(images, points, norm=norm) <= epsilon + ROUNDING
            suspects[fooled] = points[fooled]
            suspected.logical_or_(fooled)

        hook = model.register_forward_hook(note)
        try:
            yield
        finally:
            hook.remove()
        positions = rows.tolist()
        if steps:
            self.losses |= dict(zip(positions, torch.stack(steps, dim=1).tolist(), strict=True))
        self.suspects |= {position: suspects[index] for index, position in enumerate(positions) if suspected[index]}

    def unsettled(self) -> list[float]:
        """For each image the share of the loss's total rise that came in the last tenth of the steps.

        The loss at a step is the largest up to then (Pintor et al. 2022, who minimise and take the smallest).
        """
        shares = []
        for losses in self.losses.values():
            best = np.maximum.accumulate(np.asarray(losses))
            rise = best[-1] - best[0]
            before = best[-1 - max(1, len(best) // 10)] if len(best) > 1 else best[0]
            shares.append(float((best[-1] - before) / rise) if rise > 0 else 0.0)
        return shares

    def median_losses(self) -> list[float]:
        """The median loss over the images, at each step."""
        return [float(value) for value in np.median(np.asarray(list(self.losses.values())), axis=0)]
