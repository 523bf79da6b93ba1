"""The entry of a registered model, generated from its published results and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import JsonValue

from odebench.attack.definition import load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError, UsageError
from odebench.io.files import sha256_file, write_atomically
from odebench.io.folders import PublishedFolder
from odebench.model.definition import ModelDefinition, load_definition
from odebench.model.recipe_changes import STEP, changeable
from odebench.model.registry import MODELS
from odebench.protocol.recipe import Recipe, weights_path
from odebench.protocol.spec import middle
from odebench.result.file import read_result, result_files
from odebench.result.schema import Result
from odebench.submission.entry import ENTRY_FILE, READ_ME, ClaimedFigure, Entry, Weights

MAINTAINERS = "The odebench maintainers"
LICENCE = "MIT"
"""The licence of odebench and of the models that it brings."""


def write_published(name: str, published: PublishedFolder) -> list[Path]:
    """Writes the entry of a registered model from its published results and weights, over an existing entry but not
    over its README. Returns the files written. Raises the errors of `published_entry`."""
    entry = published_entry(name, published)
    target = published.entries / name
    texts = {ENTRY_FILE: entry_text(entry)}
    if not (target / READ_ME).exists():
        texts[READ_ME] = f"# {name}\n\n{MODELS.entry(name).summary[0].upper()}{MODELS.entry(name).summary[1:]}.\n"
    for file, text in texts.items():
        write_atomically(target / file, text.encode())
    return [target / file for file in texts]


def published_models(published: PublishedFolder) -> list[str]:
    """The registered models with published results."""
    return [name for name in MODELS.entries() if (published.results / name).is_dir()]


def published_entry(name: str, published: PublishedFolder) -> Entry:
    """The entry of a registered model from its published results and weights: it lists these weights, and claims what
    each attack found at the middle epsilon, with the solver of the training.

    Raises UsageError if the model has no published results, and OdebenchError for results that contradict the weights.
    """
    definition = load_definition(name)
    folder = published.results / name
    results = [read_result(path) for path in result_files(folder)]
    found = [(result, recipe) for result in results if (recipe := _recipe_of(definition, result)) is not None]
    if not found:
        raise UsageError(
            f"{folder} holds no result of {name} with default settings; sweep a protocol with --publish first"
        )
    weights: dict[tuple[str, float, int], Weights] = {}
    for result, recipe in found:
        path = weights_path(recipe, published.weights)
        if path.exists():
            key = (recipe.dataset, recipe.horizon or 0.0, recipe.train_seed)
            weights[key] = _weights(path, recipe, result)
    uses, training, solver = _uses(found)
    return Entry.model_validate(
        {
            "id": name,
            "model": name,
            "datasets": uses,
            "training": training,
            "authors": [MAINTAINERS],
            "licence": LICENCE,
            "solver": solver,
            "teacher": definition.teacher,
            "weights": [weights[key] for key in sorted(weights)],
            "claims": _claims(found),
        }
    )


def _recipe_of(definition: ModelDefinition, result: Result) -> Recipe | None:
    """The recipe behind a result; None unless it is the default one, evaluated at its horizon and with its solver."""
    evaluation = result.evaluation
    seed = evaluation.model.train_seed
    data = DATASETS.load(evaluation.dataset.name) if evaluation.dataset.name in DATASETS.entries() else None
    if not isinstance(data, DatasetDefinition) or not isinstance(seed, int) or len(evaluation.model.arguments) > 1:
        return None
    recipe = definition.recipe(data, horizon=evaluation.train_horizon, train_seed=seed)
    trained = (recipe.key, recipe.horizon, recipe.solver, "test", 0)
    images = evaluation.dataset
    asked = (evaluation.model.weights, evaluation.horizon, evaluation.solver, images.split, images.offset)
    return recipe if asked == trained else None


def _weights(path: Path, recipe: Recipe, result: Result) -> Weights:
    sha256 = sha256_file(path)
    if result.found.weights_sha256 != sha256:
        raise OdebenchError(
            f"{path} is {sha256[:12]}, but result {result.run_key[:16]} of {result.evaluation.model.name} was found "
            f"with {result.found.weights_sha256[:12]}; publish the weights that it rests on, or run it again"
        )
    return Weights(
        dataset=recipe.dataset,
        train_seed=recipe.train_seed,
        sha256=sha256,
        bytes=path.stat().st_size,
        horizon=recipe.horizon,
        file=f"../../weights/{path.name}",
    )


def _uses(
    found: Sequence[tuple[Result, Recipe]],
) -> tuple[list[dict[str, object]], dict[str, JsonValue], object]:
    """The data sets with what is special to each, and the training and solver that they share."""
    datasets = sorted({recipe.dataset for _, recipe in found}, key=list(DATASETS.entries()).index)
    by_name = {name: [pair for pair in found if pair[1].dataset == name] for name in datasets}
    recipes = {name: pairs[0][1] for name, pairs in by_name.items()}
    trainings = {name: training_of(recipe) for name, recipe in recipes.items()}
    first = trainings[datasets[0]]
    shared = {key: value for key, value in first.items() if all(each.get(key) == value for each in trainings.values())}
    solver = recipes[datasets[0]].solver
    uses = []
    for name, pairs in by_name.items():
        horizons = sorted({recipe.horizon for _, recipe in pairs if recipe.horizon is not None})
        own: dict[str, object] = {"name": name, "parameters": pairs[0][0].found.parameters}
        if horizons:
            own["horizons"] = horizons
        if recipes[name].solver != solver:
            own["solver"] = recipes[name].solver
        if different := {key: value for key, value in trainings[name].items() if key not in shared}:
            own["training"] = different
        uses.append(own)
    return uses, shared, solver


def training_of(recipe: Recipe) -> dict[str, JsonValue]:
    """What an entry says of a training; architecture and solver stand elsewhere in it."""
    alone = recipe.model_copy(update={"teacher": None})  # the teacher is described in its own entry
    said_elsewhere = {*recipe.arguments, STEP}  # by the weights and the solver
    return {key: value for key, value in changeable(alone).items() if value is not None and key not in said_elsewhere}


def _claims(found: Sequence[tuple[Result, Recipe]]) -> list[ClaimedFigure]:
    """One claim per attack and setting: its accuracies at the middle epsilon, on the most images it was run on."""
    largest: dict[tuple[object, ...], ClaimedFigure] = {}
    for result, recipe in found:
        evaluation = result.evaluation
        attack = load_attack(evaluation.attack.name)
        if not attack.runs_by_chunk:
            continue
        item = middle(result.epsilons)
        plain = attack.complete()
        parameters = {key: value for key, value in evaluation.attack.parameters.items() if plain.get(key) != value}
        if attack.complete(parameters) != evaluation.attack.parameters:
            continue
        claim = ClaimedFigure(
            dataset=recipe.dataset,
            train_seed=recipe.train_seed,
            norm=evaluation.threat_model.norm,
            epsilon=item.epsilon,
            attack=attack.name,
            n=evaluation.dataset.n,
            robust_accuracy=item.figures.robust_accuracy.value,
            clean_accuracy=item.figures.clean_accuracy.value,
            horizon=recipe.horizon,
            parameters=parameters,
        )
        identity = (claim.dataset, claim.horizon or 0.0, claim.train_seed, claim.norm, claim.attack, str(parameters))
        if identity not in largest or largest[identity].n < claim.n:
            largest[identity] = claim
    return [largest[key] for key in sorted(largest, key=str)]


def entry_text(entry: Entry) -> str:
    """An entry as YAML that reads back as the same entry, with one line per key and per item of a list."""
    blocks = ["# Written by: odebench new-entry --published " + entry.id]
    for name, value in entry.model_dump(mode="json", exclude_defaults=True).items():
        if name in ("datasets", "weights", "claims"):
            blocks.append("\n".join([f"{name}:", *(f"  - {_flow(item)}" for item in value)]))
        else:
            blocks.append(f"{name}: {_flow(value)}")
    return "\n\n".join(blocks) + "\n"


def _flow(value: JsonValue | Mapping[str, JsonValue]) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=2**31, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
