"""Validating an entry: all that can be checked without running anything of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from odebench.attack.definition import load_attack
from odebench.attack.registry import ATTACKS
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError, UsageError, unknown_name
from odebench.evaluation.plan import Slice
from odebench.io.yaml_document import Document, DocumentError, Where
from odebench.model.definition import ModelDefinition, changeable, load_definition
from odebench.model.registry import MODELS
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import check_epsilon
from odebench.submission.entry import ENTRY_FILE, ID, MAX_ID_LETTERS, Entry, Use, Weights, licence_problem, open_entry
from odebench.submission.finding import Finding, finding
from odebench.submission.folder import (
    CODE_SUFFIX,
    MAX_TEXT_BYTES,
    Contents,
    contents_of,
    module_findings,
    module_problem,
)
from odebench.submission.weights import Fetch, horizon_problem, weights_findings

_PAPER = re.compile(r"https://\S+|arXiv:\d{4}\.\d{4,5}|doi:10\.\S+")
_DECLARED_ID = re.compile(r"^id: *['\"]?([^\s'\"#]+)", re.MULTILINE)
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")


@dataclass(frozen=True)
class Report:
    """What was found about one entry: its id (the folder's name where none can be read), how many weights files were
    looked at and how many lie elsewhere, and what is wrong."""

    folder: Path
    id: str
    weights_here: int
    weights_elsewhere: int
    findings: tuple[Finding, ...]

    def json(self) -> dict[str, JsonValue]:
        """The report as plain values."""
        return {
            "path": str(self.folder),
            "id": self.id,
            "ok": not self.findings,
            "weights_here": self.weights_here,
            "weights_elsewhere": self.weights_elsewhere,
            "findings": [each.json() for each in self.findings],
        }


def validate_entry(folder: Path, *, fetch: Fetch | None = None) -> Report:
    """All that is wrong with the entry in a folder. Nothing of it is imported or unpickled. Weights that lie elsewhere
    are looked at where `fetch` is given (`listed_weights.fetching`) and nothing else is wrong.

    Raises UsageError where there is no such folder.
    """
    report = _validated(folder, None)
    if fetch is None or report.findings or not report.weights_elsewhere:
        return report
    return _validated(folder, fetch)


def _validated(folder: Path, fetch: Fetch | None) -> Report:
    name = Path(os.path.abspath(folder)).name
    if folder.is_symlink():
        said = "is a link, which may lead anywhere; put the folder itself here"
        return Report(folder, name, 0, 0, (finding(str(folder), None, "link", said),))
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; odebench new-entry {name} writes one to fill in")
    contents = contents_of(folder)
    found = [*contents.findings, *module_findings(folder, contents.texts)]
    entry = None
    if ENTRY_FILE in contents.texts:
        try:
            entry, document, errors = open_entry(folder)
            found += [_refused(error, document.source) for error in errors]
            if entry is not None:
                found += _all(folder, name, entry, document, contents, fetch)
        except DocumentError as error:
            found.append(_refused(error, str(folder / ENTRY_FILE)))
    elsewhere = [each for each in entry.weights if each.url is not None] if entry is not None else []
    here = len(entry.weights) - len(elsewhere) if entry is not None else 0
    ordered = sorted(dict.fromkeys(found), key=lambda each: (each.file, each.line or 0))
    return Report(folder, name if entry is None else entry.id, here, len(elsewhere), tuple(ordered))


def _refused(error: DocumentError, source: str) -> Finding:
    return finding(source, error.line, "yaml" if error.said.startswith("this is no YAML") else "schema", error.said)


def _all(
    folder: Path, name: str, entry: Entry, document: Document, contents: Contents, fetch: Fetch | None
) -> Iterator[Finding]:
    definition = _built_in(entry)

    def recipe_of(use: Use, weights: Weights) -> Recipe | None:
        return None if definition is None else _recipe(definition, entry, use, weights.horizon, weights.train_seed)

    yield from _identity(folder, name, entry, document)
    yield from _model(folder, entry, document, contents)
    yield from _uses(entry, document, definition)
    yield from weights_findings(folder, entry, document, contents, recipe_of, fetch=fetch)
    yield from _claims(entry, document)
    if (problem := licence_problem(entry.licence)) is not None:
        yield _at(document, ("licence",), "licence", f"licence {problem}")
    if not entry.authors:
        yield _at(document, ("authors",), "authors", "authors is empty; name at least one: authors: [Ada Lovelace]")
    if entry.paper is not None and not _PAPER.fullmatch(entry.paper):
        said = f"paper {entry.paper!r} must be an https address, arXiv:1234.56789 or doi:10.1234/..., or left out"
        yield _at(document, ("paper",), "paper", said)
    for where, text in _texts(document.value, ()):
        if _EXPONENT.fullmatch(text):
            said = f"YAML takes {text!r} for a text, since it has no dot; write {float(text)!r} without quotes"
            yield _at(document, where, "number", said)


def _identity(folder: Path, name: str, entry: Entry, document: Document) -> Iterator[Finding]:
    if not ID.fullmatch(entry.id) or len(entry.id) > MAX_ID_LETTERS:
        said = f"id {entry.id!r} must be small letters, digits and single dashes, at most {MAX_ID_LETTERS} together"
        yield _at(document, ("id",), "id", said)
    if entry.id != name:
        said = f"id {entry.id!r} is not the folder's name; write id: {name}, or rename the folder"
        yield _at(document, ("id",), "id", said)
    registered = MODELS.entries().get(entry.id)
    if registered is not None and entry.model != entry.id:
        said = f"id {entry.id!r} is the name of a registered model ({registered.origin}); choose another"
        yield _at(document, ("id",), "clash", said)
    for other in sorted(folder.absolute().parent.glob(f"*/{ENTRY_FILE}")):
        if other.parent.name != name and _declared_id(other) == entry.id.casefold():
            said = f"id {entry.id!r} is that of the entry in {other.parent.name}, too; choose another"
            yield _at(document, ("id",), "clash", said)


def _declared_id(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        return None
    try:
        found = _DECLARED_ID.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return None if found is None else found[1].casefold()


def _model(folder: Path, entry: Entry, document: Document, contents: Contents) -> Iterator[Finding]:
    where: Where = ("model",)
    if entry.contributed is None:
        if entry.model not in MODELS.entries():
            said = f"{unknown_name('model', entry.model, MODELS.entries())}; or module:attribute of this folder"
            yield _at(document, where, "model", said)
        elif modules := [name for name in contents.texts if name.endswith(CODE_SUFFIX)]:
            said = f"{entry.model} is a registered model, so {modules[0]} is never used; delete it, or write model: "
            yield _at(document, where, "model", f"{said}{modules[0].removesuffix(CODE_SUFFIX)}:NAME")
        return
    module, attribute = entry.contributed
    if not module.isidentifier() or not attribute.isidentifier():
        said = f"model {entry.model!r} must be a registered name, or module:attribute of this folder, such as model:Net"
        yield _at(document, where, "model", said)
    elif (problem := module_problem(module, attribute, contents.texts)) is not None:
        file, line, said = problem
        if file == ENTRY_FILE:
            yield _at(document, where, "model", said)
        else:
            yield finding(str(folder / file), line, "code", said)


def _built_in(entry: Entry) -> ModelDefinition | None:
    """The definition of a built-in model. A plugin's is not asked: that would run its code."""
    registered = MODELS.entries().get(entry.model)
    return load_definition(entry.model) if registered is not None and registered.origin == "built in" else None


def _dataset(name: str) -> DatasetDefinition | None:
    registered = DATASETS.entries().get(name)
    if registered is None or registered.origin != "built in":
        return None
    definition = DATASETS.load(name)
    return definition if isinstance(definition, DatasetDefinition) else None


def _recipe(
    definition: ModelDefinition, entry: Entry, use: Use, horizon: float | None, train_seed: int
) -> Recipe | None:
    """The recipe that a registered model's weights come from; None where it cannot be made, which `_uses` reports."""
    data = _dataset(use.name)
    try:
        changes = entry.arguments_for(use)
        return (
            None if data is None else definition.recipe(data, horizon=horizon, train_seed=train_seed, changes=changes)
        )
    except OdebenchError:
        return None


def _uses(entry: Entry, document: Document, definition: ModelDefinition | None) -> Iterator[Finding]:
    for index, use in enumerate(entry.datasets):
        where: Where = ("datasets", index)
        solver = entry.solver_for(use)
        if use.name in [each.name for each in entry.datasets[:index]]:
            yield _at(document, where, "dataset", f"{use.name} stands here twice; strike one of them")
        if use.name not in DATASETS.entries():
            said = str(unknown_name("data set", use.name, DATASETS.entries()))
            yield _at(document, (*where, "name"), "dataset", said)
            continue
        if len(set(use.horizons)) < len(use.horizons):
            yield _at(document, (*where, "horizons"), "horizon", "a horizon stands here twice; strike one of them")
        if use.horizons and solver is None:
            said = (
                f"{use.name} has horizons, so say the solver, such as {{method: rk4, backend: torchdiffeq, step: 0.25}}"
            )
            yield _at(document, where, "solver", said)
        if not use.horizons and solver is not None:
            said = f"there is a solver, so say the horizons of {use.name}, such as horizons: [1]; or strike the solver"
            yield _at(document, where, "solver", said)
        if definition is not None:
            yield from _recipe_findings(entry, use, where, document, definition)


def _recipe_findings(
    entry: Entry, use: Use, where: Where, document: Document, definition: ModelDefinition
) -> Iterator[Finding]:
    """What an entry says of a built-in model's training that its recipe does not."""
    data, changes = _dataset(use.name), entry.arguments_for(use)
    if data is None:
        return
    if definition.has_horizon != bool(use.horizons):
        said = "needs horizons, such as horizons: [1]" if definition.has_horizon else "has no horizons; strike them"
        yield _at(document, where, "horizon", f"{entry.model} {said}")
        return
    try:
        recipe = definition.recipe(data, horizon=next(iter(use.horizons), None), changes=changes)
    except OdebenchError as error:
        at: Where = (*where, "arguments") if use.arguments else ("arguments",)
        yield _at(document, at, "arguments", str(error))
        return
    if entry.solver_for(use) != recipe.solver:
        said = f"{entry.model} is trained with {recipe.solver or 'no solver'} on {use.name}; write that"
        yield _at(document, (*where, "solver") if use.solver else ("solver",), "solver", said)
    if entry.teacher != definition.teacher:
        said = f"the teacher of {entry.model} is {definition.teacher or 'none: strike the line'}"
        yield _at(document, ("teacher",), "training", said)
    true = changeable(recipe)
    for key, value in entry.training_for(use).items():
        if key in true and value != true[key]:
            inside: Where = (*where, "training", key) if key in use.training else ("training", key)
            said = f"training.{key} is {value!r}, the recipe says {true[key]!r} on {use.name}; write that"
            yield _at(document, inside, "training", said)


def _claims(entry: Entry, document: Document) -> Iterator[Finding]:
    seen: list[dict[str, JsonValue]] = []
    for index, claim in enumerate(entry.claims):
        where: Where = ("claims", index)
        identity = claim.model_dump(mode="json", exclude={"clean_accuracy", "robust_accuracy"})
        if identity in seen:
            first = document.line(("claims", seen.index(identity)))
            yield _at(document, where, "claim", f"line {first} claims something about the same evaluation; strike one")
        seen.append(identity)
        use, data = entry.use(claim.dataset), _dataset(claim.dataset)
        if use is None:
            said = f"dataset {claim.dataset!r} is not among the entry's data sets; add it there"
            yield _at(document, (*where, "dataset"), "dataset", said)
            continue
        if (said_of_horizon := horizon_problem(use, claim.horizon)) is not None:
            yield _at(document, (*where, "horizon"), "horizon", said_of_horizon)
        elif entry.contributed is not None and not any(
            (claim.dataset, claim.horizon, claim.train_seed) == (each.dataset, each.horizon, each.train_seed)
            for each in entry.weights
        ):
            said = "there are no weights of this data set, horizon and train seed; list them, or strike the claim"
            yield _at(document, where, "claim", said)
        if claim.clean_accuracy is not None and claim.robust_accuracy > claim.clean_accuracy:
            said = f"robust_accuracy {claim.robust_accuracy:g} cannot be above clean_accuracy {claim.clean_accuracy:g}"
            yield _at(document, (*where, "robust_accuracy"), "claim", said)
        try:
            check_epsilon(claim.epsilon, claim.norm)
        except UsageError as error:
            yield _at(document, (*where, "epsilon"), "claim", str(error))
        try:
            if ATTACKS.entry(claim.attack).origin == "built in":
                attack = load_attack(claim.attack)
                attack.norm(claim.norm)
                attack.complete(claim.parameters)
        except UsageError as error:
            yield _at(document, (*where, "attack"), "claim", str(error))
        if data is not None and "test" in data.sizes:
            try:
                Slice(n=claim.n).of(data.name, data.sizes["test"])
            except UsageError as error:
                yield _at(document, (*where, "n"), "claim", str(error))


def _texts(value: object, where: Where) -> Iterator[tuple[Where, str]]:
    """Every text in a plain value, with where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*where, index))


def _at(document: Document, where: Where, rule: str, message: str) -> Finding:
    return finding(document.source, document.line(where), rule, message)
