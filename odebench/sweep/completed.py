"""What of a grid is there already: whole results, found with the weights that are at hand. No torch here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from odebench.errors import ResultError
from odebench.io.files import sha256_file
from odebench.protocol.recipe import Recipe, find_weights
from odebench.result.file import read_result, result_path
from odebench.sweep.grid import Grid, PlannedCell
from odebench.sweep.task import Workspace


def completed_results(grid: Grid, place: Workspace) -> dict[str, Path]:
    """The files of the results that are there, by run key: of this place, else published where those count.

    Whole, and found with the weights that are at hand, if any are. One that is not will fail in its task, with the
    reason, where it is this place's, and is found anew where it is published. Published results whose weights are
    nowhere count if nothing else is to do: else these weights would be trained, and might be others.
    """
    folders = [place.results]
    if place.counts_published and place.published is not None:
        folders.append(place.published.results)
    at_hand = cache(lambda recipe_key: _weights_sha256(recipes[recipe_key], place))
    recipes = {cell.plan.recipe.key: cell.plan.recipe for cell in grid.cells}
    found: dict[str, Path] = {}
    baseless = set()
    for run_key, cell in grid.evaluations.items():
        paths = (result_path(folder, cell.plan.evaluation) for folder in folders)
        path = next((path for path in paths if path.exists()), None)
        if path is not None and _is_whole(path, cell, at_hand(cell.plan.recipe.key)):
            found[run_key] = path
            if place.results not in path.parents and at_hand(cell.plan.recipe.key) is None:
                baseless.add(run_key)
    if len(found) < len(grid.evaluations):
        return {run_key: path for run_key, path in found.items() if run_key not in baseless}
    return found


def _is_whole(path: Path, cell: PlannedCell, weights_sha256: str | None) -> bool:
    try:
        result = read_result(path)
    except ResultError:
        return False
    return result.run_key == cell.run_key and weights_sha256 in (None, result.found.weights_sha256)


def _weights_sha256(recipe: Recipe, place: Workspace) -> str | None:
    path = find_weights(recipe, place.weights)
    return None if path is None else sha256_file(path)
