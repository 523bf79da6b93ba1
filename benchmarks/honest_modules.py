"""Honest modules as people write them: none may be flagged by a check that speaks of the model.

`honest_modules` makes one of each kind: some wrap a trained classifier, others are small nets of their own, which are
trained here on digits in a few seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odebench.dataset import Dataset
from odebench.numerics.seeding import seeded

Images = Float[Tensor, "batch channel height width"]
Logits = Float[Tensor, "batch classes"]


def honest_modules(net: nn.Module, other: nn.Module, data: Dataset, *, epochs: int = 15) -> dict[str, nn.Module]:
    """Ten honest modules by name, made of two classifiers of digits and of its train images; neither is changed."""
    return {
        "counts its calls": CountsCalls(net),
        "keeps its activation": KeepsActivation(net),
        "float64": Double(net),
        "normalises its input": Normalises(net),
        "log-probabilities": nn.Sequential(net, nn.LogSoftmax(1)),
        "dropout, switched off": nn.Sequential(nn.Dropout(0.3), net, nn.Dropout(0.3)),
        "mean of two": MeanOfTwo(net, other),
        "batch norm": fitted(convolutional, data, epochs=epochs),
        "weight norm and tanh": fitted(weight_normed, data, epochs=epochs),
        "layers of relu": fitted(rectified, data, epochs=epochs),
    }


class _Wrapper(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class CountsCalls(_Wrapper):
    """Counts its calls and images for a log, and says so every thousand calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.calls, self.log = 0, list[str]()

    def forward(self, images: Images) -> Logits:
        """Logits."""
        self.calls += 1
        self.images_seen += len(images)
        if self.calls % 1000 == 0:
            self.log.append(f"{self.calls} calls, {int(self.images_seen)} images")
        return self.net(images)  # type: ignore[no-any-return]


class KeepsActivation(_Wrapper):
    """Keeps its last input and output, with their graph, as a hook for visualisations does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(copy.deepcopy(net))
        self.last: tuple[Tensor, Tensor] | None = None
        self.net.register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        self.last = given[0], answer

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(images)  # type: ignore[no-any-return]


class Double(_Wrapper):
    """Computes in fp64 and answers in the precision of its input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(copy.deepcopy(net))
        self.net.double()

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.net(images.double()).to(images.dtype)  # type: ignore[no-any-return]


class Normalises(_Wrapper):
    """Subtracts a mean and divides by a deviation, buffers both, and undoes it before the net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.305))
        self.register_buffer("deviation", torch.full((1, 1, 1, 1), 0.376))

    def forward(self, images: Images) -> Logits:
        """Logits."""
        normalised = (images - self.mean) / self.deviation
        return self.net(normalised * self.deviation + self.mean)  # type: ignore[no-any-return]


class MeanOfTwo(_Wrapper):
    """The mean of the logits of two nets."""

    def __init__(self, net: nn.Module, other: nn.Module) -> None:
        super().__init__(net)
        self.other = other

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return (self.net(images) + self.other(images)) / 2  # type: ignore[no-any-return]


def convolutional() -> nn.Module:
    """Convolutions with batch norm and maximum pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def weight_normed() -> nn.Module:
    """A perceptron of weight norm and tanh."""
    normed = nn.utils.parametrizations.weight_norm
    return nn.Sequential(nn.Flatten(), normed(nn.Linear(64, 64)), nn.Tanh(), normed(nn.Linear(64, 10)))


def rectified() -> nn.Module:
    """A perceptron of two hidden layers of relu: linear in pieces."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def fitted(make: Callable[[], nn.Module], data: Dataset, *, epochs: int) -> nn.Module:
    """A module, trained by Adam on the train images of a data set."""
    assert data.train is not None
    images, labels = data.train.images, data.train.labels
    with seeded(0):
        module = make().train()
        optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(images[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return module.eval()
