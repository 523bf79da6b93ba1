"""Grids: cells, each an evaluation, and the trainings that they need. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from pydantic import JsonValue

from odebench.attack.definition import load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import UsageError, unknown_name
from odebench.evaluation.plan import EvaluationRequest, Plan, Slice, plan
from odebench.io.yaml_document import Document, Where
from odebench.model.definition import ModelDefinition, load_definition
from odebench.model.recipe_changes import changeable
from odebench.protocol import protocol_file
from odebench.protocol.protocol_file import AttackChoice, Images, Protocol, Section, Threat
from odebench.protocol.spec import FIXED_STEP_STAGES, Solver, fixed_step
from odebench.sweep.trainings import Training, trainings


@dataclass(frozen=True)
class PlannedCell:
    """One evaluation of one section. Cells of several sections may be the same evaluation, which is computed once."""

    section: str
    plan: Plan

    @cached_property
    def run_key(self) -> str:
        return self.plan.evaluation.run_key

    @property
    def title(self) -> str:
        """The cell in a few words, for messages."""
        evaluation = self.plan.evaluation
        words = [evaluation.model.name]
        if evaluation.horizon is not None:
            words.append(f"T={evaluation.horizon:g}")
        if evaluation.train_horizon != evaluation.horizon:
            words.append(f"trained at T={evaluation.train_horizon:g}")
        if evaluation.solver is not None and evaluation.solver != self.plan.origin.solver:
            words.append(f"with {evaluation.solver}")
        words.append(f"seed {self.plan.origin.train_seed}")
        effort = evaluation.attack.effort
        attack = evaluation.attack.name if effort is None else f"{evaluation.attack.name} ({effort})"
        return f"{' '.join(words)}, {attack} in {evaluation.threat_model.norm}"


@dataclass(frozen=True)
class Grid:
    """Cells on one data set in order, and all trainings that they need, teachers before students.

    With `keeps_weights` results are published with the weights that they rest on.
    """

    dataset: DatasetDefinition
    cells: tuple[PlannedCell, ...]
    trainings: tuple[Training, ...]
    threads: int = 1
    keeps_weights: bool = True

    @property
    def evaluations(self) -> dict[str, PlannedCell]:
        """The first cell of each evaluation, by run key."""
        found: dict[str, PlannedCell] = {}
        for cell in self.cells:
            found.setdefault(cell.run_key, cell)
        return found


@dataclass(frozen=True, kw_only=True)
class ProtocolGrid(Grid):
    """The grid of a protocol."""

    protocol: Protocol

    def only(self, sections: Sequence[str]) -> ProtocolGrid:
        """The grid of some sections alone, with the trainings that they need. Raises UsageError for unknown names."""
        names = [section.name for section in self.protocol.sections]
        for name in sections:
            if name not in names:
                raise unknown_name("section", name, names)
        cells = tuple(cell for cell in self.cells if cell.section in sections)
        return replace(self, cells=cells, trainings=tuple(trainings([cell.plan for cell in cells])))


def grid_of(plans: Sequence[Plan], dataset: DatasetDefinition) -> Grid:
    """The grid of plans on one data set, without a protocol."""
    return Grid(dataset, tuple(PlannedCell("", plan) for plan in plans), tuple(trainings(plans)))


def read_grid(name: str) -> ProtocolGrid:
    """The grid of a protocol, by name or path. Raises UsageError for an unknown name, DocumentError for an error in the
    file."""
    return lay_out(*protocol_file.read_protocol(protocol_file.find_protocol(name)))


def lay_out(protocol: Protocol, document: Document) -> ProtocolGrid:
    """The grid of a protocol that was read from a document. Raises DocumentError."""
    dataset = document.blame(("dataset", "name"), partial(describe, protocol.dataset))
    _check_changes(("recipes",), protocol.recipes, dataset, document)
    document.check_distinct(("sections",), [section.name for section in protocol.sections], "a section called")
    cells = [
        cell
        for index, section in enumerate(protocol.sections)
        for cell in _SectionLayout(protocol, dataset, document, section, ("sections", index)).cells()
    ]
    needed = tuple(trainings([cell.plan for cell in cells]))
    return ProtocolGrid(dataset, tuple(cells), needed, protocol.threads, protocol.weights, protocol=protocol)


def section_cells(protocol: Protocol, document: Document, section: Section, index: int) -> Iterator[PlannedCell]:
    """The cells of one section of a protocol, or of a part of it; `index` is its number. Raises DocumentError."""
    dataset = document.blame(("dataset", "name"), partial(describe, protocol.dataset))
    yield from _SectionLayout(protocol, dataset, document, section, ("sections", index)).cells()


def describe(images: Images) -> DatasetDefinition:
    """The definition of a protocol's data set: the registered one, or as the protocol states. Raises UsageError."""
    stated = (images.image_shape, images.classes)
    if images.name in DATASETS.entries():
        if stated != (None, None) or images.sizes:
            raise UsageError(f"{images.name} is known: remove image_shape, classes and sizes")
        found = DATASETS.load(images.name)
        if not isinstance(found, DatasetDefinition):
            raise UsageError(f"data set {images.name!r}: its entry point names no DatasetDefinition")
        return found
    if images.image_shape is None or images.classes is None:
        unknown = unknown_name("data set", images.name, DATASETS.entries())
        raise UsageError(f"{unknown}; for an image folder give image_shape and classes, too")
    names = tuple(str(index) for index in range(images.classes))
    return DatasetDefinition(
        images.name, images.image_shape, names, {}, "", sizes={split: size for split, size in images.sizes.items()}
    )


