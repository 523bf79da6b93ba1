"""The results of a grid that exist already. No torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from odebench.errors import ResultError
from odebench.evaluation.plan import Plan
from odebench.io.files import sha256_file
from odebench.protocol.recipe import find_weights
from odebench.result.file import read_result, result_path
from odebench.sweep.protocol_cells import Grid, PlannedCell
from odebench.sweep.task import Workspace
from odebench.sweep.trainings import recipe_to_train


def completed_results(grid: Grid, workspace: Workspace) -> dict[str, Path]:
    """The result files that count as done, by run key: from the workspace, else published ones where these count.

    A result counts if it is whole and was found with the weights at hand, if there are any. Otherwise its task fails
    with the reason if it lies in the workspace, and computes it anew if it is published. Published results whose
    weights are nowhere, but should be, count only if nothing is left to do: training these anew might give others.
    """
    folders = [workspace.results]
    if workspace.counts_published and workspace.published is not None:
        folders.append(workspace.published.results_of(weights=grid.keeps_weights))

    @cache
    def trained(recipe_key: str) -> str | None:
        path = find_weights(recipes[recipe_key], workspace.weights)
        return None if path is None else sha256_file(path)

    def at_hand(plan: Plan) -> str | None:
        """The sha256 of a plan's weights; of weights that are given it stands in the evaluation."""
        recipe = recipe_to_train(plan)
        return plan.evaluation.model.weights if recipe is None else trained(recipe.key)

    if workspace.replaces:
        return {}
    recipes = {one.key: one for cell in grid.cells if (one := recipe_to_train(cell.plan)) is not None}
    found: dict[str, Path] = {}
    without_weights = set()
    for run_key, cell in grid.evaluations.items():
        paths = (result_path(folder, cell.plan.evaluation) for folder in folders)
        path = next((path for path in paths if path.exists()), None)
        if path is not None and _counts(path, cell, at_hand(cell.plan)):
            found[run_key] = path
            elsewhere = grid.keeps_weights and workspace.results not in path.parents
            if elsewhere and at_hand(cell.plan) is None:
                without_weights.add(run_key)
    if len(found) < len(grid.evaluations):
        return {run_key: path for run_key, path in found.items() if run_key not in without_weights}
    return found


def _counts(path: Path, cell: PlannedCell, weights_sha256: str | None) -> bool:
    try:
        result = read_result(path)
    except ResultError:
        return False
    return result.run_key == cell.run_key and weights_sha256 in (None, result.found.weights_sha256)
