"""What a model name stands for: architecture, teacher and default recipe. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue, ValidationError

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.model.registry import MODELS
from odebench.protocol.recipe import Adversary, Loss, Recipe, Schedule
from odebench.protocol.spec import Solver, check_horizon, fixed_step, parse_number
from odebench.registry import RegistryError

_ADVERSARY = {
    "adversary": "kind",
    "adversary_epsilon": "epsilon",
    "adversary_steps": "steps",
    "adversary_step": "step",
    "beta": "beta",
}
"""The name of each field of an adversary among the changes to a recipe."""
_IN_LOSS = ("temperature", "weight", "smoothing")
_OF_DATA = ("label_noise", "train_images")
_STEP = "train_step"
"""The name of the step of the solver in training, where that is a fixed-step method."""
_KINDS = ("none", "madry", "trades", "rslad")
_GIVEN_BY_DATA = ("image_shape", "n_classes")
_OF_TEACHER = "teacher_"
"""How the name of a change to the teacher's recipe begins."""
_RSLAD_LOSS = Loss(kind="distillation", temperature=1.0, weight=1.0)
"""The loss of RSLAD: the teacher's softmax at temperature 1, without labels (Zi et al. 2021)."""

_SMALL_SIDE, _SMALL_EPSILON = 28, 0.1
_COMMON_EPSILON = 8 / 255
_STEPS = 7
_CROSSING = 2.5
"""Steps x step in units of epsilon, unless a step is given: enough to reach any corner of the ball."""


@dataclass(frozen=True)
class Setting:
    """The defaults of a model that depend on the size of the images.

    `arguments` go to the architecture. `adversary` holds fields of a recipe's Adversary, at least its kind; missing
    ones come from `default_adversary`. If it is empty the training is not adversarial.
    """

    arguments: Mapping[str, JsonValue]
    schedule: Schedule
    solver: Solver | None = None
    loss: Loss = field(default_factory=lambda: Loss(kind="cross-entropy"))
    augmentation: str = "none"
    adversary: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelDefinition:
    """A model by name.

    `architecture` is "module:attribute" of an nn.Module class, which is called with image_shape, n_classes, the
    arguments of a setting and, if `has_horizon`, horizon and solver. `settings` holds the defaults by the smallest
    image side that they are for. `teacher` names the model that this one is distilled from, whose train seed is larger
    by `teacher_seed_shift`; `optional` names arguments of the architecture that a recipe may give beside the setting's,
    and `summary` is the line that `odebench models` prints of a built-in one.
    """

    name: str
    architecture: str
    settings: Mapping[int, Setting]
    has_horizon: bool
    teacher: str | None = None
    summary: str = ""
    teacher_seed_shift: int = 0
    optional: tuple[str, ...] = ()

    def setting(self, image_shape: tuple[int, int, int]) -> Setting:
        """The defaults for images of this shape: those for the largest side that is not above their smaller side.
        Raises UsageError for images that are too small."""
        side = min(image_shape[1:])
        fitting = [smallest for smallest in self.settings if smallest <= side]
        if not fitting:
            raise UsageError(f"{self.name} needs images of at least {min(self.settings)} pixels a side, not {side}")
        return self.settings[max(fitting)]

    def recipe(
        self,
        dataset: DatasetDefinition,
        *,
        horizon: float | None = None,
        solver: Solver | None = None,
        train_seed: int = 0,
        changes: Mapping[str, JsonValue] | None = None,
    ) -> Recipe:
        """The recipe for a data set, with the fields of schedule, loss, adversary, arguments and data that `changes`
        names replaced; train_step is the step of the solver in training.

        A teacher is trained by its own default recipe; changes to it begin with teacher_, such as teacher_adversary.
        With adversary rslad the loss is that of its authors, temperature 1 and weight 1, unless `changes` or the
        setting say otherwise. Raises UsageError for a horizon or solver given to a model without one, and for changes
        that are unknown or do not fit.
        """
        setting = self.setting(dataset.image_shape)
        if not 0 <= train_seed < 2**63:
            raise UsageError(f"train seed {train_seed} must be an integer from 0 to 2^63 - 1")
        if self.has_horizon:
            horizon = 1.0 if horizon is None else horizon
            check_horizon(horizon)
            solver = solver or setting.solver
        elif horizon is not None or solver is not None:
            raise UsageError(f"{self.name} integrates nothing, so it takes no horizon and no solver")
        own = {name: value for name, value in (changes or {}).items() if not name.startswith(_OF_TEACHER)}
        others = {name.removeprefix(_OF_TEACHER): value for name, value in (changes or {}).items() if name not in own}
        arguments = {name: own.pop(name) for name in (*setting.arguments, *self.optional) if name in own}
        _check_names(own, [*setting.arguments, *self.optional])
        if _STEP in own:
            solver = _with_step(self.name, solver, own[_STEP])
        adversary = _adversary(setting.adversary, dataset, own)
        default = setting.loss
        if adversary is not None and adversary.kind == "rslad":
            if self.teacher is None:
                raise UsageError(f"rslad distils, but {self.name} has no teacher; take one that has, such as kd-ode")
            default = default if setting.adversary.get("kind") == "rslad" else _RSLAD_LOSS
        schedule, loss = _changed(setting.schedule, default, own)
        teacher = self._teacher(dataset, train_seed, others, horizon=horizon)
        return _recipe(
            {
                "architecture": self.architecture,
                "arguments": {
                    **setting.arguments,
                    **arguments,
                    "image_shape": list(dataset.image_shape),
                    "n_classes": len(dataset.classes),
                },
                "horizon": horizon,
                "solver": solver,
                "dataset": dataset.name,
                "loss": loss,
                "schedule": schedule,
                "augmentation": setting.augmentation,
                "train_seed": train_seed,
                "teacher": teacher,
                "adversary": adversary,
                **{name: own[name] for name in _OF_DATA if name in own},
            }
        )

    def _teacher(
        self, dataset: DatasetDefinition, train_seed: int, changes: Mapping[str, JsonValue], *, horizon: float | None
    ) -> Recipe | None:
        """The teacher's recipe; None without a teacher. Raises UsageError for changes without a teacher, or that do not
        fit it."""
        if self.teacher is None:
            if changes:
                idle = ", ".join(f"{_OF_TEACHER}{name}" for name in changes)
                raise UsageError(f"{self.name} has no teacher, so it takes no {idle}")
            return None
        definition: ModelDefinition = MODELS.load(self.teacher)
        try:
            return definition.recipe(
                dataset,
                train_seed=train_seed + self.teacher_seed_shift,
                changes=changes,
                horizon=horizon if definition.has_horizon else None,
            )
        except UsageError as error:
            if not changes:
                raise
            raise UsageError(f"the teacher, {self.teacher}: {error}") from error


