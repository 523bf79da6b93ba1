"""The probes of a diagnosis: attacks that are compared with one another, the settings of PGD under question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from odebench.attack.builtin import FGSM, NOISE, PGD
from odebench.attack.definition import Stage
from odebench.attack.worst_case import stages as worst_case_stages


@dataclass(frozen=True)
class Probes:
    """The probes by their part: `iterated` is the reference, PGD as its settings say.

    `longer` takes twice the steps of the same length from the same start, `restarted` another random start;
    `worst_case` are the stages of
    its fast effort.
    """

    iterated: Stage
    single_step: Stage
    random: Stage
    longer: Stage
    restarted: Stage
    worst_case: tuple[Stage, ...]


def probes(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> Probes:
    """The probes for PGD with these parameters."""
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
    """What the quick set of checks runs."""
    found = probes(parameters, norm=norm, n_classes=n_classes)
    return (found.iterated, found.single_step, found.random)


def full_stages(parameters: Mapping[str, JsonValue], *, norm: str, n_classes: int) -> tuple[Stage, ...]:
    """What all checks together run; those of the worst case that are probes already are named once."""
    found = probes(parameters, norm=norm, n_classes=n_classes)
    stages = (found.iterated, found.single_step, found.random, found.longer, found.restarted, *found.worst_case)
    return tuple({stage.name: stage for stage in stages}.values())
