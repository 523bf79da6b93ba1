"""Changes to a recipe by the names of its fields, as the command line and protocols give them. Imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from pydantic import JsonValue, ValidationError

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError, in_words
from odebench.protocol.recipe import Adversary, Loss, Recipe, Schedule
from odebench.protocol.spec import Solver, fixed_step, parse_number

_ADVERSARY = {
    "adversary": "kind",
    "adversary_epsilon": "epsilon",
    "adversary_steps": "steps",
    "adversary_step": "step",
    "beta": "beta",
}
"""The name of each field of an adversary among the changes to a recipe."""
_IN_LOSS = ("temperature", "weight", "smoothing")
OF_DATA = ("label_noise", "train_images")
STEP = "train_step"
"""The name of the step of the solver in training, where that is a fixed-step method."""
_KINDS = ("none", "madry", "trades", "rslad")
_GIVEN_BY_DATA = ("image_shape", "n_classes")
OF_TEACHER = "teacher_"
"""How the name of a change to the teacher's recipe begins."""
RSLAD_LOSS = Loss(kind="distillation", temperature=1.0, weight=1.0)
"""The loss of RSLAD: the teacher's softmax at temperature 1, without labels (Zi et al. 2021)."""

_SMALL_SIDE, _SMALL_EPSILON = 28, 0.1
_COMMON_EPSILON = 8 / 255
_STEPS = 7
_CROSSING = 2.5
"""Steps x step in units of epsilon, unless a step is given: enough to reach any corner of the ball."""


def recipe_of(fields: Mapping[str, object]) -> Recipe:
    """The recipe of these fields. Raises UsageError for a value that does not fit."""
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise UsageError(_does_not_fit(error)) from error


def with_step(name: str, solver: Solver | None, step: JsonValue) -> Solver:
    """The solver with another step. Raises UsageError where it takes none, or for what is no step."""
    if solver is None or solver.step is None:
        raise UsageError(f"{name} is not trained by a fixed-step method, so it takes no {STEP}")
    length = parse_number(step, name=STEP) if isinstance(step, str) else step
    if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length < math.inf:
        raise UsageError(f"{STEP}={step!r} is no step; give a positive number, such as 0.0625 or 1/16")
    return fixed_step(solver.method, step=float(length))


def check_names(changes: Mapping[str, JsonValue], arguments: Sequence[str]) -> None:
    """Raises UsageError for a name that no recipe has; `arguments` are those that the architecture takes."""
    names = [*Schedule.model_fields, *_IN_LOSS, *OF_DATA, STEP, *arguments, *_ADVERSARY]
    if strange := set(changes) - set(names):
        raise UsageError(f"a recipe has no {', '.join(sorted(strange))}; known: {', '.join(names)}")


def check_types(arguments: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue]) -> None:
    """Raises UsageError for an argument of the architecture that is of another kind than its default."""
    for name, value in arguments.items():
        default = defaults.get(name)
        kind = next((kind for kind in _OF_KIND if type(default) is kind), None)
        fits = kind is None or type(value) is kind or (kind is float and type(value) is int)
        if kind is not None and not fits:
            raise UsageError(
                f"{name}={value!r} does not fit a recipe: it must be {_OF_KIND[kind]}, such as {json.dumps(default)}"
            )


_OF_KIND: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
}


def changed(schedule: Schedule, loss: Loss, changes: Mapping[str, JsonValue]) -> tuple[Schedule, Loss]:
    """Schedule and loss with their fields among the changes replaced. Raises UsageError for what does not fit."""
    in_schedule = {name: value for name, value in changes.items() if name in Schedule.model_fields}
    in_loss = {name: value for name, value in changes.items() if name in _IN_LOSS}
    try:
        return (
            Schedule.model_validate(schedule.model_dump() | in_schedule),
            Loss.model_validate(loss.model_dump() | in_loss),
        )
    except ValidationError as error:
        raise UsageError(_does_not_fit(error)) from error


