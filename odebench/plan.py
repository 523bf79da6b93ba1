"""From the names and options of a run to its evaluation and recipe, before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from odebench.attack.definition import load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.file import FileError, sha256_file
from odebench.model.definition import load_definition
from odebench.recipe import Recipe
from odebench.spec import (
    AttackSpec,
    DatasetSlice,
    Evaluation,
    ModelSpec,
    Norm,
    Solver,
    ThreatModel,
    check_epsilon,
    check_horizon,
)

DEFAULT_N = 500
DEFAULT_CHUNK = 100

Split = Literal["test", "validation"]


@dataclass(frozen=True)
class Slice:
    """Which images: the split, how many (None: 500, or all if there are fewer), from where, and the chunk."""

    split: Split = "test"
    n: int | None = None
    offset: int = 0
    chunk: int = DEFAULT_CHUNK

    def of(self, name: str, total: int) -> DatasetSlice:
        """The slice of a split of `total` images. Raises UsageError unless it is made of whole chunks."""
        if self.chunk < 1:
            raise UsageError(f"a chunk of {self.chunk} images is none; the default is {DEFAULT_CHUNK}")
        n = min(DEFAULT_N, total - self.offset) if self.n is None else self.n
        if n < 1 or self.offset < 0 or self.offset + n > total:
            raise UsageError(
                f"{name} has {total} {self.split} images; {n} from {self.offset} on cannot be taken: "
                f"choose -n between 1 and {max(1, total - max(0, self.offset))}"
            )
        if self.offset % self.chunk or (n % self.chunk and self.offset + n != total):
            whole = max(self.chunk, n - n % self.chunk)
            raise UsageError(
                f"{n} images from {self.offset} on are not whole chunks of {self.chunk}; letters would depend on "
                f"the slice: take -n {whole} or {min(whole + self.chunk, total)}"
            )
        return DatasetSlice(name=name, split=self.split, n=n, offset=self.offset)


@dataclass(frozen=True)
class Plan:
    """An evaluation of a built-in or registered model, the recipe it needs, or the weights file given instead."""

    evaluation: Evaluation
    recipe: Recipe
    weights: Path | None


def threat_model(
    attack: str, dataset: DatasetDefinition, *, norm: str | None, epsilons: tuple[float, ...] | None
) -> ThreatModel:
    """The norm and radii of a run: given, or the attack's first norm and the data set's grid for it."""
    chosen = load_attack(attack).norm(norm)
    radii = epsilons or dataset.epsilons.get(chosen)
    if not radii:
        raise UsageError(
            f"{dataset.name} has no default epsilons for {chosen}; give them, such as --epsilon 2/255,4/255"
        )
    for epsilon in radii:
        check_epsilon(epsilon, chosen)
    diagonal = math.sqrt(math.prod(dataset.image_shape))
    if chosen == "l2" and max(radii) > diagonal:
        raise UsageError(
            f"epsilon {max(radii):g} is above {diagonal:.3g}, the largest l2 distance between two images "
            f"of {dataset.name}"
        )
    norms: dict[str, Norm] = {"linf": "linf", "l2": "l2"}
    return ThreatModel(norm=norms[chosen], epsilons=radii)


def plan(
    model: str,
    attack: str,
    dataset: DatasetDefinition,
    *,
    total: int,
    images: Slice | None = None,
    horizon: float | None = None,
    train_horizon: float | None = None,
    solver: Solver | None = None,
    norm: str | None = None,
    epsilons: tuple[float, ...] | None = None,
    train_seed: int = 0,
    attack_seed: int = 0,
    changes: Mapping[str, JsonValue] | None = None,
    parameters: Mapping[str, JsonValue] | None = None,
    weights: Path | None = None,
) -> Plan:
    """The evaluation of a registered model under an attack, on a split of `total` images.

    `solver` and `horizon` are those of the evaluation; the model is trained with its default solver, at
    `train_horizon` (by default the evaluation's). `changes` alters the recipe by field name. Raises UsageError.
    """
    definition, attacked = load_definition(model), load_attack(attack)
    threat = threat_model(attack, dataset, norm=norm, epsilons=epsilons)
    if definition.has_horizon:
        trained_at = train_horizon if train_horizon is not None else (1.0 if horizon is None else horizon)
        check_horizon(trained_at)
        check_horizon(trained_at if horizon is None else horizon)
    elif (horizon, train_horizon, solver) != (None, None, None):
        raise UsageError(f"{model} integrates nothing, so it takes no --horizon and no --solver")
    else:
        trained_at = None
    recipe = definition.recipe(dataset, horizon=trained_at, train_seed=train_seed, changes=changes)
    images = images or Slice()
    return Plan(
        evaluation=Evaluation(
            model=ModelSpec(
                name=model,
                arguments={"train_seed": train_seed, **(changes or {})},
                weights=_weights_identity(weights, recipe),
            ),
            train_horizon=trained_at,
            horizon=trained_at if horizon is None else horizon,
            solver=solver or recipe.solver,
            dataset=images.of(dataset.name, total),
            threat_model=threat,
            attack=AttackSpec(name=attack, parameters=attacked.complete(parameters), seed=attack_seed),
            chunk=images.chunk,
            precision="fp32",
        ),
        recipe=recipe,
        weights=weights,
    )


def _weights_identity(weights: Path | None, recipe: Recipe) -> str:
    if weights is None:
        return recipe.key
    try:
        return sha256_file(weights)
    except OSError as error:
        raise FileError(f"cannot read {weights}: {error.strerror}") from error
