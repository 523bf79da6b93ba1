"""Protocols: what they may say, the line of what they may not, and the cells and trainings that they lay out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import UsageError
from odebench.io.yaml_document import DocumentError, near_word, read_document
from odebench.protocol.protocol_file import find_protocol, protocol_files, read_protocol
from odebench.protocol.spec import adaptive, fixed_step
from odebench.sweep.cost import evaluation_work, field_calls, training_work
from odebench.sweep.protocol_cells import Grid, PlannedCell, read_grid

TEXT = """\
name: tiny
version: 1
summary: two models
dataset: {name: digits, n: 100}
recipes: {ode: {epochs: 1}}
sections:
  - name: matched
    models: [resnet, ode]
    horizons: [0.5, 1]
    train_seeds: [0]
    threat_models: [{norm: linf}]
    attacks:
      - {name: pgd}
      - {name: fgsm}
"""

Read = Callable[..., Grid]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(*changes: tuple[str, str], text: str = TEXT) -> Grid:
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return read_grid(str(path))

    return read


# --- what is laid out --------------------------------------------------------------------------------------------


def test_a_section_is_every_combination_and_a_model_without_horizon_once(read: Read) -> None:
    grid = read()
    cells = [
        (cell.plan.evaluation.model.name, cell.plan.evaluation.horizon, cell.plan.evaluation.attack.name)
        for cell in grid.cells
    ]
    assert sorted(cells, key=str) == sorted(
        [
            (model, horizon, attack)
            for model, horizons in (("resnet", [None]), ("ode", [0.5, 1.0]))
            for horizon in horizons
            for attack in ("pgd", "fgsm")
        ],
        key=str,
    )
    assert {cell.plan.evaluation.train_horizon for cell in grid.cells} == {None, 0.5, 1.0}
    assert all(cell.plan.evaluation.threat_model.epsilons == DIGITS.epsilons["linf"] for cell in grid.cells)
    assert grid.cells[0].title == "resnet seed 0, pgd in linf"


def test_a_recipe_is_changed_for_every_cell_of_its_model(read: Read) -> None:
    for cell in read().cells:
        epochs = cell.plan.recipe.schedule.epochs
        assert (epochs == 1) == (cell.plan.evaluation.model.name == "ode")


def test_trainings_are_the_models_their_teachers_and_sources_each_once_and_in_order(read: Read) -> None:
    grid = read(("[resnet, ode]", "[kd-ode]"), ("recipes: {ode: {epochs: 1}}", "chunk: 100"))
    assert [one.title for one in grid.trainings] == [
        "training the teacher of kd-ode seed 0",
        "training kd-ode T=0.5 seed 0",
        "training kd-ode T=1 seed 0",
    ]
    with_source = read(("[resnet, ode]", "[ode]"), ("pgd", "worst-case"))
    assert [one.title for one in with_source.trainings][-1] == "training resnet seed 0"
    changes = "{adversary: rslad, teacher_adversary: madry}"
    robust = read(("[resnet, ode]", "[kd-ode]"), ("{ode: {epochs: 1}}", f"{{kd-ode: {changes}}}"), ("pgd", "transfer"))
    titles = [one.title for one in robust.trainings]
    assert (titles[0], titles[-1]) == ("training the teacher of kd-ode seed 0", "training resnet seed 0")


def test_every_horizon_of_training_is_judged_at_every_horizon(read: Read) -> None:
    grid = read(("[resnet, ode]", "[ode]"), ("train_seeds", "train_horizons: [1, 4]\n    train_seeds"))
    pairs = {(c.plan.evaluation.train_horizon, c.plan.evaluation.horizon) for c in grid.cells}
    assert pairs == {(1.0, 0.5), (1.0, 1.0), (4.0, 0.5), (4.0, 1.0)}
    assert "ode T=0.5 trained at T=4 seed 0, pgd in linf" in {cell.title for cell in grid.cells}
    assert len(grid.trainings) == 2


@pytest.mark.parametrize("horizon", [0.3, 0.5, 0.7, 1, 3, 4, 10])
@pytest.mark.parametrize("nfe", [4, 12, 32, 100])
def test_equal_nfe_asks_the_field_as_often_at_every_horizon(read: Read, nfe: int, horizon: float) -> None:
    from odebench.model.solver import fixed_steps

    grid = read(("[resnet, ode]", "[ode]"), ("[0.5, 1]", f"[{horizon}]\n    equal_nfe: {nfe}"))
    solver = grid.cells[0].plan.evaluation.solver
    assert solver is not None
    assert solver.step is not None
    assert 4 * fixed_steps(float(horizon), solver.step) == nfe
    assert grid.cells[0].plan.recipe.solver == fixed_step(step=0.25), "it is trained as ever"


def test_a_solver_of_a_section_is_that_of_its_evaluations(read: Read) -> None:
    grid = read(
        ("[resnet, ode]", "[ode]"), ("train_seeds", "solver: {method: dopri5, tolerance: 1e-3}\n    train_seeds")
    )
    assert {cell.plan.evaluation.solver for cell in grid.cells} == {adaptive("dopri5", rtol=1e-3)}
    assert "ode T=1 with dopri5 rtol 0.001 atol 0.001 (torchode) seed 0, pgd in linf" in {c.title for c in grid.cells}


def test_radii_may_be_fractions_and_an_attack_may_have_other_images(read: Read) -> None:
    grid = read(("{norm: linf}", "{norm: linf, epsilons: [1/255, 1e-1]}"), ("{name: pgd}", "{name: pgd, n: 200}"))
    assert {cell.plan.evaluation.threat_model.epsilons for cell in grid.cells} == {(1 / 255, 0.1)}
    assert {(c.plan.evaluation.attack.name, c.plan.evaluation.dataset.n) for c in grid.cells} == {
        ("pgd", 200),
        ("fgsm", 100),
    }


def test_a_cell_of_two_sections_is_made_once(read: Read) -> None:
    again = TEXT.split("sections:\n")[1].replace("matched", "again")
    grid = read(text=TEXT + again)
    assert len(grid.cells) == 2 * len(grid.evaluations)
    assert {cell.section for cell in grid.cells} == {"matched", "again"}


def test_a_part_of_a_grid_has_its_cells_and_their_trainings_alone(read: Read) -> None:
    other = TEXT.split("sections:\n")[1].replace("matched", "other").replace("[resnet, ode]", "[kd-ode]")
    grid = read(text=TEXT + other)
    part = grid.only(["other"])
    assert {cell.section for cell in part.cells} == {"other"}
    assert len(part.cells) == 4
    plain = {training.recipe.key for training in grid.trainings if "training ode " in training.title}
    assert len(plain) == 2
    assert [one.recipe for one in part.trainings] == [
        one.recipe for one in grid.trainings if one.recipe.key not in plain
    ]
    assert grid.only(["other", "matched", "other"]) == grid
    with pytest.raises(UsageError, match=r"unknown section 'mached'; did you mean 'matched'\? known: matched, other"):
        grid.only(["other", "mached"])


def test_an_image_folder_is_described_by_the_protocol_itself(read: Read) -> None:
    grid = read(
        ("{name: digits, n: 100}", "{name: mine, n: 100, image_shape: [3, 32, 32], classes: 7, sizes: {test: 100}}"),
        ("{norm: linf}", "{norm: linf, epsilons: [0.1]}"),
    )
    assert (grid.dataset.image_shape, len(grid.dataset.classes)) == ((3, 32, 32), 7)
    assert grid.cells[0].plan.recipe.arguments["n_classes"] == 7


def test_the_sizes_that_digits_promises_are_true() -> None:
    data = load_dataset("digits")
    assert data.train is not None
    assert data.validation is not None
    assert DIGITS.sizes == {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}


# --- those that odebench brings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", protocol_files())
def test_a_protocol_of_ours_can_be_laid_out_and_is_named_after_its_file(name: str) -> None:
    grid = read_grid(name)
    assert grid.protocol.name == name
    assert grid.protocol.threads == 1
    assert len(grid.protocol.summary) < 90


def test_the_protocols_of_the_study_are_there() -> None:
    assert set(protocol_files()) == {
        *("smoke", "digits", "digits-coverage", "digits-full", "fashion-mnist", "cifar10-jpeg", "cifar10", "svhn"),
        *(f"{name}-study" for name in ("digits", "fashion-mnist", "cifar10-jpeg", "cifar10", "svhn")),
    }
    sections = {section.name for section in read_grid("digits").protocol.sections}
    assert sections == {"matched", "mismatched", "equal-nfe", "dopri5"}


def test_the_matched_cells_of_digits_are_shared_with_digits_full() -> None:
    matched = {cell.run_key for cell in read_grid("digits").cells if cell.section == "matched"}
    assert len(matched) == 60
    assert matched <= set(read_grid("digits-full").evaluations)


def test_what_entries_must_cover_on_digits_is_asked_of_all_that_is_published_there() -> None:
    def asked(cells: Iterable[PlannedCell]) -> set[tuple[str, float | None]]:
        return {(cell.plan.evaluation.model.name, cell.plan.evaluation.horizon) for cell in cells}

    full, cover = read_grid("digits-full"), read_grid("digits-coverage")
    assert asked(full.only(["matched", "stemless"]).cells) <= asked(cover.cells)
    assert {cell.plan.evaluation.dataset.n for cell in cover.cells} == {500}


def test_protocols_are_read_without_torch_and_soon() -> None:
    code = (
        "import sys; from odebench.sweep.protocol_cells import read_grid\n"
        "from odebench.protocol.protocol_file import protocol_files\n"
        "for name in protocol_files(): read_grid(name)\n"
        "assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- what is refused, and where ----------------------------------------------------------------------------------

ODE = ("[resnet, ode]", "[ode]")


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        (
            [("version: 1", "version: 1\nsectoins: 3")],
            3,
            r"unknown key 'sectoins'; did you mean 'sections'\? known",
        ),
        ([("horizons", "horizns")], 9, "unknown key 'horizns'; did you mean 'horizons'"),
        ([("norm: linf", "nrom: linf")], 11, "unknown key 'nrom'; did you mean 'norm'"),
        ([("{name: pgd}", "{nam: pgd}")], 13, "unknown key 'nam'; did you mean 'name'"),
        ([("n: 100", "m: 100")], 4, "unknown key 'm'; known: name, n, split, offset"),
        ([("version: 1\n", "")], 1, "has no 'version'; add it"),
        ([("    train_seeds: [0]\n", "")], 7, "sections has no 'train_seeds'; add it"),
        ([("version: 1", "version: one")], 2, "version cannot be 'one': it must be a whole number"),
        ([("version: 1", "version: true")], 2, "version cannot be True"),
        ([("[resnet, ode]", "[]")], 8, "sections.models is empty; name at least one"),
        ([("[0.5, 1]", "[]")], 9, "sections.horizons is empty"),
        ([("[{norm: linf}]", "[]")], 11, "sections.threat_models is empty"),
        ([("{norm: linf}", "{norm: linf, epsilons: []}")], 11, "epsilons is empty"),
        ([("[resnet, ode]", "[resnet, oed]")], 8, "unknown model 'oed'; did you mean 'ode'"),
        ([("[resnet, ode]", "[resnet,\n      oed]")], 9, "unknown model 'oed'; did you mean 'ode'"),
        ([("fgsm", "fgms")], 14, "unknown attack 'fgms'; did you mean 'fgsm'"),
        ([("name: digits", "name: digit")], 4, "unknown data set 'digit'; did you mean 'digits'"),
        ([("name: digits", "name: mine")], 4, "for an image folder give image_shape and classes, too"),
        ([("n: 100", "n: 100, classes: 10")], 4, "digits is known: remove image_shape, classes and sizes"),
        ([("[0.5, 1]", "[0.5, 0]")], 9, "horizons cannot be 0: it must be above 0"),
        ([("[0.5, 1]", "[0.5, -1]")], 9, "horizons cannot be -1: it must be above 0"),
        ([("[0.5, 1]", "[0.5, .nan]")], 9, "horizons cannot be nan"),
        ([("[0.5, 1]", "[0.5, x]")], 9, "cannot be 'x': it must be a finite number, such as 0.1, 8/255 or 1e-3"),
        ([("[0.5, 1]", "1")], 9, "horizons cannot be 1: it must be a list"),
        ([("[0.5, 1]", "[1, 1.0]")], 9, "horizon 1 appears twice, first in line 9"),
        ([("[resnet, ode]", "[ode, ode]")], 8, "model 'ode' appears twice"),
        ([("[0]", "[0, 0]")], 10, "train seed 0 appears twice"),
        ([("[0]", "[-1]")], 10, "train_seeds cannot be -1"),
        ([("[{norm: linf}]", "[{norm: linf}, {norm: linf}]")], 11, "norm 'linf' appears twice"),
        ([("{norm: linf}", "{norm: l1}")], 11, "norm cannot be 'l1': it must be 'linf' or 'l2'"),
        ([("{norm: linf}", "{norm: linf, epsilons: [8]}")], 11, "did you mean 8/255"),
        ([("{norm: linf}", "{norm: linf, epsilons: [0.1, 0.1]}")], 11, "epsilon 0.1 appears twice"),
        ([("{norm: linf}", "{norm: linf, epsilons: [0.2, 0.1]}")], 11, "epsilons must rise"),
        ([("{norm: linf}", "{norm: linf, epsilons: defautl}")], 11, "a list of radii, or the word default"),
        ([("fgsm", "pgd")], 14, "attack 'pgd seed=0' appears twice, first in line 13"),
        (
            [("fgsm}", "pgd, parameters: {steps: 20}}")],
            14,
            "a cell of line 13 again: resnet seed 0, pgd in linf",
        ),
        ([("fgsm}", "pgd, parameters: {stpes: 20}}")], 14, "unknown parameter 'stpes'; did you mean 'steps'"),
        ([("fgsm}", "pgd, parameters: {steps: 0}}")], 14, "steps must be a whole number of at least 1"),
        ([("fgsm", "cw")], 14, "cw attacks in l2, not in linf"),
        ([("fgsm", "candidates")], 11, "candidates are made elsewhere"),
        ([("n: 100", "n: 150")], 4, "not whole chunks of 100"),
        ([("n: 100", "n: 600")], 4, "digits has 500 test images"),
        ([("{name: fgsm}", "{name: fgsm, n: 150}")], 14, "not whole chunks of 100"),
        ([("epochs: 1", "epoch: 1")], 5, "unknown field of a recipe 'epoch'; did you mean 'epochs'"),
        ([("epochs: 1", "teacher_epochs: 1")], 5, "unknown field of a recipe 'teacher_epochs'"),
        ([("epochs: 1", "epochs: 0")], 5, "epochs=0 does not fit a recipe"),
        ([("{ode:", "{oed:")], 5, "unknown model 'oed'; did you mean 'ode'"),
        ([("    horizons: [0.5, 1]\n", "")], 8, "ode needs horizons; add them"),
        ([("[0]", "[0]\n    solver: {method: rk5, step: 1}")], 11, "unknown method; did you mean 'rk4'"),
        ([("[0]", "[0]\n    solver: {method: rk4}")], 11, "sections.solver: rk4 takes a step and no tolerance"),
        ([("[0]", "[0]\n    solver: {method: heun, step: 1}")], 11, "heun takes a tolerance, not a step"),
        (
            [("[0]", "[0]\n    solver: {method: rk4, step: 1}")],
            8,
            "resnet integrates nothing, so this section",
        ),
        ([ODE, ("[0]", "[0]\n    equal_nfe: 7")], 11, r"ode \(rk4 step 0.25\) needs a multiple of 4"),
        (
            [ODE, ("[0]", "[0]\n    equal_nfe: 8\n    solver: {method: rk4, step: 1}")],
            7,
            "a solver or equal_nfe",
        ),
        ([("[0]", "[0]\n    train_seeds: [1]")], 11, "the key 'train_seeds' appears twice, first in line 10"),
        ([("tiny", "[tiny")], 2, "this is not YAML"),
        ([("version: 1", "? [a]\n: 1")], 2, "a key is one word"),
        ([("name: matched", "name: matched\n    <<: 3")], 8, "this is not YAML"),
    ],
)
def test_what_cannot_be_is_named_with_its_line(
    read: Read, changes: list[tuple[str, str]], line: int, message: str
) -> None:
    with pytest.raises(DocumentError, match=message) as raised:
        read(*changes)
    assert f"own.yaml, line {line}: " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_sections_of_one_name_are_refused(read: Read) -> None:
    with pytest.raises(DocumentError, match="line 15: a section called 'matched' appears twice, first in line 7"):
        read(text=TEXT + TEXT.split("sections:\n")[1])


LAUGHS = [b"%c: &%c [*%c, *%c, *%c, *%c]\n" % (b, b, a, a, a, a) for a, b in pairwise(b"abcdefghijklmnopqrstuvwx")]
"""Lines of aliases, each four times what the one before it stands for."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"- 1\n", "line 1: a protocol is a list of keys and values: name, version"),
        (b"name: \xff", "is not text in UTF-8"),
        (b"name: \x00", "is not YAML"),
        (b"[" * 5000, "nested too deeply|no YAML"),
        (b"b: !!python/object:os.system {}", "could not determine a constructor|no YAML|unknown key"),
        (b"a: &a [*a]\nb: !!python/object:os.system {}", "line 1: this is not YAML: an alias contains itself"),
        (b"a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + b"".join(LAUGHS), "more than 20000 values"),
        (b"[" + b"1," * 20_001 + b"]", "more than 20000 values"),
        (b"\n".join(b"k%d: 1" % number for number in range(200)), "unknown key 'k0'; .*and 99 more"),
        (b"name: !!int one", "line 1: 'one' is not what YAML reads it as"),
        (b"name: 2025-02-31", "line 1: '2025-02-31' is not what YAML reads it as .timestamp.; put it in quotes"),
        (b"#" * 1_000_001, "larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_protocol_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        read_protocol(path)


def test_a_name_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'digts'; did you mean 'digits'\?.*or a path that ends"):
        find_protocol("digts")
    with pytest.raises(DocumentError, match=r"nosuch\.yaml: cannot be read: No such file"):
        read_grid("nosuch.yaml")


def test_lines_are_known_inside_lists_and_of_anchors(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &x\n  - 1\n  - 2\nb: *x\nc:\n  <<: {d: 1}\n  e: 2\n", encoding="utf-8")
    document = read_document(path)
    assert document.value == {"a": [1, 2], "b": [1, 2], "c": {"d": 1, "e": 2}}
    assert [document.line(where) for where in (("a", 1), ("c", "e"), ("c", "nosuch", 3), ())] == [3, 7, 5, 1]
    assert near_word("zzz", ["a", "b"]) == " known: a, b"


# --- estimates ---------------------------------------------------------------------------------------------------


def test_work_grows_with_what_takes_longer(read: Read) -> None:
    grid = read(("pgd}", "worst-case}"))
    work = {cell.title: evaluation_work(cell.plan, grid.dataset) for cell in grid.cells}
    assert work["ode T=0.5 seed 0, fgsm in linf"] < work["ode T=1 seed 0, fgsm in linf"]
    assert 5 * work["ode T=1 seed 0, fgsm in linf"] < work["ode T=1 seed 0, worst-case (fast-2) in linf"]
    assert field_calls(fixed_step(step=0.25), 2.0) == 32
    assert field_calls(adaptive(), 1.0) < field_calls(adaptive(), 4.0)
    trainings = {one.title: training_work(one.recipe, grid.dataset) for one in grid.trainings}
    assert trainings["training ode T=1 seed 0"] == 1 * 1097 * 16
    assert trainings["training resnet seed 0"] > trainings["training ode T=0.5 seed 0"]


# --- the command -------------------------------------------------------------------------------------------------


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    monkeypatch.setenv("COLUMNS", "80")
    assert _exit_code() == 0
    return capsys.readouterr().out


def test_protocols_are_listed_with_what_they_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = typed(monkeypatch, capsys, "protocols")
    assert re.search(r"^digits +1 +digits +30 +82$", text, re.M)
    assert max(len(line) for line in text.splitlines()) <= 80
    rows = json.loads(typed(monkeypatch, capsys, "protocols", "--json"))
    assert {row["name"] for row in rows} == set(protocol_files())
    assert rows[0].keys() == {"name", "version", "summary", "dataset", "trainings", "evaluations", "sections"}
    (full,) = (row for row in rows if row["name"] == "digits-full")
    expected = {
        "matched",
        "pgd",
        "stemless",
        "stemless-pgd",
        "standard",
        "cw",
        "dopri5",
        "dopri5-pgd",
        "standard-whole",
    }
    assert expected < set(full["sections"])


def test_the_time_is_estimated_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr("odebench.protocol.protocol_file.protocol_folder", lambda: tmp_path)
    (row,) = json.loads(typed(monkeypatch, capsys, "protocols", "--time", "--json"))
    assert row["name"] == "tiny"
    assert 1 <= row["seconds"] < 3600
    assert re.search(r"^tiny +1 +digits +3 +6 +\d+ (s|min)$", typed(monkeypatch, capsys, "protocols", "--time"), re.M)
