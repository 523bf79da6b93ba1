"""What a model name stands for: architecture, teacher and default recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.model.recipe_changes import (
    OF_DATA,
    OF_TEACHER,
    RSLAD_LOSS,
    STEP,
    adversary_of,
    changed,
    check_names,
    check_types,
    recipe_of,
    with_step,
)
from odebench.model.registry import MODELS
from odebench.protocol.recipe import Loss, Recipe, Schedule
from odebench.protocol.spec import Solver, check_horizon
from odebench.registry import RegistryError


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
        own = {name: value for name, value in (changes or {}).items() if not name.startswith(OF_TEACHER)}
        others = {name.removeprefix(OF_TEACHER): value for name, value in (changes or {}).items() if name not in own}
        arguments = {name: own.pop(name) for name in (*setting.arguments, *self.optional) if name in own}
        check_names(own, [*setting.arguments, *self.optional])
        check_types(arguments, setting.arguments)
        if STEP in own:
            solver = with_step(self.name, solver, own[STEP])
        adversary = adversary_of(setting.adversary, dataset, own)
        default = setting.loss
        if adversary is not None and adversary.kind == "rslad":
            if self.teacher is None:
                raise UsageError(f"rslad distils, but {self.name} has no teacher; take one that has, such as kd-ode")
            default = default if setting.adversary.get("kind") == "rslad" else RSLAD_LOSS
        schedule, loss = changed(setting.schedule, default, own)
        teacher = self._teacher(dataset, train_seed, others, horizon=horizon)
        return recipe_of(
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
                **{name: own[name] for name in OF_DATA if name in own},
            }
        )

    def _teacher(
        self, dataset: DatasetDefinition, train_seed: int, changes: Mapping[str, JsonValue], *, horizon: float | None
    ) -> Recipe | None:
        """The teacher's recipe; None without a teacher. Raises UsageError for changes without a teacher, or that do not
        fit it."""
        if self.teacher is None:
            if changes:
                idle = ", ".join(f"{OF_TEACHER}{name}" for name in changes)
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
    there is a horizon, horizon and solver. `key` is the sha256 of its weights file. With `fitting` it is given only
    those of these that it takes, and may have horizon and solver by itself.
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
    fitting: bool = False


Origin = Recipe | Contributed
"""What a model is built from."""
