"""Text that can be shown: escaped, cut, wrapped."""

from __future__ import annotations

import textwrap

WIDTH = 80
_SHOWN = 400


def printable(text: str) -> str:
    """The text with all unprintable characters escaped, cut after 400 characters."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, which may be empty."""
    return next(iter(str(error).strip().splitlines()), "")


def fill(text: str) -> str:
    """A paragraph in lines of at most 80 columns."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
