"""Every command of README, CONTRIBUTING and docs is one, and does what it should: page by page, as written.

Lines of code blocks that begin with odebench, the commands that README's table lists, scripts of an entry and blocks of
py are run in a fresh folder with what is published. What would take minutes, a cluster, a terminal or a network is
parsed, and named in TESTED_BY with the test that runs it. Commands in running text are parsed.

ODEBENCH_DOCS_TIME=1 prints what each command takes.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from entry_factory import change_entry

from odebench.cli import _exit_code, app
from odebench.io.files import sha256_file
from odebench.submission.entry import read_entry
from odebench.sweep.protocol_cells import read_grid

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
MAX_RECIPE_LINES = 24
MAX_WORDS = 10_000
GENERATED = ("docs/result.md", "docs/api.md")

TESTED_BY = {
    # minutes: a test asks the same with fewer epochs or images
    "odebench run --model kd-ode --attack pgd": "cli/test_commands.py::test_the_first_command_as_the_readme_has_it",
    "odebench run -m ode -a cw --horizon 2 -n 100": (
        "cli/test_commands.py::test_the_options_of_an_attack_reach_the_result"
    ),
    "odebench run -m ode -a pgd -n 100 --solver dopri5 --tolerance 1e-3": (
        "cli/test_commands.py::test_run_evaluates_with_another_solver_on_the_same_weights"
    ),
    "odebench run -m kd-ode -a worst-case -n 200": (
        "evaluation/test_sliced_evaluation.py::test_slices_joined_are_the_whole_byte_for_byte"
    ),
    "odebench train --model kd-ode --horizon 2": "cli/test_commands.py::test_train_names_the_weights_and_trains_once",
    "odebench diagnose -m kd-ode": "cli/test_diagnose.py::test_a_diagnosis_prints_every_check_in_80_columns",
    "odebench diagnose --model kd-ode": "cli/test_diagnose.py::test_a_diagnosis_prints_every_check_in_80_columns",
    "odebench diagnose --model kd-ode --full --chart kd-ode.svg": (
        "cli/test_diagnose.py::test_the_full_set_makes_every_check"
    ),
    "odebench diagnose --model ode --solver dopri5 --tolerance 0.1": (
        "cli/test_diagnose.py::test_flags_and_what_to_do_are_said"
    ),
    "odebench diagnose --model ode --parameter steps=5": "cli/test_diagnose.py::test_flags_and_what_to_do_are_said",
    "odebench examples": "leaderboard/test_example_images.py::test_examples_show_what_the_result_says",
    "odebench run -m ode,kd-ode -a fgsm,cw --horizon 0.5,1,2 --seeds 0-2": (
        "cli/test_run_grid.py::test_every_combination_is_an_evaluation_and_a_row"
    ),
    "odebench sweep digits-full --section cw": "sweep/test_publish.py::test_sweep_takes_some_sections_and_names_them",
    "odebench sweep digits --results again": "sweep/test_scheduler.py::test_a_cell_is_what_run_makes_of_it",
    "odebench sweep digits --results mine": "sweep/test_scheduler.py::test_a_cell_is_what_run_makes_of_it",
    "odebench protocols --time": "protocol/test_protocol_file.py::test_the_time_is_estimated_when_asked_for",
    "odebench verify kd-ode": "submission/verification/test_verify.py::test_a_published_model_is_found_again",
    "odebench verify kd-ode --dataset digits": (
        "submission/verification/test_verify.py::test_a_published_model_is_found_again"
    ),
    "odebench verify kd-ode --retrain --dataset digits": (
        "submission/verification/test_retraining.py::test_equal_recipes_give_equal_bytes_and_other_bytes_are_named"
    ),
    "odebench verify ode --dataset digits --full": (
        "submission/verification/test_verify.py::test_a_published_model_is_found_again"
    ),
    "odebench verify my-ode --trust": (
        "submission/verification/test_verify.py::test_a_good_entry_is_found_again_letter_by_letter"
    ),
    "odebench verify my-ode --trust --chunks 0,3": (
        "submission/verification/test_verify.py::test_chunks_without_committed_letters_are_compared_by_figures"
    ),
    "odebench verify leaderboard/entries/my-ode --trust --draw 7": (
        "submission/verification/test_verify.py::test_a_good_entry_is_found_again_letter_by_letter"
    ),
    "odebench diagnose --model my-ode --trust": (
        "model/test_contributed.py::test_the_commands_take_an_entry_and_ask_before_its_code_runs"
    ),
    # files, data or names that a reader has
    "odebench run -m kd-ode -a pgd --dataset fashion-mnist": "dataset/test_loading.py::test_fashion_mnist_from_debian",
    "odebench run -m my_net.py:Net -a pgd --weights FILE --trust": (
        "submission/test_own_model.py::test_a_file_or_a_module_is_run_with_its_weights"
    ),
    "odebench run -m ode -a pgd --weights FILE": "cli/test_commands.py::test_run_takes_weights_from_a_file",
    "odebench run -m ode -a pgd --weights ode.safetensors": "cli/test_commands.py::test_run_takes_weights_from_a_file",
    "odebench judge -m kd-ode FILE": (
        "attack/test_candidate_file.py::test_what_a_run_saves_is_judged_to_the_same_letters"
    ),
    # a git repository, a terminal, a package that is installed, a cluster, a network
    "odebench compare main~5 main": "analysis/test_comparison.py::test_commits_are_compared",
    "odebench check-pr origin/main": "submission/test_review.py::test_a_good_entry_passes",
    "odebench check-pr origin/main --trust": "submission/test_review.py::test_a_good_entry_passes",
    "odebench check-pr main --trust": "submission/test_review.py::test_a_good_entry_passes",
    "odebench leaderboard --serve": "render/test_page.py::test_the_page_is_served_on_loopback_alone_until_interrupted",
    "odebench run --model antisymmetric-ode --attack mi-fgsm -n 100 --set epochs=2": (
        "test_plugin.py::test_the_plugin_gives_a_result"
    ),
    "odebench sweep cifar10 --slice-images 1000 --scheduler tcp://HOST:8786": (
        "sweep/test_slices.py::test_large_evaluations_become_slices_and_a_join"
    ),
    "odebench sweep fashion-mnist --scheduler tcp://HOST:8786 --results /shared/results": (
        "sweep/test_scheduler.py::test_a_cluster_started_by_hand_computes_the_same"
    ),
    "odebench sweep digits --scheduler tls://HOST:8786 --tls-ca ca.pem --tls-cert cert.pem --tls-key key.pem": (
        "sweep/test_scheduler.py::test_an_address_that_cannot_be_is_refused"
    ),
    "odebench run -m ode -a pgd --weights https://example.org/ode.safetensors": (
        "io/test_remote_weights.py::test_a_run_takes_weights_from_an_address"
    ),
    "odebench run -m ode -a pgd --weights hf://owner/name/ode.safetensors@main": (
        "io/test_remote_weights.py::test_a_file_of_the_hub_is_fetched"
    ),
}
"""Commands, up to the # of an address, that take long or need more than a folder, and the test that runs each."""


