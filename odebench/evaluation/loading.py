"""Loading the models of a plan: the classifier and those of its sources, with weights found or trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

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
    """The classifier of an evaluation and those of its sources by name, each with the sha256 of its weights.

    Nothing is known beforehand of the gradient of a module that was `handed_over`: check 17 looks at it first.
    `train_images` are those of the data set, if it has any.
    """

    classifier: Classifier
    weights_sha256: str
    sources: Mapping[str, Classifier] = field(default_factory=dict)
    sources_sha256: Mapping[str, str] = field(default_factory=dict)
    handed_over: bool = True
    train_images: Tensor | None = None


def load_models(plan: Plan, dataset: Dataset, device: str, progress: Progress) -> LoadedModels:
    """The models of a plan, with weights found or trained. Raises WeightError, ModelError."""
    module, digest = _model(plan, dataset, device, progress)
    classifier = Classifier(
        module,
        n_classes=dataset.n_classes,
        device=device,
        horizon=plan.evaluation.horizon,
        solver=plan.evaluation.solver,
    )
    sources: dict[str, Classifier] = {}
    digests: dict[str, str] = {}
    for source in plan.sources:
        weights, digests[source.text] = module, digest
        if not source.itself:
            trained = find_or_train(source.recipe, dataset, device=device, progress=progress)
            weights, digests[source.text] = trained.module, trained.weights_sha256
        sources[source.text] = Classifier(
            weights,
            n_classes=dataset.n_classes,
            device=device,
            horizon=source.horizon,
            solver=source.solver,
            gradient=source.gradient,
        )
    return LoadedModels(
        classifier,
        digest,
        sources,
        digests,
        handed_over=plan.handed_over,
        train_images=None if dataset.train is None else dataset.train.images,
    )


def weights_of(plan: Plan, progress: Progress = SILENT) -> Path | None:
    """The weights file of a plan, downloaded if it lies elsewhere; None if its recipe finds or trains the weights.

    Raises RemoteError.
    """
    if isinstance(plan.weights, Address):
        address = plan.weights
        return fetch(address.url, sha256=address.sha256, bytes=address.bytes, progress=progress)
    return plan.weights


def known_weights(plan: Plan) -> str | None:
    """The sha256 of a plan's weights if they are on this machine or their address states it; downloads nothing."""
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
