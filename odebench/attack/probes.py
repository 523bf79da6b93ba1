"""The probes of a diagnosis: attacks to compare with PGD, to learn whether its settings are strong enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from odebench.attack.builtin import FGSM, NOISE, PGD
from odebench.attack.definition import Stage
from odebench.attack.worst_case_stages import stages as worst_case_stages


@dataclass(frozen=True)
class Probes:
    """The probes of a diagnosis, one field each.

    `iterated` is the reference: PGD with the settings under question. `longer` takes twice as many steps of the same
    length from the same start, and `restarted` begins at another random start. `worst_case` holds the stages of the
    fast effort.
    """

    iterated: Stage
    single_step: Stage
    random: Stage
    longer: Stage
    restarted: Stage
    worst_case: tuple[Stage, ...]


def probes(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> Probes:
    """The probes for PGD with these parameters, completed by its defaults."""
    given = PGD.complete(parameters)
    twice = {**given, "steps": 2 * int(str(given["steps"]))}
    return Probes(
        iterated=Stage(PGD.name, PGD, given),
        single_step=Stage(FGSM.name, FGSM, FGSM.complete()),
        random=Stage(NOISE.name, NOISE, NOISE.complete()),
        longer=Stage(f"{PGD.name} with twice the steps", PGD, twice, seeded_as=PGD.name),
        restarted=Stage(f"{PGD.name} from another start", PGD, given),
        worst_case=worst_case_stages({"effort": "fast"}, norm=norm, n_classes=n_classes),
    )


def quick_stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """The probes of the quick checks."""
    found = probes(parameters, norm=norm, n_classes=n_classes)
    return (found.iterated, found.single_step, found.random)


def full_stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """The probes of all checks. A stage of the worst case that is a probe already comes once."""
    found = probes(parameters, norm=norm, n_classes=n_classes)
    stages = (found.iterated, found.single_step, found.random, found.longer, found.restarted, *found.worst_case)
    return tuple({stage.name: stage for stage in stages}.values())
