"""Publishing a sweep: which files are copied, what is never replaced silently, and what a fresh clone then knows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cpu_time import seconds_of_children
from weights_factory import written

from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.evaluation.evaluate import run
from odebench.io.files import FileError, sha256_file
from odebench.io.folders import PublishedFolder
from odebench.protocol.recipe import weights_path
from odebench.result.file import read_result, result_json
from odebench.result.schema import EpsilonResult, letter_figures, outcomes_digest
from odebench.sweep import publish
from odebench.sweep.completed import completed_results
from odebench.sweep.protocol_cells import Grid, read_grid
from odebench.sweep.publish import PublicationError, publication_of
from odebench.sweep.scheduler import workspace_of
from odebench.sweep.task import Workspace

PROTOCOL = """\
name: tiny
version: 1
summary: as little as can be
dataset: {name: digits, n: 20}
chunk: 20
recipes: {kd-ode: {epochs: 1}}
sections:
  - name: only
    models: [kd-ode]
    horizons: [0.5]
    train_seeds: [0]
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: fgsm}, {name: transfer}]
"""


def swept(folder: Path) -> tuple[Grid, Workspace]:
    """A grid whose results and weights are all in `folder`, as a sweep leaves them; the weights are untrained."""
    (folder / "tiny.yaml").write_text(PROTOCOL, encoding="utf-8")
    grid = read_grid(str(folder / "tiny.yaml"))
    for training in grid.trainings:
        written(training.recipe, folder / "cache" / "weights")
    data = load_dataset("digits")
    for cell in grid.evaluations.values():
        run(cell.plan, data, results=folder / "results")
    (folder / "leaderboard").mkdir()
    return grid, workspace_of(grid, results=folder / "results", data_dir=None, device="cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODEBENCH_CACHE", str(folder / "cache"))
        swept(folder)
    return folder


@pytest.fixture
def here(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished sweep, which is the working folder."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid_and_place(folder: Path) -> tuple[Grid, Workspace]:
    grid = read_grid(str(folder / "tiny.yaml"))
    return grid, workspace_of(grid, results=folder / "results", data_dir=None, device="cpu")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered(path: Path) -> None:
    """Writes the same evaluation with another image fallen."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    item = stored["epsilons"][0]
    index = item["outcomes"].index("r") if "r" in item["outcomes"] else item["outcomes"].index("f")
    width = stored["schema_version"]
    letter, felled = (
        ("f", next(iter(item["felled_by"]["legend"]))) if item["outcomes"][index] == "r" else ("r", "-" * width)
    )
    item["outcomes"] = item["outcomes"][:index] + letter + item["outcomes"][index + 1 :]
    by = item["felled_by"]
    by["letters"] = by["letters"][: width * index] + felled + by["letters"][width * (index + 1) :]
    item["figures"] |= {name: figure.model_dump() for name, figure in letter_figures(item["outcomes"]).items()}
    stored["outcomes_sha256"] = outcomes_digest((EpsilonResult.model_validate_json(json.dumps(item)),))
    path.write_text(json.dumps(stored), encoding="utf-8")
    read_result(path)


def test_results_and_the_weights_of_models_teachers_and_sources_are_copied(here: Path) -> None:
    grid, place = grid_and_place(here)
    found = publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    assert files(here / "leaderboard") == {}, "nothing is written before it is asked for"
    assert (len(found.results), len(found.weights), found.there) == (2, 2, 0)
    size = found.make()
    expected = {f"results/{name}": data for name, data in files(here / "results").items()}
    expected |= {f"weights/{name}": data for name, data in files(here / "cache" / "weights").items()}
    copied = files(here / "leaderboard")
    listed = copied.pop("weights/SHA256SUMS").decode()
    assert copied == expected
    assert size == sum(map(len, expected.values()))
    assert len(listed.splitlines()) == 2
    student = grid.cells[0].plan.recipe
    assert student.teacher is not None
    for recipe in (student, student.teacher):
        assert weights_path(recipe, here / "leaderboard" / "weights").exists()
    again = publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    assert (again.results, again.weights, again.there) == ({}, {}, 4)


