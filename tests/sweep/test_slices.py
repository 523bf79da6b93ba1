"""Sweeps that cut their evaluations: the same results as in one piece, whoever dies in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_desk import GOOD, Desk, contents, desk, own_grid, place_in, wait_for, workers_of

from odebench.result.file import result_files
from odebench.sweep.scheduler import tasks_of
from odebench.sweep.task import evaluate, evaluate_slice, join, train

CUT = GOOD.replace("name: noise", "name: pgd, n: 300")


def test_large_evaluations_become_slices_and_a_join(tmp_path: Path) -> None:
    grid, place = own_grid(tmp_path, CUT), place_in(tmp_path)
    whole, _ = tasks_of(grid, place)
    tasks, _ = tasks_of(grid, place, slice_images=100)
    titles = {task.key: task.title for task in tasks.values()}
    needs = {task.title: [titles[key] for key in task.needs] for task in tasks.values() if "ablated" not in task.title}
    title, training = "ode T=0.5 seed 0, pgd in linf", ["training ode T=0.5 seed 0"]
    slices = [f"{title}, images {first} to {first + 99}" for first in (0, 100, 200)]
    assert needs == {
        "looking at digits": [],
        "training ode T=0.5 seed 0": ["looking at digits"],
        "ode T=0.5 seed 0, fgsm in linf": training,
        **{one: training for one in slices},
        title: slices,
    }
    kinds = [task.kind for task in tasks.values()]
    assert (kinds.count("evaluation"), kinds.count("slice")) == (4, 6)
    assert sum(task.work for task in tasks.values()) == pytest.approx(sum(task.work for task in whole.values()))


def test_the_tasks_of_slices_write_what_one_task_writes_and_leave_nothing_else(tmp_path: Path) -> None:
    short = CUT.replace("[ode, ode-ablated]", "[ode]").replace("pgd", "noise, parameters: {draws: 2}")
    grid, place = own_grid(tmp_path, short), place_in(tmp_path)
    train(grid.cells[0].plan.recipe, place)
    tasks, _ = tasks_of(grid, place, slice_images=200)
    calls = [task.call for task in tasks.values() if task.kind == "slice"]
    (last,) = (task for task in tasks.values() if task.call[0] is join)
    assert [call[0] for call in calls] == [evaluate_slice, evaluate_slice]
    for function, *arguments in calls:
        function(*arguments)
    again, _ = tasks_of(grid, place, slice_images=200)
    assert [task.work for task in again.values() if task.kind == "slice"] == [0, 0]
    join(*last.call[1:])
    (path,) = result_files(place.results)
    assert [file for file in place.results.rglob("*") if file.is_file()] == [path]
    found = contents(place.results)
    path.unlink()
    function, *arguments = calls[0]
    function(*arguments)
    evaluate(last.call[1], place)
    assert contents(place.results) == found
    assert [file for file in place.results.rglob("*") if file.is_file()] == [path], "slices that nobody needs are gone"


def test_the_command_refuses_a_slice_of_nothing(tmp_path: Path) -> None:
    place = desk(tmp_path)
    code, _, err = place.type("sweep", place.protocol(CUT), "--slice-images", "0")
    assert code == 2
    assert "is not in the range x>=1" in " ".join(err.split()) or "it must be at least 1" in err


def slices(place: Desk) -> list[Path]:
    return list(place.results.glob(".slices/*/*.safetensors"))


@pytest.mark.slow
def test_a_sweep_in_slices_that_is_killed_goes_on_to_the_same_results(tmp_path: Path) -> None:
    sections = CUT.replace("name: fgsm", "name: worst-case, n: 200")
    whole, apart = desk(tmp_path / "whole"), desk(tmp_path / "apart")
    code, out, err = whole.type("sweep", whole.protocol(sections), "--workers", "2")
    assert code == 0, err
    words = ("sweep", apart.protocol(sections), "--workers", "2", "--slice-images", "100")
    process = apart.begin(*words)
    wait_for(lambda: len(slices(apart)) >= 1)
    workers_of(process)[0].kill()
    wait_for(lambda: len(slices(apart)) >= 2)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(worker.is_running() for worker in workers), seconds=20)
    kept: dict[Path, Any] = {path: path.stat().st_mtime_ns for path in slices(apart)}
    assert kept
    code, said, err = apart.type(*words)
    assert code == 0, err
    assert said.startswith("tiny 1: ")
    assert slices(apart) == []
    assert contents(apart.results) == contents(whole.results)
    assert json.dumps(contents(apart.results)) == json.dumps(contents(whole.results)), "the order of keys, too"
    second = apart.type(*words)
    assert second == (0, "tiny 1: nothing to do: all 4 results are in results\n", "")
    assert out == "tiny 1: 4 results written to results\n"
