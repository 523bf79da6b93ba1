"""The classifier of an entry's code, which runs in a process of its own: it is asked for logits and gradients.

Whatever compares, judges or attacks is on this side. The process integrates the model itself (to ask for its field step
by step would take two to three times as long), so NFE and failures are what it says.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odebench.errors import ModelError, ModelProcessError
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Answer, Classifier, Gradient
from odebench.model.process import ModelProcess
from odebench.model.question import Precision, ProcessAnswer, Question
from odebench.numerics.seeding import state_seed
from odebench.numerics.shapes import Images
from odebench.protocol.spec import Solver

DRAWN_GRADIENTS = 32
"""How many of the gradients that a process gave are kept, to be looked at afterwards."""


@dataclass(frozen=True)
class DrawnGradient:
    """One image at which a model was asked for a gradient, by what in the logits, and the gradient that it gave."""

    image: Float[Tensor, "channel height width"]
    cotangent: Float[Tensor, " classes"]
    gradient: Float[Tensor, "channel height width"]


class ProcessClassifier(Classifier):
    """A classifier that asks a process, which is started here and ends with `close` or when nobody has it any more.

    `drawn` holds some of the gradients that it gave, drawn by random numbers of the system. Raises ModelError where the
    process cannot be started or build the model, and from `answer` whatever goes wrong with it.
    """

    def __init__(self, process: ModelProcess) -> None:
        blueprint = process.blueprint
        self._set(process, blueprint.horizon, blueprint.solver, gradient="direct", precision="fp32")
        self._end = weakref.finalize(self, process.close)

    @classmethod
    def started(cls, process: ModelProcess) -> ProcessClassifier:
        """The classifier of a process that is started now. Raises ModelError."""
        with _as_model_error():
            process.__enter__()
        return cls(process)

    def _set(
        self,
        process: ModelProcess,
        horizon: float | None,
        solver: Solver | None,
        *,
        gradient: Gradient,
        precision: Precision,
    ) -> None:
        blueprint: Blueprint = process.blueprint
        self.process, self.precision = process, precision
        self.n_classes, self.device = blueprint.n_classes, torch.device(blueprint.device)
        self.horizon, self.solver, self.gradient = horizon, solver, gradient
        self.is_ode = horizon is not None
        self.changed = self.quick = False
        self._first: ProcessClassifier | None = None
        self.drawn: list[DrawnGradient] = []
        self._given = 0
        self._chance = random.SystemRandom()

    def close(self) -> None:
        """Ends the process."""
        self.process.close()

    @property
    def name(self) -> str:
        return "the model"

    @property
    def parameters(self) -> int:
        """The number of parameters of the module, as the process says."""
        return self.process.parameters

    def modified(
        self,
        *,
        module: nn.Module | None = None,
        horizon: float | None = None,
        solver: Solver | None = None,
        gradient: Gradient = "direct",
        quick: bool = False,
    ) -> ProcessClassifier:
        """A classifier of the same process with another horizon, solver or gradient."""
        if module is not None:
            raise AssertionError("the module of a process cannot be replaced")
        if not self.is_ode and (horizon is not None or solver is not None or gradient != "direct"):
            raise ModelError(f"{self.name} has no field to integrate: it takes no horizon and no solver")
        return self._other(
            horizon=self.horizon if horizon is None else horizon,
            solver=self.solver if solver is None else solver,
            gradient=gradient,
            precision=self.precision,
        )

    def in_fp64(self) -> ProcessClassifier:
        """The same with a second copy of the model in fp64, which the process builds."""
        return self._other(horizon=self.horizon, solver=self.solver, gradient=self.gradient, precision="fp64")

    def _other(
        self, *, horizon: float | None, solver: Solver | None, gradient: Gradient, precision: Precision
    ) -> ProcessClassifier:
        other = object.__new__(ProcessClassifier)
        other._set(self.process, horizon, solver, gradient=gradient, precision=precision)
        other._first = self  # which ends the process when it goes
        return other

    def answer(self, images: Images) -> Answer:
        keeps = torch.is_grad_enabled() and images.requires_grad
        answer = self._asked(images, keeps=keeps)
        number = self.process.number
        logits = answer.logits.to(images.device)
        if keeps and answer.differentiable:
            logits = _Asked.apply(images, _Call(self, number, logits))
        elif keeps:
            self.process.forget(number)
        return Answer(logits, answer.failed.to(images.device), None if answer.nfe is None else answer.nfe)

    def ask(self, question: Question) -> ProcessAnswer:
        """The answer to a question as it is given. Raises ModelError."""
        with _as_model_error():
            return self.process.ask(question)

    def _asked(self, images: Images, *, keeps: bool) -> ProcessAnswer:
        autocast = torch.is_autocast_enabled(images.device.type)
        question = Question(
            images.detach().cpu(),
            precision="bf16" if autocast and self.precision == "fp32" else self.precision,
            horizon=self.horizon,
            solver=self.solver,
            seed=state_seed(),
            gradients=torch.is_grad_enabled(),
            gradient=self.gradient if self.is_ode else None,
            keeps=keeps,
        )
        return self.ask(question)

    def _product(self, call: _Call, gradient: Tensor) -> Tensor:
        images, cotangent = call.images, gradient.detach().cpu()
        with _as_model_error():
            found = self.process.product(call.number, cotangent, images)
        self._draw(images, cotangent, found)
        return found

    def _draw(self, images: Tensor, cotangent: Tensor, gradient: Tensor) -> None:
        """Keeps one image of the batch, each batch with the same probability (Vitter 1985, algorithm R)."""
        rows = (cotangent != 0).any(1).nonzero().flatten().tolist()
        if self.precision != "fp32" or not rows:
            return
        self._given += 1
        place = len(self.drawn) if len(self.drawn) < DRAWN_GRADIENTS else self._chance.randrange(self._given)
        if place < DRAWN_GRADIENTS:
            row = self._chance.choice(rows)
            one = DrawnGradient(images[row].clone(), cotangent[row].clone(), gradient[row].clone())
            self.drawn[place : place + 1] = [one]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The module is frozen in its process for good."""
        yield

    def unfreeze_if_needed(self, images: Images) -> bool:
        with _as_model_error():
            return self.process.unfreeze(images.detach().cpu())


@contextmanager
def _as_model_error() -> Iterator[None]:
    try:
        yield
    except ModelProcessError as error:
        raise ModelError(str(error)) from error


class _Call:
    """One question whose images a process keeps, until nobody can ask for gradients any more."""

    def __init__(self, classifier: ProcessClassifier, number: int, logits: Tensor) -> None:
        self.classifier, self.number, self.logits = classifier, number, logits
        self.images = torch.empty(0)
        weakref.finalize(self, classifier.process.forget, number)


class _Asked(torch.autograd.Function):
    """The logits that a process has given, whose gradient it is asked for on the way back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        call.images = images.detach().cpu().clone()
        logits, call.logits = call.logits, torch.empty(0)
        return logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        call: _Call = ctx.call
        return call.classifier._product(call, gradients[0]).to(gradients[0].device), None
