"""The momentum iterative attack (Dong et al. 2018, algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import odebench


def mi_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Any = None,
    steps: int,
    decay: float,
    relative_step: float,
) -> Tensor:
    """The last iterate of `steps` steps of relative_step x epsilon along the sign of a decaying sum of gradients, each
    of length one in l1. An image is left alone once it has fallen."""

    def climb(asked: nn.Module) -> Tensor:
        point, momentum = images, torch.zeros_like(images)
        for _ in range(steps):
            point = point.detach().requires_grad_()
            loss = nn.functional.cross_entropy(asked(point), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            length = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
            momentum = decay * momentum + gradient / length
            point = point.detach() + relative_step * epsilon * momentum.sign()
            point = point.clamp(images - epsilon, images + epsilon).clamp(0, 1)
        return point

    return odebench.pursued(climb, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)
