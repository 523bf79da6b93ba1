"""A recipe: all that training depends on. Its digest finds the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from odebench.spec import Solver, Spec, digest

RECIPE_VERSION: Literal[1] = 1
"""Raised when the training code computes something else from the same recipe."""


class Loss(Spec):
    """Cross-entropy on the labels, or Hinton's distillation of a teacher (Hinton, Vinyals, Dean 2015, eq. 4).

    Distillation: (1 - weight) CE(s, y) + weight temperature^2 KL(softmax(t / temperature) || softmax(s /
    temperature)), s and t the logits of student and teacher, KL averaged over the images ("batchmean").
    """

    kind: Literal["cross-entropy", "distillation"]
    temperature: Annotated[float, Field(gt=0)] | None = None
    weight: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Loss:
        given = (self.temperature is not None, self.weight is not None)
        if given != (self.kind == "distillation",) * 2:
            raise ValueError("distillation needs a temperature and a weight, cross-entropy takes neither")
        return self


class Schedule(Spec):
    """AdamW with a linear warm-up over the first `warmup` of the steps and a cosine decay to zero."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, le=1000)]
    weight_decay: Annotated[float, Field(ge=0, le=1000)]
    warmup: Annotated[float, Field(ge=0, lt=1)]


class Recipe(Spec):
    """Architecture and its arguments, data, losses, schedule, train seed, and the teacher's own recipe."""

    version: Literal[1] = RECIPE_VERSION
    architecture: str
    arguments: dict[str, JsonValue]
    horizon: float | None
    solver: Solver | None
    dataset: str
    loss: Loss
    schedule: Schedule
    augmentation: Literal["none", "flip-crop"]
    train_seed: Annotated[int, Field(ge=0)]
    teacher: Recipe | None

    @model_validator(mode="after")
    def _taught(self) -> Recipe:
        if (self.loss.kind == "distillation") != (self.teacher is not None):
            raise ValueError("a teacher goes with distillation, and only with it")
        return self

    @property
    def key(self) -> str:
        """The digest that names the weights."""
        return digest(self)
