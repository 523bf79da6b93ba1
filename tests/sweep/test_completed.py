"""Published weights and results: where they are looked for, and when they count."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import Told
from weights_factory import written

import odebench
from odebench.dataset import load_dataset
from odebench.errors import WeightError
from odebench.evaluation.evaluate import run
from odebench.io.files import sha256_file
from odebench.io.folders import PublishedFolder, published_folder
from odebench.model.training import find_or_train
from odebench.protocol.recipe import Recipe, TrainedOn, find_weights, note_training, trained_on, weights_path
from odebench.result.file import read_result, result_json
from odebench.sweep.completed import completed_results
from odebench.sweep.protocol_cells import Grid, read_grid
from odebench.sweep.scheduler import tasks_of, workspace_of

ROOT = Path(__file__).parents[2]
PROTOCOL = """\
name: tiny
version: 1
summary: as little as can be
dataset: {name: digits, n: 100}
recipes: {resnet: {epochs: 1}}
sections:
  - name: only
    models: [resnet]
    train_seeds: [0]
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: fgsm}, {name: noise}]
"""


def grid_in(folder: Path) -> Grid:
    path = folder / "tiny.yaml"
    path.write_text(PROTOCOL, encoding="utf-8")
    return read_grid(str(path))


def recipe_of(grid: Grid) -> Recipe:
    return grid.cells[0].plan.recipe


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published folder that is the one to look in, empty as yet."""
    folder = tmp_path / "published"
    (folder / "results").mkdir(parents=True)
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(folder))
    return folder


def untouchable(*_: object, **__: object) -> None:
    raise AssertionError("nothing must be trained")


# --- the folder --------------------------------------------------------------------------------------------------


def test_the_published_folder_is_the_given_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published_folder() is None, "tests see nothing that is published unless they ask for it"
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path / "mine"))
    assert published_folder() is None
    (tmp_path / "mine" / "results").mkdir(parents=True)
    assert published_folder() == PublishedFolder(tmp_path / "mine")


def test_without_a_word_it_is_that_of_the_working_folder_or_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ODEBENCH_LEADERBOARD")
    monkeypatch.chdir(tmp_path)
    in_checkout = Path(odebench.__file__).is_relative_to(ROOT)
    assert published_folder() == (PublishedFolder(ROOT / "leaderboard") if in_checkout else None)
    (tmp_path / "leaderboard" / "results").mkdir(parents=True)
    assert published_folder() == PublishedFolder(Path("leaderboard"))


LOOK = """
import sys
from pathlib import Path
from odebench.sweep.protocol_cells import read_grid
from odebench.protocol.recipe import find_weights
from odebench.io.folders import published_folder
folder, found = published_folder(), find_weights(read_grid(sys.argv[1]).cells[0].plan.recipe)
assert "torch" not in sys.modules
print(folder and folder.path, found, sep="\\n")
"""


