"""Text that can be shown in one line."""

from __future__ import annotations

import pytest

from odebench.io.text import first_line


@pytest.mark.parametrize(
    ("message", "line"), [("\n one line\nanother", "one line"), ("torn\r\nhere", "torn"), ("", ""), (" \n", "")]
)
def test_the_first_line_of_an_error(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