def _check_changes(
    at: Where, recipes: Mapping[str, Mapping[str, JsonValue]], dataset: DatasetDefinition, document: Document
) -> None:
    """Raises DocumentError for an unknown model, and for changes that its recipe does not accept."""
    for model, changes in recipes.items():
        where: Where = (*at, model)
        definition = document.blame(where, partial(load_definition, model))
        default = document.blame(where, partial(definition.recipe, dataset))
        known = [name for name in changeable(default) if not name.endswith("kind")]
        document.check_known(where, changes, [*known, *definition.optional], "field of a recipe")
        document.blame(where, partial(definition.recipe, dataset, changes=changes))


def _spelled(attack: AttackChoice) -> str:
    """An attack as a line of the protocol writes it, for comparison and messages."""
    more = {**attack.parameters, **({} if attack.n is None else {"n": attack.n}), "seed": attack.seed}
    return " ".join([attack.name, *(f"{name}={value}" for name, value in sorted(more.items()))])


@dataclass(frozen=True)
class _SectionLayout:
    """Makes the cells of one section; `where` is its location in the document."""

    protocol: Protocol
    dataset: DatasetDefinition
    document: Document
    section: Section
    where: Where

    def cells(self) -> Iterator[PlannedCell]:
        section, document = self.section, self.document
        definitions = [
            document.blame((*self.where, "models", index), partial(load_definition, name))
            for index, name in enumerate(section.models)
        ]
        self._check_lists()
        _check_changes((*self.where, "recipes"), section.recipes, self.dataset, document)
        if section.horizons is None:
            for index, definition in enumerate(definitions):
                if definition.has_horizon:
                    raise document.error((*self.where, "models", index), f"{definition.name} needs horizons; add them")
        seen: dict[str, Where] = {}
        for number, attack in enumerate(section.attacks):
            where: Where = (*self.where, "attacks", number)
            for kind, threat in enumerate(section.threat_models):
                for index, definition in enumerate(definitions):
                    for cell in self._cells(definition, threat, attack, (index, kind, number)):
                        if cell.run_key in seen:
                            raise document.error(
                                where,
                                f"this is a cell of line {document.line(seen[cell.run_key])} again: {cell.title}; "
                                "remove one",
                            )
                        seen[cell.run_key] = where
                        yield cell

    def _check_lists(self) -> None:
        section, document = self.section, self.document
        for key, what in (
            ("models", "model"),
            ("horizons", "horizon"),
            ("train_horizons", "train horizon"),
            ("train_seeds", "train seed"),
        ):
            document.check_distinct((*self.where, key), getattr(section, key) or (), what)
        document.check_distinct((*self.where, "threat_models"), [each.norm for each in section.threat_models], "norm")
        document.check_distinct((*self.where, "attacks"), [_spelled(attack) for attack in section.attacks], "attack")
        for index, threat in enumerate(section.threat_models):
            document.check_distinct((*self.where, "threat_models", index, "epsilons"), threat.epsilons or (), "epsilon")
        for index, attack in enumerate(section.attacks):
            where: Where = (*self.where, "attacks", index)
            found = document.blame((*where, "name"), partial(load_attack, attack.name))
            known = [*found.parameters, *(["relative_step"] if found.step_share is not None else [])]
            document.check_known((*where, "parameters"), attack.parameters, known, "parameter")
            document.blame((*where, "parameters"), partial(found.complete, attack.parameters))

    def _cells(
        self, definition: ModelDefinition, threat: Threat, attack: AttackChoice, numbers: tuple[int, int, int]
    ) -> Iterator[PlannedCell]:
        section, protocol = self.section, self.protocol
        model, kind, number = numbers
        pairs: list[tuple[float | None, float | None]] = [(None, None)]
        if definition.has_horizon:
            pairs = [(t, to) for to in section.horizons or () for t in (section.train_horizons or (to,))]
        for train_horizon, horizon in pairs:
            for seed in section.train_seeds:
                solver = self._solver(definition, horizon, (*self.where, "models", model))
                images = protocol.dataset
                n = attack.n or images.n
                total = self.dataset.sizes.get(images.split, images.offset + n)
                part = Slice(split=images.split, n=n, offset=images.offset, chunk=protocol.chunk)
                self.document.blame(
                    (*self.where, "attacks", number, "n") if attack.n else ("dataset", "n"),
                    partial(part.of, self.dataset.name, total),
                )
                if attack.n is None and n % protocol.chunk and self.dataset.sizes.get(images.split) is None:
                    raise self.document.error(("dataset", "n"), f"{n} images are not whole chunks of {protocol.chunk}")
                request = EvaluationRequest(
                    definition.name,
                    attack.name,
                    images=part,
                    horizon=horizon,
                    train_horizon=train_horizon,
                    solver=solver,
                    norm=threat.norm,
                    epsilons=threat.epsilons,
                    train_seed=seed,
                    attack_seed=attack.seed,
                    changes=protocol.recipes.get(definition.name, {}) | section.recipes.get(definition.name, {}),
                    parameters=attack.parameters,
                )
                knows_norm = threat.norm in load_attack(attack.name).norms
                blamed = ("threat_models", kind) if knows_norm else ("attacks", number)
                planned = partial(plan, request, self.dataset, total=total)
                yield PlannedCell(section.name, self.document.blame((*self.where, *blamed), planned))

    def _solver(self, definition: ModelDefinition, horizon: float | None, where: Where) -> Solver | None:
        """The solver of the evaluation; None for the solver of the training."""
        section = self.section
        if section.solver is None and section.equal_nfe is None:
            return None
        if horizon is None:
            raise self.document.error(where, f"{definition.name} integrates nothing, so this section is not for it")
        if section.solver is not None:
            return section.solver.solver()
        default = definition.recipe(self.dataset, horizon=horizon).solver
        stages = None if default is None else FIXED_STEP_STAGES.get(default.method)
        nfe = section.equal_nfe or 0
        if default is None or stages is None or nfe % stages:
            multiple = f"a multiple of {stages}" if stages else "a fixed-step method"
            raise self.document.error((*self.where, "equal_nfe"), f"{definition.name} ({default}) needs {multiple}")
        return fixed_step(default.method, step=horizon * stages / nfe)