@dataclass(frozen=True)
class Step:
    """Something that a page shows: a command of odebench, a script of an entry, or a block of Python; and its line."""

    line: int
    kind: str
    text: str
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)[1:]

    @property
    def name(self) -> str:
        """The command in its plainest form, as TESTED_BY has it."""
        return " ".join(["odebench", *self.words]).partition("#")[0]


COMMAND = re.compile(r"(?:^|&& )((?:[A-Z_]+=\S* +)*)(odebench +[^&\n]*)")


def steps_of(text: str) -> list[Step]:
    """What a page shows to be run, in its order: in blocks, indented or fenced, and in the first cells of tables."""
    found: list[Step] = []
    fence, block = "", []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if fence == "py":
                found.append(Step(number - len(block), "python", "\n".join(block)))
            fence, block = ("" if fence else line[3:].strip() or "text"), []
        elif fence in ("sh", "bash", "console", "text"):
            found += _commands(line, number)
        elif fence:
            block.append(line)
        elif line.startswith("    "):
            found += _commands(line.strip(), number)
        elif line.startswith("| `odebench "):
            found += _cell(line.split("|")[1], number)
    return found


def _commands(line: str, number: int) -> Iterator[Step]:
    script = re.match(r"python (leaderboard/\S+\.py)", line)
    if script:
        yield Step(number, "script", script[1])
    for given, command in COMMAND.findall(line):
        variables = tuple(tuple(pair.split("=", 1)) for pair in given.split())
        yield Step(number, "command", command.strip(), variables)  # type: ignore[arg-type]


def _cell(cell: str, number: int) -> Iterator[Step]:
    """The commands of a cell: `odebench x --a`, `--b`, `y` are three."""
    first, *others = re.findall(r"`([^`]+)`", cell)
    yield Step(number, "command", first)
    command = " ".join(first.split()[:2])
    for other in others:
        yield Step(number, "command", f"{command} {other}" if other.startswith("-") else f"odebench {other}")


