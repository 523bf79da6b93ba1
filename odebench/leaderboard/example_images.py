"""Examples: up to six images of a published result, clean and adversarial, as PNG beside the result.

A folder holds `examples.json` and, for each pair, INDEX-clean.png and INDEX-adversarial.png. PNG has 8 bits a channel,
so an adversarial image is rounded there; letter and prediction are those of the candidate itself.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from odebench.errors import ResultError, first_problem
from odebench.io.canonical_json import digest
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Cell, Row, Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import Norm, Sha256, Spec
from odebench.result.file import EXAMPLES_FILE
from odebench.result.schema import Count, Result

MOST = 6
GAIN = 10
"""The factor by which differences are enlarged."""
_MAX_SIDE, _MAX_BYTES = 512, 1 << 20
_FOLDER = re.compile(r".+-examples-[0-9a-f]{16}")
_IMAGE = re.compile(r"\d+-(clean|adversarial)\.png")


class ExamplePair(Spec):
    """An image by its place in the fixed order; `predicted` is null where the solver failed."""

    index: Count
    label: str
    predicted: str | None
    outcome: Literal["f", "x", "r"]
    felled_by: str | None


class Examples(Spec):
    """The pairs of one result at one epsilon."""

    schema_version: Literal[1]
    run_key: Sha256
    dataset: str
    norm: Norm
    epsilon: Annotated[float, Field(gt=0)]
    attack: str
    pairs: Annotated[tuple[ExamplePair, ...], Field(min_length=1, max_length=MOST, strict=False)]


@dataclass(frozen=True)
class ExampleStrip:
    """Examples as they are shown: for each pair the PNGs of the clean image, the adversarial one, their difference."""

    folder: Path
    examples: Examples
    images: tuple[tuple[bytes, bytes, bytes], ...]

    @property
    def sha256(self) -> str:
        """The digest of all that is shown."""
        images = [[png.hex() for png in pair] for pair in self.images]
        return digest({"examples": self.examples.model_dump(mode="json"), "images": images})


def results_to_show(tables: Sequence[Table]) -> list[StoredResult]:
    """One result for each model and data set, on test images: the largest worst-case result of the usual solver and the
    first norm (linf before l2), trained and evaluated at the horizon nearest 1, of the lowest train seed."""
    found: dict[str, StoredResult] = {}
    by_data = group((t for t in tables if t.split == "test"), lambda table: (table.dataset, table.dataset_sha256))
    for same in by_data.values():
        rows = [row for table in sorted(same, key=lambda table: table.norm, reverse=True) for row in table.usual]
        for of_model in group(rows, lambda row: row.identity).values():
            cell = _cell(of_model[0])
            first = next(iter(cell.files.values()))
            item = next(item for item in cell.results if item.path == first)
            found.setdefault(item.result.run_key, item)
    return list(found.values())


def examples_folder(item: StoredResult) -> Path:
    """The folder of the examples of a result, beside its file."""
    return item.path.parent / f"{item.evaluation.dataset.name}-examples-{item.result.run_key[:16]}"


def file_names(pair: ExamplePair) -> tuple[str, str]:
    """The names of the clean and the adversarial PNG."""
    return f"{pair.index}-clean.png", f"{pair.index}-adversarial.png"


def example_files(folders: Iterable[Path]) -> list[Path]:
    """All files below `folders` that should hold examples, in order of their names."""
    return sorted({path for folder in folders for path in folder.rglob(EXAMPLES_FILE)})


def remove_examples(folder: Path) -> bool:
    """Removes the files of one folder of examples, then the folder, and returns whether there was one; does nothing
    where the name is not that of such a folder."""
    if not _FOLDER.fullmatch(folder.name) or not folder.is_dir():
        return False
    for path in folder.iterdir():
        if path.name == EXAMPLES_FILE or _IMAGE.fullmatch(path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return True


def read_examples(
    folders: Sequence[Path], stored: Sequence[StoredResult]
) -> tuple[list[ExampleStrip], list[ResultError]]:
    """The examples below `folders` of the results `stored`, and the problems: what is left out because it is damaged,
    contradicts its result, or belongs to none."""
    results = {item.result.run_key: item.result for item in stored}
    strips: list[ExampleStrip] = []
    problems: list[ResultError] = []
    for path in example_files(folders):
        try:
            strips.append(_read(path, results))
        except ResultError as error:
            problems.append(error)
    return strips, problems


def read_file(path: Path) -> Examples:
    """The values of one `examples.json`. Raises ResultError."""
    try:
        return Examples.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        said = first_problem(error)
        raise ResultError(f"{path} holds no examples: {said}; run odebench examples --force") from error


def _read(path: Path, results: dict[str, Result]) -> ExampleStrip:
    examples = read_file(path)
    result = results.get(examples.run_key)
    if result is None:
        raise ResultError(
            f"{path} belongs to the result {examples.run_key[:16]}, which is not there; run odebench examples, "
            "or delete its folder"
        )
    evaluation = result.evaluation
    outcomes = {item.epsilon: item.outcomes for item in result.epsilons}.get(examples.epsilon, "")
    same = (examples.dataset, examples.norm) == (evaluation.dataset.name, evaluation.threat_model.norm)
    for pair in examples.pairs:
        place = pair.index - evaluation.dataset.offset
        outcome = outcomes[place] if 0 <= place < len(outcomes) else "nothing"
        if outcome != pair.outcome or not same:
            raise ResultError(
                f"{path} contradicts its result: image {pair.index} is {pair.outcome}, the result says {outcome}; "
                "run odebench examples --force"
            )
    pngs = [[_bytes(path.parent / name) for name in file_names(pair)] for pair in examples.pairs]
    images = tuple((clean, other, _difference(path.parent, clean, other)) for clean, other in pngs)
    return ExampleStrip(path.parent, examples, images)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}; run odebench examples --force") from error
    if len(found) > _MAX_BYTES:
        raise ResultError(f"{path} is larger than {_MAX_BYTES >> 20} MiB; run odebench examples --force")
    return found


def _difference(folder: Path, clean: bytes, adversarial: bytes) -> bytes:
    """The difference times GAIN around mid-grey, as PNG. Raises ResultError where the images cannot be compared."""
    import numpy as np
    from PIL import Image

    try:
        pictures = [Image.open(io.BytesIO(png), formats=["PNG"]) for png in (clean, adversarial)]
        if any(max(picture.size) > _MAX_SIDE or picture.mode not in ("L", "RGB") for picture in pictures):
            raise ValueError(f"expected grey or RGB of at most {_MAX_SIDE} pixels a side")
        if len({(picture.size, picture.mode) for picture in pictures}) > 1:
            raise ValueError("the two images differ in size or kind")
        before, after = (np.asarray(picture).astype(int) for picture in pictures)
        levels = np.clip(128 + GAIN * (after - before), 0, 255).astype(np.uint8)
        written = io.BytesIO()
        Image.fromarray(levels).save(written, "PNG")
    except Exception as error:  # PIL raises whatever a damaged file leads it to
        line = " ".join(str(error).split())[:120]
        raise ResultError(f"{folder}: its images cannot be shown ({line}); run odebench examples --force") from error
    return written.getvalue()


def _cell(row: Row) -> Cell:
    """The cell at the horizon nearest 1, if possible of those whose horizon is that of training."""
    matched = [cell for cell in row.cells.values() if cell.train_horizon == cell.horizon] or [*row.cells.values()]
    return min(matched, key=lambda cell: 0.0 if cell.horizon is None else abs(math.log2(cell.horizon)))
