"""The trainings that planned evaluations need. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from odebench.evaluation.plan import Plan
from odebench.model.definition import Contributed
from odebench.protocol.recipe import Recipe


@dataclass(frozen=True)
class Training:
    """A recipe to train, with a title for the user."""

    recipe: Recipe
    title: str


def recipe_to_train(plan: Plan) -> Recipe | None:
    """The recipe by which a plan's weights are found or trained; None where they are given as a file or address."""
    return None if plan.weights is not None or isinstance(plan.origin, Contributed) else plan.origin


def trainings(plans: Sequence[Plan]) -> Iterator[Training]:
    """Every training that the plans need, once: of models, teachers and transfer sources, teachers before students."""
    seen: set[str] = set()

    def need(recipe: Recipe, name: str) -> Iterator[Training]:
        if recipe.key in seen:
            return
        if recipe.teacher is not None:
            yield from need(recipe.teacher, f"the teacher of {name}")
        seen.add(recipe.key)
        horizon = f" T={recipe.horizon:g}" if recipe.horizon is not None else ""
        yield Training(recipe, f"training {name}{horizon} seed {recipe.train_seed}")

    for plan in plans:
        if (recipe := recipe_to_train(plan)) is not None:
            yield from need(recipe, plan.evaluation.model.name)
    for plan in plans:
        for source in plan.sources:
            if not source.itself:
                yield from need(source.recipe, source.text.partition(":")[0])
