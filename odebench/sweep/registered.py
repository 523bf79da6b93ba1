"""The registered claims with the run keys of their cells, from the protocols that they name. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odebench.io.git import versions_of
from odebench.io.yaml_document import Document, DocumentError, Where, near_word, parse_document
from odebench.protocol import protocol_file
from odebench.protocol.protocol_file import AttackChoice, Protocol, Section
from odebench.protocol.registration import (
    REGISTRATION,
    ClaimArm,
    ClaimCell,
    ClaimCells,
    RegisteredClaim,
    installed_registration,
    read_registration,
)
from odebench.sweep.protocol_cells import PlannedCell, section_cells


def registered_claims(path: Path) -> list[ClaimCells]:
    """The claims of a registration. Raises DocumentError, with the line, for one whose protocol has no such cells, and
    for one whose arms differ in more than it names."""
    registration, document = read_registration(path)
    protocols = cache(_Protocol)
    found = []
    for index, claim in enumerate(registration.claims):
        where: Where = ("claims", index)
        protocol = document.blame((*where, "protocol"), partial(protocols, claim.protocol))
        found.append(_Resolved(claim, protocol, document, where).cells())
    return found


class _Protocol:
    """A protocol by name. Cells are laid out once for all claims that read them."""

    def __init__(self, name: str) -> None:
        self.protocol, self.document = protocol_file.read_protocol(protocol_file.find_protocol(name))
        self._cells: dict[str, list[PlannedCell]] = {}

    def cells(self, index: int, changes: Mapping[str, Any]) -> list[PlannedCell]:
        """The cells of a part of a section, which `changes` describe as fields of the section."""
        key = f"{index} {sorted(changes.items())}"
        if key not in self._cells:
            section = self.protocol.sections[index].model_copy(update=dict(changes))
            self._cells[key] = list(section_cells(self.protocol, self.document, section, index))
        return self._cells[key]


@dataclass(frozen=True)
class _Resolved:
    """One claim with the protocol that it names; `where` is its place in the registration."""

    claim: RegisteredClaim
    of: _Protocol
    document: Document
    where: Where

    @property
    def protocol(self) -> Protocol:
        return self.of.protocol

    def cells(self) -> ClaimCells:
        if self.protocol.dataset.name != self.claim.dataset:
            said = f"protocol {self.protocol.name} is about {self.protocol.dataset.name}, not {self.claim.dataset}"
            raise self.document.error((*self.where, "dataset"), said)
        planned = dict(self._planned(self.claim.attack, "attack"))
        self._check_alike(planned)
        weak = {} if self.claim.weak is None else dict(self._planned(self.claim.weak, "weak"))
        return ClaimCells(self.claim, _run_keys(planned), _run_keys(weak))

    def _planned(self, attack: AttackChoice, key: str) -> Iterator[tuple[ClaimCell, PlannedCell]]:
        for number, arm in enumerate(self.claim.arms):
            for index, name in enumerate(arm.sections):
                place = self._section(number, arm, name)
                section = self.protocol.sections[place]
                changes = {
                    "models": (arm.model,),
                    "train_seeds": self.claim.train_seeds,
                    "threat_models": tuple(each for each in section.threat_models if each.norm == self.claim.norm),
                    "attacks": (self._attack(section, attack, key),),
                }
                for at, horizon in enumerate(arm.horizons or self.claim.horizons):
                    for cell in self.of.cells(place, changes | {"horizons": (horizon,)}):
                        self._check_epsilon(cell)
                        yield ClaimCell(number, index, at, cell.plan.recipe.train_seed), cell

    def _check_epsilon(self, cell: PlannedCell) -> None:
        radii = cell.plan.evaluation.threat_model.epsilons
        if self.claim.epsilon not in radii:
            asked = ", ".join(f"{each:g}" for each in radii)
            said = f"section {cell.section} of {self.protocol.name} asks {self.claim.norm} at {asked}"
            raise self.document.error((*self.where, "epsilon"), said)

    def _section(self, number: int, arm: ClaimArm, name: str) -> int:
        """The number of an arm's section. Raises DocumentError where it lacks the model, a horizon, a seed or the
        norm."""
        where: Where = (*self.where, "arms", number)
        known = [section.name for section in self.protocol.sections]
        if name not in known:
            said = f"protocol {self.protocol.name} has no section {name};{near_word(name, known)}"
            raise self.document.error(where, said)
        found = self.protocol.sections[known.index(name)]
        absent: list[object] = [model for model in (arm.model,) if model not in found.models]
        absent += [f"T={each:g}" for each in arm.horizons or self.claim.horizons if each not in (found.horizons or ())]
        absent += [f"train seed {seed}" for seed in self.claim.train_seeds if seed not in found.train_seeds][:1]
        absent += [norm for norm in (self.claim.norm,) if norm not in [each.norm for each in found.threat_models]]
        if found.train_horizons is not None:
            absent.append("models evaluated at the horizon of their training alone")
        if absent:
            said = f"section {name} of {self.protocol.name} has no {', no '.join(map(str, absent))}"
            raise self.document.error(where, said)
        return known.index(name)

    def _attack(self, section: Section, attack: AttackChoice, key: str) -> AttackChoice:
        """The attack of a section that a claim reads, on as many images as the claim says."""
        for each in section.attacks:
            images = each.n or self.protocol.dataset.n
            if (each.name, each.parameters, each.seed) == (attack.name, attack.parameters, attack.seed):
                if images == self.claim.images or (key == "weak" and images >= self.claim.images):
                    return each
                said = f"section {section.name} asks {each.name} of {images} images, not {self.claim.images}"
                raise self.document.error((*self.where, "images"), said)
        raise self.document.error((*self.where, key), f"section {section.name} has no such attack as {attack.name}")

    def _check_alike(self, planned: Mapping[ClaimCell, PlannedCell]) -> None:
        """Raises DocumentError where cells that are compared differ in more than the claim names."""
        claim = self.claim
        free = {*claim.factor, *(("loss", "teacher") if len(claim.arms) > 1 else ("horizon",))}
        for cell, one in planned.items():
            if cell.seed != claim.train_seeds[0]:
                continue  # the seeds of a cell share everything else
            reference = planned[cell._replace(arm=0) if len(claim.arms) > 1 else cell._replace(horizon=0)]
            first, second = _fields(reference), _fields(one)
            differ = [name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name)]
            if named := [name for name in differ if free.isdisjoint((name, name.partition(".")[0]))]:
                said = f"{reference.title} and {one.title} differ in {', '.join(named)} too"
                said += "; give both one recipe, or name it as factor"
                raise self.document.error((*self.where, "arms"), said)


def _fields(cell: PlannedCell) -> dict[str, Any]:
    """The fields of a cell's recipe by name, those of its parts as part.field, with the evaluation's solver."""
    fields: dict[str, Any] = {}
    for name, value in cell.plan.recipe.model_dump(mode="json").items():
        if isinstance(value, dict) and name != "teacher":
            fields |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            fields[name] = value
    solver = cell.plan.evaluation.solver
    return fields | {"solver": None if solver is None else solver.model_dump(mode="json")}


def _run_keys(planned: Mapping[ClaimCell, PlannedCell]) -> dict[ClaimCell, str]:
    return {cell: one.run_key for cell, one in planned.items()}


def with_history(path: Path, claims: Sequence[ClaimCells]) -> list[ClaimCells]:
    """The claims with the time since when they are committed as they stand, where the file lies in a git repository; a
    claim that is not committed as it stands is refused."""
    versions = None if path == installed_registration() else versions_of(path)
    if versions is None:
        return list(claims)
    since: dict[str, int] = {}
    current = {one.claim.name: _substance(one.claim) for one in claims}
    open_names = set(current)
    for version in versions:
        known = _claims_in(version.content)
        open_names &= {name for name in open_names if known.get(name) == current[name]}
        since |= dict.fromkeys(open_names, version.written)
    said = "it is not committed in this form; commit it before its first run"
    return [
        replace(one, registered=datetime.fromtimestamp(since[one.claim.name], timezone.utc))
        if one.claim.name in since
        else one
        if one.claim.earlier
        else replace(one, refused=said)
        for one in claims
    ]


def _claims_in(content: bytes) -> dict[str, Any]:
    """The claims of an older version of a registration, by name; those that cannot be read today are left out."""
    try:
        value = parse_document(content.decode(), REGISTRATION).value
        listed = value["claims"]
    except (DocumentError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    found = {}
    for each in listed if isinstance(listed, list) else ():
        try:
            claim = RegisteredClaim.model_validate(each)
        except ValidationError:
            continue
        found[claim.name] = _substance(claim)
    return found


def _substance(claim: RegisteredClaim) -> dict[str, Any]:
    """All of a claim but the wording of its question."""
    return claim.model_dump(mode="json", exclude={"question"})
