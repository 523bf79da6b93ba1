"""The standard result: what stands in it, and what must agree in it."""

from __future__ import annotations

import string
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from odebench.errors import ResultError
from odebench.io.canonical_json import digest
from odebench.numerics.statistics import wilson
from odebench.protocol.spec import Evaluation, Sha256, Spec, radius
from odebench.result.outcome import CORRECT, OUTCOMES, ROBUST, SUCCESSFUL

SCHEMA_VERSION = 1
UNFELLED = "-"
_HIDE_CORRECT = str.maketrans(dict.fromkeys(CORRECT, "."))
_SUCCEEDED = str.maketrans({outcome: "+" if outcome in SUCCESSFUL else UNFELLED for outcome in OUTCOMES})

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


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


class Found(Spec):
    """What was at hand when the evaluation ran: data, weights, packages, device."""

    dataset_sha256: Sha256
    weights_sha256: Sha256
    sources_sha256: dict[str, Sha256]
    parameters: Count
    versions: Versions
    device: str
    threads: Annotated[int, Field(ge=1)]


class Figure(Spec):
    """A share with its 95% Wilson interval: sampling of images, not the strength of attacks."""

    value: Share
    low: Share
    high: Share


class Quantiles(Spec):
    """Quantiles of the perturbation norms of the fooled images."""

    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


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
    """One letter per image for the attack or stage that succeeded, "-" for none; `legend` says what a letter means."""

    letters: str
    legend: dict[str, str]


class EpsilonResult(Spec):
    """The outcome of every image at one radius."""

    epsilon: Annotated[float, Field(gt=0)]
    outcomes: str
    felled_by: FelledBy
    figures: Figures


class NfeSummary(Spec):
    """Evaluations of the vector field per image: mean, 95th percentile, largest."""

    mean: float
    p95: float
    max: Count


class Nfe(Spec):
    """NFE on the clean images and on the last candidates judged; null for a model without a field."""

    clean: NfeSummary | None
    adversarial: NfeSummary | None


class Cost(Spec):
    """Passes through the model per image, and wall-clock seconds of attack and verdict together."""

    forward: float
    backward: float
    seconds: float


class Check(Spec):
    """One automated check (docs/protocol.md): what it measured, and whether that is a flag."""

    id: Annotated[int, Field(ge=1, le=18)]
    name: str
    status: Literal["pass", "flag", "skipped"]
    speaks_of: Literal["model", "settings"]
    figure: float | None
    threshold: float | None
    k: Count | None
    n: Count | None
    why: str
    evidence: dict[str, JsonValue]


class Result(Spec):
    """What one evaluation found. `run_key` is its identity, `outcomes_sha256` the digest of its letters."""

    schema_version: Literal[1]
    run_key: Sha256
    evaluation: Evaluation
    found: Found
    epsilons: Annotated[tuple[EpsilonResult, ...], Field(min_length=1, strict=False)]
    nfe: Nfe
    cost: Cost
    checks: Annotated[tuple[Check, ...], Field(strict=False)]
    flags: Annotated[tuple[str, ...], Field(strict=False)]
    outcomes_sha256: Sha256
    created: str

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Result:
        evaluation = self.evaluation
        if self.run_key != evaluation.run_key:
            raise ValueError("run_key is not the digest of the evaluation")
        if tuple(item.epsilon for item in self.epsilons) != evaluation.threat_model.epsilons:
            raise ValueError("the epsilons of the outcomes are not those of the evaluation")
        for item in self.epsilons:
            _check_letters(item, evaluation.dataset.n)
        if len({_clean_letters(item.outcomes) for item in self.epsilons}) > 1:
            raise ValueError("the letters of the clean images (m, u) differ between epsilons")
        if self.outcomes_sha256 != outcomes_digest(self.epsilons):
            raise ValueError("outcomes_sha256 is not the digest of the outcomes")
        return self


def _check_letters(item: EpsilonResult, n: int) -> None:
    where = f"epsilon {radius(item.epsilon)}"
    if len(item.outcomes) != n or len(item.felled_by.letters) != n:
        raise ValueError(f"{where}: {n} images need {n} letters")
    if strange := set(item.outcomes) - set(OUTCOMES):
        raise ValueError(f"{where}: {sorted(strange)} are no outcomes; known: {', '.join(OUTCOMES)}")
    # whole texts are translated, because to look at one letter after the other would take longer than all the rest
    felled = set(item.felled_by.letters) - {UNFELLED}
    named = item.felled_by.letters.translate({ord(letter): "+" for letter in felled})
    if item.outcomes.translate(_SUCCEEDED) != named:
        raise ValueError(f"{where}: an image is felled by something exactly when its letter is f or x")
    if unknown := felled - item.felled_by.legend.keys():
        raise ValueError(f"{where}: felled_by {min(unknown)!r} has no legend")
    for name, expected in letter_figures(item.outcomes).items():
        stored: Figure = getattr(item.figures, name)
        for part in ("value", "low", "high"):
            given, recomputed = getattr(stored, part), getattr(expected, part)
            if abs(given - recomputed) > 1e-9:
                label = name if part == "value" else f"{name}.{part}"
                raise ValueError(f"{where}: {label} is {given:.6g}, but the letters say {recomputed:.6g}")


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


def felled_letters(stages: list[str]) -> dict[str, str]:
    """The stage names by letters in order: a, b, c and so on. Raises ResultError for more than 52."""
    if len(stages) > len(string.ascii_letters):
        raise ResultError(
            f"{len(stages)} stages and epsilons are more than the {len(string.ascii_letters)} that felled_by can name; "
            "attack fewer epsilons at once"
        )
    return dict(zip(string.ascii_letters, stages, strict=False))
