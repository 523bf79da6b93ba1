"""APGD, FAB and Square through pyautoattack's attack classes, and random noise.

pyautoattack's harness is not used, because it seeds, resumes and checks by itself. Here odebench seeds each call.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from jaxtyping import Float
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from odebench.attack.early_stopping import IsAdversarial, strictly_correct, with_early_stopping
from odebench.attack.multi_target import any_copy, attack_targets, ranked_others, together
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import AttackError
from odebench.numerics.projection import distance, project
from odebench.numerics.seeding import seeded
from odebench.numerics.shapes import Images, Labels, Logits

_NORMS = {"linf": "Linf", "l2": "L2"}
BF16_DOUBT = 5e-3
"""Below this share of the largest |logit| a margin in bf16 is asked for again in fp32: it may be rounding."""
_QUIET = logging.getLogger("odebench.attack.autoattack")
"""Without a logger APGD warns of zero gradients, which check 1 counts."""
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


def apgd_ce(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    best: bool = False,
    start: Images | None = None,
) -> Images:
    """The candidates of Auto-PGD (Croce and Hein 2020) on the cross-entropy: the last iterate that fooled the model,
    else that of the largest loss.

    With `best` it is always the iterate of the largest loss. With `start` the attack begins at these points.
    """
    attack = _apgd(images, norm=norm, epsilon=epsilon, seed=seed, steps=steps, loss="ce")

    def run(active: nn.Module) -> Images:
        return _single_run(attack, active, images, labels, best=best, start=start)

    return with_early_stopping(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def apgd_dlr(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    start: Images | None = None,
) -> Images:
    """The candidates of Auto-PGD on the difference of logits ratio (DLR). Raises AttackError for fewer than three
    classes, for which the ratio is not defined."""
    if model.n_classes < 3:
        raise AttackError("the DLR loss needs at least three classes; use apgd-ce")
    attack = _apgd(images, norm=norm, epsilon=epsilon, seed=seed, steps=steps, loss="dlr")

    def run(active: nn.Module) -> Images:
        return _single_run(attack, active, images, labels, start=start)

    return with_early_stopping(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def _apgd(images: Images, *, norm: str, epsilon: float, seed: int, steps: int, loss: str) -> APGDAttack:
    return APGDAttack(
        None, n_iter=steps, norm=_NORMS[norm], eps=epsilon, seed=seed, loss=loss, device=images.device, logger=_QUIET
    )


def apgd_targeted(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    targets: int,
) -> Images:
    """The candidates of Auto-PGD towards each of the `targets` likeliest other classes, on the targeted DLR loss.

    That loss is not defined for fewer than four classes: there it is the numerator alone, the target's logit minus the
    label's. No more targets are tried than there are other classes. Where few images remain, several targets share a
    pass.
    """
    attack = APGDAttack_targeted(
        None, n_iter=steps, norm=_NORMS[norm], eps=epsilon, seed=seed, device=images.device, logger=_QUIET
    )
    if model.n_classes < 4:
        # The targeted cross-entropy would shy away from the third class, and is flat where logits are large.
        attack.dlr_loss_targeted = lambda logits, own: _margin_of_target(logits, own, attack.y_target)

    def run(active: nn.Module, points: Images, own: Labels, aims: Labels, _: int) -> Images:
        attack.y_target = aims
        return _single_run(attack, active, points, own)

    others = ranked_others(model, images, labels)[:, :targets]
    return attack_targets(run, model, images, labels, others, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def _margin_of_target(logits: Logits, labels: Labels, targets: Labels) -> Float[Tensor, " batch"]:
    margin: Tensor = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    return margin


def _single_run(
    attack: Any,
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    best: bool = False,
    start: Images | None = None,
) -> Images:
    """The candidates of one run of an APGD object, from random points or from `start`. Its `perturb` is not used: it
    seeds anew and leaves out images that are misclassified."""
    attack.model = model
    attack.init_hyperparam(images)
    largest_loss, correct, _, adversarial = attack.attack_single_run(images.clone(), labels.long(), x_init=start)
    # For an image that never fooled the model APGD returns its random start as adversarial.
    never = correct.bool()[:, None, None, None]
    found: Images = largest_loss if best else torch.where(never, largest_loss, adversarial)
    return found.detach()


def fab_targeted(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    steps: int,
    targets: int,
) -> Images:
    """The candidates of targeted FAB (Croce and Hein 2020): the smallest perturbation found towards each of the
    `targets` likeliest other classes.

    `fallen` is not called: an image is left out once the model misclassifies it within `epsilon`. The attack runs in
    fp32, because it looks for the decision boundary, and a bf16 model has another one.
    """
    attack = _Aimed(model, norm=_NORMS[norm], n_iter=steps, eps=epsilon, seed=seed, device=images.device)
    found, smallest = images.clone(), torch.full_like(images[:, 0, 0, 0], epsilon)
    with torch.no_grad():
        remaining = strictly_correct(model(images), labels)
    for attacked, aims in together(remaining, ranked_others(model, images, labels)[:, :targets]):
        rows = attacked.repeat(len(aims) // len(attacked))
        with seeded(seed):
            candidates = attack.towards(images[rows], labels[rows], aims)
        with torch.no_grad():
            fooled = ~strictly_correct(model(candidates), labels[rows])
        radius = distance(images[rows], candidates, norm=norm)
        for copies in torch.split(torch.arange(len(rows), device=rows.device), len(attacked)):
            better = copies[fooled[copies] & (radius[copies] <= smallest[attacked])]
            found[rows[better]], smallest[rows[better]] = candidates[better], radius[better]
        fooled &= radius <= epsilon
        remaining &= ~any_copy(rows, fooled, len(images))
    return found


class _Aimed(FABAttack_PT):  # type: ignore[misc]
    """FAB with a target class for each row. FAB's own loop gives all rows the class of the same rank."""

    def towards(self, images: Images, labels: Labels, aims: Labels) -> Images:
        """The closest points found on the way to the classes `aims` at which the label is no longer the likeliest."""
        self.labels, self.aims, self.target_class = labels.long(), aims, 2
        found: Images = self.attack_single_run(images.clone(), self.labels, is_targeted=True)
        return found.detach()

    def _predict_fn(self, images: Images) -> Tensor:
        """The scores by which FAB ranks the classes, once per run: the label first, then the target."""
        marks = images.new_zeros(len(images), self.predict.n_classes)
        return marks.scatter(1, self.aims[:, None], 1.0).scatter(1, self.labels[:, None], 2.0)

    def _get_predicted_label(self, images: Images) -> Tensor:
        with torch.no_grad():
            likeliest: Tensor = self.predict(images).argmax(1)
        return likeliest


