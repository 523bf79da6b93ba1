"""What was found on some whole chunks of an evaluation; portions side by side, in files, and the result of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from odebench.attack.definition import load_attack
from odebench.errors import ResultError, WeightError
from odebench.evaluation.checks.model import gradient_availability, logits_not_probabilities, solver_failure
from odebench.evaluation.checks.settings import reach
from odebench.evaluation.outcomes import Outcomes, ever_failed
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.protocol.spec import Evaluation, Sha256, Spec
from odebench.result.flags import flags_of
from odebench.result.outcome import Flag
from odebench.result.schema import Check, Cost, Found, Nfe, Result, outcomes_digest
from odebench.result.summary import nfe_summary


class Setup(Spec):
    """What is equal for all portions of an evaluation: what was at hand, how the model must be asked, and the checks
    that look at the first chunk of the evaluation, or that the attack makes by itself."""

    run_key: Sha256
    found: Found
    alone: bool
    randomised: bool
    opaque: bool
    left_out: bool
    few_candidates: bool
    legend: dict[str, str]
    checks: Annotated[tuple[Check, ...], Field(strict=False)]


class _Counts(Spec):
    """The numbers of a portion that are no arrays; `invalid` has one for each epsilon."""

    ground: Setup
    first: int
    useless: int
    forward_images: int
    backward_images: int
    seconds: float
    invalid: Annotated[tuple[int, ...], Field(strict=False)]


@dataclass(frozen=True)
class Measurements:
    """The images from `first` on, counted within the evaluation: their clean answers and letters, a ledger for each
    epsilon, how many gradients are useless, passes through the model, and seconds."""

    ground: Setup
    first: int
    clean: np.ndarray
    logits: Float[Tensor, "n classes"]
    nfe: Int[Tensor, " n"] | None
    useless: int
    ledgers: tuple[Outcomes, ...]
    forward_images: int
    backward_images: int
    seconds: float

    def __len__(self) -> int:
        return len(self.clean)

    def result(self, evaluation: Evaluation) -> Result:
        """The result of an evaluation, all of whose images this portion holds."""
        if (self.first, len(self), self.ground.run_key) != (0, evaluation.dataset.n, evaluation.run_key):
            raise AssertionError("a result is made of a whole evaluation")
        attack, ground, n = load_attack(evaluation.attack.name), self.ground, len(self)
        own = [
            logits_not_probabilities(self.logits),
            gradient_availability(self.useless, int((self.clean == "r").sum())),
            reach(attack, evaluation.attack.parameters),
            solver_failure(ever_failed(self.ledgers)),
        ]
        # A check that the attack makes itself, with more evidence, stands for the first look.
        by_id = {check.id: check for check in [*own, *ground.checks]}
        checks = [by_id[number] for number in sorted(by_id)]
        told = {
            Flag.OPAQUE_GRADIENT: ground.opaque,
            Flag.NO_TRANSFER: ground.left_out,
            Flag.FEW_CANDIDATES: ground.few_candidates,
        }
        epsilons = tuple(
            ledger.epsilon_result(epsilon, ground.legend)
            for epsilon, ledger in zip(evaluation.threat_model.epsilons, self.ledgers, strict=True)
        )
        return Result(
            schema_version=1,
            run_key=evaluation.run_key,
            evaluation=evaluation,
            found=ground.found,
            epsilons=epsilons,
            nfe=Nfe(
                clean=nfe_summary([] if self.nfe is None else self.nfe.tolist()),
                adversarial=nfe_summary([count for ledger in self.ledgers for count in ledger.nfe]),
            ),
            cost=Cost(forward=self.forward_images / n, backward=self.backward_images / n, seconds=self.seconds),
            checks=tuple(checks),
            flags=flags_of(evaluation, checks, [flag for flag, raised in told.items() if raised]),
            outcomes_sha256=outcomes_digest(epsilons),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


def _on(ground: Setup, device: str) -> Setup:
    return ground.model_copy(update={"found": ground.found.model_copy(update={"device": device})})


def _unnamed(ground: Setup) -> Setup:
    """The same with a device's kind alone: the workers of a cluster may have processors of several names."""
    return _on(ground, ground.found.device.partition(" (")[0])


