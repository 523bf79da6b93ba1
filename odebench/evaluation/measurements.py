"""What an evaluation measured on some whole chunks: joined with the rest, written to files, turned into a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Int
from pydantic import ConfigDict, Field
from torch import Tensor

from odebench.attack.definition import load_attack
from odebench.errors import ResultError, WeightError
from odebench.evaluation.checks.model import gradient_availability, logits_not_probabilities
from odebench.evaluation.checks.reach import reach
from odebench.evaluation.checks.solver import solver_failure
from odebench.evaluation.outcome_accumulator import Outcomes, ever_failed
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.numerics.shapes import Logits
from odebench.protocol.spec import Evaluation, Sha256, Spec
from odebench.result.flags import flags_of
from odebench.result.outcome import ROBUST, Flag
from odebench.result.schema import (
    SCHEMA_VERSION,
    UNFELLED,
    CandidatesFile,
    Check,
    Cost,
    Found,
    Nfe,
    Result,
    StageCost,
    outcomes_digest,
)
from odebench.result.summary import nfe_summary


class Setup(Spec):
    """What all slices of an evaluation have in common: what was at hand, how the model is asked, and the checks made on
    the first chunk of the evaluation or by the attack itself."""

    model_config = ConfigDict(populate_by_name=True)

    run_key: Sha256
    found: Found
    alone: bool
    randomised: bool
    gradient_unconfirmed: Annotated[bool, Field(alias="opaque")]
    left_out: bool
    few_candidates: bool
    legend: dict[str, str]
    checks: Annotated[tuple[Check, ...], Field(strict=False)]
    doubt: Annotated[tuple[str, ...], Field(strict=False)]


class Passes(Spec):
    """How many images went forward and backward through models, and the seconds that this took."""

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        return Passes(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            seconds=self.seconds + other.seconds,
        )


class _Metadata(Spec):
    """All but the arrays, as a slice's file holds it; `invalid` has one count for each epsilon."""

    model_config = ConfigDict(populate_by_name=True)

    setup: Annotated[Setup, Field(alias="ground")]
    first: int
    useless: int
    forward_images: int
    backward_images: int
    seconds: float
    stages: dict[str, Passes]
    invalid: Annotated[tuple[int, ...], Field(strict=False)]


_PLAIN = tuple(name for name in _Metadata.model_fields if name != "invalid")
"""What measurements and metadata have in common."""


