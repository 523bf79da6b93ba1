"""What falls beyond a published union: a strong attack that shares no code with odebench's own.

    python benchmarks/strong_attack.py --model kd-ode --norm l2
    python benchmarks/strong_attack.py --model ode --norm linf --seed 1 --horizon 1 --restarts 4
    python benchmarks/strong_attack.py --letters fast-2.json --model kd-ode --norm l2

Plain torch: projected ascent on the target's logit minus the label's, towards each of the other classes, with
momentum, steps on a cosine and several starts. It tries the images that stand in the union of all results of the
model and norm, at the middle epsilon, or those that stand in the result file --letters. odebench's judge decides what
fell. An image that stands afterwards is not proven robust: a figure is only as good as the best attack tried.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from odebench.dataset import load_dataset
from odebench.evaluation.verdict import Judge
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult, union
from odebench.model.classifier import Classifier
from odebench.model.training import build
from odebench.protocol.recipe import Recipe
from odebench.result.file import read_result
from odebench.result.outcome import ROBUST

LEADERBOARD = Path(__file__).parents[1] / "leaderboard"
AT_ONCE = 450
FIRST = (1.0, 1.0, 0.5, 2.0)
"""The length of the first step in units of epsilon, start by start."""


@dataclass(frozen=True)
class Budget:
    """Steps of a run, how many starts each target gets, and how many of the other classes are targets."""

    steps: int = 120
    restarts: int = 5
    targets: int = 9


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit minus the label's: at least 0 where the model errs."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own.squeeze(1)


def unit(shift: Tensor) -> Tensor:
    """Each row at length one."""
    return shift / shift.flatten(1).norm(dim=1).clamp_min(1e-20)[:, None, None, None]


def into_ball(points: Tensor, images: Tensor, norm: str, epsilon: float) -> Tensor:
    """Points within epsilon of their images, and within [0, 1]."""
    shift = points - images
    if norm == "linf":
        shift = shift.clamp(-epsilon, epsilon)
    else:
        shift = shift * (epsilon / shift.flatten(1).norm(dim=1).clamp_min(1e-20)).clamp_max(1)[:, None, None, None]
    return (images + shift).clamp(0, 1)


def begin(images: Tensor, norm: str, epsilon: float, restart: int) -> Tensor:
    """The image itself, then random points of the ball."""
    if restart == 0:
        return images.clone()
    if norm == "linf":
        return into_ball(images + epsilon * (2 * torch.rand_like(images) - 1), images, norm, epsilon)
    radii = epsilon * torch.rand(len(images)) ** 0.5
    return into_ball(images + unit(torch.randn_like(images)) * radii[:, None, None, None], images, norm, epsilon)


def ascend(
    logits_of: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    norm: str,
    epsilon: float,
    steps: int,
    restart: int,
) -> tuple[Tensor, Tensor]:
    """For each row the point on its path of the largest margin, and that margin."""
    points = begin(images, norm, epsilon, restart)
    speed = torch.zeros_like(images)
    best, largest = images.clone(), torch.full((len(images),), -torch.inf)
    for step in range(steps + 1):
        points = points.detach().requires_grad_(True)
        logits = logits_of(points)
        found = margin(logits.detach(), labels)
        better = found > largest
        best[better], largest[better] = points.detach()[better], found[better]
        if step == steps:
            break
        aimed = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).sum()
        (slope,) = torch.autograd.grad(aimed, points)
        with torch.no_grad():
            length = FIRST[restart % len(FIRST)] * epsilon * (1 + math.cos(math.pi * step / steps)) / 2
            if restart % 2:  # pixels at 0 or 1 that would leave the range take no part of the length
                stuck = ((points <= 0) & (slope < 0)) | ((points >= 1) & (slope > 0))
                slope = slope.masked_fill(stuck, 0.0)
            if norm == "linf":
                speed = 0.75 * speed + slope / slope.abs().flatten(1).mean(1).clamp_min(1e-20)[:, None, None, None]
                points = into_ball(points + length / 2 * speed.sign(), images, norm, epsilon)
            else:
                speed = 0.75 * speed + unit(slope)
                points = into_ball(points + length * unit(speed), images, norm, epsilon)
    return best, largest


def strongest(
    classifier: Classifier, images: Tensor, labels: Tensor, *, norm: str, epsilon: float, budget: Budget
) -> Tensor:
    """For each image the point of the largest margin among all targets and starts; an image is left alone once its
    margin is well above 0."""

    def logits_of(points: Tensor) -> Tensor:
        return classifier.answer(points).logits

    with torch.no_grad():
        ranked = logits_of(images).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    best, largest = images.clone(), torch.full((len(images),), -torch.inf)
    for restart in range(budget.restarts):
        standing = (largest <= 0).nonzero().flatten()
        rows = standing.repeat_interleave(min(budget.targets, ranked.shape[1] - 1))
        aims = ranked[standing, : min(budget.targets, ranked.shape[1] - 1)].flatten()
        for some, aim in zip(rows.split(AT_ONCE), aims.split(AT_ONCE), strict=True):
            points, found = ascend(
                logits_of,
                images[some],
                labels[some],
                aim,
                norm=norm,
                epsilon=epsilon,
                steps=budget.steps,
                restart=restart,
            )
            for row, point, value in zip(some.tolist(), points, found, strict=True):
                if value > largest[row]:
                    best[row], largest[row] = point, value
        print(f"  start {restart}: {int((largest > 0).sum())} of {len(images)}", file=sys.stderr, flush=True)
    return best


def published(weights: str) -> nn.Module:
    """The module with published weights of a recipe's digest."""
    path = LEADERBOARD / "weights" / f"{weights}.safetensors"
    tensors, metadata = read_tensors(path)
    module = build(Recipe.model_validate(metadata["recipe"]))
    load_weights(module, tensors, source=path)
    return module


