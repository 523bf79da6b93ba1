"""The files of an entry's folder: which are allowed, their sizes, and what they must not be. Nothing of it is run."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from odebench.errors import WeightError
from odebench.io.safetensors_file import Header, read_header
from odebench.submission.entry import ENTRY_FILE, READ_ME, template_text
from odebench.submission.file_kind import foreign_kind, hidden_kind
from odebench.submission.finding import Finding, finding
from odebench.submission.limits import MAX_FILES, MAX_FOLDER_BYTES, MAX_TEXT_BYTES, MAX_WEIGHTS_BYTES

WEIGHTS_FOLDER, WEIGHTS_SUFFIX, CODE_SUFFIX = "weights", ".safetensors", ".py"
_TEXTS = (ENTRY_FILE, READ_ME, "LICENSE", "LICENSE.txt", "LICENSE.md")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_EXPECTED = (
    f"an entry holds {ENTRY_FILE}, {READ_ME}, LICENSE, modules (*{CODE_SUFFIX}) and weights (*{WEIGHTS_SUFFIX}, "
    f"here or in {WEIGHTS_FOLDER}/)"
)


@dataclass(frozen=True)
class Contents:
    """The contents of a folder by relative path: texts, and headers of weights; with findings about all files."""

    texts: Mapping[str, str]
    headers: Mapping[str, Header]
    findings: tuple[Finding, ...]


def contents_of(folder: Path) -> Contents:
    """The contents of a folder, read without following links or opening anything but plain files."""
    names, findings = _plain_files(folder)
    texts: dict[str, str] = {}
    headers: dict[str, Header] = {}
    for name in names:
        try:
            data = (folder / name).read_bytes()
            header, problem = weights_header(folder / name, data) if name.endswith(WEIGHTS_SUFFIX) else (None, None)
            if header is not None:
                headers[name] = header
            elif (refused := _refused(name, data, problem)) is not None:
                findings.append(finding(str(folder / name), None, *refused))
            else:
                texts[name] = data.decode("utf-8")
        except OSError as error:
            findings.append(finding(str(folder / name), None, "file", f"cannot be read: {error.strerror}"))
    for required in (ENTRY_FILE, READ_ME):
        if not (folder / required).exists():
            said = "is missing; odebench new-entry writes one to fill in"
            findings.append(finding(str(folder / required), None, "file", said))
    if texts.get(READ_ME, "-").strip() == "":
        findings.append(finding(str(folder / READ_ME), 1, "file", "is empty; say in a few lines what the model is"))
    elif template_text(READ_ME).split()[2:] == texts.get(READ_ME, "").split()[2:]:
        said = "holds the template's text; say in a few lines what the model is"
        findings.append(finding(str(folder / READ_ME), None, "file", said))
    return Contents(texts, headers, tuple(findings))


def _refused(name: str, data: bytes, weights_problem: str | None) -> tuple[str, str] | None:
    """The rule that a file breaks which is not whole weights, and the sentence; None for an expected text."""
    if (kind := foreign_kind(data)) is not None:
        return "pickle", (
            f"is {kind}, whatever its name says; loading such files can run code: save weights with "
            "safetensors.torch.save_file, and delete this"
        )
    if weights_problem is not None:
        return "weights", weights_problem
    if name not in _TEXTS and ("/" in name or not name.endswith(CODE_SUFFIX)):
        return "file", f"is not expected here; {_EXPECTED}: delete it"
    try:
        is_text = "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        is_text = False
    return None if is_text else ("file", "is not text in UTF-8; save it as one")


def weights_header(path: Path, data: bytes) -> tuple[Header | None, str | None]:
    """The header of a weights file, or why the file is refused; the other one is None."""
    try:
        header = read_header(path)
    except WeightError as error:
        return None, f"{error}; write it with safetensors.torch.save_file"
    kind = hidden_kind(data)
    return (header, None) if kind is None else (None, f"can be read as {kind}, too; save the weights afresh")


def _plain_files(folder: Path) -> tuple[list[str], list[Finding]]:
    """The relative paths of the plain files that may be opened, and findings about all others."""
    found: list[str] = []
    findings: list[Finding] = []
    total = 0
    waiting = [Path()]
    while waiting:
        inside = waiting.pop()
        for item in sorted(os.scandir(folder / inside), key=lambda item: item.name):
            path = inside / item.name
            status = item.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and path.as_posix() == WEIGHTS_FOLDER:
                waiting.append(path)
            elif (problem := _item_problem(item.name, status)) is not None:
                findings.append(finding(str(folder / path), None, *problem))
            else:
                total += status.st_size
                found.append(path.as_posix())
            if len(found) + len(findings) > MAX_FILES:
                findings.append(finding(str(folder), None, "size", f"holds more than {MAX_FILES} files; delete some"))
                return found, findings
    if total > MAX_FOLDER_BYTES:
        said = f"holds {total:,} bytes, more than the {MAX_FOLDER_BYTES:,} of an entry; publish weights elsewhere"
        findings.append(finding(str(folder), None, "size", f"{said} and give their url"))
    return found, findings


def _item_problem(name: str, status: os.stat_result) -> tuple[str, str] | None:
    """The rule that an item of a folder breaks before it is opened, and the sentence; None if it breaks none."""
    if stat.S_ISLNK(status.st_mode):
        return "link", "is a link, which may lead anywhere; put the file itself here"
    if stat.S_ISDIR(status.st_mode):
        compiled = " (PYTHONDONTWRITEBYTECODE=1 keeps it away)" if name == "__pycache__" else ""
        return "file", f"is a folder; {_EXPECTED}: delete it{compiled}"
    if not stat.S_ISREG(status.st_mode):
        return "file", "is no plain file; delete it"
    if not _NAME.fullmatch(name):
        return "file", "is a name of other letters than A-Z, a-z, 0-9, dot, dash and underscore; rename or delete it"
    limit = MAX_WEIGHTS_BYTES if name.endswith(WEIGHTS_SUFFIX) else MAX_TEXT_BYTES
    if status.st_size > limit:
        elsewhere = "; publish it elsewhere and give its url" if limit == MAX_WEIGHTS_BYTES else ""
        return "size", f"has {status.st_size:,} bytes, more than the {limit:,} that such a file may have{elsewhere}"
    return None