@dataclass(frozen=True)
class Measurements:
    """Images from `first` on, counted within the evaluation: their clean letters and logits, the outcomes at each
    epsilon, how many gradients are useless (check 1), images that went through the model and seconds, of all and by
    stage."""

    setup: Setup
    first: int
    clean: np.ndarray
    logits: Logits
    nfe: Int[Tensor, " n"] | None
    useless: int
    outcomes: tuple[Outcomes, ...]
    forward_images: int
    backward_images: int
    seconds: float
    stages: Mapping[str, Passes]

    def __len__(self) -> int:
        return len(self.clean)

    def of_candidates(self, sha256: str, address: str | None) -> Measurements:
        """The same, which name the file of the candidates that were judged."""
        found = self.setup.found.model_copy(update=dict(candidates=CandidatesFile(sha256=sha256, address=address)))
        return replace(self, setup=self.setup.model_copy(update={"found": found}))

    def result(self, evaluation: Evaluation) -> Result:
        """The result of the evaluation, all of whose images were measured."""
        if (self.first, len(self), self.setup.run_key) != (0, evaluation.dataset.n, evaluation.run_key):
            raise AssertionError("a result is made of a whole evaluation")
        setup, n, checks = self.setup, len(self), self._checks(evaluation)
        told = {
            Flag.OPAQUE_GRADIENT: setup.gradient_unconfirmed,
            Flag.NO_TRANSFER: setup.left_out,
            Flag.FEW_CANDIDATES: setup.few_candidates,
        }
        epsilons = tuple(
            outcomes.epsilon_result(epsilon, setup.legend)
            for epsilon, outcomes in zip(evaluation.threat_model.epsilons, self.outcomes, strict=True)
        )
        return Result(
            schema_version=SCHEMA_VERSION,
            run_key=evaluation.run_key,
            evaluation=evaluation,
            found=setup.found,
            epsilons=epsilons,
            nfe=Nfe(
                clean=nfe_summary([] if self.nfe is None else self.nfe.tolist()),
                adversarial=nfe_summary([count for outcomes in self.outcomes for count in outcomes.nfe]),
            ),
            cost=Cost(
                forward=self.forward_images / n,
                backward=self.backward_images / n,
                seconds=self.seconds,
                stages=tuple(
                    StageCost(name=name, forward=one.forward / n, backward=one.backward / n, seconds=one.seconds)
                    for name, one in self.stages.items()
                ),
            ),
            checks=tuple(checks),
            flags=flags_of(evaluation, checks, [flag for flag, raised in told.items() if raised]),
            outcomes_sha256=outcomes_digest(epsilons),
            doubt=setup.doubt,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _checks(self, evaluation: Evaluation) -> list[Check]:
        """All checks by number; one that the attack made itself, with more evidence, replaces the first look."""
        checks = [
            logits_not_probabilities(self.logits),
            gradient_availability(self.useless, int((self.clean == ROBUST).sum())),
            reach(load_attack(evaluation.attack.name), evaluation.attack.parameters),
            solver_failure(ever_failed(self.outcomes), solver=evaluation.solver),
            *self.setup.checks,
        ]
        by_id = {check.id: check for check in checks}
        return [by_id[number] for number in sorted(by_id)]


def concatenate(slices: Sequence[Measurements]) -> Measurements:
    """The measurements of slices that follow one another, as one; its device names those of all.

    Raises ResultError where slices have other data, weights or packages, some ran on a card and some did not, or one
    is missing.
    """
    ordered = sorted(slices, key=lambda one: one.first)
    start = ordered[0]
    for before, after in pairwise(ordered):
        if after.first != before.first + len(before):
            raise ResultError(f"the slices from image {before.first} and from {after.first} do not follow one another")
        here, there = _without_name(start.setup), _without_name(after.setup)
        if there != here:
            fields = Setup.model_fields.items()
            names = [field.alias or name for name, field in fields if getattr(there, name) != getattr(here, name)]
            raise ResultError(
                f"the slices from image {start.first} and from {after.first} differ in {', '.join(names)}: other "
                "weights, or machines of other kinds? Delete one and sweep again"
            )
    devices = "; ".join(sorted({one.setup.found.device for one in ordered}))
    return Measurements(
        setup=_with_device(start.setup, devices),
        first=start.first,
        clean=np.concatenate([one.clean for one in ordered]),
        logits=torch.cat([one.logits for one in ordered]),
        nfe=None if start.nfe is None else torch.cat([one.nfe for one in ordered if one.nfe is not None]),
        useless=sum(one.useless for one in ordered),
        outcomes=tuple(map(Outcomes.concatenate, zip(*(one.outcomes for one in ordered), strict=True))),
        forward_images=sum(one.forward_images for one in ordered),
        backward_images=sum(one.backward_images for one in ordered),
        seconds=sum(one.seconds for one in ordered),
        stages={
            name: sum((one.stages[name] for one in ordered if name in one.stages), Passes())
            for name in dict.fromkeys(name for one in ordered for name in one.stages)
        },
    )


def _with_device(setup: Setup, device: str) -> Setup:
    return setup.model_copy(update={"found": setup.found.model_copy(update={"device": device})})


def _without_name(setup: Setup) -> Setup:
    """The same with only the kind of the device, and of the checks whether they flag: the processors of a cluster may
    have several names, and round gradients in several ways."""
    bare: dict[str, object] = {"figure": None, "k": None, "n": None, "why": "", "evidence": {}}
    checks = tuple(check.model_copy(update=bare) for check in setup.checks if check.status != "skipped")
    kind = _with_device(setup, setup.found.device.partition(" (")[0])
    return kind.model_copy(update={"checks": checks})


def write_measurements(path: Path, measured: Measurements) -> None:
    """Writes the measurements of a slice, whole or not at all. Raises FileError."""
    tensors = {"logits": measured.logits, "clean": _codes(measured.clean)}
    if measured.nfe is not None:
        tensors["nfe"] = measured.nfe
    for index, outcomes in enumerate(measured.outcomes):
        tensors |= {
            f"letters.{index}": _codes(outcomes.letters),
            f"felled.{index}": _codes(outcomes.felled_by, width=len(UNFELLED)),
            f"distances.{index}": torch.tensor(outcomes.distances, dtype=torch.float64),
            f"nfe.{index}": torch.tensor(outcomes.nfe, dtype=torch.int64),
        }
    metadata = _Metadata(
        **{name: getattr(measured, name) for name in _PLAIN},
        invalid=tuple(outcomes.invalid for outcomes in measured.outcomes),
    )
    # as text, which keeps the order of the keys in evidence and legend
    write_tensors(path, tensors, {"portion": metadata.model_dump_json(by_alias=True)})


def read_measurements(path: Path) -> Measurements:
    """The measurements of a slice from its file. Raises WeightError where it is missing, damaged or another file."""
    tensors, metadata = read_tensors(path)
    try:
        found = _Metadata.model_validate_json(str(metadata["portion"]))
        return Measurements(
            **{name: getattr(found, name) for name in _PLAIN},
            clean=_letters(tensors["clean"]),
            logits=tensors["logits"],
            nfe=tensors.get("nfe"),
            outcomes=tuple(_outcomes(tensors, index, invalid) for index, invalid in enumerate(found.invalid)),
        )
    except (KeyError, ValueError) as error:
        raise WeightError(f"{path} is not a slice of an evaluation: {' '.join(str(error).split())[:200]}") from error


def _outcomes(tensors: Mapping[str, Tensor], index: int, invalid: int) -> Outcomes:
    return Outcomes(
        letters=_letters(tensors[f"letters.{index}"]),
        felled_by=_letters(tensors[f"felled.{index}"], width=len(UNFELLED)),
        distances=tensors[f"distances.{index}"].tolist(),
        nfe=tensors[f"nfe.{index}"].tolist(),
        invalid=invalid,
    )


def _codes(letters: np.ndarray, *, width: int = 1) -> Tensor:
    """The characters of texts of equal width, as bytes of shape (n, width)."""
    return torch.tensor([ord(letter) for letter in "".join(letters.tolist())], dtype=torch.uint8).view(-1, width)


def _letters(codes: Tensor, *, width: int = 1) -> np.ndarray:
    if codes.shape[1:] != (width,):
        raise ValueError(f"{width} characters per image are expected, not codes of shape {tuple(codes.shape)}")
    return np.array(["".join(map(chr, code)) for code in codes.tolist()], dtype=f"<U{width}")
