"""The estimated time of a grid on this machine, from the time of one gradient of each of its models. Needs torch."""

from __future__ import annotations

import os
import time

import torch
from torch.nn import functional

from odebench.io.canonical_json import canonical_json
from odebench.model.training import build
from odebench.protocol.recipe import Recipe
from odebench.sweep.cost import evaluation_work, field_calls, training_work
from odebench.sweep.protocol_cells import Grid

_SHORTEST_SECONDS = 0.2
_BATCH = 100


def probe(grid: Grid) -> float:
    """Estimated seconds for all trainings and evaluations of a grid, with cores // threads processes. A rough figure:
    how soon attacks succeed is not known beforehand."""
    threads = torch.get_num_threads()
    torch.set_num_threads(grid.threads)
    try:
        timed: dict[str, float] = {}
        works = [(one.recipe, training_work(one.recipe, grid.dataset)) for one in grid.trainings]
        plans = [cell.plan for cell in grid.evaluations.values()]
        works += [(plan.recipe, evaluation_work(plan, grid.dataset)) for plan in plans]
        seconds = sum(work * _seconds(recipe, grid, timed) for recipe, work in works)
    finally:
        torch.set_num_threads(threads)
    return seconds / max(1, (os.cpu_count() or 1) // grid.threads)


def _seconds(recipe: Recipe, grid: Grid, timed: dict[str, float]) -> float:
    """Seconds per image of a gradient, divided by the field calls in it; timed once per architecture."""
    kind = canonical_json({"architecture": recipe.architecture, "arguments": recipe.arguments})
    if kind not in timed:
        module = build(recipe).eval().requires_grad_(False)
        images = torch.rand(_BATCH, *grid.dataset.image_shape, requires_grad=True)
        labels = torch.arange(_BATCH) % len(grid.dataset.classes)
        functional.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < _SHORTEST_SECONDS:
            functional.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
            count += 1
        spent = (time.perf_counter() - began) / count
        timed[kind] = spent / _BATCH / field_calls(recipe.solver, recipe.horizon)
    return timed[kind]
