"""The commands as a user types them: what they print, what they write, what they do not do twice."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cpu_time import seconds_of_children
from entry_factory import change_entry, write_entry
from result_factory import make_result

import odebench as package
from odebench.analysis.claims import ClaimVerdict
from odebench.attack.builtin import WORST_CASE
from odebench.attack.registry import ATTACKS
from odebench.cli import _exit_code, app
from odebench.cli.console import ScreenProgress, print_finding, print_result
from odebench.cli.glossary import VERDICTS, explained
from odebench.cli.options import settings, solver
from odebench.cli.verify import _show as show_verification
from odebench.dataset import builtin, idx
from odebench.dataset.registry import DATASETS
from odebench.errors import UsageError
from odebench.leaderboard.figures import CARRY_OVER, carried_figures
from odebench.model.definition import load_definition
from odebench.model.registry import MODELS
from odebench.protocol.spec import Solver, adaptive, fixed_step
from odebench.result.file import read_result, write_result
from odebench.result.outcome import MEANINGS, OUTCOMES, CheckId, Flag
from odebench.result.schema import Result
from odebench.submission.entry import read_entry
from odebench.submission.finding import Finding
from odebench.submission.training_words import entry_words
from odebench.submission.verification.verify import Verification

FEW = ("-n", "20", "--chunk", "20")
SHORT = ("--set", "epochs=1", "--set", "teacher_epochs=4", *FEW)
MAIN_PATH = ("run", "--model", "kd-ode", "--attack", "pgd", *SHORT)
TEACHER = ("run", "-m", "resnet", "-a", "fgsm", "--set", "epochs=4")
SCRIPT = Path(sys.executable).with_name("odebench")
COMMANDS = (
    *("run", "train", "show", "diagnose", "leaderboard", "models", "attacks", "datasets", "info"),
    *("judge", "sweep", "protocols", "examples", "claims", "compare", "schema"),
    *("new-entry", "validate", "verify", "check-pr"),
)
"""In the order of the help: everyday ones, studies, submitting a model."""


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """An empty folder that a user works in, with a home and a cache beside it."""

    folder: Path
    cache: Path
    environment: dict[str, str]

    def type(self, *words: str, **more: str) -> Said:
        """Runs the command as a process of its own."""
        command = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "odebench"]
        done = subprocess.run(
            [*command, *words],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Said(done.returncode, done.stdout, done.stderr)


def new_place(top: Path) -> Place:
    for name in ("work", "home"):
        (top / name).mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    return Place(
        top / "work",
        top / "cache",
        {
            **kept,
            "HOME": str(top / "home"),
            "ODEBENCH_CACHE": str(top / "cache"),
            "ODEBENCH_LEADERBOARD": "",
            "OMP_NUM_THREADS": "1",
        },
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return new_place(tmp_path)


@pytest.fixture(scope="session")
def main_path(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Said]:
    """The first command of the README, shortened, in an empty folder."""
    place = new_place(tmp_path_factory.mktemp("main"))
    return place, place.type(*MAIN_PATH)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command within this process."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERMINAL_WIDTH"):
        monkeypatch.delenv(name, raising=False)

    def call(*words: str | Path, place: Place | None = None) -> Said:
        if place is not None:
            monkeypatch.chdir(place.folder)
            monkeypatch.setenv("ODEBENCH_CACHE", str(place.cache))
        monkeypatch.setattr(sys, "argv", ["odebench", *map(str, words)])
        capsys.readouterr()
        code = _exit_code()
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


Call = Callable[..., Said]
MainPath = tuple[Place, Said]


def only_result(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


def widest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


# --- run ---------------------------------------------------------------------------------------------------------


def test_run_trains_attacks_and_shows_the_result(main_path: MainPath) -> None:
    place, said = main_path
    assert said.code == 0, said.err
    path = only_result(place.folder)
    result = read_result(path)
    assert path.relative_to(place.folder).parts[:2] == ("results", "kd-ode")
    lines = said.out.splitlines()
    assert lines[0] == "kd-ode on digits (test), 20 images, pgd in linf"
    assert lines[1] == "T=1, rk4 step 0.25, NFE 16 clean, 16 under attack"
    assert lines[-1] == f"result: {path.relative_to(place.folder)}"
    rows = [line.split() for line in lines if re.match(r" *0\.\d", line)]
    assert [float(row[0]) for row in rows] == [item.epsilon for item in result.epsilons] == [0.05, 0.1, 0.15]
    figures = carried_figures(result)
    for row, item in zip(rows, figures, strict=True):
        assert row[1] == f"{100 * item.clean.value:.1f}"
        assert row[4] == f"{100 * item.robust.value:.1f}"
        assert row[7:] == [str(item.fooled), "0", "0"]
    assert (CARRY_OVER in lines) == any(item.carried for item in figures)
    assert widest("\n".join(lines[:-1])) <= 80


def test_run_tells_of_its_training_and_of_the_time_on_standard_error(main_path: MainPath) -> None:
    _, said = main_path
    teacher, student, estimate, note = said.err.splitlines()
    assert note == "note: 20 of 500 images: intervals of up to ±22 points; -n 500 narrows them"
    assert re.fullmatch(r"training ResNet seed 0: trained, \d+\.\d% on the validation images", teacher)
    assert re.fullmatch(r"distilling OdeNet T=1 seed 0: trained, \d+\.\d% on the validation images", student)
    told = r"about \d+ s, at most \d+ s on free cores; then checks of the model, about \d+ s for any -n"
    assert re.fullmatch(rf"pgd on 20 images, 3 epsilons, 20 passes each: {told}", estimate)


def test_run_writes_where_it_says_and_nowhere_else(main_path: MainPath) -> None:
    place, _ = main_path
    assert list((place.folder.parent / "home").rglob("*")) == []
    kept = sorted(path.name.partition(".")[2] for path in place.cache.rglob("*") if path.is_file())
    assert kept == ["safetensors"] * 2 + ["sha256"] * 2 + ["trained-on.json"] * 2


def test_leaderboard_shows_it_without_a_path(main_path: MainPath) -> None:
    place, _ = main_path
    said = place.type("leaderboard")
    assert (said.code, said.err) == (0, "")
    for epsilon in ("0.05", "0.1", "0.15"):
        assert f"## digits (test): linf, epsilon {epsilon}, 20 images" in said.out
    robust = read_result(only_result(place.folder)).epsilons[0].figures.robust_accuracy.value
    assert f" {100 * robust:.1f} [" in said.out
    assert "| kd-ode " in said.out
    assert widest(said.out) <= 80


def test_a_second_run_computes_nothing_and_says_so(
    main_path: MainPath, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, first = main_path

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be done again")

    monkeypatch.setattr("odebench.evaluation.loading.find_or_train", refuse)
    monkeypatch.setattr("odebench.evaluation.evaluate.measure", refuse)
    before = only_result(place.folder).stat()
    said = call(*MAIN_PATH, place=place)
    assert (said.code, said.err) == (0, "")
    assert said.out.rstrip("\n") == first.out.rstrip("\n") + " (there already; --force runs it again)"
    after = only_result(place.folder).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_force_runs_it_again_to_the_same_letters(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    shutil.copytree(place.folder / "results", tmp_path / "copy")
    path = only_result(tmp_path / "copy")
    before, inode = read_result(path), path.stat().st_ino
    said = call(*MAIN_PATH, "--force", "--results", tmp_path / "copy", place=place)
    assert said.code == 0, said.err
    assert f"result: {path}\n" in said.out.replace("\n\n", "\n")
    assert "trained" not in said.err, "the weights are there"
    assert path.stat().st_ino != inode
    assert read_result(path).outcomes_sha256 == before.outcomes_sha256


def test_json_is_one_document_that_a_result_accepts(main_path: MainPath, call: Call) -> None:
    place, _ = main_path
    said = call(*MAIN_PATH, "--json", place=place)
    assert (said.code, said.err) == (0, "")
    assert Result.model_validate_json(said.out) == read_result(only_result(place.folder))
    assert said.out == only_result(place.folder).read_text()


def test_the_options_of_an_attack_reach_the_result(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    parameters = ("--parameter", "steps=2", "--parameter", "searches=1", "--attack-seed", "7")
    said = call(
        *("run", "-m", "kd-ode", "-a", "cw", *SHORT, "--epsilon", "0.5", *parameters),
        *("--results", tmp_path / "new", "--json"),
        place=place,
    )
    assert said.code == 0, said.err
    result = Result.model_validate_json(said.out)
    assert result == read_result(only_result(tmp_path / "new"))
    threat, attack = result.evaluation.threat_model, result.evaluation.attack
    assert (threat.norm, threat.epsilons) == ("l2", (0.5,)), "cw knows l2 alone, so --norm need not be given"
    assert (attack.parameters["steps"], attack.parameters["searches"], attack.seed) == (2, 1, 7)
    assert result.evaluation.model.arguments == {"train_seed": 0, "epochs": 1, "teacher_epochs": 4}


def test_run_evaluates_with_another_solver_on_the_same_weights(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    radii = ("--epsilon", "0.1", "--epsilon", "8/255")
    options = ("--solver", "euler", "--step", "0.5", *radii, "--parameter", "steps=1")
    said = call(*MAIN_PATH, *options, "--results", tmp_path / "new", "--json", place=place)
    assert said.code == 0, said.err
    assert "trained" not in said.err
    result, first = Result.model_validate_json(said.out), read_result(only_result(place.folder))
    assert result.evaluation.solver == fixed_step("euler", step=0.5)
    assert result.evaluation.threat_model.epsilons == (8 / 255, 0.1)
    assert result.found.weights_sha256 == first.found.weights_sha256
    assert result.evaluation.model == first.evaluation.model
    assert result.nfe.clean is not None
    assert result.nfe.clean.mean == 2
    shown = call(*MAIN_PATH, *options, "--results", tmp_path / "new", place=place).out.splitlines()
    assert [line.split()[0] for line in shown if line.endswith(" 0")] == ["8/255", "0.1"]


def test_run_of_a_model_without_a_field(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    said = call(*TEACHER, "-n", "100", "--results", tmp_path / "new", place=place)
    assert said.code == 0, said.err
    assert "trained" not in said.err, "kd-ode has trained its teacher"
    assert said.out.splitlines()[0] == "resnet on digits (test), 100 images, fgsm in linf"
    assert "T=" not in said.out
    result = read_result(only_result(tmp_path / "new"))
    assert (result.evaluation.horizon, result.evaluation.solver, result.nfe.clean) == (None, None, None)
    assert result.epsilons[0].figures.clean_accuracy.value > 0.9


def test_run_takes_weights_from_a_file(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    first = read_result(only_result(place.folder))
    weights = shutil.copy(
        place.cache / "weights" / f"{first.evaluation.model.weights}.safetensors", tmp_path / "mine.safetensors"
    )
    options = ("--weights", weights, "--parameter", "steps=1", "--epsilon", "0.1", "--results", tmp_path / "new")
    said = call("run", "-m", "ode", "-a", "pgd", *FEW, *options, place=place)
    assert said.code == 0, said.err
    assert "trained" not in said.err
    result = read_result(only_result(tmp_path / "new"))
    assert result.evaluation.model.weights == result.found.weights_sha256 == first.found.weights_sha256
    assert result.epsilons[0].figures.clean_accuracy == first.epsilons[0].figures.clean_accuracy


def test_run_takes_the_validation_images(main_path: MainPath, call: Call, tmp_path: Path) -> None:
    place, _ = main_path
    words = (*TEACHER, "--split", "validation", "--offset", "100", "--epsilon", "0.1")
    said = call(*words, "--results", tmp_path / "new", "--json", place=place)
    assert said.code == 0, said.err
    data = Result.model_validate_json(said.out).evaluation.dataset
    assert (data.split, data.n, data.offset) == ("validation", 100, 100)


@pytest.mark.slow
def test_the_first_command_as_the_readme_has_it(place: Place) -> None:
    said = place.type("run", "--model", "kd-ode", "--attack", "pgd")
    assert said.code == 0, said.err
    assert "kd-ode on digits (test), 500 images, pgd in linf" in said.out
    assert read_result(only_result(place.folder)).epsilons[0].figures.clean_accuracy.value > 0.9
    assert place.type("leaderboard").code == 0


# --- train -------------------------------------------------------------------------------------------------------


def test_train_names_the_weights_and_trains_once(place: Place, call: Call) -> None:
    words = ("train", "-m", "ode", "--set", "epochs=1", "--horizon", "0.5", "--seed", "3")
    said = call(*words, place=place)
    assert said.code == 0, said.err
    assert "training OdeNet T=0.5 seed 3: trained" in said.err
    (path,) = place.cache.rglob("*.safetensors")
    shown = re.fullmatch(r"weights: (.*)\nsha256: ([0-9a-f]{64})\n", said.out)
    assert shown is not None
    assert Path(shown[1]) == path
    again = call(*words, "--json", place=place)
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out) == {"path": str(path), "sha256": shown[2]}


# --- lists and the schema ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "registry", "notes"),
    [
        ("models", MODELS, ["entry: "]),
        ("attacks", ATTACKS, ["passes: "]),
        ("datasets", DATASETS, ["test: ", "on disk: "]),
    ],
)
def test_lists_are_tables_of_80_columns_and_json(command: str, registry: Any, notes: list[str], call: Call) -> None:
    entries = list(registry.entries().values())
    said = call(command)
    assert (said.code, said.err) == (0, "")
    assert widest(said.out) <= 80
    heading, *rows, last = said.out.splitlines()
    assert heading.split()[:4] == ["name", "what", "it", "is"]
    assert heading.split()[-1] == "from"
    assert last == "more about one: odebench info NAME"
    rows, said_of_columns = rows[: -len(notes)], rows[-len(notes) :]
    assert [line[: len(note)] for line, note in zip(said_of_columns, notes, strict=True)] == notes
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == [entry.name for entry in entries]
    assert " ".join(said.out.split()).count("built in") == len(entries)
    said = call(command, "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == [
        {"name": entry.name, "summary": entry.summary, "origin": entry.origin} for entry in entries
    ]


def test_attacks_and_data_sets_show_norms_cost_and_epsilons(call: Call) -> None:
    (pgd,) = (line for line in call("attacks").out.splitlines() if line.startswith("pgd "))
    assert "linf" in pgd
    assert "20" in pgd
    (digits,) = (line for line in call("datasets").out.splitlines() if line.startswith("digits "))
    assert "500" in digits.split()
    assert "0.05" in digits.split()


def test_data_sets_say_what_is_on_disk(call: Call, tmp_path: Path) -> None:
    def on_disk(name: str) -> str:
        (line,) = (line for line in call("datasets", "--data-dir", tmp_path).out.splitlines() if line.startswith(name))
        return line.split()[-3]

    assert [on_disk(name) for name in ("digits ", "mnist ", "svhn ", "cifar10 ")] == ["yes", "no", "no", "no"]
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for stem in builtin.IDX_STEMS:
        assert on_disk("mnist ") == "no"
        (tmp_path / "MNIST" / "raw" / stem).touch()
    (tmp_path / "test_32x32.mat").touch()
    assert [on_disk(name) for name in ("mnist ", "svhn ", "cifar10 ")] == ["yes", "no", "yes"]
    assert "on disk: yes" in call("info", "digits").out
    files = [file for group in DATASETS.load("fashion-mnist").files for file in group]
    taken = [str(idx.DEBIAN_FASHION_MNIST / f"{stem}.gz") for stem in builtin.IDX_STEMS]
    assert [file for file in files if file.startswith("/")] == taken, "what the loader takes there, and nothing else"


def test_every_command_takes_q_and_v(call: Call) -> None:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        taken = {option for parameter in command.params for option in parameter.opts}
        assert {"-q", "--quiet", "-v", "--verbose"} <= taken, name
    texts = [path.read_text(encoding="utf-8") for path in Path(package.__file__).with_name("cli").glob("*.py")]
    assert sum(text.count('"--quiet"') for text in texts) == 1
    assert call("-q", "models").out == call("models", "-v").out == call("models").out


def test_models_lists_entries_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(Path(__file__).parents[2] / "leaderboard"))
    listed = [one["name"] for one in json.loads(call("models", "--json").out)]
    assert listed.count("kd-ode") == 1
    assert {*MODELS.entries(), "tis-ode", "rslad-kd-ode"} <= set(listed)


def test_an_entry_that_cannot_be_read_is_said_beside_the_others(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(tmp_path))
    write_entry(tmp_path / "entries")
    good = call("models")
    assert (good.code, good.err) == (0, "")
    shutil.copytree(tmp_path / "entries" / "mine", tmp_path / "entries" / "broken")
    change_entry(tmp_path / "entries" / "broken", ("epsilon: 0.1", "epsilon: 1.0e+308"))
    said = call("models")
    problem = rf"odebench: {tmp_path}/entries/broken/entry.yaml, line 25: claims.epsilon cannot be 1e\+308: .*\n"
    assert (said.code, said.out) == (1, good.out)
    assert re.fullmatch(problem, said.err), said.err
    of_it = call("info", "broken")
    assert of_it.code == 2
    assert re.fullmatch(problem, of_it.err), of_it.err
    assert call("info", "mine").code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pgd", ["kind: attack", "norms: linf, l2", "parameters: steps 20; random_start yes", "passes: 20"]),
        ("worst-case", ["choices: effort fast-2, standard-2, fast, standard", "sources: yes"]),
        ("kd-ode", ["kind: model", "horizon: yes", "teacher: resnet"]),
        ("digits", ["kind: data set", "image_shape: 1, 8, 8", "linf 0.05, 0.1, 0.15"]),
    ],
)
def test_info_explains_one_name(name: str, said: list[str], call: Call) -> None:
    found = call("info", name)
    assert (found.code, found.err) == (0, "")
    assert widest(found.out) <= 80
    assert all(part in found.out for part in said), found.out
    assert json.loads(call("info", name, "--json").out)[0]["name"] == name


def test_info_says_what_can_be_changed_in_a_recipe(call: Call) -> None:
    recipe = json.loads(call("info", "kd-ode", "--json").out)[0]["recipe"]
    assert recipe["data"] == "digits"
    assert (recipe["epochs"], recipe["label_noise"], recipe["teacher_label_noise"]) == (15, None, None)
    changes = {name: value for name, value in recipe.items() if value is not None and name != "data"}
    asked = partial(load_definition("kd-ode").recipe, builtin.DIGITS, horizon=1.0)
    assert asked(changes=changes | {"epochs": 3}) == asked(changes={"epochs": 3}), "all are names of --set"
    assert "recipe: data digits; epochs 15;" in call("info", "kd-ode").out


def test_info_says_how_the_model_of_an_entry_was_trained(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(Path(__file__).parents[2] / "leaderboard"))
    said = json.loads(call("info", "rslad-kd-ode", "--json").out)[0]
    assert said["loss"] == "distillation, temperature 1, weight 1"
    assert said["teacher"] == "resnet (madry, epsilon 0.1, steps 7, step 0.03571)"
    assert said["adversarial training"].startswith("rslad, epsilon 0.1")
    assert said["training"].startswith("epochs 15, batch size 32")
    assert (said["authors"], said["paper"]) == ("The odebench maintainers", "arXiv:2108.07969")
    assert said["origin"].endswith("leaderboard/entries/rslad-kd-ode")
    shown = call("info", "tis-ode").out
    assert "loss: cross-entropy + 0.1 steady-state term\n" in shown
    assert "teacher:" not in shown
    assert widest(shown) <= max(80, widest(next(line for line in shown.splitlines() if line.startswith("origin"))))


def test_info_tells_the_data_sets_of_an_entry_apart() -> None:
    entry = read_entry(Path(__file__).parents[2] / "leaderboard" / "entries" / "kd-ode")
    words = entry_words(entry)
    assert words["teacher"] == "resnet"
    assert words["loss on fashion-mnist"] == "distillation, weight 0.9, temperature 2"
    assert "epochs 12, batch size 64" in words["training on cifar10-jpeg"]
    assert "loss" not in words


def test_what_is_missing_is_said_with_the_command_that_lists_it(call: Call) -> None:
    for words, lists in (("run", "models"), ("run -m ode", "attacks"), ("train", "models"), ("compare", "models")):
        said = call(*words.split())
        assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1)
        assert re.match(r"odebench: Missing (option|argument) '.*'\. .*`odebench " + lists + "` lists them", said.err)
    assert "lists" not in call("run", "-m", "ode", "-a", "pgd", "-n", "x").err


def test_info_explains_every_word_of_a_result(call: Call) -> None:
    words = [str(check.value) for check in CheckId] + [check.label for check in CheckId]
    words += [*Flag, *OUTCOMES, *WORST_CASE.choices["effort"], *(verdict.value for verdict in ClaimVerdict)]
    words += ["Not-Examined", "unranked", "masked", "check 16", "T", "teacher", "student"]
    words += ["letter", "letters", "flag", "Flags", "check", "checks", "effort", "efforts"]
    words += [f"worst-case {effort}" for effort in WORST_CASE.choices["effort"]]
    for word in words:
        assert explained(str(word)), word
    protocol = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    _, _, answers = protocol.partition("- **Answers**")
    assert re.findall(r"^  - \*(.+?)\*:", answers.partition("\n- **")[0], re.M) == [word.value for word in VERDICTS]
    assert f"  - *not run*: {VERDICTS[ClaimVerdict.not_run]};" in answers
    assert len(explained("T")) == len(explained("r")) == 1
    assert explained("R") == explained("nothing") == []
    lists = {word: call("info", word).out for word in ("letters", "flags", "checks")}
    assert all(f"{letter}: {meaning[:20]}" in lists["letters"] for letter, meaning in MEANINGS.items())
    assert all(flag.value in lists["flags"].replace("\n", " ") for flag in Flag)
    assert all(f"{check.value} {check.label}" in lists["checks"].replace("\n", " ") for check in CheckId)
    said = call("info", "solver gap")
    assert (said.code, said.err) == (0, "")
    assert "kind: check 16" in said.out
    assert "if it flags: the solver's error decides" in said.out
    assert "in doubt also: noise 20" in call("info", "fast-2").out
    assert [one["kind"] for one in json.loads(call("info", "transfer", "--json").out)] == ["attack", "check 12"]
    assert call("info", "solver", "gap").out == call("info", "solver gap").out
    worst = call("info", "worst-case").out.replace("\n", " ")
    assert "stages: fgsm, pgd 20," in worst
    assert "more: odebench info fast-2, odebench info standard-2, odebench info fast" in worst
    said = call("info", "solver gpa")
    assert said.code == 2
    assert "unknown name 'solver gpa'; did you mean 'solver gap'?" in said.err


def test_a_command_in_a_finding_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command = "odebench run --model mine --dataset digits --horizon 0.5 --attack pgd -n 200 --results leaderboard"
    coverage = Finding("entry.yaml", None, "coverage", f"{'no result ' * 9}; run: {command}")
    show_verification(Verification(Path("mine"), "mine", 0, {}, (), (coverage,), ()))
    *said, shown, _ = capsys.readouterr().out.splitlines()
    assert shown == f"  {command}"
    assert (len(said), max(map(len, said)) <= 80, said[-1].endswith("run:")) == (2, True, True)
    print_finding(f"{'x' * 70} odebench new-entry writes one")
    assert capsys.readouterr().out == f"{'x' * 70}\n  odebench new-entry writes one\n"


def test_info_names_the_weights_that_are_here_and_unknown_names(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "weights" not in call("info", "kd-ode").out
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(Path(__file__).parents[2] / "leaderboard"))
    assert "weights: digits T=0.5 seed 0" in call("info", "kd-ode").out
    assert "kind: entry" in call("info", "tis-ode").out
    said = call("info", "kdode")
    assert said.code == 2
    assert "unknown name 'kdode'; did you mean 'kd-ode'" in said.err


@pytest.mark.parametrize("by", ["option", "environment"])
def test_datasets_lists_image_folders(by: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaves" / "train").mkdir(parents=True)
    (tmp_path / "digits").mkdir()
    if by == "environment":
        monkeypatch.setenv("ODEBENCH_DATA", str(tmp_path))
    said = call("datasets", "--json", *(("--data-dir", tmp_path) if by == "option" else ()))
    found = {entry["name"]: entry["origin"] for entry in json.loads(said.out)}
    assert found["leaves"] == str(tmp_path / "leaves")
    assert found["digits"] == "built in", "a built-in name is not shadowed"


def check_instance(schema: dict[str, Any], value: Any, top: dict[str, Any], where: str = "$") -> None:
    """Asserts that `value` is an instance of a JSON Schema, of those keywords that pydantic writes."""
    known = {"title", "description", "$defs", "default", "$schema", "$id"}
    known |= {"$ref", "type", "const", "enum", "anyOf", "properties", "required", "additionalProperties", "items"}
    known |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern"}
    known |= {"minItems", "maxItems", "maxLength", "maxProperties"}
    assert set(schema) <= known, f"{where}: {set(schema) - known}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return check_instance(top["$defs"][name], value, top, where)
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            try:
                return check_instance(one, value, top, where)
            except AssertionError:
                continue
        raise AssertionError(f"{where}: {value!r} fits none of {schema['anyOf']}")
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "null": (type(None),),
        "boolean": (bool,),
    }
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
    assert value == schema.get("const", value), where
    assert value in schema.get("enum", [value]), where
    assert "pattern" not in schema or re.search(schema["pattern"], value), where
    assert "minimum" not in schema or value >= schema["minimum"], where
    assert "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"], where
    assert "maximum" not in schema or value <= schema["maximum"], where
    assert "exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"], where
    assert "minItems" not in schema or len(value) >= schema["minItems"], where
    for limit in ("maxItems", "maxLength", "maxProperties"):
        assert limit not in schema or len(value) <= schema[limit], where
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_instance(schema.get("items", {}), item, top, f"{where}[{index}]")
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        assert set(schema.get("required", [])) <= set(value), where
        for name, item in value.items():
            inner = properties.get(name, rest)
            assert inner is not False, f"{where}: unknown key {name}"
            check_instance(inner if isinstance(inner, dict) else {}, item, top, f"{where}.{name}")
    return None


def test_schema_describes_results(main_path: MainPath, call: Call) -> None:
    place, _ = main_path
    said = call("schema")
    assert (said.code, said.err) == (0, "")
    schema = json.loads(said.out)
    assert schema["type"] == "object"
    assert set(schema["properties"]) == set(Result.model_fields)
    # Files of schema version 1 are results, too.
    assert set(schema["required"]) == set(Result.model_fields) - {"doubt"}
    assert schema["additionalProperties"] is False
    stored = json.loads(only_result(place.folder).read_text())
    check_instance(schema, stored, schema)
    for broken in (
        stored | {"extra": 1},
        stored | {"schema_version": 3},
        {name: value for name, value in stored.items() if name != "nfe"},
        stored | {"cost": stored["cost"] | {"seconds": "1.5"}},
        stored | {"run_key": "short"},
    ):
        with pytest.raises(AssertionError):
            check_instance(schema, broken, schema)


def test_run_and_leaderboard_say_the_same_of_a_result_and_name_the_rule(
    place: Place, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """What falls at a smaller epsilon and not at a larger one counts at both, for a run as on the leaderboard."""
    result = make_result({0.1: "rfxrmu", 0.2: "rrrfmu", 0.3: "rrrrmu"})
    write_result(result, place.folder / "results")
    assert [(each.robust.value, each.fooled, each.failed, each.carried) for each in carried_figures(result)] == [
        (2 / 6, 1, 2, 0),
        (1 / 6, 2, 2, 2),
        (1 / 6, 2, 2, 3),
    ]
    print_result(result)
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if re.match(r" *0\.\d", line)]
    said = json.loads(call("leaderboard", "-f", "json", place=place).out)
    assert (
        [row[4] for row in rows] == [f"{100 * each['robust_accuracy']:.1f}" for each in said] == ["33.3"] + ["16.7"] * 2
    )
    assert [row[1] for row in rows] == [f"{100 * each['clean_accuracy']:.1f}" for each in said] == ["66.7"] * 3
    assert CARRY_OVER in " ".join(shown.split())
    assert CARRY_OVER in " ".join(call("leaderboard", place=place).out.split())


# --- leaderboard -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_results(place: Place) -> Place:
    for model, letters in {"kd-ode": "rrrf", "ode": "rfff"}.items():
        write_result(make_result({0.1: letters}, model=model), place.folder / "results")
    return place


def test_leaderboard_writes_csv(two_results: Place, call: Call) -> None:
    said = call("leaderboard", "--format", "csv", place=two_results)
    assert (said.code, said.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(row["model"], float(row["robust_accuracy"])) for row in rows] == [("kd-ode", 0.75), ("ode", 0.25)]


def test_leaderboard_writes_json(two_results: Place, call: Call) -> None:
    said = call("leaderboard", "-f", "json", place=two_results)
    assert (said.code, said.err) == (0, "")
    assert said.out.count("kd-ode") >= 1
    assert json.loads(said.out)


@pytest.mark.parametrize("format", ["md", "csv", "json"])
def test_leaderboard_writes_to_a_file_what_it_would_print(format: str, two_results: Place, call: Call) -> None:
    printed = call("leaderboard", "-f", format, place=two_results)
    said = call("leaderboard", "-f", format, "--output", "new/board", place=two_results)
    assert said == Said(0, "", "written: new/board\n")
    assert (two_results.folder / "new" / "board").read_text(encoding="utf-8") == printed.out
    assert [path.name for path in (two_results.folder / "new").iterdir()] == ["board"]


def test_leaderboard_reads_the_folders_it_is_given(two_results: Place, call: Call) -> None:
    write_result(make_result({0.1: "ffff"}, model="resnet", horizon=None), two_results.folder / "other")
    assert "resnet" not in call("leaderboard", place=two_results).out
    other = call("leaderboard", "other").out
    assert "resnet" in other
    assert "kd-ode" not in other
    both = call("leaderboard", "other", "results").out
    assert "resnet" in both
    assert "kd-ode" in both


def test_leaderboard_shows_published_results_where_one_has_none(
    two_results: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "leaderboard")
    published = two_results.folder / "leaderboard" / "results"
    write_result(make_result({0.1: "ffff"}, model="resnet", horizon=None), published)
    own = call("leaderboard", place=two_results)
    assert call("-q", "leaderboard", place=two_results).err == ""
    assert "kd-ode" in own.out
    assert "resnet" not in own.out
    assert own.err == "results: results; name leaderboard/results to read that\n"
    for path in (two_results.folder / "results").rglob("*.json"):
        path.unlink()
    others = call("leaderboard")
    assert "resnet" in others.out
    assert "kd-ode" not in others.out
    assert others.err == "results: leaderboard/results\n"


def test_claims_and_comparisons_read_what_is_published_first(
    two_results: Place, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "leaderboard")
    published, own = (two_results.folder / name for name in ("leaderboard/results", "results"))
    said = call("claims", place=two_results)
    assert (said.code, said.err) == (0, ""), "leaderboard/results holds none"
    shutil.copytree(own, published, dirs_exist_ok=True)
    more = "results: leaderboard/results; name results to read that\n"
    for words in (["claims"], ["compare", "kd-ode", "ode"]):
        said = call(*words, place=two_results)
        assert (said.code, said.err) == (0, more)
    said = call("leaderboard", place=two_results)
    assert said.err == "results: results; name leaderboard/results to read that\n"
    assert call("claims", "results", place=two_results).err == ""
    shutil.rmtree(published / "ode")
    said = call("compare", "kd-ode", "ode", place=two_results)
    assert (said.code, said.err) == (0, "results: results; name leaderboard/results to read that\n"), "one holds both"
    shutil.rmtree(own / "kd-ode")
    said = call("compare", "kd-ode", "ode", place=two_results)
    assert (said.code, said.err) == (0, "results: leaderboard/results, results\n"), "each has one"
    shutil.rmtree(own)
    said = call("compare", "kd-ode", "ode", place=two_results)
    assert said.err.startswith("results: leaderboard/results\n")
    assert "odebench: unknown model among these results: 'ode'" in said.err
    write_result(make_result({0.1: "rrff"}, model="ode"), two_results.folder / "elsewhere" / "results")
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "elsewhere")
    assert call("claims", place=two_results).err == "results: elsewhere/results\n", "that one alone"
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", "")
    for words in (["claims"], ["compare", "kd-ode", "ode"], ["leaderboard"]):
        said = call(*words, place=two_results)
        assert (said.code, said.err.startswith("odebench: there is no folder results here")) == (1, True)


def test_claims_are_those_of_some_data_sets(two_results: Place, call: Call) -> None:
    found = json.loads(call("claims", "-d", "digits", "--json", place=two_results).out)
    every = json.loads(call("claims", "--json", place=two_results).out)
    of_digits = [claim for claim in every if claim["dataset"] == "digits"]
    assert 0 < len(of_digits) < len(every)
    assert found == of_digits
    said = call("claims", "-d", "digit", place=two_results)
    assert (said.code, "unknown data set among the claims: 'digit'; did you mean 'digits'?" in said.err) == (2, True)


# --- help, version, completion -----------------------------------------------------------------------------------


def test_help_lists_the_commands(call: Call) -> None:
    said = call("--help")
    assert (said.code, said.err) == (0, "")
    assert call("-h") == said
    assert tuple(re.findall(r"^│ ([a-z][a-z-]*) ", said.out, re.M)) == COMMANDS
    assert re.findall(r"^╭─ (.*?) ─", said.out, re.M) == ["Options", "Everyday", "Studies", "Submitting a model"]
    assert "odebench run --model kd-ode --attack pgd" in said.out
    assert widest(said.out) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_complete_and_shows_an_example(command: str, call: Call) -> None:
    said = call(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert call(command, "-h") == said
    assert re.search(rf"Examples?: +\n( *\n)* odebench {command}", said.out)
    root: Any = typer.main.get_command(app)
    for parameter in root.commands[command].params:
        names = parameter.opts if parameter.param_type_name == "option" else [str(parameter.help).split()[0]]
        for name in names:
            assert re.search(rf"{re.escape(name)}\b", said.out), name
        assert parameter.help, f"{parameter.name} has no help"
    assert widest(said.out) <= 80


def test_every_example_of_the_help_is_a_command_that_parses(call: Call) -> None:
    root: Any = typer.main.get_command(app)
    for command in COMMANDS:
        examples = re.findall(r"^ odebench (.*?) *$", call(command, "-h").out, re.M)
        assert examples
        for example in examples:
            name, *words = shlex.split(example.partition(" > ")[0])
            root.commands[name].make_context(name, words)


def test_no_command_shows_the_help(call: Call) -> None:
    said = call()
    assert (said.code, said.err) == (2, "")
    assert said.out.split() == call("--help").out.split()


def test_version(call: Call) -> None:
    assert call("--version") == Said(0, f"odebench {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run --model ", list(MODELS.entries())),
        ("run --model kd", ["kd-ode", "kd-ode-at", "kd-ode-stemless"]),
        ("run -m res", ["resnet"]),
        ("run --attack ", list(ATTACKS.entries())),
        ("train --dataset f", ["fashion-mnist"]),
        ("verify --dataset f", ["fashion-mnist"]),
    ],
)
def test_the_shell_completes_names(words: str, expected: list[str], place: Place) -> None:
    line = f"odebench {words}"
    variables = {"_ODEBENCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "3"}
    said = place.type(**variables)
    assert (said.code, said.err, said.out.split()) == (0, "", expected)


# --- what is not loaded ------------------------------------------------------------------------------------------


def test_commands_that_need_no_torch_do_not_import_it(two_results: Place) -> None:
    code = """
