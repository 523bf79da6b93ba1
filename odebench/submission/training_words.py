"""How a model was trained, in a few words: of an entry by its entry.yaml, of a registered model by its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from odebench.dataset.registry import DATASETS
from odebench.evaluation.model_reference import ModelReference, RegisteredModel
from odebench.model.recipe_changes import OF_TEACHER
from odebench.result.schema import Result
from odebench.submission.entry import Entry
from odebench.submission.published_entry import training_of
from odebench.submission.submitted_model import SubmittedModel

_LOSS = ("kind", "loss", "temperature", "weight", "smoothing")


def training_words(training: Mapping[str, JsonValue], teacher: str | None) -> dict[str, str]:
    """Loss, teacher, adversarial training and all else that is known of a training, as far as there is such a thing."""
    known = {name: value for name, value in training.items() if value not in (None, "none")}
    of_teacher = {name: value for name, value in known.items() if name.startswith(OF_TEACHER)}
    adversary = {name: value for name, value in known.items() if name.startswith("adversary") or name == "beta"}
    loss = {name: value for name, value in known.items() if name in _LOSS}
    rest = {name: value for name, value in known.items() if name not in {*of_teacher, *adversary, *loss}}
    its = {name.removeprefix(OF_TEACHER): value for name, value in of_teacher.items()}
    found = {
        "loss": _listed(loss),
        "teacher": "" if teacher is None else teacher + (f" ({_listed(its)})" if its else ""),
        "adversarial training": _listed(adversary),
        "training": _listed(rest),
    }
    return {name: text for name, text in found.items() if text}


def entry_words(entry: Entry) -> dict[str, str]:
    """How the model of an entry was trained, on each data set where they differ, and whose it is."""
    by_data = {use.name: training_words(entry.training_for(use), entry.teacher) for use in entry.datasets}
    words: dict[str, str] = {}
    for data, found in by_data.items():
        for name, text in found.items():
            alike = all(other.get(name) == text for other in by_data.values())
            words[name if alike else f"{name} on {data}"] = text
    return {**words, "authors": ", ".join(entry.authors), "paper": entry.paper or "", "licence": entry.licence}


def trained_how(model: ModelReference, result: Result) -> dict[str, str]:
    """How the model behind a result was trained; nothing of weights that were given as a file. Raises OdebenchError for
    what is not known here."""
    evaluation = result.evaluation
    name = evaluation.dataset.name
    if isinstance(model, SubmittedModel):
        return training_words(model.entry.training_for(model.entry.trained_for(name)), model.entry.teacher)
    data = DATASETS.load_built_in(name) if name in DATASETS.entries() else None
    given = evaluation.model.weights == result.found.weights_sha256
    if not isinstance(model, RegisteredModel) or data is None or given:
        return {}
    seed = evaluation.model.train_seed
    recipe = model.definition.recipe(
        data,
        horizon=evaluation.train_horizon,
        train_seed=seed if isinstance(seed, int) else 0,
        changes=evaluation.model.other_arguments,
    )
    return training_words(training_of(recipe), model.definition.teacher)


def _listed(values: Mapping[str, JsonValue]) -> str:
    """The values with their names; the name of a kind goes without saying."""
    return ", ".join(
        _text(value)
        if name in ("kind", "loss", "adversary")
        else f"{name.removeprefix('adversary_').replace('_', ' ')} {_text(value)}"
        for name, value in values.items()
    )


def _text(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
