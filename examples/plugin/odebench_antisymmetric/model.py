"""A Neural ODE that can neither explode nor forget (Haber and Ruthotto 2017, eq. 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import odebench


class AntisymmetricOde(nn.Module):
    """Linear stem and head around x' = tanh((W - W^T - damping I) x + b).

    The matrix has eigenvalues of real part -damping, so that neighbouring states drift neither far apart nor together.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        n_classes: int,
        width: int,
        damping: float,
        horizon: float,
        solver: odebench.Solver,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), width))
        self.weight = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, n_classes)
        self.damping, self.horizon, self.solver = damping, horizon, solver

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        """The rate at which states change; the same at all times."""
        return torch.tanh(state @ (self.weight - self.weight.T) - self.damping * state + self.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, for training; odebench integrates the field itself when it judges."""
        solution = odebench.integrate(self.field, self.stem(images), horizon=self.horizon, solver=self.solver)
        return self.head(solution.state)
