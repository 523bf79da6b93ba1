"""The tasks of a sweep's workers: check the data, train one recipe, run one evaluation or a slice of it; each makes
whole files or none."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import DatasetError, OdebenchError
from odebench.evaluation.plan import Plan, Slice
from odebench.evaluation.slice_files import forget_slices
from odebench.io.folders import PublishedFolder, weights_folders
from odebench.io.versions import package_versions
from odebench.progress import SILENT
from odebench.protocol.recipe import Recipe, find_weights

if TYPE_CHECKING:
    from odebench.dataset import Dataset


class TaskError(OdebenchError):
    """A task of a sweep failed. The message is the reason, in one line; the error can be sent to another process."""


@dataclass(frozen=True)
class Workspace:
    """The folders that a worker reads and writes, the same for all workers, and the device and threads it uses."""

    results: Path
    cache: Path
    data_dir: Path | None
    device: str
    threads: int
    published: PublishedFolder | None = None
    counts_published: bool = False
    """Whether a cell counts as done if its result is published."""
    replaces: bool = False
    """Whether all is computed again although its result exists."""
    versions: tuple[tuple[str, str | None], ...] = ()
    """The versions of Python and the packages where the sweep began; a worker with others fails."""

    @property
    def weights(self) -> list[Path]:
        """The folders where weights are looked for; those that are trained go to the last."""
        return weights_folders(self.cache, self.published)


_ALONE = threading.Lock()
"""Held by the one task that runs in a process: attacks and trainings seed the generators of the whole process."""


def prepare(slices: tuple[Slice, ...], dataset: DatasetDefinition, workspace: Workspace) -> None:
    """Finds or downloads the data set. Raises TaskError where it is not as the protocol says."""
    with _one_task(workspace):
        found = _dataset(dataset.name, workspace.data_dir)
        shape, classes = found.image_shape, found.n_classes
        if (shape, classes) != (tuple(dataset.image_shape), len(dataset.classes)):
            raise DatasetError(
                f"{dataset.name} has images of shape {list(shape)} in {classes} classes, the protocol says "
                f"{list(dataset.image_shape)} in {len(dataset.classes)}"
            )
        from odebench.evaluation.evaluate import data_split

        for part in slices:
            part.of(dataset.name, len(data_split(found, part.split)))


def train(recipe: Recipe, workspace: Workspace) -> None:
    """Trains a recipe unless its weights exist. Raises TaskError."""
    with _one_task(workspace):
        if find_weights(recipe) is None:
            from odebench.evaluation.environment import usable_device
            from odebench.model.training import find_or_train

            data = _dataset(recipe.dataset, workspace.data_dir)
            find_or_train(recipe, data, device=usable_device(workspace.device))


def evaluate(plan: Plan, workspace: Workspace) -> None:
    """Runs an evaluation and writes its result, unless that exists. Raises TaskError."""
    with _one_task(workspace):
        from odebench.evaluation.evaluate import run

        data = _dataset(plan.evaluation.dataset.name, workspace.data_dir)
        run(
            plan,
            data,
            results=workspace.results,
            force=workspace.replaces,
            device=workspace.device,
            progress=SILENT,
        )
        forget_slices(plan.evaluation, workspace.results)


def evaluate_slice(plan: Plan, rows: slice, workspace: Workspace) -> None:
    """Runs an evaluation on some rows of its images and writes the slice, unless that exists. Raises TaskError."""
    with _one_task(workspace):
        from odebench.evaluation.sliced_evaluation import run_slice

        data = _dataset(plan.evaluation.dataset.name, workspace.data_dir)
        run_slice(plan, data, rows=rows, results=workspace.results, device=workspace.device)


def join(plan: Plan, slices: tuple[slice, ...], workspace: Workspace) -> None:
    """Writes the result of an evaluation from its slices. Raises TaskError where one is missing."""
    with _one_task(workspace):
        from odebench.evaluation.sliced_evaluation import join_slices

        join_slices(plan.evaluation, slices=slices, results=workspace.results)


@lru_cache(maxsize=1)
def _dataset(name: str, data_dir: Path | None) -> Dataset:
    from odebench.dataset import load_dataset

    return load_dataset(name, data_dir=data_dir)


@contextmanager
def _one_task(workspace: Workspace) -> Iterator[None]:
    """A context for one task, alone in this process, in its workspace. Whatever is raised in it becomes a TaskError."""
    try:
        with _ALONE:
            os.environ["ODEBENCH_CACHE"] = str(workspace.cache)
            os.environ["ODEBENCH_LEADERBOARD"] = "" if workspace.published is None else str(workspace.published.path)
            import torch

            # torch keeps this number per thread, and a worker's tasks run in a thread of their own
            torch.set_num_threads(workspace.threads)
            _check_versions(workspace)
            yield
    except OdebenchError as error:
        raise TaskError(str(error)) from None
    except Exception as error:  # what a model or an attack raises may not be picklable
        if os.environ.get("ODEBENCH_DEBUG"):
            raise
        raise TaskError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None


def _check_versions(workspace: Workspace) -> None:
    here = package_versions()
    for name, expected in workspace.versions:
        if here.get(name) != expected:
            raise TaskError(
                f"a worker has {name} {here.get(name) or 'missing'}, the sweep began with {expected or 'missing'}; "
                "start workers in the same environment"
            )