def test_a_source_that_is_no_teacher_is_copied_too(here: Path) -> None:
    path = here / "tiny.yaml"
    path.write_text(
        PROTOCOL.replace("[kd-ode]", "[ode-ablated]")
        .replace("kd-ode:", "ode-ablated:")
        .replace("    horizons: [0.5]\n", "")
    )
    grid, place = grid_and_place(here)
    for training in grid.trainings:
        written(training.recipe, here / "cache" / "weights")
    for cell in grid.evaluations.values():
        run(cell.plan, load_dataset("digits"), results=place.results)
    targets = {
        path.stem for path in publication_of(grid, place, PublishedFolder(here / "leaderboard")).weights.values()
    }
    assert targets == {grid.cells[0].plan.recipe.key, grid.cells[1].plan.sources[0].recipe.key}


def test_the_same_letters_found_again_are_the_same_result(here: Path) -> None:
    grid, place = grid_and_place(here)
    publication_of(grid, place, PublishedFolder(here / "leaderboard")).make()
    before = files(here / "leaderboard")
    for path in place.results.rglob("*.json"):
        result = read_result(path)
        path.write_text(
            result_json(result.model_copy(update={"created": "2099-01-01T00:00:00+00:00"})), encoding="utf-8"
        )
    assert publication_of(grid, place, PublishedFolder(here / "leaderboard")).make() == 0
    assert files(here / "leaderboard") == before


@pytest.mark.parametrize("damage", ["letters", "torn"])
def test_a_result_that_differs_is_named_and_replaced_by_force_alone(here: Path, damage: str) -> None:
    grid, place = grid_and_place(here)
    publication_of(grid, place, PublishedFolder(here / "leaderboard")).make()
    before = files(here / "leaderboard")
    path = next((here / "leaderboard" / "results").rglob("*fgsm*.json"))
    altered(path) if damage == "letters" else path.write_text("{", encoding="utf-8")
    spoilt = files(here / "leaderboard")
    with pytest.raises(
        PublicationError, match=r"is there with other letters, data or weights than .*; --force"
    ) as raised:
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    assert str(path) in str(raised.value)
    assert files(here / "leaderboard") == spoilt
    publication_of(grid, place, PublishedFolder(here / "leaderboard"), replace=True).make()
    assert files(here / "leaderboard") == before


def test_weights_that_differ_are_named_and_replaced_by_force_alone(here: Path) -> None:
    grid, place = grid_and_place(here)
    target = weights_path(grid.trainings[0].recipe, here / "leaderboard" / "weights")
    target.parent.mkdir()
    target.write_bytes(b"other")
    with pytest.raises(PublicationError, match=r"is there with other bytes than .*; --force replaces it"):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    publication_of(grid, place, PublishedFolder(here / "leaderboard"), replace=True).make()
    assert target.read_bytes() == weights_path(grid.trainings[0].recipe, place.weights[0]).read_bytes()


def test_a_published_result_that_stays_must_rest_on_the_same_weights(here: Path) -> None:
    grid, place = grid_and_place(here)
    (here / "other.yaml").write_text(PROTOCOL.replace("n: 20}", "n: 40}"), encoding="utf-8")
    other = read_grid(str(here / "other.yaml")).cells[0].plan
    own = weights_path(other.recipe)
    kept = own.read_bytes()
    written(other.recipe, own.parent, shift=0.01)
    _, path, _ = run(other, load_dataset("digits"), results=here / "leaderboard" / "results")
    own.write_bytes(kept)
    for force in (False, True):
        with pytest.raises(PublicationError, match="was found with other weights") as raised:
            publication_of(grid, place, PublishedFolder(here / "leaderboard"), replace=force)
        assert str(path) in str(raised.value)


def test_a_published_result_that_stays_must_rest_on_the_same_sources(here: Path) -> None:
    grid, place = grid_and_place(here)
    publication_of(grid, place, PublishedFolder(here / "leaderboard")).make()
    teacher = grid.cells[0].plan.recipe.teacher
    assert teacher is not None
    (transfer,) = (cell for cell in grid.evaluations.values() if cell.plan.evaluation.attack.name == "transfer")
    (here / "other.yaml").write_text(PROTOCOL.replace("n: 20}", "n: 40}"), encoding="utf-8")
    other = read_grid(str(here / "other.yaml"))
    (same,) = (cell.plan for cell in other.evaluations.values() if cell.plan.evaluation.attack.name == "transfer")
    _, path, _ = run(same, load_dataset("digits"), results=here / "leaderboard" / "results")
    (digest,) = read_result(path).found.sources_sha256.values()
    written(teacher, place.weights[0], shift=0.01)
    run(transfer.plan, load_dataset("digits"), results=place.results, force=True)
    with pytest.raises(PublicationError, match=f"with candidates of .* with other weights .{digest[:12]}.") as raised:
        publication_of(grid, place, PublishedFolder(here / "leaderboard"), replace=True)
    assert str(path) in str(raised.value)
    path.unlink()
    assert publication_of(grid, place, PublishedFolder(here / "leaderboard"), replace=True).make()


