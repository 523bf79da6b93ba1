"""The one interface through which attacks and verdicts run a model: logits, failures and NFE per image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from odebench.errors import ModelError, OdebenchError
from odebench.io.text import first_line
from odebench.model.solver import integrate
from odebench.numerics.shapes import Images, Logits
from odebench.protocol.spec import Solver

Gradient = Literal["direct", "adjoint"]
"""How gradients are taken: directly through the solver's steps, or by solving the adjoint equation backwards (Chen et
al. 2018), which gives another gradient."""

_ODE_PARTS = ("stem", "field", "head", "horizon", "solver")


def is_ode(module: nn.Module) -> bool:
    """Whether a module exposes stem, field, head, horizon and solver, so that odebench can integrate it."""
    return all(hasattr(module, part) for part in _ODE_PARTS)


@dataclass(frozen=True)
class Answer:
    """The logits of a batch, which images failed, and the NFE per image.

    An image fails where the solver does, or where a logit is not finite; its logits are zero. `nfe` is None for a model
    whose solver odebench does not run.
    """

    logits: Logits
    failed: Bool[Tensor, " batch"]
    nfe: Int[Tensor, " batch"] | None


class Classifier:
    """A module that maps images in [0, 1] to logits, with the solver that it declares.

    If the module exposes stem, field(t, state), head, horizon and solver, odebench integrates it; `horizon` and
    `solver` replace its own. Any other module is called as a whole. `gradient` is "adjoint" only for sources of
    transfer and for diagnosis. Raises ModelError for a module that does not fit.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        n_classes: int,
        device: str | torch.device = "cpu",
        horizon: float | None = None,
        solver: Solver | None = None,
        gradient: Gradient = "direct",
    ) -> None:
        self.module = module.to(device)
        self.n_classes = n_classes
        self.device = torch.device(device)
        self.gradient: Gradient = gradient
        self.is_ode = is_ode(module)
        self.horizon = self.solver = None
        if self.is_ode:
            parts: Any = module
            self.horizon = _number(module, parts.horizon) if horizon is None else horizon
            self.solver = parts.solver if solver is None else solver
            if not isinstance(self.solver, Solver):
                raise ModelError(
                    f"{type(module).__name__}.solver must be an odebench.Solver, not {type(self.solver).__name__}; "
                    "make one with odebench.fixed_step or odebench.adaptive"
                )
        elif horizon is not None or solver is not None or gradient != "direct":
            raise ModelError(f"{type(module).__name__} has no field to integrate: it takes no horizon and no solver")

    def modified(
        self,
        *,
        module: nn.Module | None = None,
        horizon: float | None = None,
        solver: Solver | None = None,
        gradient: Gradient = "direct",
    ) -> Classifier:
        """A classifier with another module, horizon, solver or gradient, otherwise like this one."""
        return Classifier(
            self.module if module is None else module,
            n_classes=self.n_classes,
            device=self.device,
            horizon=self.horizon if horizon is None else horizon,
            solver=self.solver if solver is None else solver,
            gradient=gradient,
        )

    @property
    def parameters(self) -> int:
        """The number of parameters of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def answer(self, images: Images) -> Answer:
        """The logits, failures and NFE of a batch. Raises ModelError where the module raises an error, or returns
        something other than floating-point logits of the right shape."""
        try:
            logits, failed, nfe = self._ask(images)
        except (OdebenchError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            name = type(self.module).__name__
            raise ModelError(f"{name} raised {type(error).__name__}: {first_line(error)}") from error
        self._check(logits, len(images))
        failed = failed | ~logits.isfinite().all(1)
        if failed.any():
            logits = logits.masked_fill(failed[:, None], 0.0)
        return Answer(logits, failed, nfe)

    def _ask(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.horizon is None or self.solver is None:
            logits = self.module(images)
            return logits, torch.zeros(len(images), dtype=torch.bool, device=images.device), None
        parts: Any = self.module

        def field(t: Tensor, state: Tensor) -> Tensor:
            # Under autocast a field may return bf16, while the solver computes in fp32.
            rate: Tensor = parts.field(t, state)
            return rate.to(state.dtype) if isinstance(rate, Tensor) else rate

        state = parts.stem(images)
        start = state if state.dtype == torch.float64 else state.float()
        solution = integrate(field, start, horizon=self.horizon, solver=self.solver, gradient=self.gradient)
        # Not under autocast: the head costs next to nothing in fp32, and logits in bf16 would tie.
        with torch.autocast(images.device.type, enabled=False):
            logits = parts.head(solution.state)
        return logits, solution.failed, solution.nfe

    def _check(self, logits: object, n: int) -> None:
        name = type(self.module).__name__
        if not isinstance(logits, Tensor):
            raise ModelError(f"{name} returned {type(logits).__name__}, not a tensor of logits")
        if logits.shape != (n, self.n_classes):
            raise ModelError(
                f"{name} returned logits of shape {tuple(logits.shape)} for {n} images of {self.n_classes} classes; "
                f"expected ({n}, {self.n_classes})"
            )
        if not logits.is_floating_point():
            raise ModelError(f"{name} returned {logits.dtype}, not floating-point logits")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Puts the module into evaluation mode and its parameters out of the graph while inside, and restores both."""
        training = {module: module.training for module in self.module.modules()}
        wanted = {parameter: parameter.requires_grad for parameter in self.module.parameters()}
        self.module.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
            for parameter, mode in wanted.items():
                parameter.requires_grad_(mode)


def _number(module: nn.Module, horizon: Any) -> float:
    try:
        return float(horizon)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{type(module).__name__}.horizon must be a number above 0, not {type(horizon).__name__}"
        ) from error