def _recipe(fields: Mapping[str, object]) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise UsageError(_does_not_fit(error)) from error


def _with_step(name: str, solver: Solver | None, step: JsonValue) -> Solver:
    """The solver with another step. Raises UsageError where it takes none, or for what is no step."""
    if solver is None or solver.step is None:
        raise UsageError(f"{name} is not trained by a fixed-step method, so it takes no {_STEP}")
    length = parse_number(step, name=_STEP) if isinstance(step, str) else step
    if isinstance(length, bool) or not isinstance(length, int | float) or not 0 < length < math.inf:
        raise UsageError(f"{_STEP}={step!r} is no step; give a positive number, such as 0.0625 or 1/16")
    return fixed_step(solver.method, step=float(length))


def _check_names(changes: Mapping[str, JsonValue], arguments: Sequence[str]) -> None:
    names = [*Schedule.model_fields, *_IN_LOSS, *_OF_DATA, _STEP, *arguments, *_ADVERSARY]
    if strange := set(changes) - set(names):
        raise UsageError(f"a recipe has no {', '.join(sorted(strange))}; known: {', '.join(names)}")


def _changed(schedule: Schedule, loss: Loss, changes: Mapping[str, JsonValue]) -> tuple[Schedule, Loss]:
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
    held |= {name: getattr(recipe, name) for name in _OF_DATA}
    held |= {"smoothing": recipe.loss.smoothing, _STEP: None if recipe.solver is None else recipe.solver.step}
    of_teacher = {} if recipe.teacher is None else changeable(recipe.teacher)
    taught = {f"{_OF_TEACHER}{name}": value for name, value in of_teacher.items()}
    return {**recipe.schedule.model_dump(), **recipe.loss.model_dump(), **held, **taught}


def default_adversary(dataset: DatasetDefinition) -> dict[str, JsonValue]:
    """The default epsilon and number of steps of an adversary.

    Epsilon is 0.1 below 28 pixels per side, else the data set's largest default radius in linf, or 8/255 without.
    """
    small = min(dataset.image_shape[1:]) < _SMALL_SIDE
    radii = dataset.epsilons.get("linf") or (_COMMON_EPSILON,)
    return {"epsilon": _SMALL_EPSILON if small else radii[-1], "steps": _STEPS}


def _adversary(
    default: Mapping[str, JsonValue], dataset: DatasetDefinition, changes: Mapping[str, JsonValue]
) -> Adversary | None:
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
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"this recipe cannot be changed so: {message}"
    key = str(first["loc"][0])
    name = (names or {}).get(key, key)
    return f"{name}={first['input']!r} does not fit a recipe: {message[0].lower()}{message[1:]}"


def load_definition(name: str) -> ModelDefinition:
    """The definition of a registered model. Raises UsageError, with the nearest match and the list, for an unknown
    name, and RegistryError for a plugin that cannot be used."""
    definition = MODELS.load(name)
    if not isinstance(definition, ModelDefinition):
        raise RegistryError(
            f"{name!r} names a {type(definition).__name__}; its entry point must name a ModelDefinition"
        )
    return definition


@dataclass(frozen=True)
class Contributed:
    """A model that an entry brings as code.

    It is built by calling `attribute` of `module`, a file in `folder`, with image_shape, n_classes, `arguments` and, if
    there is a horizon, horizon and solver. `key` is the sha256 of its weights file.
    """

    folder: Path
    module: str
    attribute: str
    arguments: Mapping[str, JsonValue]
    image_shape: tuple[int, int, int]
    n_classes: int
    train_seed: int
    horizon: float | None
    solver: Solver | None
    key: str


Origin = Recipe | Contributed
"""What a model is built from."""
