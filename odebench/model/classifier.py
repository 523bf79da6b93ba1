"""The one way in which attacks and verdicts ask a model: logits, failures and NFE of each image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from odebench.errors import ModelError, OdebenchError
from odebench.io.text import first_line
from odebench.model.solver import integrate
from odebench.protocol.spec import Solver

Gradient = Literal["direct", "adjoint"]
"""Through the solver's own steps, or by the adjoint equation solved backwards (Chen et al. 2018): another one."""

_ODE_PARTS = ("stem", "field", "head", "horizon", "solver")


def is_ode(module: nn.Module) -> bool:
    """Whether a module exposes what odebench needs to integrate it itself."""
    return all(hasattr(module, part) for part in _ODE_PARTS)


@dataclass(frozen=True)
class Answer:
    """What a model says of a batch. A failed image (solver failure, or a logit that is not finite) has zero
    logits; `nfe` is None for a model whose solver odebench does not run."""

    logits: Float[Tensor, "batch classes"]
    failed: Bool[Tensor, " batch"]
    nfe: Int[Tensor, " batch"] | None


class Classifier:
    """A module that maps images in [0, 1] to logits, with the solver it declares.

    A module that exposes stem, field(t, state), head, horizon and solver is an ODE classifier and odebench
    integrates; `horizon` and `solver` replace its own. Any other module is asked as a whole. The `gradient` is direct,
    but for sources of transfer and for diagnosis.
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
        """How many parameters the module has."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def answer(self, images: Float[Tensor, "batch channel height width"]) -> Answer:
        """Logits, failures and NFE. Raises ModelError where the module raises or its logits have a wrong shape."""
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
            # Under autocast a field may answer in bf16, while the solver goes on in fp32.
            rate: Tensor = parts.field(t, state)
            return rate.to(state.dtype) if isinstance(rate, Tensor) else rate

        state = parts.stem(images)
        start = state if state.dtype == torch.float64 else state.float()
        solution = integrate(field, start, horizon=self.horizon, solver=self.solver, gradient=self.gradient)
        # In the precision of the state under autocast too: it costs next to nothing, and logits in bf16 would tie.
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
        """Evaluation mode and no parameter gradients while inside; as before afterwards."""
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
