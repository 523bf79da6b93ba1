"""What each stage of the worst case fells, and what it costs, on validation images of models with published weights.

    python benchmarks/effort.py
    python benchmarks/effort.py --dataset fashion-mnist --models resnet,kd-ode --norms linf -n 100
    python benchmarks/effort.py --efforts fast,fast-2 --one-radius --models ode --seeds 0,1

A pass is one image forward or backward through the model or a source, the verdict's own included. Stages that run only
in doubt are left out. Prints Markdown, the sum over all models first; test images are never looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch

from odebench.attack.definition import load_attack
from odebench.dataset import Dataset, describe_dataset, load_dataset
from odebench.evaluation.loading import load_models
from odebench.evaluation.outcome_accumulator import Outcomes
from odebench.evaluation.plan import EvaluationRequest, Slice, plan
from odebench.evaluation.preflight import run_preflight
from odebench.evaluation.staged_attack import StagedAttack
from odebench.numerics.precision import full_fp32
from odebench.progress import SILENT
from odebench.protocol.spec import middle

CLAIMS = "claims"
"""The attack of that name, beside the efforts of the worst case."""


@dataclass
class Yield:
    """Falls and passes of each stage by name, and the images that stand at each epsilon, over one or more models."""

    images: int = 0
    falls: dict[str, int] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    standing: dict[float, int] = field(default_factory=dict)

    def count(self, stage: str, falls: int, passes: int) -> None:
        """Adds what a stage felled and took."""
        self.falls[stage] = self.falls.get(stage, 0) + falls
        self.passes[stage] = self.passes.get(stage, 0) + passes

    def add(self, other: Yield) -> None:
        """Adds another model's."""
        self.images += other.images
        for stage in other.falls:
            self.count(stage, other.falls[stage], other.passes[stage])
        for epsilon, count in other.standing.items():
            self.standing[epsilon] = self.standing.get(epsilon, 0) + count

    def lines(self, title: str) -> list[str]:
        """A Markdown table: a row a stage, and the sum."""
        found = [f"| {title} | falls | passes an image | falls per 1,000 passes |", "|---|---|---|---|"]
        rows = [(stage, self.falls[stage], self.passes[stage]) for stage in self.falls]
        for stage, falls, passes in [*rows, ("all", sum(self.falls.values()), sum(self.passes.values()))]:
            found.append(f"| {stage} | {falls} | {passes / self.images:.1f} | {1000 * falls / max(1, passes):.2f} |")
        stand = ", ".join(f"{count} at {epsilon:g}" for epsilon, count in self.standing.items())
        return [*found, "", f"standing of {self.images}: {stand}", ""]


def measured(
    model: str, data: Dataset, *, effort: str, norm: str, seed: int, n: int, one_radius: bool, data_dir: Path | None
) -> Yield:
    """What the stages of an effort find on the first `n` validation images of a model."""
    definition = describe_dataset(data.name, data_dir=data_dir)
    assert data.validation is not None
    attack = CLAIMS if effort == CLAIMS else "worst-case"
    epsilons = (middle(definition.epsilons[norm]),) if one_radius or effort == CLAIMS else None
    request = EvaluationRequest(
        model,
        attack,
        images=Slice(split="validation", n=n),
        norm=norm,
        epsilons=epsilons,
        train_seed=seed,
        parameters={} if attack == CLAIMS else {"effort": effort},
    )
    planned = plan(request, definition, total=len(data.validation))
    models = load_models(planned, data, "cpu", SILENT)
    evaluation, images = planned.evaluation, data.validation.part(slice(0, n))
    stages = load_attack(attack).stages(evaluation.attack.parameters, norm=norm, n_classes=data.n_classes)
    found = Yield(images=n)
    with ExitStack() as stack, full_fp32():
        for classifier in (models.classifier, *models.sources.values()):
            stack.enter_context(classifier.frozen())
        preflight = run_preflight(evaluation, models.classifier, images, handed_over=False, progress=SILENT)
        judge = preflight.judge(models.classifier)
        usable = [stage for stage in stages if models.sources or not stage.definition.needs_sources]

        run = StagedAttack(evaluation, usable, models, judge, images, first=0, candidates={})
        with SILENT.track("", total=1) as step:
            before: Outcomes | None = None
            for epsilon in evaluation.threat_model.epsilons:
                outcomes = Outcomes.of(preflight.clean)
                if before is not None:
                    outcomes.carry_over(before)
                for stage in usable:
                    stood, passes = outcomes.robust, _passes(run)
                    run.attack_images(epsilon, outcomes, step, stages=[stage])
                    found.count(stage.name, stood - outcomes.robust, _passes(run) - passes)
                found.standing[epsilon] = outcomes.robust
                before = outcomes
    return found


def _passes(run: StagedAttack) -> int:
    return sum(run.passes) + run.judge.forward_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables and returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--models", default="resnet,ode,kd-ode,ode-ablated", help="parted by commas")
    parser.add_argument("--seeds", default="0", help="train seeds")
    parser.add_argument("--norms", default="linf,l2")
    parser.add_argument("--efforts", default="fast,fast-2,claims", help="of the worst case; claims is an attack")
    parser.add_argument("-n", type=int, default=200, help="validation images")
    parser.add_argument("--one-radius", action="store_true", help="the middle epsilon alone")
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = load_dataset(given.dataset, data_dir=given.data_dir)
    if data.validation is None:
        parser.error(f"{given.dataset} has no validation images")
    for norm in given.norms.split(","):
        tables = []
        for effort in given.efforts.split(","):
            total = Yield()
            for model, seed in product(given.models.split(","), map(int, given.seeds.split(","))):
                one = measured(
                    model,
                    data,
                    effort=effort,
                    norm=norm,
                    seed=seed,
                    n=given.n,
                    one_radius=given.one_radius,
                    data_dir=given.data_dir,
                )
                passes = sum(one.passes.values()) / one.images
                stand = " ".join(f"{count / one.images:.1%}" for count in one.standing.values())
                tables.append(f"{model} {seed} {norm} {effort}: {stand}, {passes:.0f} passes an image")
                print(tables[-1], file=sys.stderr, flush=True)
                total.add(one)
            print("\n".join(total.lines(f"{effort}, {given.dataset}, {norm}")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
