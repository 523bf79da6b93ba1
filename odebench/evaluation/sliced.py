"""An evaluation in instalments: slices of whole chunks, computed in any order, joined to the result that one run would
have written."""

from __future__ import annotations

from pathlib import Path

import torch

from odebench.dataset import Dataset
from odebench.errors import ResultError, WeightError
from odebench.evaluation.environment import usable_device, versions
from odebench.evaluation.evaluate import data_split
from odebench.evaluation.execution import execute_portion
from odebench.evaluation.loading import LoadedModels, load_models
from odebench.evaluation.measurements import Measurements, concatenate, read_portion, write_portion
from odebench.evaluation.plan import Plan
from odebench.evaluation.slices import forget_slices, slice_folder, slice_path
from odebench.progress import SILENT, Progress
from odebench.protocol.spec import Evaluation
from odebench.result.file import result_path, write_result


def run_slice(
    plan: Plan, dataset: Dataset, *, rows: slice, results: Path, device: str = "cpu", progress: Progress = SILENT
) -> Path:
    """Runs a plan on some rows of its images and returns the file of what that found, beside the results.

    It is not run again where the result is there, nor where the file is, of the data, weights and packages at hand.
    """
    path = slice_path(results, plan.evaluation, rows)
    if result_path(results, plan.evaluation).exists():
        return path
    device = usable_device(device)
    found = load_models(plan, dataset, device, progress)
    split = data_split(dataset, plan.evaluation.dataset.split)
    if _holds(path, rows, (split.sha256, found.weights_sha256, found.sources_sha256)):
        return path
    write_portion(path, measure(plan, found, dataset, rows=rows, progress=progress))
    return path


def measure(
    plan: Plan, found: LoadedModels, dataset: Dataset, *, rows: slice, progress: Progress = SILENT
) -> Measurements:
    """What a plan finds on some rows of its images, with what is at hand for it."""
    split, part = data_split(dataset, plan.evaluation.dataset.split), plan.evaluation.dataset
    images = slice(part.offset, part.offset + part.n)
    return execute_portion(
        plan.evaluation,
        found.classifier,
        split.images[images],
        split.labels[images],
        rows=rows,
        dataset_sha256=split.sha256,
        weights_sha256=found.weights_sha256,
        sources=found.sources,
        sources_sha256=found.sources_sha256,
        handed_over=plan.handed_over,
        progress=progress,
    )


def join_slices(evaluation: Evaluation, *, slices: tuple[slice, ...], results: Path) -> Path:
    """Writes the result of an evaluation whose slices are all there, takes their files away, and returns its path.

    Raises ResultError where slices do not belong together, WeightError for a file that is damaged.
    """
    path = result_path(results, evaluation)
    if not path.exists():
        try:
            whole = concatenate([read_portion(slice_path(results, evaluation, rows)) for rows in slices])
        except ResultError as error:
            raise ResultError(f"{slice_folder(results, evaluation)}: {error}") from error
        write_result(whole.result(evaluation), results)
    forget_slices(evaluation, results)
    return path


def _holds(path: Path, rows: slice, identity: tuple[str, str, dict[str, str]]) -> bool:
    """Whether a file holds these rows, whole, found with the data, weights, sources and packages at hand."""
    if not path.exists():
        return False
    try:
        portion: Measurements = read_portion(path)
    except WeightError:
        return False
    found = portion.ground.found
    return (
        (portion.first, portion.first + len(portion)) == (rows.start, rows.stop)
        and identity == (found.dataset_sha256, found.weights_sha256, found.sources_sha256)
        and (found.versions, found.threads) == (versions(), torch.get_num_threads())
    )
