"""Text that can be shown in one line."""

from __future__ import annotations

import shlex
import sys

import pytest

from odebench.io import text
from odebench.io.text import first_line


@pytest.mark.parametrize(
    ("message", "line"), [("\n one line\nanother", "one line"), ("torn\r\nhere", "torn"), ("", ""), (" \n", "")]
)
def test_the_first_line_of_an_error(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line


def test_what_is_shown_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31m\u202eb\x9b\u200bc\x07\x7f"
    assert text.unseen(hostile)
    assert not text.unseen("two lines\n\tand Müller's \u4e2d\u6587 €")
    shown = text.shown(hostile)
    assert shown == r"a\u001b[31m\u202eb\u009b\u200bc\u0007\u007f"
    with text.shown_streams():
        print(hostile)
        print(hostile, file=sys.stderr)
        text.raw_stream(sys.stdout).write("\x1b[0m")
    assert capsys.readouterr() == (shown + "\n\x1b[0m", shown + "\n")


def test_a_command_is_broken_between_options_and_stays_the_same_command() -> None:
    words = [
        "odebench",
        "run",
        "--model",
        "kd-ode",
        "--set",
        "a b=1",
        "--trust",
        "-n",
        "50",
        *("--source", "x" * 30) * 3,
    ]
    lines = text.shell_lines(words).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("  --") and line.endswith("\\") for line in lines[1:-1])
    assert shlex.split(text.shell_lines(words).replace("\\\n", "")) == words
    assert text.shell_lines(words[:4]) == "odebench run --model kd-ode"


def test_a_hanging_paragraph_keeps_words_whole() -> None:
    lines = text.hanging(f"one/{'path' * 30} well-known {'word ' * 30}").splitlines()
    assert lines[0] == f"one/{'path' * 30}"
    assert all(line.startswith("  ") and len(line) <= 80 for line in lines[1:])