def mentions_of(text: str) -> list[str]:
    """The commands in running text, without what is left open in them by dots."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [" ".join(words.split()) for words in re.findall(r"`(?:[A-Z_]+=\S* )?(odebench [^`]+)`", prose)]
    return [re.sub(r" \.\.\.(?= |$)", "", text) for text in found if re.match("[a-z]", text.split()[1])]


@cache
def real_commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined,no-any-return]


def parsed(words: list[str], *, whole: bool) -> None:
    """Asks the real command line whether there is such a command with such options; if `whole`, with all it needs."""
    commands = real_commands()
    name, *rest = words
    assert name in commands, f"there is no command {name}"
    try:
        commands[name].make_context(name, rest)
    except Exception as error:
        if whole or type(error).__name__ != "MissingParameter":
            raise AssertionError(f"odebench {' '.join(words)}: {getattr(error, 'message', error)}") from error


TEXTS = {name: page.read_text(encoding="utf-8") for name, page in zip(NAMES, PAGES, strict=True)}
STEPS = {name: steps_of(text) for name, text in TEXTS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_parses(name: str) -> None:
    for step in STEPS[name]:
        if step.kind == "command":
            parsed(step.words, whole=True)
    for text in mentions_of(TEXTS[name]):
        parsed(shlex.split(text)[1:], whole=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("odebench rum --model kd-ode", "there is no command rum"),
        ("odebench run -m kd-ode -a pgd --stepps 3", "No such option: --stepps"),
        ("odebench run -m kd-ode", "odebench run -m kd-ode: "),
        ("odebench schema now", "stands without an option"),
        ("odebench run -m kd-ode -a pgd --attack-seed one", "valid integer"),
    ],
)
def test_a_command_that_is_none_would_be_found(line: str, said: str) -> None:
    (step,) = steps_of(f"text\n\n    {line}  # says nothing\n")
    with pytest.raises(AssertionError, match=said):
        parsed(step.words, whole=True)


def test_what_is_tested_elsewhere_is_shown_and_its_test_is_there() -> None:
    shown = {step.name for steps in STEPS.values() for step in steps if step.kind == "command"}
    mentioned = {text for page in TEXTS.values() for text in mentions_of(page)}
    assert set(TESTED_BY) <= shown | mentioned
    assert set(FEWER) <= shown
    for test in TESTED_BY.values():
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_scripts_and_pages_that_are_named_are_there() -> None:
    for name, text in TEXTS.items():
        for script in re.findall(r"python (benchmarks/\S+?\.py)", text):
            assert (ROOT / script).is_file(), f"{name} names {script}"
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert ((ROOT / name).parent / link).exists(), f"{name} leads to {link}"
    index = TEXTS["docs/README.md"]
    assert {link for link in re.findall(r"\]\(([\w-]+\.md)\)", index)} == {
        page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"
    }
    assert "(CONTRIBUTING.md" in TEXTS["README.md"]


def test_protocols_that_are_shown_can_be_read(tmp_path: Path) -> None:
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert blocks
    for block in blocks:
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        assert read_grid(str(tmp_path / "mine.yaml")).evaluations


def test_the_page_of_the_python_api_is_made_from_the_docstrings() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
    assert TEXTS["docs/api.md"] == page, "python docs/api.py > docs/api.md"


def test_the_pages_that_are_written_by_hand_can_be_read_in_an_hour() -> None:
    pages = {name: text for name, text in TEXTS.items() if name.startswith("docs/")}
    made = r"<!-- (\w+) -->.*?<!-- /\1 -->"  # by docs/tables.py
    words = {name: len(re.sub(made, "", text, flags=re.DOTALL).split()) for name, text in pages.items()}
    written = {name: count for name, count in words.items() if name not in GENERATED}
    assert sum(written.values()) <= MAX_WORDS, written


def test_a_recipe_is_one_screen() -> None:
    _, *recipes = re.split(r"^## ", TEXTS["CONTRIBUTING.md"], flags=re.MULTILINE)
    assert len(recipes) == 3
    for recipe in recipes:
        assert len(recipe.rstrip().splitlines()) <= MAX_RECIPE_LINES, recipe.splitlines()[0]


# Page by page


def fill_in(folder: Path) -> None:
    """What validate asks for, and train.py has printed: written by hand."""
    mine = folder / "leaderboard" / "entries" / "my-ode"
    weights = mine / "digits-t1-seed0.safetensors"
    if weights.exists() and "authors: []" in (mine / "entry.yaml").read_text(encoding="utf-8"):
        numbers = {"parameters": "2650", "bytes": str(weights.stat().st_size), "sha256": sha256_file(weights)}
        old = {"parameters": "parameters: 1", "bytes": "bytes: 1", "sha256": f'sha256: "{"0" * 64}"'}
        change_entry(mine, *((old[key], f"{key}: {value}") for key, value in numbers.items()))
        change_entry(mine, ("authors: []", "authors: [Ada]"), ('licence: ""', "licence: MIT"))
        (mine / "README.md").write_text("# my-ode\n\nA field of two layers.\n", encoding="utf-8")
        read_entry(mine)


def shorten(script: Path) -> None:
    """Two epochs instead of fifteen: what the commands say does not depend on them."""
    text = script.read_text(encoding="utf-8")
    assert text.count("EPOCHS = 1.0, 0, 15\n") == 1
    script.write_text(text.replace("0, 15\n", "0, 2\n"), encoding="utf-8")


def results_of_ones_own(folder: Path) -> None:
    """Results as earlier runs have left them."""
    for target in ("results/ode", "runs/a/ode"):
        shutil.copytree(ROOT / "leaderboard" / "results" / "ode", folder / target)


BEFORE: dict[str, Callable[[Path], None]] = {
    "odebench validate leaderboard/entries/my-ode": fill_in,
    "odebench leaderboard runs/a --format html --output a.html": results_of_ones_own,
    "odebench leaderboard results leaderboard/results": results_of_ones_own,
}


RECIPES = "CONTRIBUTING.md"
"""The page on which my-ode is trained, attacked and verified."""
AT_ONE_RADIUS = [
    "odebench run -m kd-ode-at -a pgd -n 100",
    "odebench run --model my-ode --attack pgd -n 500 --trust --results leaderboard/results",
    "odebench run --model my-ode --attack worst-case -n 200 --trust --results leaderboard/results",
    "odebench run --model ode --attack pgd -n 100 --results results/own --save-candidates results/mine.safetensors",
]
"""Commands that are run at one radius, at which nearly all images fall soon, and on 40 images where they name 100 or
200: all else is as it is written. What verify looks at again is cheap then, too."""
FEWER = {
    line: [*shlex.split(re.sub("(pgd|worst-case) -n [12]00", r"\1 -n 40 --chunk 40", line))[1:], "--epsilon", "0.3"]
    for line in AT_ONE_RADIUS
}
FEWER["odebench verify my-ode --trust"] = ["verify", "my-ode", "--trust", "--chunks", "3"]
"""One chunk instead of two that are drawn."""
LONG = ("run", "judge", "verify", "diagnose", "train", "protocols", "claims")
DONE: set[str] = set()
"""Commands that take seconds and have been run on one page: the same words on another page need not be run again."""


@pytest.fixture
def beside_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a clone, as far as commands look: what is published, a cache of its own, nothing else."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "leaderboard", folder / "leaderboard")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ODEBENCH_LEADERBOARD")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    return folder


@pytest.mark.parametrize("name", [name for name, steps in STEPS.items() if steps])
def test_a_page_runs_as_it_is_written(
    name: str, beside_what_is_published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: set[str] = set()
    for step in STEPS[name]:
        where = f"{name}, line {step.line}: {step.text}"
        if step.kind != "command":
            try:
                if step.kind == "script":
                    shorten(Path(step.text))
                    monkeypatch.setattr(sys, "argv", [step.text])
                    sys.path.insert(0, str(Path(step.text).parent.resolve()))  # as python does
                    runpy.run_path(step.text, run_name="__main__")
                elif is_whole(step.text):
                    # test_entry.py looks at what the training gives: one epoch is enough here
                    exec(compile(step.text.replace("range(15)", "range(1)"), where, "exec"), {"__name__": "page"})
            finally:
                sys.modules.pop("model", None)
            continue
        if step.name in TESTED_BY or step.name in done | DONE:
            continue
        if "my-ode" in step.words and step.words[0] in LONG and name != RECIPES:
            assert step.name in {other.name for other in STEPS[RECIPES]}, f"{where}\nno page trains my-ode for it"
            continue
        done.add(step.name)
        DONE.update({step.name} if step.words[0] in LONG or {"--publish", "--check"} & {*step.words} else ())
        BEFORE.get(step.name, lambda folder: None)(beside_what_is_published)
        with monkeypatch.context() as patched:
            for variable, value in step.variables:
                patched.setenv(variable, value)
            patched.setattr(sys, "argv", ["odebench", *FEWER.get(step.name, step.words)])
            started = os.times()
            code = _exit_code()
            used = sum(os.times()[:4]) - sum(started[:4])
        said = capsys.readouterr()
        assert code == 0, f"{where}\n{said.out[-2000:]}\n{said.err[-2000:]}"
        with capsys.disabled():
            if os.environ.get("ODEBENCH_DOCS_TIME"):
                print(f"{used:6.1f} s of CPU: {where}")
        assert torch.get_num_threads() == 1


def is_whole(code: str) -> bool:
    """Whether a block of py can be run by itself; a part of examples/, which test_plugin.py compares, cannot."""
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
