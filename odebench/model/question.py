"""A question to a classifier, wherever it runs, and its answer: one batch, asked as given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from odebench.errors import ModelProcessError
from odebench.io.text import printable
from odebench.model.classifier import Answer, Classifier, Gradient
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images
from odebench.protocol.spec import Solver

Precision = Literal["fp32", "fp64", "bf16"]
"""Of the model's own arithmetic: "bf16" is fp32 under autocast."""


MOST_NFE = 10**9
"""More evaluations of a field than any answer may report."""


@dataclass(frozen=True)
class Question:
    """One batch, asked as given.

    `images` may lie outside [0, 1]. In fp64 the model is a second copy, built anew and converted. `horizon` and
    `solver` replace those of the blueprint unless None. The generators of torch, numpy and Python are seeded by `seed`.
    With `gradients` the images are part of a graph; else gradients are off. `cotangents` asks, with `gradients` alone,
    for the gradient with respect to the images of the sum of logits times each of them. `gradient` is how
    these are taken (None: as the classifier does). `keeps`, with `gradients`, asks a process to be ready for gradients
    at these images until it may forget them.
    """

    images: Images
    precision: Precision = "fp32"
    horizon: float | None = None
    solver: Solver | None = None
    seed: int = 0
    gradients: bool = False
    cotangents: Float[Tensor, "products batch classes"] | None = None
    gradient: Gradient | None = None
    keeps: bool = False

    def __post_init__(self) -> None:
        if self.cotangents is not None and not self.gradients:
            raise AssertionError("a vector-Jacobian product needs gradients")

    @property
    def dtype(self) -> torch.dtype:
        """The type of images, logits and gradients."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def order(self) -> tuple[dict[str, JsonValue], dict[str, Tensor]]:
        """The question as the header and the tensors of a frame."""
        header: dict[str, JsonValue] = {
            "precision": self.precision,
            "horizon": self.horizon,
            "solver": None if self.solver is None else self.solver.model_dump(mode="json"),
            "seed": self.seed,
            "gradients": self.gradients,
            "gradient": self.gradient,
            "keeps": self.keeps,
        }
        tensors = {"images": self.images.to(self.dtype)}
        if self.cotangents is not None:
            tensors["cotangents"] = self.cotangents.to(self.dtype)
        return header, tensors

    @classmethod
    def of_order(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Question:
        """The question of an order, in the process that gets it."""
        return cls(
            images=tensors["images"],
            precision=header["precision"],
            horizon=header["horizon"],
            solver=None if header["solver"] is None else Solver.model_validate(header["solver"]),
            seed=header["seed"],
            gradients=header["gradients"],
            cotangents=tensors.get("cotangents"),
            gradient=header["gradient"],
            keeps=header["keeps"],
        )


@dataclass(frozen=True)
class ProcessAnswer(Answer):
    """An Answer on the CPU, and a gradient for each cotangent of the question.

    A gradient is zero where an image failed or the logits do not depend on it. Logits are finite, gradients need not
    be. `differentiable`: the logits depend on the images in the graph of the model.
    """

    gradients: Float[Tensor, "products batch channel height width"] | None
    differentiable: bool = True

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, without those that are None."""
        found = {"logits": self.logits, "failed": self.failed, "nfe": self.nfe, "gradients": self.gradients}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True)
class Kept:
    """Images in the graph of a model, and the logits that depend on them."""

    points: Tensor
    logits: Tensor

    def product(self, cotangent: Float[Tensor, "batch classes"]) -> Images:
        """The gradient with respect to the images of the sum of logits times `cotangent`, on the CPU."""
        return _products(self.logits, self.points, cotangent[None])[0]


def answer_question(classifier: Classifier, question: Question) -> ProcessAnswer:
    """The answer of a classifier in this process, whose module must be in the precision of the question already.

    Raises ModelError as Classifier.answer does, and whatever the backward pass raises.
    """
    return answer_and_keep(classifier, question)[0]


def answer_and_keep(classifier: Classifier, question: Question) -> tuple[ProcessAnswer, Kept]:
    """The answer of a classifier in this process as `answer_question` gives it, and what gradients are taken from."""
    if (question.horizon, question.solver, question.gradient) != (None, None, None):
        gradient = question.gradient or classifier.gradient
        classifier = classifier.modified(horizon=question.horizon, solver=question.solver, gradient=gradient)
    points = question.images.detach().to(classifier.device, question.dtype).clone().requires_grad_(question.gradients)
    autocast = torch.autocast(classifier.device.type, dtype=torch.bfloat16, enabled=question.precision == "bf16")
    with seeded(question.seed), torch.set_grad_enabled(question.gradients):
        # A copy, since a model may change its input in place, which a leaf forbids.
        with autocast:
            answer = classifier.answer(points.clone())
        gradients = None if question.cotangents is None else _products(answer.logits, points, question.cotangents)
    told = ProcessAnswer(
        answer.logits.detach().to("cpu", question.dtype),
        answer.failed.cpu(),
        None if answer.nfe is None else answer.nfe.to("cpu", torch.int64),
        gradients,
        answer.logits.requires_grad,
    )
    return told, Kept(points, answer.logits)


def _products(logits: Tensor, points: Tensor, cotangents: Tensor) -> Tensor:
    """The vector-Jacobian products, on the CPU."""
    found = torch.zeros(len(cotangents), *points.shape, dtype=points.dtype)
    if logits.requires_grad:
        for index, cotangent in enumerate(cotangents):
            (product,) = torch.autograd.grad(
                logits,
                points,
                cotangent.to(logits.device, logits.dtype),
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            found[index] = product
    return found


def checked_answer(question: Question, tensors: dict[str, Tensor], n_classes: int, start: str) -> ProcessAnswer:
    """The answer of another process, if it has the tensors, types and shapes that the question calls for.

    Raises ModelProcessError, whose message begins with `start`.
    """
    n, dtype = len(question.images), question.dtype
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "logits": (dtype, (n, n_classes)),
        "failed": (torch.bool, (n,)),
    }
    if "nfe" in tensors:
        wanted["nfe"] = torch.int64, (n,)
    if question.cotangents is not None:
        wanted["gradients"] = dtype, (len(question.cotangents), *question.images.shape)
    check_tensors(tensors, wanted, start)
    logits, failed, nfe = tensors["logits"], tensors["failed"], tensors.get("nfe")
    if not logits.isfinite().all():
        raise ModelProcessError(f"{start} logits that are not finite")
    if nfe is not None and not bool(((nfe >= 0) & (nfe <= MOST_NFE)).all()):
        raise ModelProcessError(f"{start} an NFE that is not within 0 and {MOST_NFE}")
    return ProcessAnswer(logits, failed, nfe, tensors.get("gradients"))


def check_tensors(
    tensors: dict[str, Tensor], wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]], start: str
) -> None:
    """Raises ModelProcessError, whose message begins with `start`, unless the tensors have these types and shapes."""
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if found != wanted:
        shown, expected = (
            ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in sorted(each.items()))
            for each in (found, wanted)
        )
        raise ModelProcessError(f"{start} {printable(shown) or 'nothing'}; expected {expected}")