def concatenate(portions: Sequence[Measurements]) -> Measurements:
    """Portions that follow one another, as one; it names the processors or cards of all. Raises ResultError where they
    were found with other data, weights or packages, some on a card and some not, or one is missing."""
    ordered = sorted(portions, key=lambda portion: portion.first)
    start = ordered[0]
    for before, after in pairwise(ordered):
        if after.first != before.first + len(before):
            raise ResultError(f"the slices from image {before.first} and from {after.first} do not follow one another")
        here, there = _unnamed(start.ground), _unnamed(after.ground)
        if there != here:
            names = [name for name in Setup.model_fields if getattr(there, name) != getattr(here, name)]
            raise ResultError(
                f"the slices from image {start.first} and from {after.first} differ in {', '.join(names)}: other "
                "weights, or machines of other kinds? Delete one and sweep again"
            )
    devices = "; ".join(sorted({one.ground.found.device for one in ordered}))
    return Measurements(
        ground=_on(start.ground, devices),
        first=start.first,
        clean=np.concatenate([one.clean for one in ordered]),
        logits=torch.cat([one.logits for one in ordered]),
        nfe=None if start.nfe is None else torch.cat([one.nfe for one in ordered if one.nfe is not None]),
        useless=sum(one.useless for one in ordered),
        ledgers=tuple(Outcomes.side_by_side(parts) for parts in zip(*(one.ledgers for one in ordered), strict=True)),
        forward_images=sum(one.forward_images for one in ordered),
        backward_images=sum(one.backward_images for one in ordered),
        seconds=sum(one.seconds for one in ordered),
    )


def write_portion(path: Path, portion: Measurements) -> None:
    """Writes a portion, whole or not at all. Raises FileError."""
    tensors = {"logits": portion.logits, "clean": _codes(portion.clean)}
    if portion.nfe is not None:
        tensors["nfe"] = portion.nfe
    for index, ledger in enumerate(portion.ledgers):
        tensors |= {
            f"letters.{index}": _codes(ledger.letters),
            f"felled.{index}": _codes(ledger.felled),
            f"distances.{index}": torch.tensor(ledger.distances, dtype=torch.float64),
            f"nfe.{index}": torch.tensor(ledger.nfe, dtype=torch.int64),
        }
    counts = _Counts(
        ground=portion.ground,
        first=portion.first,
        useless=portion.useless,
        forward_images=portion.forward_images,
        backward_images=portion.backward_images,
        seconds=portion.seconds,
        invalid=tuple(ledger.invalid for ledger in portion.ledgers),
    )
    # as a text: the order of the keys of evidence and legends is that of the result
    write_tensors(path, tensors, {"portion": counts.model_dump_json()})


def read_portion(path: Path) -> Measurements:
    """A portion from its file. Raises WeightError where that is missing, damaged, or no portion."""
    tensors, metadata = read_tensors(path)
    try:
        counts = _Counts.model_validate_json(str(metadata["portion"]))
        return Measurements(
            ground=counts.ground,
            first=counts.first,
            clean=_letters(tensors["clean"]),
            logits=tensors["logits"],
            nfe=tensors.get("nfe"),
            useless=counts.useless,
            ledgers=tuple(_ledger(tensors, index, invalid) for index, invalid in enumerate(counts.invalid)),
            forward_images=counts.forward_images,
            backward_images=counts.backward_images,
            seconds=counts.seconds,
        )
    except (KeyError, ValueError) as error:
        raise WeightError(f"{path} is no slice of an evaluation: {' '.join(str(error).split())[:200]}") from error


def _ledger(tensors: Mapping[str, Tensor], index: int, invalid: int) -> Outcomes:
    return Outcomes(
        letters=_letters(tensors[f"letters.{index}"]),
        felled=_letters(tensors[f"felled.{index}"]),
        distances=tensors[f"distances.{index}"].tolist(),
        nfe=tensors[f"nfe.{index}"].tolist(),
        invalid=invalid,
    )


def _codes(letters: np.ndarray) -> Tensor:
    return torch.tensor([ord(letter) for letter in letters.tolist()], dtype=torch.uint8)


def _letters(codes: Tensor) -> np.ndarray:
    return np.array([chr(code) for code in codes.tolist()], dtype="<U1")
