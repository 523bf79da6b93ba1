"""The registered claims: leaderboard/claims.yaml, read strictly. What is asked, of which cells, by which margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from odebench.io.yaml_document import Document, Parts, read_document
from odebench.protocol.protocol_file import AttackChoice, Positive, Seeds
from odebench.protocol.spec import Norm, Spec

REGISTRATION = "claims.yaml"
"""The name of the file, beside the results of a leaderboard."""
LEAST_SEEDS = 8
"""With fewer train seeds a test's level is not kept, so a claim gets no word."""
LEAST_IMAGES = 100

Kind = Literal["clean", "robust", "slope"]


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], Field(min_length=1, strict=False), BeforeValidator(_texts)]


class ClaimArm(Spec):
    """One side of a claim: a model in one or more sections of the protocol, at `horizons` (None: the claim's)."""

    model: str
    sections: Texts
    horizons: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] | None = None


class RegisteredClaim(Spec):
    """A question, the cells that answer it, and the rule.

    y(seed, image) is the first arm minus the second in the mean over sections and horizons, or the slope of one arm
    over log2 T. `images` is how many images of the data set's order are judged in each cell, `margin` is in points.
    `factor` names what the arms differ in besides loss, teacher and (of a slope) horizon, as fields of a recipe such as
    "schedule" or "solver". `weak` is an attack whose cells decide between "masked" and other words. `earlier` marks a
    claim about data that was there before the registration: it gets no word.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    question: str
    kind: Kind
    dataset: str
    protocol: str
    arms: Annotated[tuple[ClaimArm, ...], Field(min_length=1, max_length=2, strict=False)]
    horizons: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)]
    train_seeds: Seeds
    images: Annotated[int, Field(ge=LEAST_IMAGES)]
    attack: AttackChoice
    norm: Norm
    epsilon: Positive
    margin: Positive
    family: str
    factor: Annotated[tuple[str, ...], Field(strict=False)] = ()
    weak: AttackChoice | None = None
    earlier: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> RegisteredClaim:
        if (self.kind == "slope") != (len(self.arms) == 1):
            raise ValueError("a slope has one arm, a gain two: the one that should gain first")
        if self.kind == "slope" and len(self.horizons) < 2:
            raise ValueError("a slope needs two horizons at least")
        if len({len(arm.sections) for arm in self.arms}) > 1:
            raise ValueError("both arms need the same number of sections: they are compared one by one")
        if len({len(arm.horizons or self.horizons) for arm in self.arms}) > 1:
            raise ValueError("both arms need the same number of horizons: they are compared one by one")
        if self.earlier and len(self.train_seeds) >= LEAST_SEEDS:
            raise ValueError(f"data of {LEAST_SEEDS} train seeds decides: register new ones instead of earlier data")
        return self


class Registration(Spec):
    """All registered claims."""

    version: Literal[1]
    claims: Annotated[tuple[RegisteredClaim, ...], Field(strict=False)]


class ClaimCell(NamedTuple):
    """A cell of a claim: the number of its arm, of the arm's section and horizon, and the train seed."""

    arm: int
    section: int
    horizon: int
    seed: int


@dataclass(frozen=True)
class ClaimCells:
    """A claim with the run key of each of its cells, and of the same cells under its weak attack."""

    claim: RegisteredClaim
    run_keys: Mapping[ClaimCell, str]
    weak: Mapping[ClaimCell, str]
    refused: str = ""
    """Why the claim is not answered, in one line; empty where nothing speaks against it."""
    registered: datetime | None = None
    """When the claim was committed as it stands; None where that is not known."""


_PARTS: Parts = {
    ("claims",): RegisteredClaim,
    ("claims", "arms"): ClaimArm,
    ("claims", "attack"): AttackChoice,
    ("claims", "weak"): AttackChoice,
}


def read_registration(path: Path) -> tuple[Registration, Document]:
    """The claims of a file and its document. Raises DocumentError, with the line, for what does not fit."""
    document = read_document(path)
    found = document.validate(Registration, _PARTS)
    document.check_distinct(("claims",), [claim.name for claim in found.claims], "a claim called")
    return found, document


def installed_registration() -> Path:
    """Where an installed odebench has its registration: a copy without a history of its own."""
    return Path(__file__).with_name(REGISTRATION)


def registration_file(leaderboard: Path | None) -> Path:
    """The registration of a leaderboard, or where it has none odebench's own: beside this module if it is installed,
    else in the checkout."""
    if leaderboard is not None and (leaderboard / REGISTRATION).is_file():
        return leaderboard / REGISTRATION
    installed = installed_registration()
    return installed if installed.is_file() else Path(__file__).parents[2] / "leaderboard" / REGISTRATION
