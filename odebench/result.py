"""The standard result: one JSON file an evaluation, read strictly, written whole, never changed."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from odebench.consistency import disagreements
from odebench.errors import ResultError
from odebench.file import write_atomically
from odebench.spec import Evaluation, Sha256, Spec, digest
from odebench.statistic import wilson

SCHEMA_VERSION = 1
OUTCOMES = "mufxr"
FALLEN = "fx"
UNFELLED = "-"
EXAMPLES_FILE = "examples.json"
"""Beside results may lie folders of images with this file in them; it is no result."""

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
    """What was at hand when the evaluation ran."""

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
    """All that the letters say, and how far the felling candidates lie from their images.

    `invalid` counts candidates that were not finite, or that a fixed-budget attack placed outside its ball.
    """

    clean_accuracy: Figure
    robust_accuracy: Figure
    conditional_robustness: Figure
    norm_quantiles: Quantiles | None
    invalid: Count


class FelledBy(Spec):
    """A letter an image: which attack or stage felled it, "-" for none; `legend` says what a letter means."""

    letters: str
    legend: dict[str, str]


class EpsilonResult(Spec):
    """The outcome of every image at one radius."""

    epsilon: Annotated[float, Field(gt=0)]
    outcomes: str
    felled_by: FelledBy
    figures: Figures


class NfeSummary(Spec):
    """Evaluations of the vector field an image: mean, 95th percentile, largest."""

    mean: float
    p95: float
    max: Count


class Nfe(Spec):
    """NFE on the clean images and on the last candidates judged; null for a model without a field."""

    clean: NfeSummary | None
    adversarial: NfeSummary | None


class Cost(Spec):
    """Passes through the model an image, and wall-clock seconds of attack and verdict together."""

    forward: float
    backward: float
    seconds: float


class Check(Spec):
    """One automated check (docs/protocol.md): what it looked at, what it found, whether that is a flag."""

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
    where = f"epsilon {item.epsilon:g}"
    if len(item.outcomes) != n or len(item.felled_by.letters) != n:
        raise ValueError(f"{where}: {n} images need {n} letters")
    if strange := set(item.outcomes) - set(OUTCOMES):
        raise ValueError(f"{where}: {sorted(strange)} are no outcomes; known: {', '.join(OUTCOMES)}")
    for outcome, felled in zip(item.outcomes, item.felled_by.letters, strict=True):
        if (outcome in FALLEN) != (felled != UNFELLED):
            raise ValueError(f"{where}: an image is felled by something exactly when its letter is f or x")
        if felled != UNFELLED and felled not in item.felled_by.legend:
            raise ValueError(f"{where}: felled_by {felled!r} has no legend")
    for name, expected in letter_figures(item.outcomes).items():
        stored: Figure = getattr(item.figures, name)
        for part in ("value", "low", "high"):
            given, recomputed = getattr(stored, part), getattr(expected, part)
            if abs(given - recomputed) > 1e-9:
                label = name if part == "value" else f"{name}.{part}"
                raise ValueError(f"{where}: {label} is {given:.6g}, but the letters say {recomputed:.6g}")


def _clean_letters(outcomes: str) -> str:
    return outcomes.translate({ord(letter): "." for letter in "fxr"})


def letter_figures(outcomes: str) -> dict[str, Figure]:
    """Clean accuracy, robust accuracy and conditional robustness, from the letters alone."""
    n = len(outcomes)
    robust = outcomes.count("r")
    correct = robust + outcomes.count("f") + outcomes.count("x")
    return {
        "clean_accuracy": figure(correct, n),
        "robust_accuracy": figure(robust, n),
        "conditional_robustness": figure(robust, correct),
    }


def figure(successes: int, n: int) -> Figure:
    """A share of n images with its Wilson interval; 0 of 0 is 0, and could be anything."""
    low, high = wilson(successes, n)
    return Figure(value=successes / n if n else 0.0, low=low, high=high)


def outcomes_digest(epsilons: tuple[EpsilonResult, ...]) -> str:
    """The sha256 of all letters: outcomes and felled_by of every epsilon."""
    return digest([[item.epsilon, item.outcomes, item.felled_by.model_dump()] for item in epsilons])


def felled_letters(stages: list[str]) -> dict[str, str]:
    """A letter for each stage name, in order: a, b, c and so on."""
    if len(stages) > len(string.ascii_letters):
        raise ResultError(
            f"{len(stages)} stages and epsilons are more than the {len(string.ascii_letters)} that felled_by can name; "
            "attack fewer epsilons at once"
        )
    return dict(zip(string.ascii_letters, stages, strict=False))


def result_path(folder: Path, evaluation: Evaluation) -> Path:
    """Where the result of an evaluation lies: <model>/<data set>-<attack>-<norm>-<run key>.json."""
    model, dataset = evaluation.model.name, evaluation.dataset.name
    name = f"{dataset}-{evaluation.attack.name}-{evaluation.threat_model.norm}-{evaluation.run_key[:16]}.json"
    return folder / model / name


def result_json(result: Result) -> str:
    """The text of a result file: indented JSON, ended by a new line."""
    return json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_result(result: Result, folder: Path | str, *, replace: bool = False) -> Path:
    """Writes a result below `folder`, whole or not at all, and returns its path.

    Raises FileError, and ResultError where the same run key lies there with other letters, unless `replace`.
    """
    path = result_path(Path(folder), result.evaluation)
    if path.exists() and not replace and read_result(path).outcomes_sha256 != result.outcomes_sha256:
        raise ResultError(
            f"{path} has the same run key and other letters: another model of the same class and weights? Tell them "
            "apart by evaluate(..., name=...) or arguments=..., or replace it"
        )
    write_atomically(path, result_json(result).encode())
    return path


def read_result(path: Path) -> Result:
    """Reads one result and recomputes its figures from its letters.

    Raises ResultError, in one line, for a file that is truncated, of another schema version, with unknown
    keys, with strings for numbers, or that contradicts itself.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path} is not whole JSON ({error}); delete it and run the evaluation again") from error
    return parse_result(text, path)


def parse_result(text: str, path: Path) -> Result:
    """The result that a text holds; `path` names it in errors, which are those of `read_result`."""
    try:
        raw: Any = json.loads(text, object_pairs_hook=_each_key_once)
    except _TwiceError as error:
        raise ResultError(f"{path} is not a result: the key {str(error)!a} stands twice in one object") from error
    except RecursionError as error:
        raise ResultError(f"{path} is not a result: nested too deeply") from error
    except ValueError as error:
        raise ResultError(f"{path} is not whole JSON ({error}); delete it and run the evaluation again") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(raw, dict) and (type(version) is not int or version != SCHEMA_VERSION):
        raise ResultError(
            f"{path} has schema version {version!r}, this odebench reads {SCHEMA_VERSION}; "
            "run the evaluation again or use the odebench that wrote it"
        )
    try:
        result = Result.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        what = " ".join(f"{where}: {first['msg']}".split())
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ResultError(f"{path} is not a result: {what}{more}") from error
    for what in disagreements(result.model_dump(mode="json")):
        raise ResultError(f"{path} is not a result: {' '.join(what.split())}")
    return result


class _TwiceError(Exception):
    """A key stands twice in one object, so that readers may take either value."""


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def result_files(folder: Path) -> Iterator[Path]:
    """All files below `folder` that should be results, in order of their names."""
    yield from sorted(path for path in folder.rglob("*.json") if is_result_name(path.name))


def is_result_name(name: str) -> bool:
    """Whether a file of this name should be a result: JSON, not hidden, no examples."""
    return name.endswith(".json") and not name.startswith(".") and name != EXAMPLES_FILE
