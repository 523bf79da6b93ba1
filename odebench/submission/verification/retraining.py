"""Training a drawn part of the published models again: equal recipes should give equal bytes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from odebench.dataset import load_dataset
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError, UsageError
from odebench.evaluation.environment import versions
from odebench.evaluation.model_reference import RegisteredModel
from odebench.evaluation.plan import planned_again
from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult
from odebench.model.definition import load_definition
from odebench.model.training import find_or_train
from odebench.progress import SILENT, Progress
from odebench.protocol.recipe import Recipe

DRAWN = 3
"""How many trainings are drawn."""


@dataclass(frozen=True)
class Retrained:
    """A model trained again: the sha256 of its weights as a result records it, and as found now (None: it failed, and
    `why` says how, or what made the recorded ones). Weights of a card, and those of which no result says what trained
    them, are not asked for: no processor need give their bytes."""

    title: str
    recorded: str
    found: str | None
    why: str = ""

    @property
    def equal(self) -> bool:
        return self.found == self.recorded


def retrain(
    model: str,
    folders: Sequence[Path],
    *,
    dataset: str | None,
    draw: int,
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> list[Retrained]:
    """Three trainings of a model, drawn with the seed `draw` from those that results rest on, made again from nothing.

    Only results that say that a processor trained their weights count. Raises UsageError where there are none.
    """
    stored, _ = read_results([folder for folder in folders if folder.is_dir()])
    by_weights: dict[str, StoredResult] = {}
    for item in sorted(stored, key=lambda item: item.result.run_key):
        spec, trained = item.evaluation.model, item.result.found.trained_on
        wanted = spec.name == model and dataset in (None, item.evaluation.dataset.name)
        if wanted and trained is not None and trained.device == "cpu":
            by_weights.setdefault(spec.weights, item)
    if not by_weights:
        raise UsageError(f"no result of {model} says what was trained on a processor; there is nothing to train again")
    keys = sorted(by_weights)
    drawn = random.Random(draw).sample(keys, min(DRAWN, len(keys)))
    return [_again(by_weights[key], data_dir, progress) for key in drawn]


def _again(item: StoredResult, data_dir: Path | None, progress: Progress) -> Retrained:
    evaluation, recorded = item.evaluation, item.result.found.weights_sha256
    title = f"{evaluation.model.name} on {evaluation.dataset.name} seed {evaluation.model.train_seed}"
    title += "" if evaluation.train_horizon is None else f" T={evaluation.train_horizon:g}"
    try:
        recipe = _recipe_of(item)
        data = load_dataset(evaluation.dataset.name, data_dir=data_dir)
        with tempfile.TemporaryDirectory() as folder:
            trained = find_or_train(recipe, data, folder=Path(folder), progress=progress)
    except OdebenchError as error:
        return Retrained(title, recorded, None, str(error))
    made_by, here, why = item.result.found.trained_on, versions().torch, ""
    if made_by is not None and made_by.torch.partition("+")[0] != here and trained.weights_sha256 != recorded:
        why = f"differs, as it may: torch {made_by.torch} trained it, and this is {here}"
    return Retrained(title, recorded, trained.weights_sha256, why)


def _recipe_of(item: StoredResult) -> Recipe:
    """The recipe behind a result. Raises UsageError where this odebench does not plan the same evaluation."""
    evaluation = item.evaluation
    name = evaluation.dataset.name
    definition = DATASETS.load(name) if name in DATASETS.entries() else None
    if not isinstance(definition, DatasetDefinition):
        raise UsageError(f"{name} is an image folder, of which a result does not say enough to train on it again")
    total = definition.sizes.get(evaluation.dataset.split, evaluation.dataset.offset + evaluation.dataset.n)
    reference = RegisteredModel(load_definition(evaluation.model.name))
    return planned_again(evaluation, reference, definition, total=total).recipe
