"""What a plan asks, ready to be asked: its classifier and those of its sources, weights found or trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from odebench.checkpoint import load_weights, read_tensors
from odebench.dataset import Dataset
from odebench.file import sha256_file
from odebench.model.classifier import Classifier
from odebench.plan import Plan
from odebench.progress import Progress
from odebench.training import build, find_or_train


@dataclass(frozen=True)
class AtHand:
    """The classifier of a plan and those of its sources by their texts, each with the sha256 of its weights."""

    classifier: Classifier
    weights_sha256: str
    sources: dict[str, Classifier]
    sources_sha256: dict[str, str]


def at_hand(plan: Plan, dataset: Dataset, device: str, progress: Progress) -> AtHand:
    """What a plan asks, with its weights found or trained. Raises WeightError, ModelError."""
    module, digest = _model(plan, dataset, device, progress)
    classifier = Classifier(
        module,
        n_classes=dataset.n_classes,
        device=device,
        horizon=plan.evaluation.horizon,
        solver=plan.evaluation.solver,
    )
    return AtHand(classifier, digest, *_sources(plan, dataset, module, digest, device, progress))


def _model(plan: Plan, dataset: Dataset, device: str, progress: Progress) -> tuple[nn.Module, str]:
    """The module of a plan and the sha256 of its weights file."""
    if plan.weights is None:
        trained = find_or_train(plan.recipe, dataset, device=device, progress=progress)
        return trained.module, trained.weights_sha256
    module = build(plan.recipe)
    tensors, _ = read_tensors(plan.weights)
    load_weights(module, tensors, source=plan.weights)
    return module.to(device), sha256_file(plan.weights)


def _sources(
    plan: Plan, dataset: Dataset, module: nn.Module, digest: str, device: str, progress: Progress
) -> tuple[dict[str, Classifier], dict[str, str]]:
    """The classifiers of a plan's sources, trained if need be, and the sha256 of their weights, by their texts."""
    classifiers, digests = {}, {}
    for source in plan.sources:
        weights, found = module, digest
        if not source.itself:
            trained = find_or_train(source.recipe, dataset, device=device, progress=progress)
            weights, found = trained.module, trained.weights_sha256
        classifiers[source.text] = Classifier(
            weights,
            n_classes=dataset.n_classes,
            device=device,
            horizon=source.horizon,
            solver=source.solver,
            gradient=source.gradient,
        )
        digests[source.text] = found
    return classifiers, digests
