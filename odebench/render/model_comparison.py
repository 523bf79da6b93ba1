"""Two models side by side, as text in 80 columns and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from odebench.analysis.model_comparison import CLEAN, ModelComparison, ModelDifference
from odebench.io.text import fill
from odebench.protocol.registration import LEAST_SEEDS
from odebench.protocol.spec import radius

_WIDTHS = (10, 7, 7, 22)


def model_comparison_text(found: Sequence[ModelComparison], first: str, second: str) -> str:
    """A table for each data set and norm: for each attack a row a horizon, and one for the mean over horizons."""
    parts = [f"A: {first}", f"B: {second}"]
    for one in found:
        table = one.table
        parts += ["", f"{table.dataset} ({table.split}), {table.norm}, epsilon {radius(table.epsilon)}"]
        parts += [fill(answer) for answer in _answer(one.rows, first, second)]
        parts += [_line("T", "A %", "B %", "A - B", "A is")]
        for (attack, images, seeds), rows in groupby(one.rows, lambda row: (row.attack, row.images, row.seeds)):
            parts += [f"{attack}, {images} images, {seeds} train seed{'s' * (seeds > 1)}", *map(_row, rows)]
        if one.unranked:
            parts += ["", fill(f"Not ranked: {', '.join(one.unranked)}.")]
        if one.flags:
            parts += ["", fill(f"Flags: {'; '.join(one.flags)}.")]
    parts += [
        "",
        fill(
            "Accuracies in %, clean and under each attack, on the images and train seeds that both models have. A - B "
            "is in points with its paired 95% interval: over train seeds and images, or of one train seed over "
            f"images. A is better or worse where it excludes 0; below {LEAST_SEEDS} train seeds, that speaks of these "
            "weights alone. The leaderboard orders models by their best T and corrects its ranks for many comparisons; "
            "these rows are a mean over T, and not corrected."
        ),
        "",
    ]
    return "\n".join(parts)


def model_comparison_json(found: Sequence[ModelComparison], first: str, second: str, folders: Sequence[Path]) -> str:
    """The same as one JSON object, shares in [0, 1]."""
    record = {
        "first": first,
        "second": second,
        "results": [folder.as_posix() for folder in folders],
        "tables": [
            {
                "dataset": one.table.dataset,
                "split": one.table.split,
                "norm": one.table.norm,
                "epsilon": one.table.epsilon,
                "rows": [{**asdict(row), "word": row.word} for row in one.rows],
                "unranked": list(one.unranked),
                "flags": list(one.flags),
            }
            for one in found
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _answer(rows: Sequence[ModelDifference], first: str, second: str) -> Iterator[str]:
    """A sentence about the attack that stands first, which is the strongest; none where both were run on clean images
    alone."""
    attacked = [row for row in rows if row.attack != CLEAN]
    row = next((row for row in attacked if row.joined), next(iter(attacked), None))
    if row is not None:
        over = "mean over T" if row.joined or row.horizon is None else f"T={row.horizon:g}"
        yield f"Answer: {first} {_interval(row)} points against {second} under {row.attack}, {over}: {row.word}."


def _row(row: ModelDifference) -> str:
    at = "mean" if row.joined else "" if row.horizon is None else f"{row.horizon:g}"
    first, second = (f"{100 * share:.1f}" for share in (row.first, row.second))
    return _line(at, first, second, _interval(row), row.word)


def _interval(row: ModelDifference) -> str:
    difference, low, high = (f"{100 * value:+.1f}" for value in (row.difference, row.low, row.high))
    return f"{difference} [{low}, {high}]"


def _line(*texts: str) -> str:
    *numbers, word = texts
    return "".join(text.rjust(width) for text, width in zip(numbers, _WIDTHS, strict=True)) + f"  {word}"
