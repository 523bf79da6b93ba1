"""Text that can be shown in one line."""

from __future__ import annotations

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
