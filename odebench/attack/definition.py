"""The three kinds of attack that a name can stand for, and the stages they are run as. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

from pydantic import JsonValue

from odebench.attack.registry import ATTACKS
from odebench.errors import UsageError
from odebench.registry import RegistryError, load_target

Parameters = dict[str, JsonValue]


@dataclass(frozen=True)
class NamedAttack(ABC):
    """What all kinds of attack have in common.

    `function` is "module:attribute"; each kind says of what. `norms` are "linf", "l2" or both, the default first.
    `parameters` holds the default of each parameter, `choices` the values that a text may take. `summary` is the line
    that `odebench attacks` prints of a built-in one. With a `step_share` there is also the parameter relative_step, the
    length of a step in units of epsilon, whose default is `step_share` over the number of steps.

    `needs_sources`: it crafts candidates on other models. `needs_candidates`: it judges candidates from a file.
    `needs_train_images`: it trains a model of its own on them. `examines_model`: an evaluation with it makes the checks
    that look for masked gradients.
    `fixed_budget`: its candidates should lie within epsilon by themselves; an attack that minimises the norm has none.
    """

    name: str
    function: str
    norms: tuple[str, ...]
    parameters: Mapping[str, JsonValue]
    _: KW_ONLY
    summary: str = ""
    step_share: float | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs_sources: bool = False
    needs_candidates: bool = False
    needs_train_images: bool = False
    examines_model: bool = False
    fixed_budget: bool = True

    carries_over: ClassVar[bool] = False
    """Whether an image that is adversarial at one epsilon counts at every larger one without a new attack."""

    @property
    def runs_by_chunk(self) -> bool:
        """Whether a chunk of images can be attacked by itself, with the same outcome as within the whole."""
        return not self.needs_candidates

    @abstractmethod
    def stages(
        self,
        parameters: Mapping[str, JsonValue],
        *,
        norm: str,
        n_classes: int,
        gradient_unconfirmed: bool = False,
        in_doubt: bool = False,
    ) -> tuple[Stage, ...]:
        """The stages that make up the attack, in order; with `gradient_unconfirmed` also those that are only for a
        model whose gradient could not be confirmed, with `in_doubt` those that are only for a model in doubt."""

    def norm(self, given: str | None) -> str:
        """The norm to attack in: `given`, or the default if that is None. Raises UsageError for an unknown one."""
        if given is None:
            return self.norms[0]
        if given not in self.norms:
            raise UsageError(f"{self.name} attacks in {' and '.join(self.norms)}, not in {given}")
        return given

    def complete(self, given: Mapping[str, JsonValue] | None = None) -> Parameters:
        """All parameters, by default the definition's. Raises UsageError for an unknown name or an unfit value."""
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


@dataclass(frozen=True)
class AttackDefinition(NamedAttack):
    """An attack that is one function, attack(model, images, labels, *, norm, epsilon, seed, fallen, parameters) ->
    candidates. With `needs_sources` it also gets `sources`, the other models; with `needs_candidates` it gets
    `proposals`, the candidates of the file for these images, and its parameter `credit` says who made them. With
    `needs_train_images` it gets `train_images`.

    `passes` names the parameters whose product is the number of gradients (or queries) per image. `pass_gradients`
    tells from the parameters what a pass takes of an image in the mean, in gradients, where it is more than one.
    `uses_gradients` is false for an attack that sees logits alone. `verifies_falls` is false for one that trusts the
    logits of its model and does not ask `fallen`: it always runs in fp32.

    If `resumes` names the parameter that is its number of steps, the attack also takes `start`, points to begin at.
    Where the declared solver is attacked after a cheaper one, the second attack begins at the end of the first and
    takes a quarter of the steps.

    Against a model whose gradient could not be confirmed the parameter named by `doubles` counts twice, and an attack
    whose outcome depends on its random start (`restarts`) runs from a second one as well.
    """

    passes: tuple[str, ...] = ()
    _: KW_ONLY
    uses_gradients: bool = True
    pass_gradients: Callable[[Mapping[str, JsonValue]], float] | None = None
    verifies_falls: bool = True
    resumes: str | None = None
    doubles: str | None = None
    restarts: bool = False

    def stages(
        self,
        parameters: Mapping[str, JsonValue],
        *,
        norm: str,
        n_classes: int,
        gradient_unconfirmed: bool = False,
        in_doubt: bool = False,
    ) -> tuple[Stage, ...]:
        """The attack itself as the only stage; for candidates from a file named with who made them."""
        credit = parameters.get("credit") if self.needs_candidates else None
        name = self.name if credit is None else f"{self.name} of {credit}"
        return (Stage(name, self, dict(parameters)),)

    def load(self) -> Callable[..., Any]:
        """The function that is the attack, imported now. Raises ImportError, AttributeError or ValueError."""
        found: Callable[..., Any] = load_target(self.function)
        return found

    def gradients(self, parameters: Mapping[str, JsonValue]) -> int:
        """The largest number of gradients (or queries) that the attack takes per image."""
        return math.prod(int(str(parameters[name])) for name in self.passes)


