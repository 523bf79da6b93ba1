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
from odebench.model.foreign_module import as_it_was, copy_of, freeze
from odebench.model.solver import integrate, integrate_quickly
from odebench.numerics.shapes import Images, Logits
from odebench.protocol.spec import Solver

Gradient = Literal["direct", "adjoint"]
"""How gradients are taken: directly through the solver's steps, or by solving the adjoint equation backwards (Chen et
al. 2018), which gives another gradient."""

_HALF = {torch.float16, torch.bfloat16}
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
    transfer and for diagnosis. `quick` computes the same but for rounding in less time, for attacks: where the field
    offers `prepared(state)`, a field for states of that shape, this is used. Raises ModelError for a module that does
    not fit.
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
        quick: bool = False,
    ) -> None:
        # Some people's `to` returns nothing.
        moved: nn.Module | None = module.to(device)
        self.module = module if moved is None else moved
        self.changed = self._needs_graph = self._has_answered = False
        self.n_classes = n_classes
        self.device = torch.device(device)
        self.gradient: Gradient = gradient
        self.quick = quick
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
        quick: bool = False,
    ) -> Classifier:
        """A classifier with another module, horizon, solver, gradient or way of computing, otherwise like this one."""
        return Classifier(
            self.module if module is None else module,
            n_classes=self.n_classes,
            device=self.device,
            horizon=self.horizon if horizon is None else horizon,
            solver=self.solver if solver is None else solver,
            gradient=gradient,
            quick=quick,
        )

    def in_fp64(self) -> Classifier:
        """A classifier whose module is a copy in fp64, otherwise like this one."""
        return self.modified(module=copy_of(self.module).double())

    @property
    def name(self) -> str:
        """The name of the module's class."""
        return type(self.module).__name__

    @property
    def parameters(self) -> int:
        """The number of parameters of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def answer(self, images: Images) -> Answer:
        """The logits, failures and NFE of a batch. Raises ModelError where the module raises an error, or returns
        something other than floating-point logits of the right shape.

        A module whose forward pass takes gradients itself is asked with gradients on, whatever the caller's mode. An
        assertion that only some images trigger is the failure of a solver inside the module: these images fail.
        """
        try:
            logits, failed, nfe = self._ask_in_its_mode(images)
        except (OdebenchError, torch.OutOfMemoryError):
            raise
        except AssertionError as error:
            if self.is_ode or (len(images) == 1 and not self._has_answered):
                raise self._raised(error, images) from error
            logits, failed, nfe = self._ask_one_by_one(images, error)
        except Exception as error:
            raise self._raised(error, images) from error
        self._has_answered = True
        self._check(logits, len(images))
        failed = failed | ~logits.isfinite().all(1)
        if failed.any():
            logits = logits.masked_fill(failed[:, None], 0.0)
        return Answer(logits, failed, nfe)

    def _raised(self, error: Exception, images: Tensor) -> ModelError:
        said = f"{type(self.module).__name__} raised {type(error).__name__}: {first_line(error)}"
        others = {one.dtype for one in self.module.parameters()} - {images.dtype}
        wrong = others & _HALF or (others & {torch.float64} if "type" in first_line(error) else set())
        if wrong:
            kind = str(wrong.pop()).removeprefix("torch.")
            said += f" (its parameters are {kind}, images are float32: hand over module.float())"
        return ModelError(said)

    def _ask_in_its_mode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if not self._needs_graph or torch.is_grad_enabled():
            try:
                return self._ask(images)
            except RuntimeError as error:
                if torch.is_grad_enabled() or "does not require grad" not in str(error):
                    raise
                self._needs_graph = True
        with torch.enable_grad():
            logits, failed, nfe = self._ask(images.detach())
        return logits.detach() if isinstance(logits, Tensor) else logits, failed, nfe

    def _ask_one_by_one(self, images: Tensor, raised: AssertionError) -> tuple[Tensor, Tensor, None]:
        """The answers of a module in which an assertion failed: images that trigger it alone have failed."""
        rows: list[Tensor] = []
        failed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for index, image in enumerate(torch.split(images, 1)):
            try:
                logits, _, _ = self._ask_in_its_mode(image)
                self._check(logits, 1)
            except AssertionError:
                failed[index] = True
                logits = (0 * image.flatten(1).sum(1, keepdim=True)).expand(1, self.n_classes)
            rows.append(logits)
        if failed.all() and not self._has_answered:
            raise self._raised(raised, images) from raised
        return torch.cat(rows), failed, None

    def _ask(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.horizon is None or self.solver is None:
            logits = self.module(images)
            return logits, torch.zeros(len(images), dtype=torch.bool, device=images.device), None
        parts: Any = self.module

        state = parts.stem(images)
        start = state if state.dtype == torch.float64 else state.float()
        quick = self.quick and hasattr(parts.field, "prepared")
        asked = parts.field.prepared(start) if quick else parts.field

        def field(t: Tensor, state: Tensor) -> Tensor:
            # Under autocast a field may return bf16, while the solver computes in fp32.
            rate: Tensor = asked(t, state)
            return rate.to(state.dtype) if isinstance(rate, Tensor) else rate

        if quick:
            solution = integrate_quickly(field, start, horizon=self.horizon, solver=self.solver)
        else:
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
        """Puts the module into evaluation mode and its parameters out of the graph while inside, and restores it;
        `changed` says from then on whether the module had changed a parameter or buffer."""
        with as_it_was(self.module) as restored:
            yield
        self.changed |= restored()

    def unfreeze_if_needed(self, images: Images) -> bool:
        """Puts the parameters back into the graph where the module's gradient cannot be taken without: a hand-written
        adjoint may need them. Returns whether it did so; every gradient then costs that of the parameters as well.

        To be called within `frozen`. A module whose gradient cannot be taken either way is left frozen.
        """
        if self._goes_backward(images):
            return False
        freeze(self.module, frozen=False)
        if self._goes_backward(images):
            return True
        freeze(self.module)
        return False

    def _goes_backward(self, images: Images) -> bool:
        points = images.detach().clone().requires_grad_()
        try:
            with torch.enable_grad():
                logits = self.answer(points.clone()).logits
                if not logits.requires_grad:
                    return True  # cut off from its input, which check 1 sees
                torch.autograd.grad(logits.sum(), points, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a module may raise anything on its way back
            return False
        return True


def _number(module: nn.Module, horizon: Any) -> float:
    try:
        return float(horizon)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{type(module).__name__}.horizon must be a number above 0, not {type(horizon).__name__}"
        ) from error