def test_a_checkout_finds_what_it_brings_and_an_installed_package_nothing(tmp_path: Path) -> None:
    grid = grid_in(tmp_path)
    for place in ("checkout", "site"):
        shutil.copytree(ROOT / "odebench", tmp_path / place / "odebench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "checkout" / "leaderboard" / "results").mkdir(parents=True)
    brought = written(recipe_of(grid), tmp_path / "checkout" / "leaderboard" / "weights")
    (tmp_path / "elsewhere").mkdir()
    said = {}
    for place in ("checkout", "site"):
        environment = {name: value for name, value in os.environ.items() if name != "ODEBENCH_LEADERBOARD"}
        done = subprocess.run(
            [sys.executable, "-c", LOOK, str(tmp_path / "tiny.yaml")],
            cwd=tmp_path / "elsewhere",
            env=environment | {"PYTHONPATH": str(tmp_path / place)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said[place] = done.stdout.split("\n")[:2]
    assert said == {
        "checkout": [str(tmp_path / "checkout" / "leaderboard"), str(brought)],
        "site": ["None", "None"],
    }


# --- weights -----------------------------------------------------------------------------------------------------


def test_published_weights_are_used_as_they_are_before_the_cache(
    tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = recipe_of(grid_in(tmp_path)), load_dataset("digits")
    assert find_weights(recipe) is None
    theirs = written(recipe, published / "weights", shift=0.5)
    monkeypatch.setattr("odebench.model.training._Training", untouchable)
    told = Told()
    found = find_or_train(recipe, data, progress=told)
    assert (found.path, found.weights_sha256) == (theirs, sha256_file(theirs))
    assert [line.partition(":")[2] for line in told.lines] == [
        f" not needed, published weights are used ({theirs.parent})"
    ]
    assert not (tmp_path / "cache" / "weights").exists()
    own = written(recipe, tmp_path / "cache" / "weights")
    assert find_or_train(recipe, data).path == theirs
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "")
    assert find_or_train(recipe, data, progress=(quiet := Told())).path == own
    assert quiet.lines == []
    monkeypatch.undo()
    folder = tmp_path / "given"
    assert find_or_train(recipe, data, folder=folder).path.parent == folder, "a folder that is given is the only one"


def test_what_trained_published_weights_is_known_where_the_same_were_trained_here(
    tmp_path: Path, published: Path
) -> None:
    recipe = recipe_of(grid_in(tmp_path))
    theirs, own = (written(recipe, folder / "weights") for folder in (published, tmp_path / "cache"))
    assert trained_on(theirs) is None
    note_training(own, TrainedOn(device="cpu", torch="2.14.1"))
    assert trained_on(theirs) == TrainedOn(device="cpu", torch="2.14.1")
    written(recipe, tmp_path / "cache" / "weights", shift=0.1)
    assert trained_on(theirs) is None, "other bytes"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "is not a whole safetensors file"),
        (lambda data: b"PK\x03\x04" + data[4:], "is a pickle"),
        (lambda data: data.replace(b'\\"train_seed\\":0', b'\\"train_seed\\":7'), "was not trained by the recipe"),
    ],
)
def test_published_weights_that_do_not_fit_are_named(tmp_path: Path, published: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    recipe = recipe_of(grid_in(tmp_path))
    path = written(recipe, published / "weights")
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    assert path.read_bytes() != whole
    with pytest.raises(WeightError, match=message) as raised:
        find_or_train(recipe, load_dataset("digits"))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


# --- results -----------------------------------------------------------------------------------------------------


def test_a_published_result_counts_where_results_go_to_the_usual_folder(tmp_path: Path, published: Path) -> None:
    grid = grid_in(tmp_path)
    weights = written(recipe_of(grid), published / "weights")
    data = load_dataset("digits")
    result, path, _ = run(grid.cells[0].plan, data, results=published / "results")
    assert result.found.weights_sha256 == sha256_file(weights)
    usual = workspace_of(grid, results=tmp_path / "results", data_dir=None, device="cpu", counts_published=True)
    other = workspace_of(grid, results=tmp_path / "other", data_dir=None, device="cpu")
    assert completed_results(grid, usual) == {result.run_key: path}
    assert [task.kind for task in tasks_of(grid, usual)[0].values()] == ["data", "evaluation"]
    assert completed_results(grid, other) == {}
    assert [task.kind for task in tasks_of(grid, other)[0].values()] == ["data", "evaluation", "evaluation"]

    again, own, new = run(grid.cells[0].plan, data, results=tmp_path / "results")
    assert new
    assert again.epsilons == result.epsilons
    assert completed_results(grid, usual) == {result.run_key: own}, "what was run here comes first"


def test_a_published_result_of_other_weights_than_those_at_hand_does_not_count(tmp_path: Path, published: Path) -> None:
    grid = grid_in(tmp_path)
    written(recipe_of(grid), published / "weights")
    result, path, _ = run(grid.cells[0].plan, load_dataset("digits"), results=published / "results")
    place = workspace_of(grid, results=tmp_path / "results", data_dir=None, device="cpu", counts_published=True)
    written(recipe_of(grid), tmp_path / "cache" / "weights", shift=0.2)
    assert completed_results(grid, place) == {result.run_key: path}, "published weights come first"
    kept = weights_path(recipe_of(grid), published / "weights").read_bytes()
    written(recipe_of(grid), published / "weights", shift=0.1)
    assert completed_results(grid, place) == {}
    weights_path(recipe_of(grid), published / "weights").write_bytes(kept)
    weights_path(recipe_of(grid), tmp_path / "cache" / "weights").unlink()
    assert completed_results(grid, place) == {result.run_key: path}
    other, last, _ = run(grid.cells[1].plan, load_dataset("digits"), results=published / "results")
    weights_path(recipe_of(grid), published / "weights").unlink()
    everything = {result.run_key: path, other.run_key: last}
    assert completed_results(grid, place) == everything, "weights that nobody has contradict nothing"
    last.unlink()
    assert completed_results(grid, place) == {}, "but would be trained for the cell that is missing"


@pytest.mark.parametrize("damage", ["torn", "another evaluation"])
def test_a_published_result_that_is_damaged_does_not_count(tmp_path: Path, published: Path, damage: str) -> None:
    grid = grid_in(tmp_path)
    written(recipe_of(grid), published / "weights")
    _, path, _ = run(grid.cells[0].plan, load_dataset("digits"), results=published / "results")
    text = result_json(read_result(path))
    if damage == "torn":
        path.write_text(text[:-9], encoding="utf-8")
    else:
        other = json.loads(text)
        other["evaluation"]["attack"]["seed"] = 5
        path.write_text(json.dumps(other), encoding="utf-8")
    place = workspace_of(grid, results=tmp_path / "results", data_dir=None, device="cpu", counts_published=True)
    assert completed_results(grid, place) == {}