@dataclass(frozen=True)
class StagedAttackDefinition(NamedAttack):
    """An attack that runs others in turn, each on the images that no earlier one has fooled the model on.

    `function` names a function (parameters, *, norm, n_classes) -> stages.
    """

    carries_over: ClassVar[bool] = True

    def stages(
        self,
        parameters: Mapping[str, JsonValue],
        *,
        norm: str,
        n_classes: int,
        gradient_unconfirmed: bool = False,
        in_doubt: bool = False,
    ) -> tuple[Stage, ...]:
        """The stages that `function` returns, without those that are for another model."""
        stages: tuple[Stage, ...] = load_target(self.function)(parameters, norm=norm, n_classes=n_classes)
        return tuple(
            stage
            for stage in stages
            if (gradient_unconfirmed or not stage.only_unconfirmed) and (in_doubt or not stage.only_in_doubt)
        )


@dataclass(frozen=True)
class DiagnosisDefinition(StagedAttackDefinition):
    """An attack whose stages all run on every image, so that they can be compared with one another.

    `checks` are the numbers of the checks that compare them. With `only_middle` its default is the middle epsilon.
    """

    _: KW_ONLY
    checks: tuple[int, ...]
    only_middle: bool = False

    carries_over: ClassVar[bool] = False

    @property
    def runs_by_chunk(self) -> bool:
        """False: the checks compare all images."""
        return False


@dataclass(frozen=True)
class Stage:
    """One attack within an evaluation: its name there, its definition and all its parameters.

    `starts` is how many times it runs, each from other random numbers, which are drawn by the name of the stage or of
    another one, `seeded_as`. `only_unconfirmed`: it runs only against a model whose gradient could not be confirmed.
    `only_in_doubt`: only against a model on which attacks that follow gradients may have failed for that reason.
    `most_images`: it attacks at most so many of the images of a chunk that stand, the first of them: a tripwire, whose
    success on `doubtful` images or more raises that doubt. `quick`: candidates are sought on a model that is computed
    in less time, with other rounding; older stages must find what they always found.
    """

    name: str
    definition: AttackDefinition
    parameters: Parameters
    seeded_as: str | None = None
    starts: int = 1
    only_unconfirmed: bool = False
    only_in_doubt: bool = False
    most_images: int | None = None
    doubtful: int = 1
    quick: bool = False

    @property
    def tripwire(self) -> bool:
        """Whether its success raises doubt about the gradients of the model."""
        return self.most_images is not None

    @property
    def passes(self) -> int:
        """The largest number of gradients (or queries) per image; 1 where the definition counts none."""
        return max(1, self.definition.gradients(self.parameters)) * self.starts

    @property
    def resumed_steps(self) -> int:
        """The number of steps from a given start: a quarter of all steps, rounded up."""
        return math.ceil(int(str(self.parameters[str(self.definition.resumes)])) / 4)

    def doubled(self, *, restarts: bool) -> Stage:
        """This stage with twice the queries or steps, or if `restarts` with twice the starts; unchanged where its
        definition names nothing to double."""
        name = self.definition.doubles
        if restarts and self.definition.restarts:
            return replace(
                self, name=f"{self.name} doubled", starts=2 * self.starts, seeded_as=self.seeded_as or self.name
            )
        if name is None:
            return self
        twice = 2 * int(str(self.parameters[name]))
        return replace(self, name=f"{self.name} doubled", parameters={**self.parameters, name: twice})


def load_attack(name: str) -> NamedAttack:
    """The definition of a registered attack. Raises UsageError, with the nearest match and the list, for an unknown
    name, and RegistryError for a plugin that cannot be used."""
    definition = ATTACKS.load(name)
    if not isinstance(definition, NamedAttack):
        raise RegistryError(
            f"{name!r} names a {type(definition).__name__}; its entry point must name an AttackDefinition"
        )
    return definition


def _check_type(attack: str, name: str, value: JsonValue, default: JsonValue) -> None:
    if isinstance(default, bool):
        good = isinstance(value, bool)
    elif isinstance(default, int):
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    elif isinstance(default, str):
        good = isinstance(value, str)
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value)
    if not good:
        kinds = {bool: "true or false", int: "a whole number of at least 1", str: "a text"}
        kind = kinds.get(type(default), "a finite number above 0")
        raise UsageError(f"{attack}: {name} must be {kind}, not {value!r}")
