"""Publishing the results of a sweep, and the weights that they rest on, in the repository. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from odebench.errors import OdebenchError, ResultError
from odebench.io.files import list_sha256, sha256_file, write_atomically
from odebench.io.folders import PublishedFolder
from odebench.protocol.recipe import find_weights, weights_path
from odebench.result.file import read_result, result_files, result_path
from odebench.result.schema import Result
from odebench.sweep.completed import completed_results
from odebench.sweep.protocol_cells import Grid
from odebench.sweep.task import Workspace

MAX_BYTES = 30_000_000
"""The most bytes of all published weights, and of the results that rest on them: every clone carries them."""
MAX_STUDY_BYTES = 20_000_000
"""The most bytes of all published results without weights."""


class PublicationError(OdebenchError):
    """Results or weights cannot be published as they are."""


@dataclass
class Publication:
    """The files to copy, each with its target, and how many are published already."""

    results: dict[Path, Path] = field(default_factory=dict)
    weights: dict[Path, Path] = field(default_factory=dict)
    there: int = 0

    def make(self) -> int:
        """Copies the files, each whole or not at all, and returns the number of bytes copied. Weights come first, with
        the list of their sha256, so that a published result always has its weights."""
        total = _copied(self.weights)
        for folder in {target.parent for target in self.weights.values()}:
            list_sha256(folder, "*.safetensors", new=self.weights.values())
        return total + _copied(self.results)


def _copied(files: Mapping[Path, Path]) -> int:
    total = 0
    for source, target in files.items():
        data = source.read_bytes()
        write_atomically(target, data)
        total += len(data)
    return total


def publication_of(grid: Grid, workspace: Workspace, folder: PublishedFolder, *, replace: bool = False) -> Publication:
    """What `folder` lacks of the results of a finished sweep, and of the weights of its models, teachers and sources.
    Writes nothing.

    Raises PublicationError where a published file differs, unless `replace`; where a result is missing or was found
    with other weights than those at hand; and where all that is published would be too large.
    """
    files = completed_results(grid, workspace)
    if missing := len(grid.evaluations) - len(files):
        raise PublicationError(
            f"{missing} of {len(grid.evaluations)} results are missing; sweep without failures first"
        )
    results = {run_key: read_result(path) for run_key, path in files.items()}
    publication = Publication()
    for run_key, path in files.items():
        target = result_path(folder.results_of(weights=grid.keeps_weights), grid.evaluations[run_key].plan.evaluation)
        if target.exists() and _agrees(target, results[run_key]):
            publication.there += 1
        elif target.exists() and not replace:
            raise PublicationError(
                f"{target} is there with other letters, data or weights than {path}; --force replaces it"
            )
        else:
            publication.results[path] = target
    if grid.keeps_weights:
        _add_weights(publication, grid, workspace, folder, results, replace=replace)
        _check_remaining_results(publication, folder)
    _check_size(publication, folder, with_weights=grid.keeps_weights)
    return publication


def _add_weights(
    publication: Publication,
    grid: Grid,
    workspace: Workspace,
    folder: PublishedFolder,
    results: dict[str, Result],
    *,
    replace: bool,
) -> None:
    used = _used_weights(grid, results)
    for training in grid.trainings:
        recipe = training.recipe
        model = training.title.removeprefix("training ")
        source, target = find_weights(recipe, workspace.weights), weights_path(recipe, folder.weights)
        if source is None:
            raise PublicationError(
                f"the weights of {model} are neither in {workspace.weights[-1]} nor "
                "published; train them (odebench train), or sweep again with another --results folder"
            )
        sha256 = sha256_file(source)
        for run_key, expected in used.get(recipe.key, ()):
            if expected != sha256:
                raise PublicationError(
                    f"{grid.evaluations[run_key].title}: found with weights {expected[:12]} of {model}, but {source} "
                    f"is {sha256[:12]}; delete the result and sweep again, or publish your own by ODEBENCH_LEADERBOARD="
                )
        if target.exists() and sha256_file(target) == sha256:
            publication.there += 1
        elif target.exists() and not replace:
            raise PublicationError(f"{target} is there with other bytes than {source}; --force replaces it")
        else:
            publication.weights[source] = target


def _used_weights(grid: Grid, results: dict[str, Result]) -> dict[str, list[tuple[str, str]]]:
    """For each recipe key, the run keys of the results that rest on its weights, with the sha256 that each records."""
    used: dict[str, list[tuple[str, str]]] = {}
    for run_key, cell in grid.evaluations.items():
        found = results[run_key].found
        used.setdefault(cell.plan.recipe.key, []).append((run_key, found.weights_sha256))
        for source in cell.plan.sources:
            if not source.itself and source.text in found.sources_sha256:
                used.setdefault(source.recipe.key, []).append((run_key, found.sources_sha256[source.text]))
    return used


def _check_remaining_results(publication: Publication, folder: PublishedFolder) -> None:
    """Raises PublicationError where a published result that stays was found with other weights of a recipe than those
    about to be published, or with candidates of a source whose weights are about to be replaced."""
    new = {target.stem: source for source, target in publication.weights.items()}
    replaced = {sha256_file(target): source for source, target in publication.weights.items() if target.exists()}
    for path in sorted({*result_files(folder.results)} - {*publication.results.values()}):
        try:
            result = read_result(path)
        except ResultError:
            continue  # what is no result rests on no weights
        for name, sha256 in result.found.sources_sha256.items():
            if sha256 in replaced:
                raise PublicationError(
                    f"{path} was found with candidates of {name} with other weights ({sha256[:12]}) than "
                    f"{replaced[sha256]}; delete it, or run it again with them"
                )
        source = new.get(result.evaluation.model.weights)
        if source is not None and sha256_file(source) != result.found.weights_sha256:
            raise PublicationError(
                f"{path} was found with other weights ({result.found.weights_sha256[:12]}) than {source}; "
                "delete it, or run it again with them"
            )


def _check_size(publication: Publication, folder: PublishedFolder, *, with_weights: bool) -> None:
    replaced = {*publication.weights.values(), *publication.results.values()}
    published = [*folder.weights.glob("*.safetensors"), *result_files(folder.results)]
    limit, what = MAX_BYTES, "weights and results"
    if not with_weights:
        published = [*result_files(folder.study)] if folder.study.is_dir() else []
        limit, what = MAX_STUDY_BYTES, "results without weights"
    kept = [path for path in published if path not in replaced]
    total = sum(path.stat().st_size for path in [*publication.weights, *publication.results, *kept])
    if total > limit:
        raise PublicationError(
            f"{folder.path} would hold {total / 1e6:.2f} MB of {what}, more than the {limit / 1e6:g} MB that may be "
            "published"
        )


def _agrees(path: Path, result: Result) -> bool:
    """Whether a stored result has the same outcomes, data and weights as another one of the same evaluation."""
    try:
        stored = read_result(path)
    except ResultError:
        return False
    same = ("dataset_sha256", "weights_sha256", "sources_sha256")
    return (stored.run_key, stored.letters) == (result.run_key, result.letters) and all(
        getattr(stored.found, name) == getattr(result.found, name) for name in same
    )