def test_what_is_missing_or_does_not_belong_together_is_said(here: Path) -> None:
    grid, place = grid_and_place(here)
    student, teacher = grid.cells[0].plan.recipe, grid.cells[0].plan.recipe.teacher
    assert teacher is not None
    path = weights_path(teacher, place.weights[0])
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(PublicationError, match="the weights of the teacher of kd-ode seed 0 are neither in"):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    written(teacher, place.weights[0], shift=0.01)
    with pytest.raises(
        PublicationError, match=r"transfer in linf: found with weights .* of the teacher of kd-ode seed 0, but"
    ):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    path.write_bytes(whole)
    publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    next(place.results.rglob("*fgsm*")).unlink()
    with pytest.raises(PublicationError, match="1 of 2 results are missing"):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    assert files(here / "leaderboard") == {}
    assert student.key != teacher.key


def test_too_many_bytes_of_weights_and_results_are_refused(here: Path) -> None:
    grid, place = grid_and_place(here)
    coming = [*place.weights[0].glob("*.safetensors"), *place.results.rglob("*.json")]
    assert len(coming) == 4
    own = sum(path.stat().st_size for path in coming)
    large = here / "leaderboard" / "weights" / f"{'0' * 64}.safetensors"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(30_000_000 - own)
    assert len(publication_of(grid, place, PublishedFolder(here / "leaderboard")).weights) == 2
    publication_of(grid, place, PublishedFolder(here / "leaderboard")).make()
    publication_of(grid, place, PublishedFolder(here / "leaderboard"))  # what lies there is not counted twice
    with large.open("ab") as file:
        file.truncate(30_000_001 - own)
    with pytest.raises(PublicationError, match="of weights and results"):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))
    with large.open("ab") as file:
        file.truncate(30_010_000 - own)
    refused = r"would hold 30\.01 MB of weights and results, more than the 30 MB that may be published"
    with pytest.raises(PublicationError, match=refused):
        publication_of(grid, place, PublishedFolder(here / "leaderboard"))


def test_results_without_weights_are_published_apart(here: Path) -> None:
    path = here / "tiny.yaml"
    path.write_text(PROTOCOL.replace("chunk: 20", "chunk: 20\nweights: false"), encoding="utf-8")
    grid, place = grid_and_place(here)
    folder = PublishedFolder(here / "leaderboard")
    publication = publication_of(grid, place, folder)
    publication.make()
    assert (len(publication.results), publication.weights) == (2, {})
    assert {name.split("/")[0] for name in files(folder.path)} == {"study"}
    shutil.rmtree(here / "results")
    shutil.rmtree(here / "cache")
    elsewhere = replace(place, published=folder, counts_published=True)
    assert set(completed_results(grid, elsewhere)) == set(grid.evaluations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "MAX_STUDY_BYTES", 1000)
        with pytest.raises(PublicationError, match=r"would hold 0\.01 MB of results without weights"):
            publication_of(grid, elsewhere, folder)