import contextlib, io, sys
from odebench.cli import _exit_code
lines = sys.argv[1:]
for line in lines:
    sys.argv = ["odebench", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = _exit_code()
        except SystemExit as stop:
            code = stop.code
    heavy = {"torch", "torchvision", "torchdiffeq", "torchode", "foolbox", "sklearn", "scipy"} & set(sys.modules)
    print(line, code, sorted(heavy))
"""
    lines = {
        **{"--help": 0, "--version": 0, "models": 0, "attacks --json": 0, "datasets": 0, "schema": 0},
        **{"claims --json": 0, "leaderboard": 0, "leaderboard -f csv": 0, "leaderboard -f json -o board.json": 0},
        **{"run -h": 0, "run -m kdode -a pgd": 2, "run -m ode -a pgd --epsilon 8": 2, "run -m ode -a pdg": 2},
        **{"run -m ode -a pgd --solver rk5": 2, "train -m ode --horizon 0": 2, "train -m ode --set epochs=x": 2},
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *lines],
        cwd=two_results.folder,
        env=two_results.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [f"{line} {code} []" for line, code in lines.items()], done.stderr


@pytest.mark.parametrize(("words", "bound"), [(("--help",), 1.5), (("leaderboard",), 3.0)])
def test_short_commands_are_short(words: tuple[str, ...], bound: float, two_results: Place) -> None:
    """Half a CPU second and one on an idle machine; three times that here."""
    seconds = []
    for _ in range(3):
        before = seconds_of_children()
        assert two_results.type(*words).code == 0
        seconds.append(seconds_of_children() - before)
    assert min(seconds) < bound


# --- options and progress ----------------------------------------------------------------------------------------


def test_settings_are_json_where_they_are_json_else_text() -> None:
    pairs = ["a=1", "b=0.5", "c=true", "d=null", "e=text", "f=", "g=x=y", 'h="1"', "i=NaN", "j=1e999", "k=-Infinity"]
    assert settings(pairs) == {
        **{"a": 1, "b": 0.5, "c": True, "d": None, "e": "text", "f": "", "g": "x=y", "h": "1"},
        **{"i": "NaN", "j": "1e999", "k": "-Infinity"},
    }
    assert settings(None) == settings([]) == {}


@pytest.mark.parametrize("pair", ["a", "=1", ""])
def test_a_setting_has_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(UsageError, match=f"'{pair}' is not of the form name=value"):
        settings([pair])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((None, None, None, None, None), None),
        (("rk4", None, None, None, None), fixed_step("rk4", step=0.25)),
        (("euler", "1/8", None, "torchdiffeq", None), fixed_step("euler", step=0.125)),
        (("dopri5", None, None, None, None), adaptive("dopri5", rtol=1e-3, max_steps=1000)),
        (("tsit5", None, "1e-5", None, 7), adaptive("tsit5", rtol=1e-5, max_steps=7)),
        (("bosh3", None, "1e-2", "torchdiffeq", None), adaptive("bosh3", rtol=1e-2, backend="torchdiffeq")),
    ],
)
def test_solver_options(options: tuple[Any, ...], expected: Solver | None) -> None:
    assert solver(*options) == expected


def test_progress_is_drawn_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> str:
        with ScreenProgress().track("training", total=4, done=1) as step:
            step.advance(2, note="loss 0.5")
        out, err = capsys.readouterr()
        assert out == ""
        return err

    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert work() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", work())
    assert "training" in drawn
    assert "75%" in drawn
    assert "left" in drawn
    assert "loss 0.5" in drawn
