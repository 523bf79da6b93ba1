"""What an attack name stands for, before anything is imported: function, norms, parameters. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, prod

from pydantic import JsonValue

from odebench.attack.registry import ATTACKS
from odebench.errors import UsageError
from odebench.registry import RegistryError, load_target

Parameters = dict[str, JsonValue]


@dataclass(frozen=True)
class AttackDefinition:
    """An attack by name.

    `function` is "module:attribute" of attack(model, images, labels, *, norm, epsilon, seed, fallen, parameters)
    -> candidates. The first of `norms` is the default. `passes` names the parameters whose product is the number
    of gradients an image takes. `fixed_budget`: whether its candidates should lie within epsilon by themselves.
    `step_share`: the default of the parameter relative_step is this over the number of steps. `choices` lists the
    texts that a parameter may be. An attack that `needs_sources` gets `sources`, the surfaces of other models, one that
    `needs_candidates` gets `proposals`, the candidates made elsewhere for its images.
    One that can start from given points (`start`) names in `resumes` the parameter that is its number of steps: where a
    surrogate has been attacked first, it goes on from there for a quarter of them.
    Where a module's gradient could not be confirmed, the parameter that `doubles` names counts for twice, and an attack
    whose outcome depends on its random start (`restarts`) runs from a second one.
    One that does not have its falls verified on the way (`verifies_falls`), by `fallen` or on the surface's `exact`,
    is always run in fp32.
    `expansion` is "module:attribute" of (parameters, *, norm, n_classes) -> stages, for an attack made of others.
    `examines` are the checks that it makes by comparing its stages, each of which then attacks all images afresh; it
    attacks the middle radius alone by default if it is `narrow`. `credits` names the parameter that says whose the
    candidates are: felled_by names them. With `many_sources` its default sources are all that
    check 12 names.
    """

    name: str
    function: str
    norms: tuple[str, ...]
    parameters: Mapping[str, JsonValue]
    passes: tuple[str, ...] = ()
    fixed_budget: bool = True
    step_share: float | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs_sources: bool = False
    needs_candidates: bool = False
    uses_gradients: bool = True
    resumes: str | None = None
    doubles: str | None = None
    restarts: bool = False
    verifies_falls: bool = True
    expansion: str | None = None
    examines: tuple[int, ...] = ()
    narrow: bool = False
    many_sources: bool = False
    credits: str | None = None

    @property
    def carries_falls(self) -> bool:
        """Whether an image that has fallen keeps its letter at every larger epsilon: attacks made of stages."""
        return self.expansion is not None and not self.examines

    def stages(
        self, parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int, opaque: bool = False
    ) -> tuple[Stage, ...]:
        """What the attack is made of: itself alone, or the stages that its `expansion` names; against a module whose
        gradient could not be confirmed (`opaque`) also those that are for such ones only."""
        if self.expansion is None:
            credit = "" if self.credits is None else f" of {parameters[self.credits]}"
            return (Stage(f"{self.name}{credit}", self, dict(parameters)),)
        stages: tuple[Stage, ...] = load_target(self.expansion)(parameters, norm=norm, n_classes=n_classes)
        return tuple(stage for stage in stages if opaque or not stage.only_opaque)

    def norm(self, given: str | None) -> str:
        """The norm to attack in: the given one, else the default. Raises UsageError for one it does not know."""
        if given is None:
            return self.norms[0]
        if given not in self.norms:
            raise UsageError(f"{self.name} attacks in {' and '.join(self.norms)}, not in {given}")
        return given

    def complete(self, given: Mapping[str, JsonValue] | None = None) -> Parameters:
        """All parameters, defaults filled in. Raises UsageError for an unknown one or one of another type."""
        given = dict(given or {})
        known = dict(self.parameters)
        if self.step_share is not None:
            known["relative_step"] = None
        if strange := set(given) - set(known):
            names = ", ".join(known) or "none"
            raise UsageError(f"{self.name} has no parameter {', '.join(sorted(strange))}; known: {names}")
        for name, value in given.items():
            _check_type(self.name, name, value, known[name])
            if name in self.choices and value not in self.choices[name]:
                raise UsageError(f"{self.name}: {name} is {' or '.join(self.choices[name])}, not {value!r}")
        found = {**known, **given}
        if self.step_share is not None and found["relative_step"] is None:
            found["relative_step"] = self.step_share / float(str(found["steps"]))
        return found

    def gradients(self, parameters: Mapping[str, JsonValue]) -> int:
        """How many gradients of one image the attack takes at most."""
        return prod(int(str(parameters[name])) for name in self.passes)


@dataclass(frozen=True)
class Stage:
    """One attack within an evaluation: its name there, what it is, all its parameters.

    `seeded_as` names another stage whose random numbers it takes. It runs from each of `starts` in turn.
    `only_opaque`: only where a module's gradient could not be confirmed.
    """

    name: str
    definition: AttackDefinition
    parameters: Parameters
    seeded_as: str | None = None
    starts: int = 1
    only_opaque: bool = False

    @property
    def passes(self) -> int:
        """How many gradients of one image the stage takes at most; 1 where none are counted."""
        return max(1, self.definition.gradients(self.parameters)) * self.starts

    @property
    def resumed_steps(self) -> int:
        """The steps that are taken from where a surrogate has left off: a quarter, rounded up."""
        return math.ceil(int(str(self.parameters[str(self.definition.resumes)])) / 4)

    def doubled(self, *, restarts: bool) -> Stage:
        """The stage with twice the queries or steps, or with `restarts` twice the starts, where its attack has
        something to double; else itself."""
        name = self.definition.doubles
        if restarts and self.definition.restarts:
            return replace(
                self, name=f"{self.name} doubled", starts=2 * self.starts, seeded_as=self.seeded_as or self.name
            )
        if name is None:
            return self
        twice = 2 * int(str(self.parameters[name]))
        return replace(self, name=f"{self.name} doubled", parameters={**self.parameters, name: twice})


def _check_type(attack: str, name: str, value: JsonValue, default: JsonValue) -> None:
    if isinstance(default, bool):
        good = isinstance(value, bool)
    elif isinstance(default, int):
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    elif isinstance(default, str):
        good = isinstance(value, str)
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and isfinite(value)
    if not good:
        kinds = {bool: "true or false", int: "a whole number of at least 1", str: "a text"}
        kind = kinds.get(type(default), "a finite number above 0")
        raise UsageError(f"{attack}: {name} must be {kind}, not {value!r}")


def load_attack(name: str) -> AttackDefinition:
    """The definition that a registered name stands for. Raises UsageError with the nearest match and the list."""
    definition = ATTACKS.load(name)
    if not isinstance(definition, AttackDefinition):
        raise RegistryError(
            f"{name!r} names a {type(definition).__name__}; its entry point must name an AttackDefinition"
        )
    return definition
