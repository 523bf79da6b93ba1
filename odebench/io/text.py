"""Text that can be shown: escaped, cut, wrapped."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

WIDTH = 80
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that steer a terminal, turn the direction of writing, or cannot be seen."""
_SHOWN = 400


def printable(text: str) -> str:
    """The text with all unprintable characters escaped, cut after 400 characters."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def unseen(text: str) -> bool:
    """Whether a text has characters, other than line ends and tabs, that cannot be seen or that change others."""
    return not text.isprintable() and any(_is_unseen(letter) for letter in text)


def shown(text: str) -> str:
    """The text with such characters escaped, as JSON does; all else as it is, line ends included."""
    if text.isprintable():
        return text
    return "".join(json.dumps(letter)[1:-1] if _is_unseen(letter) else letter for letter in text)


def _is_unseen(letter: str) -> bool:
    return letter not in "\n\t" and unicodedata.category(letter) in _UNSEEN


_ASCII = str.maketrans(
    {
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰", "+"),
        **dict.fromkeys("─━", "-"),
        **dict.fromkeys("│┃", "|"),
        "▇": "#",
        "±": "+-",
        "…": "...",
    }
)


def ascii_only(stream: Any) -> bool:
    """Whether a stream has an encoding that lacks what tables and curves are drawn with."""
    encoding = getattr(raw_stream(stream), "encoding", None)
    try:
        "┌─▇±".encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def spelled_for(stream: Any, text: str) -> str:
    """A text as a stream can write it: where its encoding lacks lines and signs these are ASCII, others escaped."""
    if text.isascii() or not ascii_only(stream):
        return text
    encoding = getattr(raw_stream(stream), "encoding", None) or "ascii"
    return text.translate(_ASCII).encode(encoding, errors="backslashreplace").decode(encoding)


class ShownStream:
    """A text stream that shows what it is given: nothing that is written to it can steer a terminal. `raw` is the
    stream itself, for what draws on purpose."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        self.raw.write(spelled_for(self.raw, shown(text)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def shown_streams() -> Iterator[None]:
    """Standard output and error are shown streams while inside."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (ShownStream(one) for one in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def raw_stream(stream: TextIO) -> TextIO:
    """The stream behind a shown one, or the stream itself."""
    return stream.raw if isinstance(stream, ShownStream) else stream


def first_line(error: BaseException) -> str:
    """The first line of an error's message, which may be empty."""
    return next(iter(str(error).strip().splitlines()), "")


def fill(text: str, *, indent: str = "") -> str:
    """A paragraph in lines of at most 80 columns, all but the first with the indent."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def hanging(text: str) -> str:
    """A paragraph in lines of at most 80 columns, all but the first indented; words stay whole."""
    return fill(text, indent="  ")


def shell_lines(words: Sequence[str]) -> str:
    """A command for the shell in lines of at most 80 columns, which end in a backslash; an option stays beside its
    value."""
    lines: list[str] = []
    for number, word in enumerate(words):
        quoted = shlex.join([word])
        value = number > 0 and words[number - 1].startswith("-") and not word.startswith("-")
        following = words[number + 1 : number + 2]
        ahead = shlex.join([word, *following]) if word.startswith("-") and following else quoted
        if lines and (value or len(f"{lines[-1]} {ahead} \\") <= WIDTH):
            lines[-1] += f" {quoted}"
        else:
            lines.append(f"  {quoted}" if lines else quoted)
    return " \\\n".join(lines)
