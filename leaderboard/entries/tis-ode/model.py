"""The model of the entry tis-ode: TisODE (Yan et al., ICLR 2020) in the size of odebench's own models."""

import torch
from torch import nn


def norm(channels):
    """Group normalisation with two channels a group."""
    return nn.GroupNorm(channels // 2, channels)


class Net(nn.Module):
    """A Neural ODE classifier whose field does not know the time; odebench integrates it over [0, horizon].

    The field is that of the authors' code, convolution, GN, ReLU, twice, without the time as a channel.
    """

    def __init__(self, *, image_shape, n_classes, channels, horizon, solver):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(image_shape[0], channels, 3, 1, 1),
            norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 4, 2, 1),
            norm(channels),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = norm(channels), norm(channels)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))
        self.horizon, self.solver = horizon, solver

    def field(self, t, state):
        """The time derivative of the state, the same at all times."""
        return torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(state))))))
