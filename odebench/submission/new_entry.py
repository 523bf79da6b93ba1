"""The folder of a new entry, to be filled in, with comments that explain each key."""

from __future__ import annotations

import shutil
from pathlib import Path

from odebench.errors import UsageError
from odebench.io.files import FileError, write_atomically
from odebench.model.registry import MODELS
from odebench.submission.entry import ENTRY_FILE, ID, MAX_ID_LETTERS, READ_ME, template_text


def new_entry(name: str, folder: Path) -> list[Path]:
    """Writes the commented files of a new entry below `folder` and returns them. Raises UsageError for a wrong or taken
    id, FileError where it cannot be written."""
    if not ID.fullmatch(name) or len(name) > MAX_ID_LETTERS:
        form = f"small letters, digits and single dashes, at most {MAX_ID_LETTERS}, such as my-ode"
        raise UsageError(f"{name!r} is no id; use {form}")
    if name in MODELS.entries():
        raise UsageError(
            f"{name!r} is the name of a registered model; choose another id (--published writes that model's own entry)"
        )
    target = folder / name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already; choose another id, or edit {target / ENTRY_FILE}")
    written = [target / file for file in (ENTRY_FILE, READ_ME, "model.py", "train.py")]
    try:
        for path in written:
            write_atomically(path, template_text(path.name).replace("{id}", name).encode())
    except FileError:  # half an entry would be in the way of the next try
        shutil.rmtree(target, ignore_errors=True)
        raise
    return written
