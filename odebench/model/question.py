"""A question to a classifier, wherever it runs, and its answer: one batch, asked as given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from odebench.model.classifier import Answer, Classifier
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images
from odebench.protocol.spec import Solver

Precision = Literal["fp32", "fp64"]


@dataclass(frozen=True)
class Question:
    """One batch, asked as given.

    `images` may lie outside [0, 1]. In fp64 the model is a second copy, built anew and converted. `horizon` and
    `solver` replace those of the blueprint unless None. The generators of torch, numpy and Python are seeded by `seed`.
    With `gradients` the images are part of a graph; else gradients are off. `cotangents` asks, with `gradients` alone,
    for the gradient with respect to the images of the sum of logits times each of them.
    """

    images: Images
    precision: Precision = "fp32"
    horizon: float | None = None
    solver: Solver | None = None
    seed: int = 0
    gradients: bool = False
    cotangents: Float[Tensor, "products batch classes"] | None = None

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
        )


@dataclass(frozen=True)
class ProcessAnswer(Answer):
    """An Answer on the CPU, and a gradient for each cotangent of the question.

    A gradient is zero where an image failed or the logits do not depend on it. Logits are finite, gradients need not
    be.
    """

    gradients: Float[Tensor, "products batch channel height width"] | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, without those that are None."""
        found = {"logits": self.logits, "failed": self.failed, "nfe": self.nfe, "gradients": self.gradients}
        return {name: tensor for name, tensor in found.items() if tensor is not None}


def answer_question(classifier: Classifier, question: Question) -> ProcessAnswer:
    """The answer of a classifier in this process, whose module must be in the precision of the question already.

    Raises ModelError as Classifier.answer does, and whatever the backward pass raises.
    """
    if question.horizon is not None or question.solver is not None:
        classifier = classifier.modified(horizon=question.horizon, solver=question.solver, gradient=classifier.gradient)
    points = question.images.detach().to(classifier.device, question.dtype).clone().requires_grad_(question.gradients)
    with seeded(question.seed), torch.set_grad_enabled(question.gradients):
        # A copy, since a model may change its input in place, which a leaf forbids.
        answer = classifier.answer(points.clone())
        gradients = None if question.cotangents is None else _products(answer.logits, points, question.cotangents)
    return ProcessAnswer(
        answer.logits.detach().to("cpu", question.dtype),
        answer.failed.cpu(),
        None if answer.nfe is None else answer.nfe.to("cpu", torch.int64),
        gradients,
    )


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
