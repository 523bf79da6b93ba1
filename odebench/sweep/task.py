"""What a worker of a sweep does: look at the data, train one recipe, run one evaluation or a slice of it.

Each leaves a whole file.
"""

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
from odebench.evaluation.slices import forget_slices
from odebench.io.folders import PublishedFolder, weights_folders
from odebench.io.versions import package_versions
from odebench.progress import SILENT
from odebench.protocol.recipe import Recipe, find_weights

if TYPE_CHECKING:
    from odebench.dataset import Dataset


class TaskError(OdebenchError):
    """A task of a sweep failed; the message is the reason, in one line, and travels between processes."""


@dataclass(frozen=True)
class Workspace:
    """Where a worker finds and leaves things, and on what it computes. Folders are the same for all workers."""

    results: Path
    cache: Path
    data_dir: Path | None
    device: str
    threads: int
    published: PublishedFolder | None = None
    counts_published: bool = False
    """Whether a cell is done where its result is published."""
    versions: tuple[tuple[str, str | None], ...] = ()
    """The versions of what computes, where the sweep began; a worker with others is an error."""

    @property
    def weights(self) -> list[Path]:
        """The folders where weights are looked for; those that are trained go to the first."""
        return weights_folders(self.cache, self.published)


_ALONE = threading.Lock()
"""One task at a time in a process: attacks and trainings seed the process's random numbers."""


def prepare(slices: tuple[Slice, ...], dataset: DatasetDefinition, place: Workspace) -> None:
    """Finds or downloads the data set. Raises TaskError where it is not what the protocol says."""
    with _one_task(place):
        found = _dataset(dataset.name, place.data_dir)
        shape, classes = found.image_shape, found.n_classes
        if (shape, classes) != (tuple(dataset.image_shape), len(dataset.classes)):
            raise DatasetError(
                f"{dataset.name} has images of shape {list(shape)} in {classes} classes, the protocol says "
                f"{list(dataset.image_shape)} in {len(dataset.classes)}"
            )
        from odebench.evaluation.evaluate import data_split

        for part in slices:
            part.of(dataset.name, len(data_split(found, part.split)))


def train(recipe: Recipe, place: Workspace) -> None:
    """Trains a recipe, unless its weights are there. Raises TaskError."""
    with _one_task(place):
        if find_weights(recipe) is None:
            from odebench.model.training import find_or_train

            find_or_train(recipe, _dataset(recipe.dataset, place.data_dir), device=_device(place))


def evaluate(plan: Plan, place: Workspace) -> None:
    """Runs an evaluation, unless its result is there, and writes the result. Raises TaskError."""
    with _one_task(place):
        from odebench.evaluation.evaluate import run

        data = _dataset(plan.evaluation.dataset.name, place.data_dir)
        run(plan, data, results=place.results, device=place.device, progress=SILENT)
        forget_slices(plan.evaluation, place.results)


def evaluate_slice(plan: Plan, rows: slice, place: Workspace) -> None:
    """Runs an evaluation on some rows of its images, unless what that found is there. Raises TaskError."""
    with _one_task(place):
        from odebench.evaluation.sliced import run_slice

        data = _dataset(plan.evaluation.dataset.name, place.data_dir)
        run_slice(plan, data, rows=rows, results=place.results, device=place.device)


def join(plan: Plan, slices: tuple[slice, ...], place: Workspace) -> None:
    """Writes the result of an evaluation whose slices are all there. Raises TaskError."""
    with _one_task(place):
        from odebench.evaluation.sliced import join_slices

        join_slices(plan.evaluation, slices=slices, results=place.results)


def _device(place: Workspace) -> str:
    from odebench.evaluation.environment import usable_device

    return usable_device(place.device)


@lru_cache(maxsize=1)
def _dataset(name: str, data_dir: Path | None) -> Dataset:
    from odebench.dataset import load_dataset

    return load_dataset(name, data_dir=data_dir)


@contextmanager
def _one_task(place: Workspace) -> Iterator[None]:
    """One task alone in this process, with its threads and folders; whatever it raises is a TaskError."""
    try:
        with _ALONE:
            os.environ["ODEBENCH_CACHE"] = str(place.cache)
            os.environ["ODEBENCH_LEADERBOARD"] = "" if place.published is None else str(place.published.path)
            import torch

            # The number is kept a thread, and a worker's tasks run in a thread of its own.
            torch.set_num_threads(place.threads)
            _check_versions(place)
            yield
    except OdebenchError as error:
        raise TaskError(str(error)) from None
    except Exception as error:  # what a model or an attack raises may not travel between processes
        if os.environ.get("ODEBENCH_DEBUG"):
            raise
        raise TaskError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None


def _check_versions(place: Workspace) -> None:
    here = package_versions()
    for name, expected in place.versions:
        if here.get(name) != expected:
            raise TaskError(
                f"a worker has {name} {here.get(name) or 'missing'}, the sweep began with {expected or 'missing'}; "
                "start workers in the same environment"
            )
