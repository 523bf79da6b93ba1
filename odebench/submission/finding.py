"""What is wrong with an entry: findings with the file, the line, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass

from odebench.io.text import printable
from odebench.io.yaml_document import Document, Where


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `rule` is a short word for programs; `line` is None for a finding about a whole file."""

    file: str
    line: int | None
    rule: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.message}"


def finding(file: str, line: int | None, rule: str, message: str) -> Finding:
    """A finding with printable texts: what strangers write may contain control characters and surrogates."""
    return Finding(printable(file), line, rule, printable(message))


def finding_at(document: Document, where: Where, rule: str, message: str) -> Finding:
    """A finding about the value at `where` in a document."""
    return finding(document.source, document.line(where), rule, message)
