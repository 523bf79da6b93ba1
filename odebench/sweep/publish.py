"""What a sweep gives to the repository: results of a protocol's cells, and the weights that they rest on. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from odebench.errors import OdebenchError, ResultError
from odebench.io.files import sha256_file, write_atomically
from odebench.protocol.recipe import find_weights, weights_path
from odebench.result.file import read_result, result_files, result_path
from odebench.result.schema import Result
from odebench.sweep.completed import completed_results
from odebench.sweep.grid import Grid
from odebench.sweep.task import Workspace

RESULTS, WEIGHTS = "results", "weights"
MAX_BYTES = 30_000_000
"""Of all published weights and results together: every clone of the repository carries them."""


class DepositError(OdebenchError):
    """Results or weights cannot be published as they are."""


@dataclass
class Publication:
    """The files to copy, each with where it goes to, and how many lie there already."""

    results: dict[Path, Path] = field(default_factory=dict)
    weights: dict[Path, Path] = field(default_factory=dict)
    there: int = 0

    def make(self) -> int:
        """Copies the files, each whole or not at all, and returns how many bytes that were. Weights first, so that a
        published result always has its weights."""
        total = 0
        for source, target in [*self.weights.items(), *self.results.items()]:
            data = source.read_bytes()
            write_atomically(target, data)
            total += len(data)
        return total


def deposit_of(grid: Grid, place: Workspace, folder: Path, *, replace: bool = False) -> Publication:
    """What is missing in `folder` of the results of a grid that is swept, and of the weights of models, teachers and
    sources. Writes nothing.

    Raises DepositError where something else lies in its place, unless `replace`; where a result is missing or was found
    with other weights than those at hand; and where all that is published would be too large.
    """
    files = completed_results(grid, place)
    if missing := len(grid.evaluations) - len(files):
        raise DepositError(f"{missing} of {len(grid.evaluations)} results are missing; sweep without failures first")
    results = {run_key: read_result(path) for run_key, path in files.items()}
    found = Publication()
    for run_key, path in files.items():
        target = result_path(folder / RESULTS, grid.evaluations[run_key].plan.evaluation)
        if not target.exists() or (replace and not _agrees(target, results[run_key])):
            found.results[path] = target
        elif _agrees(target, results[run_key]):
            found.there += 1
        else:
            raise DepositError(
                f"{target} is there with other letters, data or weights than {path}; --force replaces it"
            )
    _add_weights(found, grid, place, folder, results, replace=replace)
    _check_others(found, folder)
    _check_size(found, folder)
    return found


def _add_weights(
    found: Publication, grid: Grid, place: Workspace, folder: Path, results: dict[str, Result], *, replace: bool
) -> None:
    used = _used_weights(grid, results)
    for training in grid.trainings:
        recipe = training.recipe
        model = training.title.removeprefix("training ")
        source, target = find_weights(recipe, place.weights), weights_path(recipe, folder / WEIGHTS)
        if source is None:
            raise DepositError(
                f"the weights of {model} are neither in {place.weights[0]} nor "
                "published; train them (odebench train), or sweep again with another --results folder"
            )
        sha256 = sha256_file(source)
        for run_key, expected in used.get(recipe.key, ()):
            if expected != sha256:
                raise DepositError(
                    f"{grid.evaluations[run_key].title}: found with weights {expected[:12]} of {model}, but {source} "
                    f"is {sha256[:12]}; delete the result and sweep again"
                )
        if target.exists() and sha256_file(target) == sha256:
            found.there += 1
        elif target.exists() and not replace:
            raise DepositError(f"{target} is there with other bytes than {source}; --force replaces it")
        else:
            found.weights[source] = target


def _used_weights(grid: Grid, results: dict[str, Result]) -> dict[str, list[tuple[str, str]]]:
    """By recipe, the run keys of the results that rest on its weights, each with the sha256 that it was found with."""
    used: dict[str, list[tuple[str, str]]] = {}
    for run_key, cell in grid.evaluations.items():
        found = results[run_key].found
        used.setdefault(cell.plan.recipe.key, []).append((run_key, found.weights_sha256))
        for source in cell.plan.sources:
            if not source.itself and source.text in found.sources_sha256:
                used.setdefault(source.recipe.key, []).append((run_key, found.sources_sha256[source.text]))
    return used


def _check_others(found: Publication, folder: Path) -> None:
    """Raises DepositError where a published result that stays was found with other weights of a recipe than those that
    are about to be published, or with candidates of a source whose weights are about to be replaced."""
    coming = {target.stem: source for source, target in found.weights.items()}
    going = {sha256_file(target): source for source, target in found.weights.items() if target.exists()}
    for path, result in _staying(found, folder):
        for name, sha256 in result.found.sources_sha256.items():
            if sha256 in going:
                raise DepositError(
                    f"{path} was found with candidates of {name} with other weights ({sha256[:12]}) than "
                    f"{going[sha256]}; delete it, or run it again with them"
                )
        source = coming.get(result.evaluation.model.weights)
        if source is not None and sha256_file(source) != result.found.weights_sha256:
            raise DepositError(
                f"{path} was found with other weights ({result.found.weights_sha256[:12]}) than {source}; "
                "delete it, or run it again with them"
            )


def _staying(found: Publication, folder: Path) -> Iterator[tuple[Path, Result]]:
    replaced = set(found.results.values())
    for path in result_files(folder / RESULTS):
        if path not in replaced:
            try:
                yield path, read_result(path)
            except ResultError:
                continue


def _check_size(found: Publication, folder: Path) -> None:
    replaced = {*found.weights.values(), *found.results.values()}
    there = [*(folder / WEIGHTS).glob("*.safetensors"), *result_files(folder / RESULTS)]
    kept = [path for path in there if path not in replaced]
    total = sum(path.stat().st_size for path in [*found.weights, *found.results, *kept])
    if total > MAX_BYTES:
        raise DepositError(
            f"{folder} would hold {total / 1e6:.2f} MB of weights and results, more than the {MAX_BYTES / 1e6:g} MB "
            "that may be published"
        )


def _agrees(path: Path, result: Result) -> bool:
    """Whether a stored result says what another one says, whenever and on whatever each was computed."""
    try:
        stored = read_result(path)
    except ResultError:
        return False
    same = ("dataset_sha256", "weights_sha256", "sources_sha256")
    return (stored.run_key, stored.outcomes_sha256) == (result.run_key, result.outcomes_sha256) and all(
        getattr(stored.found, name) == getattr(result.found, name) for name in same
    )
