"""What is wrong with an entry: one finding each, with the file, the line, and what to write instead."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pydantic import JsonValue

from odebench.io.text import printable


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `rule` is a short word for programs; `line` is None where a whole file is meant."""

    file: str
    line: int | None
    rule: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.message}"

    def json(self) -> dict[str, JsonValue]:
        """The finding as plain values."""
        return asdict(self)


def finding(file: str, line: int | None, rule: str, message: str) -> Finding:
    """A finding whose texts can be shown anywhere: what strangers write may hold control characters and surrogates."""
    return Finding(printable(file), line, rule, printable(message))
