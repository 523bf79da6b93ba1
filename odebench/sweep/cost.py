"""The estimated work of evaluations and trainings, in calls of the field: for the order of tasks and the time left."""

from __future__ import annotations

import math

from odebench.attack.definition import Stage, load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.evaluation.plan import Plan
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import FIXED_STEP_STAGES, Solver

_UNDER_ATTACK = 0.5
"""The share of the images still under attack, averaged over the course of an attack."""
_QUERIES_PER_GRADIENT = 3
"""A query is one forward pass; a gradient is a forward and a backward pass, which costs about twice as much."""
_COMMON_PASSES = 20
"""The passes per image of the verdicts and of the checks that every run makes."""
_TRAINING_IMAGES = 50_000
"""Assumed where a data set does not say its size."""
_DISCRETE, _ADAPTIVE, _ADAPTIVE_PER_HORIZON = 4.0, 20.0, 10.0
"""Assumed field calls: of a model without a field, and of an adaptive solver at T = 0 and per unit of T."""


def evaluation_work(plan: Plan, dataset: DatasetDefinition) -> float:
    """The work of an evaluation: gradients of single images, times the field calls in each."""
    evaluation = plan.evaluation
    attack, threat = load_attack(evaluation.attack.name), evaluation.threat_model
    stages = attack.stages(evaluation.attack.parameters, norm=threat.norm, n_classes=len(dataset.classes))
    passes = sum(_passes(stage) for stage in stages) * len(threat.epsilons) * _UNDER_ATTACK
    return (passes + _COMMON_PASSES) * evaluation.dataset.n * field_calls(evaluation.solver, evaluation.horizon)


def training_work(recipe: Recipe, dataset: DatasetDefinition) -> float:
    """The work of a training: gradients of single images, times the field calls in each."""
    images = dataset.sizes.get("train", _TRAINING_IMAGES)
    adversary = 0 if recipe.adversary is None else recipe.adversary.steps
    return recipe.schedule.epochs * images * (1 + adversary) * field_calls(recipe.solver, recipe.horizon)


def field_calls(solver: Solver | None, horizon: float | None) -> float:
    """About how many field calls one image takes; for a model without a field, the few calls it costs as much as."""
    if solver is None or horizon is None:
        return _DISCRETE
    if solver.step is not None:
        return FIXED_STEP_STAGES[solver.method] * max(1, math.ceil(horizon / solver.step))
    return _ADAPTIVE + _ADAPTIVE_PER_HORIZON * horizon


def _passes(stage: Stage) -> float:
    return stage.passes if stage.definition.uses_gradients else stage.passes / _QUERIES_PER_GRADIENT
