"""APGD, FAB and Square through pyautoattack's attack classes, and random noise.

Its harness is not used: it re-seeds, resumes and checks in ways of its own. Each call here is seeded by odebench.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from odebench.attack.early_stopping import Fallen, pursued, strictly_correct
from odebench.attack.multi_target import OncePerImage, any_copy, propose, ranked_others, together
from odebench.attack.wrapped_model import WrappedModel
from odebench.errors import AttackError
from odebench.numerics.projection import distance, project
from odebench.numerics.seeding import seeded

Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]

_NORMS = {"linf": "Linf", "l2": "L2"}
BF16_DOUBT = 5e-3
"""A bf16 margin below this share of the largest |logit| is doubtful: that much may be rounding."""
_QUIET = logging.getLogger("odebench.attack.autoattack")
"""APGD warns of zero gradients unless it is given a logger; check 1 counts them."""
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
    fallen: Fallen | None = None,
    steps: int,
    best: bool = False,
    start: Images | None = None,
) -> Images:
    """Auto-PGD (Croce and Hein 2020) on the cross-entropy: the last iterate that fooled the model, else that of the
    largest loss.

    With `best`, the iterate of the largest loss instead. With `start` it begins at these points of the balls.
    """
    attack = _apgd(images, norm=norm, epsilon=epsilon, seed=seed, steps=steps, loss="ce")

    def run(asked: nn.Module) -> Images:
        return _single_run(attack, asked, images, labels, best=best, start=start)

    return pursued(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


def apgd_dlr(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    steps: int,
    start: Images | None = None,
) -> Images:
    """Auto-PGD on the difference of logits ratio. Raises AttackError for fewer than three classes, where the ratio
    is not defined."""
    if model.n_classes < 3:
        raise AttackError("the DLR loss needs at least three classes; use apgd-ce")
    attack = _apgd(images, norm=norm, epsilon=epsilon, seed=seed, steps=steps, loss="dlr")

    def run(asked: nn.Module) -> Images:
        return _single_run(attack, asked, images, labels, start=start)

    return pursued(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)


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
    fallen: Fallen | None = None,
    steps: int,
    targets: int,
) -> Images:
    """Auto-PGD towards each of the `targets` likeliest other classes, on the targeted DLR loss.

    With fewer than four classes, where that loss is not defined, on its numerator: the target's logit over the
    label's. No more targets are tried than there are other classes; where few images stand, several in one pass.
    """
    attack = APGDAttack_targeted(
        None, n_iter=steps, norm=_NORMS[norm], eps=epsilon, seed=seed, device=images.device, logger=_QUIET
    )
    if model.n_classes < 4:
        # The targeted cross-entropy would shy away from the third class, and is flat where logits are large.
        attack.dlr_loss_targeted = lambda logits, own: _lead(logits, own, attack.y_target)
    found, standing = images.clone(), torch.ones_like(labels, dtype=torch.bool)
    for number, (alive, aims) in enumerate(together(standing, ranked_others(model, images, labels)[:, :targets])):
        rows = alive.repeat(len(aims) // len(alive))
        points, own = images[rows], labels[rows]

        def run(asked: nn.Module, points: Images = points, own: Labels = own, aims: Labels = aims) -> Images:
            attack.y_target = aims
            return _single_run(attack, asked, points, own)

        once = None if fallen is None else OncePerImage(fallen, rows, images)
        candidates = pursued(
            run, model, points, own, norm=norm, epsilon=epsilon, seed=(seed + number) % 2**32, fallen=once
        )
        with torch.no_grad():
            fooled = ~strictly_correct(model(candidates), own)
        propose(found, alive, candidates, fooled)
        if once is not None:
            found[once.down] = once.proof[once.down]
        standing &= ~once.down if once is not None else ~any_copy(rows, fooled, len(images))
    return found


def _lead(logits: Tensor, labels: Labels, targets: Labels) -> Float[Tensor, " batch"]:
    lead: Tensor = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    return lead


def _single_run(
    attack: Any,
    asked: nn.Module,
    images: Images,
    labels: Labels,
    *,
    best: bool = False,
    start: Images | None = None,
) -> Images:
    """One run of an APGD attack object, from random points or from `start`. `perturb` would seed anew and leave out
    images that fall."""
    attack.model = asked
    attack.init_hyperparam(images)
    loudest, standing, _, fooling = attack.attack_single_run(images.clone(), labels.long(), x_init=start)
    # Where the surface was never fooled APGD's third answer is its random start: the verdict gets the largest loss.
    stands = standing.bool()[:, None, None, None]
    found: Images = loudest if best else torch.where(stands, loudest, fooling)
    return found.detach()


def fab_targeted(
    model: WrappedModel,
    images: Images,
    labels: Labels,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    fallen: Fallen | None = None,
    steps: int,
    targets: int,
) -> Images:
    """Targeted FAB (Croce and Hein 2020): the smallest perturbation towards each of the likeliest other classes.

    It leaves out by itself what it has felled within `epsilon`, so `fallen` is not asked. It runs in fp32: it looks for
    the boundary itself, and a bf16 model has another one.
    """
    attack = _Aimed(model, norm=_NORMS[norm], n_iter=steps, eps=epsilon, seed=seed, device=images.device)
    found, smallest = images.clone(), torch.full_like(images[:, 0, 0, 0], epsilon)
    with torch.no_grad():
        standing = strictly_correct(model(images), labels)
    for alive, aims in together(standing, ranked_others(model, images, labels)[:, :targets]):
        rows = alive.repeat(len(aims) // len(alive))
        with seeded(seed):
            candidates = attack.towards(images[rows], labels[rows], aims)
        with torch.no_grad():
            fooled = ~strictly_correct(model(candidates), labels[rows])
        radius = distance(images[rows], candidates, norm=norm)
        for copies in torch.split(torch.arange(len(rows), device=rows.device), len(alive)):
            better = copies[fooled[copies] & (radius[copies] <= smallest[alive])]
            found[rows[better]], smallest[rows[better]] = candidates[better], radius[better]
        fooled &= radius <= epsilon
        standing &= ~any_copy(rows, fooled, len(images))
    return found


class _Aimed(FABAttack_PT):  # type: ignore[misc]
    """FAB with a target of its own for each row; its own loop gives all rows the class of one rank."""

    def towards(self, images: Images, labels: Labels, aims: Labels) -> Images:
        """The closest points found at which the label is not the likeliest class any more, on the way to `aims`."""
        self.labels, self.aims, self.target_class = labels.long(), aims, 2
        found: Images = self.attack_single_run(images.clone(), self.labels, is_targeted=True)
        return found.detach()

    def _predict_fn(self, images: Images) -> Tensor:
        """What FAB ranks the classes by, once a run: the label first, then the aim."""
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
    fallen: Fallen | None = None,
    queries: int,
) -> Images:
    """Square (Andriushchenko et al. 2020): a random search on the logits alone, no gradient; the best points found.

    It leaves out by itself what it has felled, so `fallen` is not asked: a point that a bf16 surface says has fallen
    is scored anew by the exact surface, and the search goes on from there if it has not.
    """

    def margin(points: Images, own: Labels) -> Float[Tensor, " batch"]:
        logits = model(points)
        found = _margin(logits, own)
        if model.exact is not model:
            near = (found <= BF16_DOUBT * logits.abs().amax(1)).nonzero().flatten()
            if len(near):
                found[near] = _margin(model.exact(points[near]), own[near])
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


def _margin(logits: Tensor, labels: Labels) -> Float[Tensor, " batch"]:
    """The label's logit over the largest other: above 0 where the label is strictly the largest, else below 0."""
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
    fallen: Fallen | None = None,
    draws: int,
) -> Images:
    """Random points on the sphere of radius `epsilon` (for linf: corners of the ball); the first that fools."""

    def run(asked: nn.Module) -> Images:
        found = images.clone()
        for _ in range(draws):
            shift = torch.randn(images.shape, dtype=images.dtype).to(images.device)
            if norm == "linf":
                shift = shift.sign() * epsilon
            else:
                shift = shift * (epsilon / shift.flatten(1).norm(dim=1).clamp_min(1e-12))[:, None, None, None]
            candidates = project(images, images + shift, norm=norm, epsilon=epsilon)
            with torch.no_grad():
                fooled = ~strictly_correct(asked(candidates), labels)
            found[fooled] = candidates[fooled]
        return found

    return pursued(run, model, images, labels, norm=norm, epsilon=epsilon, seed=seed, fallen=fallen)
