"""A review as Markdown, for the summary of a job. What strangers wrote is shown as code, which no text can end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from odebench.io.text import fill, printable

if TYPE_CHECKING:
    from odebench.submission.review import Review, Reviewed

_OUTSIDE = 50


def review_markdown(review: Review, *, tables: str = "") -> str:
    """The review as Markdown; `tables` is Markdown of the models beside the registered ones."""
    span, findings = review.pull_request.span, review.all_findings
    parts = [
        f"# {verdict(review)}\n",
        fill(f"HEAD {span.head[:12]} left BASE at {span.fork[:12]}; chunks and results drawn by {review.draw}.") + "\n",
        *(["## Findings\n", _code(map(str, findings))] if findings else []),
        *(["## Entries\n", _code(line for line in entry_lines(review))] if review.entries else []),
        *(["## Notes\n", _code(review.notes)] if review.notes else []),
    ]
    if review.pull_request.outside:
        parts += ["## Outside of entries and results, for a normal review\n", _code(outside_lines(review))]
    if tables:
        parts += ["## Beside the registered models\n", tables]
    return "\n".join(parts)


def verdict(review: Review) -> str:
    """The result of the review in a few words."""
    count = len(review.all_findings)
    if count:
        return f"refused: {count} finding{'s' * (count > 1)}"
    if not review.entries and not review.added:
        return "no entry and no result is changed: a normal review"
    return "good"


def entry_lines(review: Review) -> list[str]:
    """One line per entry: whether it was run, what was compared, and the result."""
    return [f"{printable(entry.id)}: {_outcome(entry)}" for entry in review.entries]


def _outcome(entry: Reviewed) -> str:
    if entry.verification is None:
        return f"not run: {entry.why_not}"
    chunks = [
        f"{name} chunks {', '.join(map(str, numbers))}"
        for name, numbers in entry.verification.chunks.items()
        if numbers
    ]
    letters, differ = entry.verification.letters
    compared = f"{letters} letters compared, {differ} differ" if letters else "compared by figures"
    return f"{'refused' if entry.findings else 'good'}; {'; '.join([*chunks, compared])}"


def outside_lines(review: Review) -> list[str]:
    """One line for each of the first 50 changed files outside entries and results, and the number of the others."""
    outside = review.pull_request.outside
    lines = [f"{change.kind} {printable(change.path)}" for change in outside[:_OUTSIDE]]
    return lines + ([f"and {len(outside) - _OUTSIDE} more"] if len(outside) > _OUTSIDE else [])


def _code(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines) + "\n"
