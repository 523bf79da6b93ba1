"""The losses of a training, and the divergence between two models' logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from odebench.numerics.shapes import Labels, Logits
from odebench.protocol.recipe import ADVERSARIAL_SHARE, Adversary, Loss

LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def divergence(truth: Logits, answer: Logits) -> Float[Tensor, ""]:
    """KL(softmax(truth) || softmax(answer)), averaged over the images (Zhang et al. 2019, algorithm 1).

    torch calls this "batchmean"; its default would also divide by the number of classes.
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
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """(1 - weight) CE + weight temperature^2 KL(teacher || student), both at `temperature` in KL (Hinton, Vinyals, Dean
    2015). `smoothing` is that of the labels in CE."""
    soft = divergence(teacher / temperature, student / temperature)
    hard = functional.cross_entropy(student, labels, label_smoothing=smoothing)
    return (1 - weight) * hard + weight * temperature**2 * soft


def loss_function(loss: Loss) -> LossFunction:
    """The loss that a recipe names, as a function of logits, labels and the teacher's logits."""
    smoothing = loss.smoothing or 0.0
    if loss.kind == "cross-entropy":
        return lambda logits, labels, _: functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    temperature, weight = cast(float, loss.temperature), cast(float, loss.weight)

    def distilled(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        return distillation_loss(
            logits, labels, cast(Tensor, teacher), temperature=temperature, weight=weight, smoothing=smoothing
        )

    return distilled


def adversarial_loss(
    clean: Logits,
    perturbed: Logits,
    labels: Labels,
    targets: Logits | None,
    *,
    adversary: Adversary,
    loss: LossFunction,
) -> Float[Tensor, ""]:
    """The loss of TRADES or RSLAD, from the logits at clean and at adversarial images.

    TRADES adds beta times the divergence between the two (Zhang et al. 2019, equation 5); RSLAD weighs `loss` at both
    (Zi et al. 2021). `targets` are the teacher's logits at the clean images.
    """
    near = loss(clean, labels, targets)
    if adversary.kind == "rslad":
        return ADVERSARIAL_SHARE * loss(perturbed, labels, targets) + (1 - ADVERSARIAL_SHARE) * near
    return near + cast(float, adversary.beta) * divergence(clean, perturbed)
