"""A sweep: the missing cells of a grid as a graph of tasks: data, teacher, student, evaluations.

Each finished task has left a whole file, written by its worker, so nothing is lost or done twice if a process dies.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from odebench.errors import OdebenchError
from odebench.evaluation.plan import slice_of
from odebench.evaluation.slice_files import cut, slice_path
from odebench.io.files import check_writable
from odebench.io.folders import PublishedFolder, cache_folder, published_folder
from odebench.io.versions import package_versions
from odebench.protocol.recipe import Recipe, find_weights
from odebench.sweep.completed import completed_results
from odebench.sweep.cost import evaluation_work, training_work
from odebench.sweep.protocol_cells import Grid, PlannedCell
from odebench.sweep.task import TaskError, Workspace, evaluate, evaluate_slice, join, prepare, train
from odebench.sweep.trainings import recipe_to_train

_POLL_SECONDS = 0.2
_TOPIC = "odebench"


class SweepError(OdebenchError):
    """A sweep cannot begin, or cannot go on."""


@dataclass(frozen=True)
class Task:
    """One task of the graph: its key, a title for the user, the keys of the tasks it needs, its estimated work, and the
    function to call with its arguments."""

    key: str
    kind: Literal["data", "training", "slice", "evaluation"]
    title: str
    needs: tuple[str, ...]
    work: float
    call: tuple[Any, ...]


LEAST_SHARE = 0.05
"""The share of the work that tells how long the rest takes."""


@dataclass
class State:
    """The progress of a sweep, as keys of tasks. `there` counts the cells whose results existed when it began,
    `published` those of them that exist among the published results alone."""

    tasks: Mapping[str, Task]
    there: int
    published: int = 0
    began: float = field(default_factory=time.monotonic)
    done: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, kind: str, keys: Iterable[str]) -> int:
        """The number of `keys` whose tasks are of a kind."""
        return sum(self.tasks[key].kind == kind for key in keys)

    def total(self, kind: str) -> int:
        """The number of all tasks of a kind."""
        return self.of(kind, self.tasks)

    @property
    def seconds_left(self) -> float | None:
        """The estimated time left, from the work done so far; None as long as that is less than `LEAST_SHARE` of all,
        when most of the time went into the start of processes."""
        done = sum(self.tasks[key].work for key in self.done)
        left = sum(task.work for key, task in self.tasks.items() if key not in self.done and key not in self.failed)
        known = done > 0 and done >= LEAST_SHARE * (done + left)
        return (time.monotonic() - self.began) * left / done if known else None


class Watcher(Protocol):
    """Shows the progress of a sweep."""

    def look(self, state: State) -> None:
        """Called a few times a second."""

    def done(self, task: Task, state: State) -> None:
        """Called once for each task that has finished or failed."""

    def say(self, line: str) -> None:
        """Shows one line that stays."""


@dataclass(frozen=True)
class Cluster:
    """Where to compute: on `workers` processes here (None: cores // threads), or by the scheduler at `address`."""

    workers: int | None = None
    address: str | None = None
    tls: tuple[Path, Path, Path] | None = None


def sweep(
    *grids: Grid, workspace: Workspace, cluster: Cluster, watcher: Watcher, slice_images: int | None = None
) -> State:
    """Computes the missing cells of grids, one for each data set, and returns the final state, which holds the reasons
    of failed tasks.

    Evaluations of more images than `slice_images` are cut into slices of about that size.

    Raises SweepError where dask.distributed is missing or the scheduler dies, ClusterError where the scheduler cannot
    be reached or has other package versions, FileError where a folder cannot be written in.
    """
    tasks: dict[str, Task] = {}
    there, published = 0, 0
    for grid in grids:
        missing, found = tasks_of(grid, workspace, slice_images=slice_images)
        tasks |= missing
        there += found
        completed = completed_results(grid, workspace).values()
        published += sum(workspace.results not in path.parents for path in completed)
    state = State(tasks, there, published)
    if not tasks:
        return state
    for folder in (workspace.results, workspace.weights[-1]):
        check_writable(folder)
    with _client(cluster, threads=workspace.threads, watcher=watcher) as client:
        state.began = time.monotonic()
        _conduct(client, state, watcher)
    return state


def workspace_of(
    grid: Grid,
    *,
    results: Path,
    data_dir: Path | None,
    device: str,
    counts_published: bool = False,
    replaces: bool = False,
) -> Workspace:
    """The workspace of a sweep that begins in this process: absolute folders, and the versions here."""
    published = published_folder()
    return Workspace(
        results=results.absolute(),
        cache=cache_folder().absolute(),
        data_dir=None if data_dir is None else data_dir.absolute(),
        device=device,
        threads=grid.threads,
        published=None if published is None else PublishedFolder(published.path.absolute()),
        counts_published=counts_published,
        replaces=replaces,
        versions=tuple(package_versions().items()),
    )


def tasks_of(grid: Grid, workspace: Workspace, *, slice_images: int | None = None) -> tuple[dict[str, Task], int]:
    """The tasks that a grid still needs, by key, each after those it needs, and the number of cells whose result
    exists. A recipe is trained only for a cell that is not done."""
    cells, there = grid.evaluations, completed_results(grid, workspace)
    missing = {key: cell for key, cell in cells.items() if key not in there}
    if not missing:
        return {}, len(cells)
    parts = {slice_of(cell.plan.evaluation): None for cell in missing.values()}
    call = (prepare, tuple(parts), grid.dataset, workspace)
    data = f"data-{grid.dataset.name}"
    tasks = {data: Task(data, "data", f"looking at {grid.dataset.name}", (), 0.0, call)}
    titles = {training.recipe.key: training.title for training in grid.trainings}

    def need(recipe: Recipe) -> str:
        """The key of the task after which a recipe's weights exist."""
        if find_weights(recipe, workspace.weights) is not None:
            return data
        key = f"train-{recipe.key}"
        if key not in tasks:
            before = data if recipe.teacher is None else need(recipe.teacher)
            work = training_work(recipe, grid.dataset)
            tasks[key] = Task(key, "training", titles[recipe.key], (before,), work, (train, recipe, workspace))
        return key

    for run_key, cell in missing.items():
        recipes = [source.recipe for source in cell.plan.sources if not source.itself]
        if (own := recipe_to_train(cell.plan)) is not None:
            recipes.insert(0, own)
        needs = tuple(dict.fromkeys(need(recipe) for recipe in recipes)) or (data,)
        work = evaluation_work(cell.plan, grid.dataset)
        key = f"evaluate-{run_key}"
        slices = cut(cell.plan.evaluation, slice_images)
        if not slices:
            tasks[key] = Task(key, "evaluation", cell.title, needs, work, (evaluate, cell.plan, workspace))
            continue
        made = [_slice_task(cell, rows, needs, work, workspace) for rows in slices]
        tasks |= {task.key: task for task in made}
        joins = tuple(task.key for task in made)
        tasks[key] = Task(key, "evaluation", cell.title, joins, 0.0, (join, cell.plan, slices, workspace))
    return tasks, len(cells) - len(missing)


def _slice_task(cell: PlannedCell, rows: slice, needs: tuple[str, ...], work: float, workspace: Workspace) -> Task:
    """The task of one slice of an evaluation. If its file exists, the task only checks it and counts as no work."""
    evaluation = cell.plan.evaluation
    there = slice_path(workspace.results, evaluation, rows).exists()
    left = 0.0 if there else work * (rows.stop - rows.start) / evaluation.dataset.n
    title = f"{cell.title}, images {rows.start} to {rows.stop - 1}"
    key = f"slice-{cell.run_key}-{rows.start}-{rows.stop}"
    return Task(key, "slice", title, needs, left, (evaluate_slice, cell.plan, rows, workspace))


@contextmanager
def _client(cluster: Cluster, *, threads: int, watcher: Watcher) -> Iterator[Any]:
    from odebench.sweep.cluster import local_cluster, remote_cluster

    opened: AbstractContextManager[Any]
    if cluster.address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        opened = local_cluster(cluster.workers or max(1, cores // threads), threads=threads)
    else:
        opened = remote_cluster(cluster.address, tls=cluster.tls, say=watcher.say)
    with opened as client:
        yield client


def _conduct(client: Any, state: State, watcher: Watcher) -> None:
    """Submits the graph to the scheduler and updates `state` until all tasks have ended."""
    from odebench.sweep import cluster

    topic = f"{_TOPIC}-{uuid.uuid4().hex}"
    client.subscribe_topic(topic, lambda event: state.running.add(event[1]["key"]))
    futures: dict[str, Any] = {}
    ranks = {key: rank for rank, key in enumerate(sorted(state.tasks, key=lambda key: -state.tasks[key].work))}
    for key, task in state.tasks.items():
        function, *arguments = task.call
        futures[key] = client.submit(
            _run_task,
            function,
            arguments,
            key,
            topic,
            [futures[needed] for needed in task.needs],
            key=f"{task.kind}-{key}-{topic}",
            pure=False,
            # trainings first, since others wait for them; then the cheapest tasks, so that there are figures soon
            priority=ranks[key] + (len(ranks) if task.kind in ("data", "training") else 0),
        )
    waiting, heard = dict(futures), time.monotonic()
    while waiting:
        watcher.look(state)
        time.sleep(_POLL_SECONDS)
        silent = time.monotonic() - heard > cluster.SILENT_SECONDS
        if silent:
            heard = time.monotonic()
        if client.status != "running" or (silent and not cluster.answers(client)):
            raise SweepError("the scheduler is gone; what is finished is kept: start a scheduler and the sweep again")
        for key in [key for key, future in waiting.items() if future.done()]:
            if any(needed in waiting for needed in state.tasks[key].needs):
                continue  # a task that it needs has ended meanwhile and comes first: its reason may be this one's
            future = waiting.pop(key)
            reason = None if future.status == "finished" else _reason(future, state, state.tasks[key])
            if reason is None:
                state.done.add(key)
            else:
                state.failed[key] = reason
            state.running.discard(key)
            watcher.done(state.tasks[key], state)
    watcher.look(state)


def _run_task(function: Any, arguments: list[Any], key: str, topic: str, needed: list[None]) -> None:
    """Runs a task in a worker, and tells the sweep that it has begun."""
    from distributed import get_worker

    get_worker().log_event(topic, {"key": key})
    function(*arguments)


def _reason(future: Any, state: State, task: Task) -> str:
    """Why a task has failed, in one line; for one that could not begin, the failed task that it needed."""
    for needed in task.needs:
        if needed in state.failed:
            root = state.failed[needed]
            return root if " failed: " in root else f"{state.tasks[needed].title} failed: {root}"
    error = future.exception(timeout=5) if future.status == "error" else None
    if isinstance(error, TaskError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return "its worker died every time it was tried: out of memory, or killed from outside"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}" if error else f"it was {future.status}"
