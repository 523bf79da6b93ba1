"""Controls: models whose robustness is not real, each with an honest twin, and the checks that must catch it.

A benchmark that cannot see these through cannot be believed on others. Every control is made of one trained ODE
classifier, without training anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from odebench.evaluation.verdict import Judge
from odebench.model.ode import OdeNet
from odebench.model.solver import integrate
from odebench.numerics.projection import project
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import Solver, adaptive, fixed_step

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]


@dataclass(frozen=True)
class Control:
    """A model that must be caught: at least one of the checks `meant` flags.

    `stand_in` is what an adaptive attacker would differentiate instead. Where `preserves_function`, it is the honest
    twin, which has the same logits, and the worst case must come within 2 points of the twin's; elsewhere within 3
    points of what the adaptive attacker reaches (`oracle`).
    """

    name: str
    module: nn.Module
    meant: tuple[int, ...]
    stand_in: nn.Module
    preserves_function: bool
    randomised: bool = False


def controls(net: OdeNet) -> list[Control]:
    """All controls made of one trained classifier with a fixed-step solver."""
    coarse = adaptive("dopri5", rtol=0.1)
    return [
        Control("loose adjoint", LooseAdjoint(net), (17,), net, preserves_function=True),
        Control("logits x 1e4", Scaled(net, 1e4), (1, 9), net, preserves_function=True),
        Control("probabilities", Probabilities(net), (3,), net, preserves_function=True),
        Control("robust in its batch", BatchMean(net), (15,), net, preserves_function=True),
        Control("dopri5 at 0.1", RotatingFrame(net, coarse), (16,), net, preserves_function=False),
        Control("3-bit input", Quantised(net), (1, 17), StraightThrough(net), preserves_function=False),
        Control("noisy field", NoisyField(net), (2,), net, preserves_function=False, randomised=True),
        Control("random step", RandomStep(net), (2,), net, preserves_function=False, randomised=True),
    ]


class LooseAdjoint(nn.Module):
    """The logits of an ODE classifier with the gradient of a loosely solved adjoint equation (Chen et al. 2018).

    It is solved by Euler's method in few steps. (dopri5 at a tolerance of 2 is no worse than an honest gradient on some
    nets: a tolerance does not say how far off the outcome is.)
    """

    def __init__(self, net: OdeNet, *, steps: int = 1) -> None:
        super().__init__()
        self.net, self.loose = net, fixed_step("euler", step=net.horizon / steps)

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        net, state = self.net, self.net.stem(images)
        exact = integrate(net.field, state.detach(), horizon=net.horizon, solver=net.solver).state
        if not state.requires_grad:
            return net.head(exact)  # type: ignore[no-any-return]
        followed = integrate(net.field, state, horizon=net.horizon, solver=self.loose, gradient="adjoint").state
        logits: Tensor = net.head(followed + (exact - followed).detach())
        return logits


class Scaled(nn.Module):
    """Logits so large that the cross-entropy and its gradient vanish in fp32 (Carlini and Wagner 2016)."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        logits: Tensor = self.net(images) * self.factor
        return logits


class Probabilities(nn.Module):
    """Probabilities where logits are asked for."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Probabilities."""
        logits: Tensor = self.net(images)
        return logits.softmax(1)