def changeable(recipe: Recipe) -> dict[str, JsonValue]:
    """The values in a recipe of everything that `changes` can name; without an adversary its kind is "none" and its
    fields are None. Those of the teacher's recipe come last, under names that begin with teacher_."""
    adversary = {} if recipe.adversary is None else recipe.adversary.model_dump()
    held = {name: adversary.get(key) for name, key in _ADVERSARY.items()}
    held["adversary"] = adversary.get("kind", "none")
    held |= {name: value for name, value in recipe.arguments.items() if name not in _GIVEN_BY_DATA}
    held |= {name: getattr(recipe, name) for name in OF_DATA}
    held |= {"smoothing": recipe.loss.smoothing, STEP: None if recipe.solver is None else recipe.solver.step}
    of_teacher = {} if recipe.teacher is None else changeable(recipe.teacher)
    taught = {f"{OF_TEACHER}{name}": value for name, value in of_teacher.items()}
    return {**recipe.schedule.model_dump(), **recipe.loss.model_dump(), **held, **taught}


def default_adversary(dataset: DatasetDefinition) -> dict[str, JsonValue]:
    """The default epsilon and number of steps of an adversary.

    Epsilon is 0.1 below 28 pixels per side, else the data set's largest default radius in linf, or 8/255 without.
    """
    small = min(dataset.image_shape[1:]) < _SMALL_SIDE
    radii = dataset.epsilons.get("linf") or (_COMMON_EPSILON,)
    return {"epsilon": _SMALL_EPSILON if small else radii[-1], "steps": _STEPS}


def adversary_of(
    default: Mapping[str, JsonValue], dataset: DatasetDefinition, changes: Mapping[str, JsonValue]
) -> Adversary | None:
    """The adversary of a recipe: the setting's with the changes; None without. Raises UsageError."""
    given = {key: changes[name] for name, key in _ADVERSARY.items() if name in changes}
    kind = given.get("kind", default.get("kind", "none"))
    if kind not in _KINDS:
        raise UsageError(f"adversary={kind!r} does not fit a recipe: it must be none, madry, trades or rslad")
    if kind == "none":
        if idle := [name for name, key in _ADVERSARY.items() if key in given and key != "kind"]:
            raise UsageError(f"{', '.join(idle)} without an adversary: add adversary=madry or adversary=trades")
        return None
    if kind != "trades" and "beta" in given:
        raise UsageError(f"beta goes with adversary=trades, not with adversary={kind}")
    fields = default_adversary(dataset) | dict(default) | given | {"kind": kind}
    if kind != "trades":
        fields.pop("beta", None)
    for name in ("adversary_epsilon", "adversary_step"):
        if name in changes:
            fields[_ADVERSARY[name]] = _length(name, changes[name])
    try:
        found = Adversary.model_validate({"step": 1.0} | fields)
        if "step" in fields:
            return found
        return Adversary.model_validate(fields | {"step": _CROSSING * found.epsilon / found.steps})
    except ValidationError as error:
        raise UsageError(_does_not_fit(error, {key: name for name, key in _ADVERSARY.items()})) from error


def _length(name: str, value: JsonValue) -> JsonValue:
    """A length in units of the image range, given as a number or a fraction such as "8/255". Raises UsageError for one
    that is meant in pixel values from 1 to 255."""
    length = parse_number(value, name=name) if isinstance(value, str) and "/" in value else value
    if isinstance(length, int | float) and 1 < length <= 255:
        raise UsageError(f"{name}={length:g} is above 1, but images are in [0, 1]; did you mean {length:g}/255?")
    return length


def _does_not_fit(error: ValidationError, names: Mapping[str, str] | None = None) -> str:
    first = error.errors()[0]
    message = in_words(first)
    if not first["loc"]:
        return f"this recipe cannot be changed so: {message}"
    key = str(first["loc"][0])
    name = (names or {}).get(key, key)
    return f"{name}={first['input']!r} does not fit a recipe: {message[0].lower()}{message[1:]}"
