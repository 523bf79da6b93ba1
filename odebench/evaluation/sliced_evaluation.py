"""An evaluation in slices of whole chunks: each is computed by itself, and all are joined to the result of one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from odebench.dataset import Dataset
from odebench.errors import ResultError, WeightError
from odebench.evaluation.environment import usable_device, versions
from odebench.evaluation.evaluate import data_split
from odebench.evaluation.execution import measure
from odebench.evaluation.fresh_start import start_of_plan
from odebench.evaluation.loading import load_models
from odebench.evaluation.measurements import concatenate, read_measurements, write_measurements
from odebench.evaluation.plan import Plan
from odebench.evaluation.slice_files import forget_slices, slice_folder, slice_path
from odebench.progress import SILENT, Progress
from odebench.protocol.spec import Evaluation
from odebench.result.file import result_path, write_result


def run_slice(
    plan: Plan, dataset: Dataset, *, rows: slice, results: Path, device: str = "cpu", progress: Progress = SILENT
) -> Path:
    """Runs a plan on some rows of its images and returns the file of the measurements, beside the results.

    Nothing runs if the result exists, nor if the file does and was found with the data, weights and packages at hand.
    """
    path = slice_path(results, plan.evaluation, rows)
    if result_path(results, plan.evaluation).exists():
        return path
    split = data_split(dataset, plan.evaluation.dataset.split)
    with load_models(plan, dataset, usable_device(device), progress) as models:
        if not _holds(path, rows, (split.sha256, models.weights_sha256, models.sources_sha256)):
            started = replace(models, start=start_of_plan(plan, models))
            write_measurements(path, measure(plan.evaluation, started, split, rows=rows, progress=progress))
    return path


def join_slices(evaluation: Evaluation, *, slices: tuple[slice, ...], results: Path) -> Path:
    """Writes the result of an evaluation whose slices all exist, deletes their files, and returns the result's path.

    Raises ResultError where slices do not belong together, WeightError for a file that is damaged.
    """
    path = result_path(results, evaluation)
    if not path.exists():
        try:
            whole = concatenate([read_measurements(slice_path(results, evaluation, rows)) for rows in slices])
        except ResultError as error:
            raise ResultError(f"{slice_folder(results, evaluation)}: {error}") from error
        write_result(whole.result(evaluation), results)
    forget_slices(evaluation, results)
    return path


def _holds(path: Path, rows: slice, identity: tuple[object, ...]) -> bool:
    """Whether a file holds these rows, undamaged, found with the data, weights, sources and packages at hand."""
    if not path.exists():
        return False
    try:
        measured = read_measurements(path)
    except WeightError:
        return False
    found = measured.setup.found
    return (
        (measured.first, measured.first + len(measured)) == (rows.start, rows.stop)
        and identity == (found.dataset_sha256, found.weights_sha256, found.sources_sha256)
        and (found.versions, found.threads) == (versions(), torch.get_num_threads())
    )
