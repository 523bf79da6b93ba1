"""What the speed benchmarks share: the trained network, one evaluation through odebench, clocks, tables."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor, nn

from odebench.attack.definition import load_attack
from odebench.dataset import Dataset, Split, load_dataset
from odebench.evaluation.evaluate import module_digest
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import LoadedModels, train_images
from odebench.model.classifier import Classifier
from odebench.model.training import find_or_train
from odebench.protocol.recipe import Loss, Recipe, Schedule
from odebench.protocol.spec import (
    AttackSpec,
    CoarseSolver,
    DatasetSlice,
    Evaluation,
    ModelSpec,
    Solver,
    ThreatModel,
    fixed_step,
)
from odebench.result.schema import Result

RK4 = fixed_step(step=0.5)
"""What the network is trained with, and what all but attack_vs_foolbox.py attack."""


def parser(text: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that all scripts have; `defaults` replaces their defaults."""
    found = argparse.ArgumentParser(description=text)
    found.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    found.add_argument("--images", type=int, default=200, help="test images (default %(default)s)")
    found.add_argument("--channels", type=int, default=64, help="channels of the network (default %(default)s)")
    found.add_argument("--epsilon", type=float, default=0.05, help="linf radius (default %(default)s)")
    found.add_argument("--repeats", type=int, default=3, help="repetitions, turn about (default %(default)s)")
    found.add_argument(
        "--cpu-clock", action="store_true", help="CPU seconds instead of wall-clock: where others use the machine too"
    )
    found.set_defaults(**defaults)
    return found


@cache
def fashion_mnist() -> Dataset:
    """The data set, read once."""
    return load_dataset("fashion-mnist")


def network(channels: int) -> nn.Module:
    """ODENet (Chen et al. 2018): conv stem, T = 1, two epochs on Fashion-MNIST with rk4, step 0.5. Trained once;
    afterwards its weights come from odebench's cache."""
    recipe = Recipe(
        architecture="odebench.model.ode:OdeNet",
        arguments={"channels": channels, "stem": "conv", "image_shape": [1, 28, 28], "n_classes": 10},
        horizon=1.0,
        solver=RK4,
        dataset="fashion-mnist",
        loss=Loss(kind="cross-entropy"),
        schedule=Schedule(epochs=2, batch_size=128, learning_rate=4e-3, weight_decay=5e-4, warmup=0.2),
        augmentation="none",
        train_seed=0,
        teacher=None,
    )
    return find_or_train(recipe, fashion_mnist()).module


def test_images(n: int) -> tuple[Tensor, Tensor]:
    """The first `n` test images of Fashion-MNIST in odebench's order, with their labels."""
    test = fashion_mnist().test
    return test.images[:n].clone(), test.labels[:n].clone()


def attacked(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    attack: str,
    epsilon: float,
    parameters: Mapping[str, Any] | None = None,
    solver: Solver = RK4,
    surrogate: Solver | None = None,
    precision: str = "fp32",
    chunk: int = 100,
    seed: int = 0,
    keep: dict[float, dict[int, Tensor]] | None = None,
) -> Result:
    """The result of one attack in linf, by odebench's own execution path: what `odebench run` does once the model is
    loaded."""
    classifier = Classifier(module, n_classes=10, solver=solver)
    evaluation = Evaluation(
        model=ModelSpec(name="odenet", arguments={}, weights=module_digest(module)),
        train_horizon=classifier.horizon,
        horizon=classifier.horizon,
        solver=solver,
        dataset=DatasetSlice(name="fashion-mnist", split="test", n=len(images), offset=0),
        threat_model=ThreatModel(norm="linf", epsilons=(epsilon,)),
        attack=AttackSpec(
            name=attack,
            parameters=load_attack(attack).complete(dict(parameters or {})),
            seed=seed,
            surrogate=None if surrogate is None else CoarseSolver(solver=surrogate),
        ),
        chunk=chunk,
        precision=precision,
    )
    models = LoadedModels(classifier, "0" * 64, handed_over=False, train_images=train_images(fashion_mnist()))
    measured = measure(evaluation, models, Split(images, labels), keep_candidates=keep is not None)
    if keep is not None:
        keep[epsilon] = measured.outcomes[0].judged or {}
    return measured.result(evaluation)


@contextmanager
def switched_off(module: nn.Module, *, learn: bool) -> Iterator[None]:
    """Evaluation mode, and parameter gradients only if `learn`; as before afterwards."""
    wanted = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.eval().requires_grad_(learn)
    try:
        yield
    finally:
        for parameter, mode in wanted.items():
            parameter.requires_grad_(mode)
            parameter.grad = None


def clocked(task: Callable[[], Any], *, cpu: bool = False) -> tuple[float, Any]:
    """Seconds that `task` took, and its answer."""
    clock = time.process_time if cpu else time.perf_counter
    started = clock()
    answer = task()
    return clock() - started, answer


def turn_about(
    tasks: Mapping[str, Callable[[], Any]], repeats: int, *, cpu: bool = False
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each task in each of `repeats` rounds, every round through all tasks, and their last answers."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    answers: dict[str, Any] = {}
    for turn in range(repeats):
        # Every second round runs backwards, so that no task always follows the same one.
        for name in list(tasks)[:: 1 if turn % 2 == 0 else -1]:
            spent, answers[name] = clocked(tasks[name], cpu=cpu)
            seconds[name].append(spent)
            print(f"  round {turn + 1}, {name}: {spent:.1f} s", flush=True)
    return seconds, answers


def median(values: Sequence[float]) -> float:
    """The middle value; of an even number the mean of the middle two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def middle_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster `fast` is: the median over rounds of the ratio within a round, so that what slows a whole
    round down cancels."""
    return median([a / b for a, b in zip(slow, fast, strict=True)])


def show(title: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(title) + " |")
    print("|" + "---|" * len(title))
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def finish(ratio: float) -> None:
    """The last line."""
    print(f"ratio: {ratio:.2f}" if math.isfinite(ratio) else "ratio: nan")
