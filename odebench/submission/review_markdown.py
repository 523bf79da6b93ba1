"""A review as Markdown, for the summary of a job. What strangers wrote stands in it as code, which nothing can end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from odebench.io.text import fill, printable

if TYPE_CHECKING:
    from odebench.submission.review import Review, Reviewed

_OUTSIDE = 50


def review_markdown(review: Review, *, tables: str = "") -> str:
    """The findings, what was looked at, and `tables`: Markdown of the models beside the registered ones."""
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
    """In a few words, how the review ended."""
    count = len(review.all_findings)
    if count:
        return f"refused: {count} finding{'s' * (count > 1)}"
    if not review.entries and not review.added:
        return "no entry and no result is changed: a normal review"
    return "good"


def entry_lines(review: Review) -> list[str]:
    """A line an entry: whether it was run, what was compared, and what came of it."""
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
    """The changed files that are neither an entry's nor results, a line each; of many the first."""
    outside = review.pull_request.outside
    lines = [f"{change.kind} {printable(change.path)}" for change in outside[:_OUTSIDE]]
    return lines + ([f"and {len(outside) - _OUTSIDE} more"] if len(outside) > _OUTSIDE else [])


def _code(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines) + "\n"
