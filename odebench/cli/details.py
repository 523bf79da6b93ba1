"""What is known of a model, an attack, a data set or an entry by its name, without loading anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odebench.attack.definition import NamedAttack
from odebench.attack.registry import ATTACKS
from odebench.dataset.data_folder import data_folder as usual_data_folder
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError
from odebench.model.definition import ModelDefinition
from odebench.model.recipe_changes import changeable
from odebench.model.registry import MODELS
from odebench.protocol.recipe import find_weights
from odebench.protocol.spec import radius
from odebench.registry import Registry

HORIZONS, SEEDS = (0.5, 1.0, 2.0, 4.0), (0, 1, 2)
"""Train horizons and seeds for which weights are looked for."""
Details = Mapping[str, Any]


def attack_details(attack: NamedAttack) -> dict[str, Any]:
    """Norms, default parameters with their choices, the stages, the most gradients (or queries) per image and epsilon,
    and the commands that explain each effort."""
    stages = attack.stages(attack.complete(), norm=attack.norms[0], n_classes=10)
    return {
        "norms": list(attack.norms),
        "parameters": attack.complete(),
        "choices": {name: list(values) for name, values in attack.choices.items()},
        "stages": [stage.name for stage in stages] if len(stages) > 1 else [],
        "passes": None if attack.needs_candidates else sum(stage.passes for stage in stages),
        "sources": attack.needs_sources,
        "more": [f"odebench info {effort}" for effort in attack.choices.get("effort", ())],
    }


def model_details(model: ModelDefinition) -> dict[str, Any]:
    """Whether it has a horizon, its teacher, what `--set` changes, and for which data sets weights are here: as data
    set, T and seed."""
    known = (DATASETS.load_built_in(name) for name in DATASETS.entries())
    usual = (_usual(model, data) for data in known if data is not None)
    recipe: dict[str, Any] = next(filter(None, usual), {})
    return {
        "horizon": model.has_horizon,
        "teacher": model.teacher,
        "recipe": recipe,
        "change it by": "--set, such as --set epochs=3" if recipe else "",
        "weights": {
            name: found
            for name in DATASETS.entries()
            if (data := DATASETS.load_built_in(name)) is not None and (found := weights_here(model, data))
        },
    }


def _usual(model: ModelDefinition, dataset: DatasetDefinition) -> dict[str, Any]:
    """What a recipe for the data set holds, by the names of `--set`; empty where there is none."""
    try:
        recipe = model.recipe(dataset, horizon=1.0 if model.has_horizon else None, train_seed=0)
    except OdebenchError:
        return {}
    held = {name: value for name, value in changeable(recipe).items() if not name.endswith("kind")}
    return {"data": dataset.name, **held}


def weights_here(model: ModelDefinition, dataset: DatasetDefinition) -> list[str]:
    """The trainings whose weights are published or in the cache folder, such as "T=1 seed 0", of those usually run."""
    found = []
    for horizon in HORIZONS if model.has_horizon else (None,):
        for seed in SEEDS:
            try:
                recipe = model.recipe(dataset, horizon=horizon, train_seed=seed)
            except OdebenchError:
                return []
            if find_weights(recipe) is not None:
                found.append(f"seed {seed}" if horizon is None else f"T={horizon:g} seed {seed}")
    return found


def dataset_details(dataset: DatasetDefinition, folder: Path) -> dict[str, Any]:
    """Shape, classes, sizes of the splits, default epsilons by norm, and whether it is in the data folder."""
    return {
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.classes),
        "sizes": dict(dataset.sizes),
        "epsilons": {norm: [radius(each) for each in radii] for norm, radii in dataset.epsilons.items()},
        "on disk": dataset.on_disk(folder),
    }


def details_of(
    registry: Registry, name: str, *, plugins: bool = False, data_folder: Path | None = None
) -> dict[str, Any]:
    """The details of a registered name; none of a plugin's, whose code would run, unless `plugins`. Whether a data set
    is on disk is looked for in `data_folder`, by default the usual one."""
    definition = registry.load(name) if plugins else registry.load_built_in(name)
    if definition is None:
        return {}
    describe: dict[str, Any] = {
        ATTACKS.kind: attack_details,
        MODELS.kind: model_details,
        DATASETS.kind: lambda found: dataset_details(found, data_folder or usual_data_folder()),
    }
    found: dict[str, Any] = describe[registry.kind](definition)
    return found
