"""What a command says while it runs: -q, -v, a line every 30 seconds without a terminal, what an interruption keeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.torch import save_file
from small_model import linear
from submission.test_own_model import NET

from odebench.cli import _exit_code, console
from odebench.cli.console import ScreenProgress
from odebench.cli.options import complete_model, completing
from odebench.cli.verbosity import Verbosity, set_verbosity
from odebench.cli.watch import InterruptedSweepError, watching
from odebench.submission.verification.jobs import Within
from odebench.sweep.scheduler import State, Task


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    yield
    set_verbosity(Verbosity.USUAL)


def test_a_line_every_30_seconds_tells_of_work_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with ScreenProgress().track("attacking with pgd", total=12) as step:
        for _ in range(8):
            step.advance()
    assert capsys.readouterr().err.splitlines() == [
        "attacking with pgd: 25%, about 90 s left".replace("90 s", "2 min"),
        "attacking with pgd: 50%, about 60 s left",
    ]


def test_a_line_tells_of_a_part_where_the_whole_has_not_advanced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with (
        ScreenProgress().track("verifying", total=2) as step,
        Within(step).track("attacking with pgd", total=8) as part,
    ):
        for _ in range(3):
            part.advance()
    assert capsys.readouterr().err.splitlines() == [
        "verifying: 0%, attacking with pgd 12%",
        "verifying: 0%, attacking with pgd 38%",
    ]


def test_quiet_says_nothing_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.QUIET)
    progress = ScreenProgress()
    progress.say("a line")
    progress.warn("a warning")
    with progress.track("work", total=1) as step:
        step.advance()
    assert capsys.readouterr().err == "a warning\n"


def test_q_and_v_are_options_of_run(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(NET)
    save_file(dict(linear(10).state_dict()), "net.safetensors")
    line = "run -m my_net.py:Net --weights net.safetensors -a pgd --parameter steps=1 -n 20 --chunk 20 --epsilon 0.1"
    line += " --trust --force"
    said = {}
    for option in ("", "-q", "-v"):
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split(), *([option] if option else [])])
        assert _exit_code() == 0
        said[option] = capsys.readouterr().err
    _, note = said["-q"].splitlines()
    assert note.startswith("note: 20 of 500 images")
    assert "pass each: about" in said[""]
    assert said["-v"].splitlines()[-2].startswith("pgd: ")
    assert said["-v"].splitlines()[-1].startswith("weights: sha256 ")
    for part in ("clean images and checks 2, 15", "attacking with pgd", "checks 5, 11, 17, 19, 20, 21"):
        assert f"\n{part}: " in said["-v"]
        assert part not in said[""]
    monkeypatch.setattr(sys, "argv", ["odebench", "-q", *line.split()])
    assert _exit_code() == 0
    assert capsys.readouterr().err == said["-q"]


def test_an_interrupted_sweep_says_what_is_kept() -> None:
    tasks = {key: Task(key, "evaluation", key, (), 1.0, ()) for key in ("a", "b", "c")}
    state = State(tasks, there=10)
    state.done.add("a")
    said = "interrupted; 11 of 13 done and kept; the same command goes on"

    def work() -> None:
        with watching("run") as watch:
            watch.look(state)
            raise KeyboardInterrupt

    with pytest.raises(InterruptedSweepError, match=said) as raised:
        work()
    assert raised.value.exit_code == 130

    def replacing() -> None:
        with watching("run", replaces=True) as watch:
            watch.look(state)
            raise KeyboardInterrupt

    with pytest.raises(InterruptedSweepError, match=r"11 of 13 done and kept; the same command begins anew; without -"):
        replacing()


def test_names_of_entries_and_words_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.submission.submitted_model.entry_names", lambda: ["my-ode", "kd-ode"])
    assert complete_model("my") == ["my-ode"]
    assert complete_model("kd-ode") == ["kd-ode", "kd-ode-at", "kd-ode-stemless"]
    assert completing(lambda: ["rk4", "euler"])("r") == ["rk4"]
