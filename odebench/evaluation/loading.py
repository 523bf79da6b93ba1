"""What a plan asks, ready to be asked: its classifier and those of its sources, weights found or trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from odebench.dataset import Dataset
from odebench.evaluation.plan import Plan
from odebench.io.files import sha256_file
from odebench.io.remote_weights import Address, fetch
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.model.classifier import Classifier
from odebench.model.contributed import load_contribution
from odebench.model.definition import Contributed
from odebench.model.training import build, find_or_train
from odebench.progress import SILENT, Progress
from odebench.protocol.recipe import find_weights


@dataclass(frozen=True)
class LoadedModels:
    """The classifier of a plan and those of its sources by their texts, each with the sha256 of its weights."""

    classifier: Classifier
    weights_sha256: str
    sources: dict[str, Classifier]
    sources_sha256: dict[str, str]


def load_models(plan: Plan, dataset: Dataset, device: str, progress: Progress) -> LoadedModels:
    """What a plan asks, with its weights found or trained. Raises WeightError, ModelError."""
    module, digest = _model(plan, dataset, device, progress)
    classifier = Classifier(
        module,
        n_classes=dataset.n_classes,
        device=device,
        horizon=plan.evaluation.horizon,
        solver=plan.evaluation.solver,
    )
    return LoadedModels(classifier, digest, *_sources(plan, dataset, module, digest, device, progress))


def weights_of(plan: Plan, progress: Progress = SILENT) -> Path | None:
    """The weights file of a plan, fetched if it lies elsewhere; None where a recipe finds or trains them. Raises
    RemoteError."""
    if isinstance(plan.weights, Address):
        address = plan.weights
        return fetch(address.url, sha256=address.sha256, bytes=address.bytes, progress=progress)
    return plan.weights


def known_weights(plan: Plan) -> str | None:
    """The sha256 of a plan's weights, as far as they are at hand or their address says it; nothing is fetched."""
    if isinstance(plan.weights, Address):
        return plan.weights.sha256
    path = find_weights(plan.recipe) if plan.weights is None else plan.weights
    return sha256_file(path) if path is not None and path.exists() else None


def _model(plan: Plan, dataset: Dataset, device: str, progress: Progress) -> tuple[nn.Module, str]:
    """The module of a plan and the sha256 of its weights file."""
    weights = weights_of(plan, progress)
    if weights is None:
        trained = find_or_train(plan.recipe, dataset, device=device, progress=progress)
        return trained.module, trained.weights_sha256
    if isinstance(plan.origin, Contributed):
        module = load_contribution(plan.origin, weights)
    else:
        module = build(plan.origin)
        tensors, _ = read_tensors(weights)
        load_weights(module, tensors, source=weights)
    return module.to(device), sha256_file(weights)


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
