"""What a model name stands for, before anything is built: architecture, teacher, default recipe. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.recipe import Loss, Recipe, Schedule
from odebench.registry import MODELS, RegistryError
from odebench.spec import Solver, check_horizon


@dataclass(frozen=True)
class Setting:
    """Defaults that depend on the images: arguments of the architecture, solver, schedule, augmentation."""

    arguments: Mapping[str, JsonValue]
    schedule: Schedule
    solver: Solver | None = None
    loss: Loss = field(default_factory=lambda: Loss(kind="cross-entropy"))
    augmentation: str = "none"


@dataclass(frozen=True)
class ModelDefinition:
    """A model by name. `architecture` is "module:attribute" of an nn.Module class; `settings` are its defaults
    by the smallest image side they are made for; `teacher` names the model that it is distilled from.

    An architecture is built with image_shape, n_classes, the setting's arguments and, if `has_horizon`,
    horizon and solver.
    """

    name: str
    architecture: str
    settings: Mapping[int, Setting]
    has_horizon: bool
    teacher: str | None = None

    def setting(self, image_shape: tuple[int, int, int]) -> Setting:
        """The defaults for images of this shape: those of the largest side that is not above theirs."""
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
        """The recipe for a data set. `changes` replaces fields of the schedule and of the loss by name.

        Raises UsageError for a horizon or solver given to a model that has none, and for changes that are unknown
        or do not fit.
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
        schedule, loss = _changed(setting.schedule, setting.loss, dict(changes or {}))
        teacher = None
        if self.teacher is not None:
            definition: ModelDefinition = MODELS.load(self.teacher)
            teacher = definition.recipe(dataset, train_seed=train_seed)
        return Recipe.model_validate(
            {
                "architecture": self.architecture,
                "arguments": {
                    **setting.arguments,
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
            }
        )


def _changed(schedule: Schedule, loss: Loss, changes: dict[str, JsonValue]) -> tuple[Schedule, Loss]:
    in_schedule = {name: value for name, value in changes.items() if name in Schedule.model_fields}
    in_loss = {name: value for name, value in changes.items() if name in ("temperature", "weight")}
    if strange := set(changes) - set(in_schedule) - set(in_loss):
        known = ", ".join([*Schedule.model_fields, "temperature", "weight"])
        raise UsageError(f"a recipe has no {', '.join(sorted(strange))}; known: {known}")
    try:
        return (
            Schedule.model_validate(schedule.model_dump() | in_schedule),
            Loss.model_validate(loss.model_dump() | in_loss),
        )
    except ValidationError as error:
        raise UsageError(_first_line(error, changes)) from error


def _first_line(error: ValidationError, changes: dict[str, JsonValue]) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"this recipe cannot be changed so: {message}"
    name = str(first["loc"][0])
    return f"{name}={changes[name]!r} does not fit a recipe: {message[0].lower()}{message[1:]}"


def load_definition(name: str) -> ModelDefinition:
    """The definition that a registered name stands for. Raises UsageError with the nearest match and the list."""
    definition = MODELS.load(name)
    if not isinstance(definition, ModelDefinition):
        raise RegistryError(
            f"{name!r} names a {type(definition).__name__}; its entry point must name a ModelDefinition"
        )
    return definition
