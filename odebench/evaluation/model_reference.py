"""The model of an evaluation before anything is loaded: registered, or submitted by an entry. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.io.files import FileError, sha256_file
from odebench.io.remote_weights import Address
from odebench.model.definition import ModelDefinition, Origin
from odebench.model.recipe_changes import changeable
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import check_horizon


@dataclass(frozen=True)
class ResolvedModel:
    """A model trained at one horizon with one seed.

    `name` and `arguments` stand in results, `origin` is what the module is built from, `identity` names its weights,
    and `weights` is where they are (None: found or trained by the recipe).
    """

    name: str
    arguments: Mapping[str, JsonValue]
    origin: Origin
    identity: str
    weights: Path | Address | None
    siblings: bool = False
    """Whether the model can be had with other train seeds by the same name, so that they can be sources."""


class ModelReference(Protocol):
    """A model by its name, which can be resolved for a data set."""

    @property
    def name(self) -> str:
        """The model's name in results."""

    def takes_horizon(self, dataset: DatasetDefinition) -> bool:
        """Whether the model of a data set integrates a field. Raises UsageError where it knows no such data set."""

    def resolve(
        self,
        dataset: DatasetDefinition,
        *,
        horizon: float | None,
        train_horizon: float | None,
        train_seed: int,
        changes: Mapping[str, JsonValue],
    ) -> ResolvedModel:
        """The model to evaluate at `horizon`; None stands for the model's own horizon. Raises UsageError."""


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model; `weights` is a file instead of those that its recipe finds or trains."""

    definition: ModelDefinition
    weights: Path | None = None

    @property
    def name(self) -> str:
        """The registered name."""
        return self.definition.name

    def takes_horizon(self, dataset: DatasetDefinition) -> bool:
        return self.definition.has_horizon

    def resolve(
        self,
        dataset: DatasetDefinition,
        *,
        horizon: float | None,
        train_horizon: float | None,
        train_seed: int,
        changes: Mapping[str, JsonValue],
    ) -> ResolvedModel:
        """The model by its recipe with `changes`, trained at `train_horizon`, else at `horizon`, else at 1."""
        trained_at = None
        if self.definition.has_horizon:
            trained_at = train_horizon if train_horizon is not None else (1.0 if horizon is None else horizon)
            check_horizon(trained_at)
        elif (horizon, train_horizon) != (None, None):
            raise UsageError(f"{self.name} integrates nothing, so it takes no --horizon and no --solver")
        recipe = self.definition.recipe(dataset, horizon=trained_at, train_seed=train_seed, changes=changes)
        return ResolvedModel(
            name=self.name,
            arguments={"train_seed": train_seed, **held_changes(recipe, changes)},
            origin=recipe,
            identity=recipe.key if self.weights is None else file_identity(self.weights),
            weights=self.weights,
            siblings=True,
        )


def held_changes(recipe: Recipe, changes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The changes as the recipe holds them, so that the temperatures 2 and 2.0 have one run key."""
    held = changeable(recipe)
    return {name: held[name] for name in changes}


def file_identity(weights: Path) -> str:
    """The sha256 of a weights file. Raises FileError."""
    try:
        return sha256_file(weights)
    except OSError as error:
        raise FileError(f"cannot read {weights}: {error.strerror}") from error