def chosen(given: argparse.Namespace) -> list[StoredResult]:
    """The results of the model, horizon, train seed and norm that were asked for, those of 200 images or more."""
    stored, _ = read_results([LEADERBOARD / "results" / given.model])
    return [
        item
        for item in stored
        if item.evaluation.dataset.name == given.dataset
        and item.evaluation.dataset.split == "test"
        and item.evaluation.threat_model.norm == given.norm
        and item.evaluation.model.arguments == {"train_seed": given.seed}
        and item.evaluation.train_horizon in (None, given.horizon)
        and item.evaluation.horizon == item.evaluation.train_horizon
        and (item.evaluation.solver is None or item.evaluation.solver.method == "rk4")
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what stood, what fell and what stands, and returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="kd-ode")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--norm", choices=("linf", "l2"), default="l2")
    parser.add_argument("--horizon", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="train seed")
    parser.add_argument("-n", type=int, default=200, help="test images")
    parser.add_argument("--letters", type=Path, default=None, help="a result whose standing images are tried instead")
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--restarts", type=int, default=Budget.restarts)
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args(arguments)
    stored = chosen(given)
    if given.letters is not None:
        stored = [StoredResult(given.letters, read_result(given.letters))]
    if not stored:
        parser.error(f"no result of {given.model} on {given.dataset} in {given.norm}")
    evaluation = stored[0].evaluation
    epsilon = evaluation.threat_model.middle_epsilon
    joined = union(stored).at(epsilon)
    rows = torch.tensor([row for row in range(given.n) if joined[ROBUST] >> row & 1])
    judged = sum(1 for row in range(given.n) if any(found >> row & 1 for found in joined.values()))
    data = load_dataset(given.dataset, data_dir=given.data_dir).test
    classifier = Classifier(
        published(evaluation.model.weights),
        n_classes=10,
        horizon=evaluation.horizon,
        solver=evaluation.solver,
    )
    started = time.perf_counter()
    budget = Budget(given.steps, given.restarts)
    images, labels = data.images[rows], data.labels[rows]
    with classifier.frozen(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        candidates = strongest(classifier, images, labels, norm=given.norm, epsilon=epsilon, budget=budget)
        letters = Judge(classifier).candidates(images, labels, candidates, norm=given.norm, epsilon=epsilon).letters
    stands = int((letters == ROBUST).sum())
    print(
        f"{given.model} {given.dataset} {given.norm} {epsilon} seed {given.seed}: {judged} images, {len(rows)} stood "
        f"({len(rows) / judged:.1%}), {len(rows) - stands} fell, {stands} stand ({stands / judged:.1%}), "
        f"{time.perf_counter() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
