"""How much work cells and trainings are, beforehand, in passes through the field: for the order and the time left."""

from __future__ import annotations

import math

from odebench.attack.definition import Stage, load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.evaluation.plan import Plan
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import FIXED_STEP_STAGES, Solver

_STANDING = 0.5
"""The share of the images that an attack has still to attack, on average over its course."""
_QUERIES_A_GRADIENT = 3
"""A query is a forward pass, a gradient is a forward and a backward one."""
_TRAINING_IMAGES = 50_000
_DISCRETE, _ADAPTIVE, _ADAPTIVE_MORE = 4.0, 20.0, 10.0


def evaluation_work(plan: Plan, dataset: DatasetDefinition) -> float:
    """The gradients of single images that an evaluation takes, each counted with the calls of the field in it."""
    evaluation = plan.evaluation
    attack, threat = load_attack(evaluation.attack.name), evaluation.threat_model
    stages = attack.stages(evaluation.attack.parameters, norm=threat.norm, n_classes=len(dataset.classes))
    passes = sum(_passes(stage) for stage in stages) * len(threat.epsilons) * _STANDING
    # the verdicts and the checks that every run makes
    passes += 20
    return passes * evaluation.dataset.n * field_calls(evaluation.solver, evaluation.horizon)


def training_work(recipe: Recipe, dataset: DatasetDefinition) -> float:
    """The gradients of single images that a training takes, each counted with the calls of the field in it."""
    images = dataset.sizes.get("train", _TRAINING_IMAGES)
    adversary = 0 if recipe.adversary is None else recipe.adversary.steps
    return recipe.schedule.epochs * images * (1 + adversary) * field_calls(recipe.solver, recipe.horizon)


def field_calls(solver: Solver | None, horizon: float | None) -> float:
    """About how often one image asks the field; for a model without one, as deep as a few calls."""
    if solver is None or horizon is None:
        return _DISCRETE
    if solver.step is not None:
        return FIXED_STEP_STAGES[solver.method] * max(1, math.ceil(horizon / solver.step))
    return _ADAPTIVE + _ADAPTIVE_MORE * horizon


def _passes(stage: Stage) -> float:
    return stage.passes if stage.definition.uses_gradients else stage.passes / _QUERIES_A_GRADIENT
