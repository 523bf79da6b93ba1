"""The standard result: what stands in it, and what must agree in it.

Results are written in schema version 2. Files of version 1, which stay as they are, are read as well: they lack what
`SINCE_2` names, and felled_by has one character per image instead of two.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from odebench.io.canonical_json import digest
from odebench.numerics.statistics import wilson
from odebench.protocol.recipe import TrainedOn
from odebench.protocol.spec import Bounded, Evaluation, Sha256, Spec, radius
from odebench.result.outcome import CORRECT, OUTCOMES, ROBUST, SUCCESSFUL

SCHEMA_VERSION: Literal[2] = 2
READABLE_VERSIONS = (1, 2)
SINCE_2 = frozenset({"found.trained_on", "found.candidates", "cost.stages", "doubt"})
"""What version 2 added: fields that a file of version 1 must not have, and one of version 2 must."""
UNFELLED = "--"
ADDRESS_PATTERN = r"^https://[!-~]{1,1900}$"
_HIDE_CORRECT = str.maketrans(dict.fromkeys(CORRECT, "."))
_SUCCEEDED = str.maketrans({outcome: "+" if outcome in SUCCESSFUL else "-" for outcome in OUTCOMES})
_NAMED = str.maketrans(dict.fromkeys(string.ascii_letters, "+"))

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=1000)]
Measure = Annotated[float, Field(ge=-1e15, le=1e15)]


class Versions(Spec):
    """The versions of what computed the result; null where it was not installed."""

    odebench: str
    python: str
    numpy: str
    scipy: str
    torch: str
    torchdiffeq: str
    torchode: str
    foolbox: str
    pyautoattack: str | None


class _Extended(Spec):
    """A part of the result to which version 2 added fields: they are written only where they were given."""

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        added = {name.rpartition(".")[2] for name in SINCE_2} - self.model_fields_set
        return {name: value for name, value in fields.items() if name not in added}


class CandidatesFile(Spec):
    """The file of the candidates that were judged, and the address that it can be had from, if any."""

    sha256: Sha256
    address: Annotated[str, Field(pattern=ADDRESS_PATTERN)] | None


class Found(_Extended):
    """What was at hand when the evaluation ran: data, weights, packages, device.

    `trained_on` is null where it is not known, `candidates` where the attack made its own.
    """

    dataset_sha256: Sha256
    weights_sha256: Sha256
    sources_sha256: dict[str, Sha256]
    parameters: Count
    versions: Versions
    device: Text
    threads: Annotated[int, Field(ge=1, le=10**6)]
    trained_on: TrainedOn | None = None
    candidates: CandidatesFile | None = None


class Figure(Spec):
    """A share with its 95% Wilson interval: sampling of images, not the strength of attacks."""

    value: Share
    low: Share
    high: Share


class Quantiles(Spec):
    """Quantiles of the perturbation norms of the fooled images."""

    q05: Measure
    q25: Measure
    q50: Measure
    q75: Measure
    q95: Measure


class Figures(Spec):
    """The figures of one epsilon, and the norms of the perturbations that fooled an image.

    `invalid` counts candidates that were not finite, or that a fixed-budget attack placed outside its ball.
    """

    clean_accuracy: Figure
    robust_accuracy: Figure
    conditional_robustness: Figure
    norm_quantiles: Quantiles | None
    invalid: Count


class FelledBy(Spec):
    """A code per image for the attack or stage that succeeded, all "-" for none; `legend` says what a code means.

    A code has two letters, in files of version 1 one. `letters` holds the codes one after the other.
    """

    letters: str
    legend: Annotated[dict[str, Text], Field(max_length=len(string.ascii_letters) ** 2)]

    def codes(self, n: int) -> list[str]:
        """The code of each of n images."""
        width = len(self.letters) // n
        return [self.letters[start : start + width] for start in range(0, width * n, width)]


class EpsilonResult(Spec):
    """The outcome of every image at one radius."""

    epsilon: Annotated[float, Field(gt=0)]
    outcomes: str
    felled_by: FelledBy
    figures: Figures


class NfeSummary(Spec):
    """Evaluations of the vector field per image: mean, 95th percentile, largest."""

    mean: Measure
    p95: Measure
    max: Count


class Nfe(Spec):
    """NFE on the clean images and on the last candidates judged; null for a model without a field."""

    clean: NfeSummary | None
    adversarial: NfeSummary | None


class StageCost(Spec):
    """What one stage took at all epsilons together: passes through the model per image, and wall-clock seconds."""

    name: Text
    forward: Measure
    backward: Measure
    seconds: Measure


class Cost(_Extended):
    """Passes through the model per image, and wall-clock seconds of attack and verdict together, without the checks;
    and what each stage took of it."""

    forward: Measure
    backward: Measure
    seconds: Measure
    stages: Annotated[tuple[StageCost, ...], Field(strict=False, max_length=1000)] = ()


class Check(Spec):
    """One automated check (docs/protocol.md): what it measured, and whether that is a flag."""

    id: Annotated[int, Field(ge=1, le=999)]
    name: Text
    status: Literal["pass", "flag", "skipped"]
    speaks_of: Literal["model", "settings"]
    figure: Measure | None
    threshold: Measure | None
    k: Count | None
    n: Count | None
    why: Text
    evidence: Bounded


class Result(_Extended):
    """What one evaluation found. `run_key` is its identity, `outcomes_sha256` the digest of its letters.

    `doubt` holds the reasons why the attack ran the stages that false gradients do not mislead, a sentence each.
    """

    schema_version: Literal[1, 2]
    run_key: Sha256
    evaluation: Evaluation
    found: Found
    epsilons: Annotated[tuple[EpsilonResult, ...], Field(min_length=1, strict=False)]
    nfe: Nfe
    cost: Cost
    checks: Annotated[tuple[Check, ...], Field(strict=False, max_length=1000)]
    flags: Annotated[tuple[Text, ...], Field(strict=False, max_length=1000)]
    outcomes_sha256: Sha256
    created: Text
    doubt: Annotated[tuple[Text, ...], Field(strict=False, max_length=1000)] = ()

    @property
    def letters(self) -> tuple[str, ...]:
        """The outcomes of all epsilons. Two results of one evaluation are the same where these are: the digest also
        holds the codes of stages, which versions 1 and 2 write differently."""
        return tuple(item.outcomes for item in self.epsilons)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Result:
        evaluation = self.evaluation
        if self.run_key != evaluation.run_key:
            raise ValueError("run_key is not the digest of the evaluation")
        if tuple(item.epsilon for item in self.epsilons) != evaluation.threat_model.epsilons:
            raise ValueError("the epsilons of the outcomes are not those of the evaluation")
        self._check_version()
        for item in self.epsilons:
            _check_letters(item, evaluation.dataset.n, width=self.schema_version)
        if len({_clean_letters(item.outcomes) for item in self.epsilons}) > 1:
            raise ValueError("the letters of the clean images (m, u) differ between epsilons")
        if self.outcomes_sha256 != outcomes_digest(self.epsilons):
            raise ValueError("outcomes_sha256 is not the digest of the outcomes")
        return self

    def _check_version(self) -> None:
        given = {*_given(self, ""), *_given(self.found, "found."), *_given(self.cost, "cost.")}
        if self.schema_version == 1 and given:
            raise ValueError(f"{min(given)} does not belong to schema version 1")
        if self.schema_version > 1 and given != SINCE_2:
            raise ValueError(f"{min(SINCE_2 - given)} is missing")


def _given(part: Spec, prefix: str) -> Iterator[str]:
    yield from (prefix + name for name in part.model_fields_set if prefix + name in SINCE_2)


def _check_letters(item: EpsilonResult, n: int, *, width: int) -> None:
    where = f"epsilon {radius(item.epsilon)}"
    if len(item.outcomes) != n:
        raise ValueError(f"{where}: {n} images need {n} letters")
    if len(item.felled_by.letters) != width * n:
        raise ValueError(f"{where}: {n} images need {width * n} letters of felled_by")
    if strange := set(item.outcomes) - set(OUTCOMES):
        raise ValueError(f"{where}: {sorted(strange)} are no outcomes; known: {', '.join(OUTCOMES)}")
    # whole texts are translated, because to look at one letter after the other would take longer than all the rest
    letters = item.felled_by.letters
    columns = [letters[place::width] for place in range(width)]
    if any(item.outcomes.translate(_SUCCEEDED) != column.translate(_NAMED) for column in columns):
        raise ValueError(f"{where}: felled_by must name something exactly where the letter is f or x")
    if unknown := {"".join(code) for code in zip(*columns, strict=True)} - item.felled_by.legend.keys() - {"-" * width}:
        raise ValueError(f"{where}: felled_by {min(unknown)!r} has no legend")


def _clean_letters(outcomes: str) -> str:
    return outcomes.translate(_HIDE_CORRECT)


def letter_figures(outcomes: str) -> dict[str, Figure]:
    """Clean accuracy, robust accuracy and conditional robustness, from the letters alone."""
    n = len(outcomes)
    robust = outcomes.count(ROBUST)
    correct = sum(outcomes.count(letter) for letter in CORRECT)
    return {
        "clean_accuracy": figure(correct, n),
        "robust_accuracy": figure(robust, n),
        "conditional_robustness": figure(robust, correct),
    }


def figure(successes: int, n: int) -> Figure:
    """A share of n images with its Wilson interval; 0 of 0 is 0, and could be anything."""
    low, high = wilson(successes, n)
    return Figure(value=successes / n if n else 0.0, low=low, high=high)


def figure_columns(figures: object, *names: str) -> dict[str, float]:
    """The figures of these names as columns: name, name_low and name_high."""
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    return {f"{name}{end}": getattr(getattr(figures, name), part) for name in names for end, part in ends}


def outcomes_digest(epsilons: tuple[EpsilonResult, ...]) -> str:
    """The sha256 of all letters: outcomes and felled_by of every epsilon."""
    return digest([[item.epsilon, item.outcomes, item.felled_by.model_dump()] for item in epsilons])