def square(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    queries: int,
) -> Images:
    """The best points found by Square (Andriushchenko et al. 2020), a random search that asks for logits alone.

    `fallen` is not called: Square leaves out the images that the model misclassifies. A point that a bf16 model finds
    adversarial, or nearly so, is scored again in fp32, and the search goes on from there if fp32 does not agree.
    """

    def margin(points: Images, own: Labels) -> Float[Tensor, " batch"]:
        logits = model(points)
        found = _margin(logits, own)
        if model.fp32 is not model:
            near = (found <= BF16_DOUBT * logits.abs().amax(1)).nonzero().flatten()
            if len(near):
                found[near] = _margin(model.fp32(points[near]), own[near])
        return found

    attack = SquareAttack(
        model, norm=_NORMS[norm], n_queries=queries, eps=epsilon, seed=seed, resc_schedule=False, device=images.device
    )
    # Its own function writes -inf into the model's logits, and a tie leaves it without an image to go on with.
    attack.margin_and_loss = lambda points, own: (margin(points, own),) * 2
    attack.init_hyperparam(images)
    with seeded(seed):
        _, found = attack.attack_single_run(images.clone(), labels.long())
    closest: Images = found.detach()
    return closest


def _margin(logits: Logits, labels: Labels) -> Float[Tensor, " batch"]:
    """The label's logit minus the largest other: above 0 where the label is strictly the largest, else below 0."""
    own = labels[:, None]
    margin = (logits.gather(1, own) - logits.scatter(1, own, -torch.inf).amax(1, keepdim=True)).squeeze(1)
    return torch.where(margin == 0, -torch.finfo(margin.dtype).tiny, margin)


def noise(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: IsAdversarial | None = None,
    draws: int,
) -> Images:
    """For each image a random point on the sphere of radius `epsilon` (for linf: a corner of the ball) that fools the
    model, or the image itself if none of `draws` points does."""

    def run(active: nn.Module) -> Images:
        found = images.clone()
        for _ in range(draws):
            shift = torch.randn(images.shape, dtype=images.dtype).to(images.device)
            if norm == "linf":
                shift = shift.sign() * epsilon
            else:
                shift = shift * (epsilon / shift.flatten(1).norm(dim=1).clamp_min(1e-12))[:, None, None, None]
            candidates = project(images, images + shift, norm=norm, epsilon=epsilon)
            with torch.no_grad():
                fooled = ~strictly_correct(active(candidates), labels)
            found[fooled] = candidates[fooled]
        return found

    return with_early_stopping(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)
