"""How an evaluation is cut into slices of whole chunks, and where their files are. Imports no torch."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from pathlib import Path

from odebench.attack.definition import load_attack
from odebench.protocol.spec import VERDICT_BATCH, Evaluation


def cut(evaluation: Evaluation, images: int | None) -> tuple[slice, ...]:
    """The rows of each slice of about `images` images, rounded up to whole chunks and whole batches of the verdict.

    Empty if the evaluation stays in one piece: `images` is None, it has no more images than that, or its attack
    compares all images with one another, as a diagnosis does.
    """
    attack, n = load_attack(evaluation.attack.name), evaluation.dataset.n
    if images is None or not attack.runs_by_chunk:
        return ()
    whole = math.lcm(evaluation.chunk, VERDICT_BATCH)
    size = math.ceil(images / whole) * whole
    return tuple(slice(first, min(first + size, n)) for first in range(0, n, size)) if n > size else ()


def slice_folder(results: Path, evaluation: Evaluation) -> Path:
    """The folder of an evaluation's slices: hidden beside the results, so that nobody takes them for results."""
    return results / ".slices" / evaluation.run_key


def slice_path(results: Path, evaluation: Evaluation, rows: slice) -> Path:
    """The file of one slice."""
    return slice_folder(results, evaluation) / f"{rows.start}-{rows.stop}.safetensors"


def forget_slices(evaluation: Evaluation, results: Path) -> None:
    """Deletes the files of an evaluation's slices, and the folder of all slices if it is empty then."""
    shutil.rmtree(slice_folder(results, evaluation), ignore_errors=True)
    with suppress(OSError):  # it holds slices of another evaluation, or does not exist
        (results / ".slices").rmdir()