class BatchMean(nn.Module):
    """Sees each image moved halfway to its batch's mean: an image on its own is seen as it is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        logits: Tensor = self.net(0.5 * images + 0.5 * images.mean(0, keepdim=True))
        return logits


class _Parts(nn.Module):
    """The parts of an ODE classifier, to be integrated by odebench in another way."""

    def __init__(self, net: OdeNet, solver: Solver | None = None) -> None:
        super().__init__()
        self.net = net
        self.stem, self.head, self.horizon, self.solver = net.stem, net.head, net.horizon, solver or net.solver

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        """The vector field."""
        rate: Tensor = self.net.field(t, state)
        return rate


class RotatingFrame(_Parts):
    """The same trajectories seen from a frame that turns, `turns` whole times over the horizon.

    In exact arithmetic the logits are those of the net: with R(t) turning each pair of channels, u = R s solves
    u' = R' R^-1 u + R f(t, R^-1 u), and R(T) = 1. A loose solver loses its way in the turning.
    """

    def __init__(self, net: OdeNet, solver: Solver, *, turns: int = 1) -> None:
        super().__init__(net, solver)
        self.frequency = 2 * math.pi * turns / net.horizon

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        """The vector field in the turning frame; `state` has an even number of channels."""
        angle = torch.as_tensor(t, dtype=state.dtype, device=state.device) * self.frequency
        seen = super().field(t, _turned(state, -angle))
        return self.frequency * _quarter_turn(state) + _turned(seen, angle)


def _quarter_turn(state: Tensor) -> Tensor:
    first, second = state.chunk(2, dim=1)
    return torch.cat([-second, first], dim=1)


def _turned(state: Tensor, angle: Tensor) -> Tensor:
    return angle.cos() * state + angle.sin() * _quarter_turn(state)


class NoisyField(_Parts):
    """Fresh noise in every evaluation of the field."""

    def __init__(self, net: OdeNet, *, noise: float = 1.0) -> None:
        super().__init__(net)
        self.noise = noise

    def field(self, t: Tensor, state: Tensor) -> Tensor:
        """The vector field, and noise."""
        return super().field(t, state) + self.noise * torch.randn_like(state)


class RandomStep(nn.Module):
    """A step length drawn anew at every pass (as in Meta-Solver defences)."""

    def __init__(self, net: OdeNet, *, steps: Sequence[float] = (0.25, 0.5, 1.0), method: str = "euler") -> None:
        super().__init__()
        self.net, self.steps, self.method = net, tuple(steps), method

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        step = self.steps[int(torch.randint(len(self.steps), (1,)))]
        solver, net = fixed_step(self.method, step=step), self.net
        logits: Tensor = net.head(integrate(net.field, net.stem(images), horizon=net.horizon, solver=solver).state)
        return logits


class Quantised(nn.Module):
    """Pixels rounded to 3 bits, which has no gradient (Guo et al. 2018)."""

    def __init__(self, net: nn.Module, *, levels: int = 8) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        logits: Tensor = self.net((images * (self.levels - 1)).round() / (self.levels - 1))
        return logits


class StraightThrough(Quantised):
    """The same, with the gradient of the identity in place of the rounding's (BPDA: Athalye et al. 2018)."""

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits."""
        rounded = (images * (self.levels - 1)).round() / (self.levels - 1)
        logits: Tensor = self.net(images + (rounded - images).detach())
        return logits


def oracle(
    judge: Judge,
    stand_in: nn.Module,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    steps: int = 100,
    restarts: int = 3,
    passes: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Letters of clean-correct `images` under an attacker who knows the defence, judged by `judge` on the model itself.

    Ascent of the margin of `stand_in` by steps of 2.5 epsilon / steps with restarts, its gradient averaged over
    `passes`; every tenth point is judged, and an image is left alone once it has fallen.
    """
    letters = np.full(len(images), "r")
    for restart in range(restarts):
        rows = torch.from_numpy(np.flatnonzero(letters == "r"))
        with seeded(seed + restart):
            points = images[rows] + epsilon * (2 * torch.rand_like(images[rows]) - 1)
            points = project(images[rows], points, norm=norm, epsilon=epsilon)
            for step in range(steps):
                ascent = _margin_gradient(stand_in, points, labels[rows], passes)
                points = points + 2.5 * epsilon / steps * _direction(ascent, norm)
                points = project(images[rows], points, norm=norm, epsilon=epsilon)
                if step % 10 == 9 and len(rows):
                    found = judge.candidates(images[rows], labels[rows], points, norm=norm, epsilon=epsilon).letters
                    letters[rows.numpy()] = found
                    stands = torch.from_numpy(found == "r")
                    rows, points = rows[stands], points[stands]
    return letters


def _direction(gradient: Tensor, norm: str) -> Tensor:
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
    return gradient.sign() if norm == "linf" else gradient / length


def _margin_gradient(stand_in: nn.Module, points: Images, labels: Labels, passes: int) -> Images:
    """The gradient of the largest other logit minus the label's, the mean over `passes`."""
    total = torch.zeros_like(points)
    for _ in range(passes if len(points) else 0):
        asked = points.detach().clone().requires_grad_()
        logits = stand_in(asked)
        own = logits.gather(1, labels[:, None])
        other = logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
        total = total + torch.autograd.grad((other - own).sum(), asked)[0]
    mean: Tensor = total / passes
    return mean