def test_a_full_disk_leaves_no_result_without_its_weights(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import odebench.sweep.publish as deposit

    grid, place = grid_and_place(here)
    real, left = deposit.write_atomically, [3]

    def full(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise FileError("no space")
        real(path, data)

    monkeypatch.setattr(deposit, "write_atomically", full)
    with pytest.raises(FileError):
        publication_of(grid, place, PublishedFolder(here / "leaderboard")).make()
    weights = here / "leaderboard" / "weights"
    assert len(list(weights.glob("*.safetensors"))) == 2
    listed = (weights / "SHA256SUMS").read_text(encoding="ascii")
    assert listed == "".join(f"{sha256_file(one)}  {one.name}\n" for one in sorted(weights.glob("*.safetensors")))
    monkeypatch.undo()
    monkeypatch.setenv("ODEBENCH_CACHE", str(here / "cache"))
    assert publication_of(grid, replace(place), PublishedFolder(here / "leaderboard")).there == 3


# --- the command -------------------------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    capsys.readouterr()
    code = _exit_code()
    return code, *capsys.readouterr()


def test_sweep_takes_some_sections_and_names_them(here: Path, monkeypatch: Any, capsys: Any) -> None:
    other = PROTOCOL.split("sections:\n")[1].replace("only", "other").replace("[0.5]", "[1]")
    (here / "tiny.yaml").write_text(PROTOCOL + other, encoding="utf-8")
    said = "tiny 1 (only): nothing to do: all 2 results are in results\n"
    assert call(monkeypatch, capsys, "sweep", "tiny.yaml", "--section", "only") == (0, said, "")
    code, out, err = call(monkeypatch, capsys, "sweep", "tiny.yaml", "--section", "only", "--section", "oter")
    assert (code, out) == (2, "")
    assert err == "odebench: unknown section 'oter'; did you mean 'other'? known: only, other\n"


def test_a_section_alone_is_published(here: Path, monkeypatch: Any, capsys: Any) -> None:
    other = PROTOCOL.split("sections:\n")[1].replace("only", "other").replace("{name: fgsm}, ", "")
    (here / "tiny.yaml").write_text(PROTOCOL + other, encoding="utf-8")
    assert call(monkeypatch, capsys, "sweep", "tiny.yaml", "--section", "other", "--publish")[0] == 0
    published = {Path(name).name[:12] for name in files(here / "leaderboard") if name.startswith("results")}
    assert published == {"digits-trans"}


def test_sweep_publish_copies_and_writes_the_board(here: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, err = call(monkeypatch, capsys, "sweep", "tiny.yaml", "--publish")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tiny 1: nothing to do: all 2 results are in results"
    size = sum(len(data) for name, data in files(here / "leaderboard").items() if name.startswith(("res", "wei")))
    assert lines[1] == f"tiny 1: 2 results and 2 files of weights ({size / 1e6:.2f} MB) published"
    assert lines[2] == "leaderboard/LEADERBOARD.md"
    assert call(monkeypatch, capsys, "leaderboard", "--check") == (0, "leaderboard is up to date\n", "")
    path = next((here / "leaderboard" / "results").rglob("*fgsm*.json"))
    altered(path)
    code, _, err = call(monkeypatch, capsys, "sweep", "tiny.yaml", "--publish")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"odebench: {path.relative_to(here)} is there with other letters")
    code, out, err = call(monkeypatch, capsys, "sweep", "tiny.yaml", "--publish", "--force")
    assert (code, err) == (0, "")
    assert "1 result and 0 files of weights" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--force"], "--force goes with --publish"),
        (["--publish"], "there is no folder leaderboard here; --publish is for a checkout of odebench"),
    ],
)
def test_publishing_is_for_a_checkout(
    here: Path, monkeypatch: Any, capsys: Any, words: list[str], message: str
) -> None:
    (here / "leaderboard").rmdir()
    code, out, err = call(monkeypatch, capsys, "sweep", "tiny.yaml", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_nothing_is_published_where_a_cell_failed(here: Path) -> None:
    next((here / "results").rglob("*fgsm*.json")).write_text("{", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "odebench", "sweep", "tiny.yaml", "--publish", "--workers", "1"],
        cwd=here,
        env=os.environ | {"ODEBENCH_CACHE": str(here / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "tiny 1: 0 results written to results, 1 were there, 1 failed\n")
    assert done.stderr.splitlines()[-1] == "odebench: nothing is published, since not everything is done"
    assert files(here / "leaderboard") == {}


def test_a_fresh_clone_knows_what_is_done_in_seconds_and_without_torch(here: Path, tmp_path: Path) -> None:
    grid, place = grid_and_place(here)
    clone = here / "clone"
    publication_of(grid, place, PublishedFolder(clone / "leaderboard")).make()
    shutil.copy(here / "tiny.yaml", clone)
    code = (
        "import sys; from odebench.cli import _exit_code\n"
        "sys.argv = ['odebench', 'sweep', 'tiny.yaml']\n"
        "code = _exit_code(); assert 'torch' not in sys.modules and 'distributed' not in sys.modules; sys.exit(code)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ODEBENCH_LEADERBOARD"}
    before = seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone,
        env=environment | {"ODEBENCH_CACHE": str(here / "empty")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert seconds_of_children() - before < 5
    said = "tiny 1: nothing to do: all 2 results are in leaderboard/results\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert not (clone / "results").exists()
    assert not (here / "empty").exists()
