"""Whether the code of an entry may run: only if the user agrees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from odebench.errors import UsageError

if TYPE_CHECKING:
    from odebench.evaluation.model_reference import ModelReference


def trusted_model(name: str, *, weights: Path | None = None, trust: bool = False) -> ModelReference:
    """The model that a name stands for. Raises UsageError if it is an entry whose code may not run."""
    from odebench.submission.own_model import OwnModel
    from odebench.submission.submitted_model import SubmittedModel, find_model

    found = find_model(name, weights=weights)
    if isinstance(found, SubmittedModel | OwnModel):
        lacks_weights = isinstance(found, OwnModel) and weights is None
        check_trust(found.name, found.code, trust=trust, and_then=", and --weights FILE.safetensors" * lacks_weights)
    return found


def check_trust(name: str, code: Path | None, *, trust: bool, and_then: str = "") -> None:
    """Asks on a terminal whether an entry's code may run, unless `trust` says so. Raises UsageError if it may not; it
    ends with `and_then`, what else is to be given."""
    if code is None or trust:
        return
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{name} runs {code}, with all that you may do here: read it, then give --trust{and_then}")
    if not typer.confirm(f"{name} runs {code}, with all that you may do here. Run it?", err=True):
        raise UsageError(f"{code} was not run; nothing was done")
