"""Models that are quick to ask, some with optima in closed form, for tests of attacks and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import odebench
from odebench.attack.definition import load_attack
from odebench.dataset import Dataset, Split, load_dataset
from odebench.evaluation.evaluate import module_digest
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import seeded
from odebench.progress import Silent
from odebench.protocol.spec import (
    AttackSpec,
    CoarseSolver,
    DatasetSlice,
    Evaluation,
    ModelSpec,
    Solver,
    ThreatModel,
    fixed_step,
)
from odebench.result.schema import Result


class Linear(nn.Module):
    """Logits W x + b of 8x8 images."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def clamp_is_flat_at_its_edge() -> bool:
    """Whether torch's clamp has no gradient at exactly its bounds: not before some version."""
    point = torch.zeros(1, requires_grad=True)
    return not torch.autograd.grad(point.clamp(0, 1).sum(), point)[0].any()


def linear(n_classes: int, *, seed: int = 0) -> Linear:
    """A linear model of norm-one random weights whose logits are all zero at the grey image."""
    weight = torch.randn(n_classes, 64, generator=torch.Generator().manual_seed(seed))
    weight /= weight.norm(dim=1, keepdim=True)
    return Linear(weight, -0.5 * weight.sum(1)).eval()


def grey_images(n: int, *, seed: int = 1) -> Tensor:
    """Images near grey, so that balls of radius 0.1 around most pixels lie within [0, 1]."""
    return (0.5 + 0.1 * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))).clamp(0.2, 0.8)


def predicted(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = module(images).argmax(1)
    return answer


def smallest_radius(model: Linear, images: Tensor, labels: Tensor, *, norm: str) -> Tensor:
    """How far the nearest point of another class lies, the range of images left aside."""
    with torch.no_grad():
        logits = model(images)
        gap = logits.gather(1, labels[:, None]) - logits
        slope = (model.weight[labels][:, None] - model.weight[None]).norm(p=1 if norm == "linf" else 2, dim=2)
        radius = gap / slope.clamp_min(1e-12)
    return radius.scatter(1, labels[:, None], torch.inf).amin(1)


class SmallOde(nn.Module):
    """A Neural ODE of 16 units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
        self.rate = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)
        self.horizon, self.solver = 0.5, fixed_step(step=0.5)

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        rate: Tensor = self.rate(state)
        return rate

    def forward(self, images: Tensor) -> Tensor:
        solution = odebench.integrate(self.field, self.stem(images), horizon=self.horizon, solver=self.solver)
        logits: Tensor = self.head(solution.state)
        return logits


def fitted(net: nn.Module, data: Dataset, *, epochs: int = 6) -> nn.Module:
    """A module after a few epochs on the training images."""
    assert data.train is not None
    with seeded(0):
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(data.train)), 64):
                loss = nn.functional.cross_entropy(net(data.train.images[rows]), data.train.labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    net.zero_grad(set_to_none=True)
    return net.eval()


def small_ode(data: Dataset) -> nn.Module:
    """A Neural ODE that was trained on digits for a few epochs."""
    with seeded(0):
        net = SmallOde()
    return fitted(net, data)


@cache
def fitted_small_ode() -> nn.Module:
    """A Neural ODE that was trained on digits for three epochs, once."""
    with seeded(0):
        net = SmallOde()
    return fitted(net, load_dataset("digits"), epochs=3)


@cache
def first_digits(n: int) -> tuple[Tensor, Tensor]:
    """The first test images of digits, with their labels."""
    data = load_dataset("digits").test
    return data.images[:n], data.labels[:n]


class Told(Silent):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def judged(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    n_classes: int = 10,
    attack: str = "worst-case",
    norm: str = "linf",
    epsilons: tuple[float, ...] = (0.1,),
    chunk: int = 50,
    surrogate: Solver | None = None,
    precision: str = "fp32",
    sources: Mapping[str, nn.Module] | None = None,
    given: Mapping[float, Tensor] | None = None,
    keep: dict[float, dict[int, Tensor]] | None = None,
    handed_over: bool = True,
    device: str = "cpu",
    progress: Told | None = None,
    train_images: Tensor | None = None,
    **parameters: Any,
) -> Result:
    """The result of one attack on a module, with all that an evaluation can say."""
    classifier = Classifier(module, n_classes=n_classes, device=device)
    others = {name: Classifier(source, n_classes=n_classes, device=device) for name, source in (sources or {}).items()}
    evaluation = Evaluation(
        model=ModelSpec(name="small", arguments={}, weights=module_digest(module)),
        train_horizon=None,
        horizon=classifier.horizon,
        solver=classifier.solver,
        dataset=DatasetSlice(name="mine", split="test", n=len(images), offset=0),
        threat_model=ThreatModel(norm=norm, epsilons=epsilons),
        attack=AttackSpec(
            name=attack,
            parameters=load_attack(attack).complete(parameters),
            seed=0,
            sources=tuple(others),
            surrogate=None if surrogate is None else CoarseSolver(solver=surrogate),
        ),
        chunk=chunk,
        precision=precision,
    )
    digests = {name: module_digest(source) for name, source in (sources or {}).items()}
    measured = measure(
        evaluation,
        LoadedModels(classifier, "0" * 64, others, digests, handed_over=handed_over, train_images=train_images),
        Split(images, labels),
        candidates=given,
        keep_candidates=keep is not None,
        progress=progress or Told(),
    )
    if keep is not None:
        keep |= {epsilon: found.judged or {} for epsilon, found in zip(epsilons, measured.outcomes, strict=True)}
    return measured.result(evaluation)


def outcomes(result: Result, index: int = 0) -> str:
    return result.epsilons[index].outcomes
