"""Validating an entry: all that can be checked without running anything of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError, UsageError, unknown_name
from odebench.io.yaml_document import Document, DocumentError, Where
from odebench.model.definition import ModelDefinition
from odebench.model.recipe_changes import changeable
from odebench.model.registry import MODELS
from odebench.protocol.recipe import Recipe
from odebench.submission.claims import claim_findings
from odebench.submission.entry import (
    ENTRY_FILE,
    ID,
    MAX_ID_LETTERS,
    Entry,
    Use,
    Weights,
    licence_problem,
    looks_like,
    open_entry,
)
from odebench.submission.finding import Finding, finding, finding_at
from odebench.submission.fix import rest_of
from odebench.submission.folder import CODE_SUFFIX, Contents, contents_of
from odebench.submission.limits import MAX_TEXT_BYTES
from odebench.submission.module_source import module_findings, module_problem
from odebench.submission.weights import Fetch, weights_findings

_PAPER = re.compile(r"https://\S+|arXiv:\d{4}\.\d{4,5}|doi:10\.\S+")
_DECLARED_ID = re.compile(r"^id: *['\"]?([^\s'\"#]+)", re.MULTILINE)
_FOLLOWS = ("there are no weights", "is not listed", "dataset ")
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")


@dataclass(frozen=True)
class Report:
    """The report on one entry: its id (the folder's name if none can be read), the numbers of weights files in the
    repository and elsewhere, and what is wrong."""

    folder: Path
    id: str
    weights_here: int
    weights_elsewhere: int
    findings: tuple[Finding, ...]

    def json(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        values = asdict(self)
        del values["folder"]
        return {"path": str(self.folder), "id": self.id, "ok": not self.findings} | values


def validate_entry(folder: Path, *, fetch: Fetch | None = None) -> Report:
    """All that is wrong with the entry in a folder. Nothing of it is imported or unpickled. If nothing else is wrong,
    weights that lie elsewhere are fetched by `fetch` (see `weights.fetching`) and checked, too.

    Raises UsageError if there is no such folder.
    """
    report = _validated(folder, None)
    again = fetch is not None and report.weights_elsewhere and not report.findings
    return _validated(folder, fetch) if again else report


def _validated(folder: Path, fetch: Fetch | None) -> Report:
    name = Path(os.path.abspath(folder)).name
    if folder.is_symlink():
        said = "is a link, which may lead anywhere; put the folder itself here"
        return Report(folder, name, 0, 0, (finding(str(folder), None, "link", said),))
    if not folder.is_dir():
        if folder.exists():
            raise UsageError(f"{folder} is a file; name the folder of an entry")
        raise UsageError(f"there is no folder {folder}; odebench new-entry {name} writes one to fill in")
    contents = contents_of(folder)
    found = [*contents.findings, *module_findings(folder, contents.texts)]
    entry = None
    if ENTRY_FILE in contents.texts:
        try:
            entry, document, errors = open_entry(folder)
            found += [_refused(error, document.source) for error in errors]
            if entry is not None:
                found += _entry_findings(folder, name, entry, document, contents, fetch)
            elif errors and (rest := rest_of(document, folder)) is not None:
                # what only follows from what was left out is no finding
                others = _entry_findings(folder, name, rest[0], document, contents, None)
                found += [one for one in others if one.line not in rest[1] and not one.message.startswith(_FOLLOWS)]
        except DocumentError as error:
            found.append(_refused(error, str(folder / ENTRY_FILE)))
    elsewhere = [each for each in entry.weights if each.url is not None] if entry is not None else []
    here = len(entry.weights) - len(elsewhere) if entry is not None else 0
    ordered = sorted(dict.fromkeys(found), key=lambda each: (each.file, each.line or 0))
    return Report(folder, name if entry is None else entry.id, here, len(elsewhere), tuple(ordered))


def _refused(error: DocumentError, source: str) -> Finding:
    return finding(source, error.line, "yaml" if error.said.startswith("this is not YAML") else "schema", error.said)


def _entry_findings(
    folder: Path, name: str, entry: Entry, document: Document, contents: Contents, fetch: Fetch | None
) -> Iterator[Finding]:
    definition: ModelDefinition | None = MODELS.load_built_in(entry.model)

    def recipe_of(use: Use, weights: Weights) -> Recipe | None:
        """The recipe of a built-in model's weights; None if it cannot be made, which `_uses` reports."""
        data, changes = DATASETS.load_built_in(use.name), entry.arguments_for(use)
        if definition is not None and data is not None:
            with suppress(OdebenchError):
                return definition.recipe(data, horizon=weights.horizon, train_seed=weights.train_seed, changes=changes)
        return None

    yield from _identity(folder, name, entry, document)
    yield from _model(folder, entry, document, contents)
    yield from _uses(entry, document, definition)
    yield from weights_findings(folder, entry, document, contents, recipe_of, fetch=fetch)
    yield from claim_findings(entry, document)
    if (problem := licence_problem(entry.licence)) is not None:
        yield finding_at(document, ("licence",), "licence", f"licence {problem}")
    if not entry.authors:
        said = "authors is empty; name at least one: authors: [Ada Lovelace]"
        yield finding_at(document, ("authors",), "authors", said)
    if entry.paper is not None and not _PAPER.fullmatch(entry.paper):
        said = f"paper {entry.paper!r} must be an https address, arXiv:1234.56789 or doi:10.1234/..., or left out"
        yield finding_at(document, ("paper",), "paper", said)
    for where, text in _texts(document.value, ()):
        if _EXPONENT.fullmatch(text):
            said = f"YAML takes {text!r} for a text, since it has no dot; write {float(text)!r} without quotes"
            yield finding_at(document, where, "number", said)


def _identity(folder: Path, name: str, entry: Entry, document: Document) -> Iterator[Finding]:
    if not ID.fullmatch(entry.id) or len(entry.id) > MAX_ID_LETTERS:
        said = f"id {entry.id!r} must be small letters, digits and single dashes, at most {MAX_ID_LETTERS} together"
        yield finding_at(document, ("id",), "id", said)
    if entry.id != name:
        said = f"id {entry.id!r} is not the folder's name; write id: {name}, or rename the folder"
        yield finding_at(document, ("id",), "id", said)
    if (near := looks_like(entry.id, MODELS.entries())) is not None:
        said = f"id {entry.id!r} looks like {near!r}, a registered model; choose another"
        yield finding_at(document, ("id",), "id", said)
    registered = MODELS.entries().get(entry.id)
    if registered is not None and entry.model != entry.id:
        said = f"id {entry.id!r} is the name of a registered model ({registered.origin}); choose another"
        yield finding_at(document, ("id",), "clash", said)
    for other in sorted(folder.absolute().parent.glob(f"*/{ENTRY_FILE}")):
        if other.parent.name != name and _declared_id(other) == entry.id.casefold():
            said = f"id {entry.id!r} is that of the entry in {other.parent.name}, too; choose another"
            yield finding_at(document, ("id",), "clash", said)


def _declared_id(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        return None
    with suppress(OSError):
        if found := _DECLARED_ID.search(path.read_text(encoding="utf-8", errors="replace")):
            return found[1].casefold()
    return None


def _model(folder: Path, entry: Entry, document: Document, contents: Contents) -> Iterator[Finding]:
    where: Where = ("model",)
    if entry.contributed is None:
        if entry.model not in MODELS.entries():
            said = f"{unknown_name('model', entry.model, MODELS.entries())}; or module:attribute of this folder"
            yield finding_at(document, where, "model", said)
        elif modules := [name for name in contents.texts if name.endswith(CODE_SUFFIX)]:
            said = f"{entry.model} is a registered model, so {modules[0]} is never used; delete it, or write model: "
            yield finding_at(document, where, "model", f"{said}{modules[0].removesuffix(CODE_SUFFIX)}:NAME")
        return
    module, attribute = entry.contributed
    if not module.isidentifier() or not attribute.isidentifier():
        said = f"model {entry.model!r} must be a registered name, or module:attribute of this folder, such as model:Net"
        yield finding_at(document, where, "model", said)
    elif (problem := module_problem(module, attribute, contents.texts)) is not None:
        file, line, said = problem
        if file == ENTRY_FILE:
            yield finding_at(document, where, "model", said)
        else:
            yield finding(str(folder / file), line, "code", said)


def _uses(entry: Entry, document: Document, definition: ModelDefinition | None) -> Iterator[Finding]:
    for index, use in enumerate(entry.datasets):
        where: Where = ("datasets", index)
        solver = entry.solver_for(use)
        if use.name in [each.name for each in entry.datasets[:index]]:
            yield finding_at(document, where, "dataset", f"{use.name} appears twice; remove one")
        if use.name not in DATASETS.entries():
            said = str(unknown_name("data set", use.name, DATASETS.entries()))
            yield finding_at(document, (*where, "name"), "dataset", said)
            continue
        if len(set(use.horizons)) < len(use.horizons):
            said = "a horizon appears twice; remove one"
            yield finding_at(document, (*where, "horizons"), "horizon", said)
        if use.horizons and solver is None:
            such = "{method: rk4, backend: torchdiffeq, step: 0.25}"
            yield finding_at(document, where, "solver", f"{use.name} has horizons, so say the solver, such as {such}")
        if not use.horizons and solver is not None:
            said = f"there is a solver, so give the horizons of {use.name}, such as horizons: [1]; or remove the solver"
            yield finding_at(document, where, "solver", said)
        if definition is not None:
            yield from _recipe_findings(entry, use, where, document, definition)


def _recipe_findings(
    entry: Entry, use: Use, where: Where, document: Document, definition: ModelDefinition
) -> Iterator[Finding]:
    """Findings where an entry contradicts the recipe of its built-in model."""
    data, changes = DATASETS.load_built_in(use.name), entry.arguments_for(use)
    if data is None:
        return
    if definition.has_horizon != bool(use.horizons):
        said = "needs horizons, such as horizons: [1]" if definition.has_horizon else "has no horizons; remove them"
        yield finding_at(document, where, "horizon", f"{entry.model} {said}")
        return
    try:
        recipe = definition.recipe(data, horizon=next(iter(use.horizons), None), changes=changes)
    except OdebenchError as error:
        at: Where = (*where, "arguments") if use.arguments else ("arguments",)
        yield finding_at(document, at, "arguments", str(error))
        return
    if entry.solver_for(use) != recipe.solver:
        said = f"{entry.model} is trained with {recipe.solver or 'no solver'} on {use.name}; write that"
        yield finding_at(document, (*where, "solver") if use.solver else ("solver",), "solver", said)
    if entry.teacher != definition.teacher:
        said = f"the teacher of {entry.model} is {definition.teacher or 'none: remove the line'}"
        yield finding_at(document, ("teacher",), "training", said)
    true = changeable(recipe)
    for key, value in entry.training_for(use).items():
        if key in true and value != true[key]:
            inside: Where = (*where, "training", key) if key in use.training else ("training", key)
            said = f"training.{key} is {value!r}, the recipe says {true[key]!r} on {use.name}; write that"
            yield finding_at(document, inside, "training", said)


def _texts(value: object, where: Where) -> Iterator[tuple[Where, str]]:
    """Every text in a plain value, with its location."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*where, index))
