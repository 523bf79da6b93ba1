"""Loading the models of a plan: the classifier and those of its sources, with weights found or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from odebench.dataset import Dataset
from odebench.evaluation.plan import Plan
from odebench.io.files import sha256_file
from odebench.io.remote_weights import Address, fetch
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Classifier
from odebench.model.definition import Contributed
from odebench.model.process import ModelProcess
from odebench.model.process_channel import TimeBudget
from odebench.model.process_classifier import ProcessClassifier
from odebench.model.training import build, find_or_train, undamaged
from odebench.model.wall import missing, missing_walls
from odebench.numerics.shapes import Images
from odebench.progress import SILENT, Progress
from odebench.protocol.recipe import TrainedOn, find_weights, trained_on


@dataclass(frozen=True)
class LoadedModels:
    """The classifier of an evaluation and those of its sources by name, each with the sha256 of its weights.

    Nothing is known beforehand of the gradient of a module that was `handed_over`: check 17 looks at it first.
    `trained_on` is None where it is not known what the weights were trained on. `train_images` are those of the data
    set, for attacks that distil a model of their own; None where it has none. `start` makes a process of the classifier
    that has answered nothing; None where there is no way to do so.
    """

    classifier: Classifier
    weights_sha256: str
    sources: Mapping[str, Classifier] = field(default_factory=dict)
    sources_sha256: Mapping[str, str] = field(default_factory=dict)
    handed_over: bool = True
    trained_on: TrainedOn | None = None
    train_images: Images | None = None
    start: Callable[[], AbstractContextManager[ModelProcess]] | None = None

    def __enter__(self) -> LoadedModels:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process that the code of an entry runs in; other models stay as they are."""
        if isinstance(self.classifier, ProcessClassifier):
            self.classifier.close()


def load_models(
    plan: Plan, dataset: Dataset, device: str, progress: Progress, *, budget: TimeBudget | None = None
) -> LoadedModels:
    """The models of a plan, with weights found or trained. Raises WeightError, ModelError.

    The code of an entry runs in a process of its own, in the time that `budget` leaves, until the context of what is
    returned ends.
    """
    if isinstance(plan.origin, Contributed):
        classifier, digest, noted = _contributed(plan, dataset, device, progress, budget)
    else:
        classifier, digest, noted = _registered(plan, dataset, device, progress)
    sources: dict[str, Classifier] = {}
    digests: dict[str, str] = {}
    for source in plan.sources:
        asked: dict[str, Any] = {"horizon": source.horizon, "solver": source.solver, "gradient": source.gradient}
        if source.itself:
            sources[source.text], digests[source.text] = classifier.modified(**asked), digest
            continue
        trained = find_or_train(source.recipe, dataset, device=device, progress=progress)
        digests[source.text] = trained.weights_sha256
        sources[source.text] = Classifier(trained.module, n_classes=dataset.n_classes, device=device, **asked)
    return LoadedModels(
        classifier,
        digest,
        sources,
        digests,
        handed_over=plan.handed_over,
        trained_on=noted,
        train_images=train_images(dataset),
    )


def train_images(dataset: Dataset) -> Images | None:
    """The train images of a data set; None where it has none."""
    return None if dataset.train is None else dataset.train.images


def weights_of(plan: Plan, progress: Progress = SILENT) -> Path | None:
    """The weights file of a plan, downloaded if it lies elsewhere; None if its recipe finds or trains the weights.

    Raises RemoteError.
    """
    return fetched(plan.weights, progress)


def fetched(weights: Path | Address | None, progress: Progress = SILENT) -> Path | None:
    """The file of some weights, downloaded if they lie elsewhere; None for None. Raises RemoteError."""
    if isinstance(weights, Address):
        return fetch(weights.url, sha256=weights.sha256, bytes=weights.bytes, progress=progress)
    return weights


def known_weights(plan: Plan) -> str | None:
    """The sha256 of a plan's weights if they are on this machine or their address states it; downloads nothing."""
    if isinstance(plan.weights, Address):
        return plan.weights.sha256
    path = find_weights(plan.recipe) if plan.weights is None else plan.weights
    return sha256_file(path) if path is not None and path.exists() else None


def _registered(
    plan: Plan, dataset: Dataset, device: str, progress: Progress
) -> tuple[Classifier, str, TrainedOn | None]:
    """The classifier of a plan, the sha256 of its weights file, and what these were trained on."""
    weights = weights_of(plan, progress)
    if weights is None:
        trained = find_or_train(plan.recipe, dataset, device=device, progress=progress)
        module, digest, path = trained.module, trained.weights_sha256, trained.path
    else:
        module = build(plan.recipe)
        digest, path = undamaged(weights), weights
        load_weights(module, read_tensors(weights)[0], source=weights)
    evaluation = plan.evaluation
    asked: dict[str, Any] = {"horizon": evaluation.horizon, "solver": evaluation.solver}
    return Classifier(module, n_classes=dataset.n_classes, device=device, **asked), digest, trained_on(path)


def _contributed(
    plan: Plan, dataset: Dataset, device: str, progress: Progress, budget: TimeBudget | None
) -> tuple[Classifier, str, TrainedOn | None]:
    """The same of an entry's code, which is built in a process of its own."""
    weights = weights_of(plan, progress)
    assert weights is not None
    evaluation = plan.evaluation
    blueprint = Blueprint(
        plan.origin, weights, dataset.n_classes, str(torch.device(device)), evaluation.horizon, evaluation.solver
    )
    process = ModelProcess(blueprint, budget=budget)
    if without := missing(process.walls):
        progress.say(f"{evaluation.model.name}: {missing_walls(without)}")
    return ProcessClassifier.started(process), sha256_file(weights), trained_on(weights)
