"""Losses of a training: distillation, and how far two answers are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odebench.numerics.shapes import Labels, Logits
from odebench.protocol.recipe import Loss

LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def divergence(truth: Logits, answer: Logits) -> Float[Tensor, ""]:
    """KL(softmax(truth) || softmax(answer)), averaged over the images (as Zhang et al. 2019, algorithm 1).

    This is "batchmean", as in the code of TRADES' authors: torch's default would divide it by the number of classes as
    well.
    """
    return functional.kl_div(
        functional.log_softmax(answer, dim=1),
        functional.log_softmax(truth, dim=1),
        log_target=True,
        reduction="batchmean",
    )


def distillation_loss(
    student: Logits,
    labels: Labels,
    teacher: Logits,
    *,
    temperature: float,
    weight: float,
) -> Float[Tensor, ""]:
    """Hinton's loss (Hinton, Vinyals, Dean 2015): (1 - weight) CE + weight temperature^2 KL(teacher || student).

    KL is "batchmean": torch's default would divide it by the number of classes as well.
    """
    soft = divergence(teacher / temperature, student / temperature)
    return (1 - weight) * functional.cross_entropy(student, labels) + weight * temperature**2 * soft


def loss_function(loss: Loss) -> LossFunction:
    """The loss of (logits, labels, the teacher's logits) that a recipe names."""
    if loss.kind == "cross-entropy":
        return lambda logits, labels, _: functional.cross_entropy(logits, labels)
    temperature, weight = cast(float, loss.temperature), cast(float, loss.weight)

    def distilled(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        return distillation_loss(logits, labels, cast(Tensor, teacher), temperature=temperature, weight=weight)

    return distilled
