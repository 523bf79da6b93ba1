"""A recipe: all that training depends on. Its digest names the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from odebench.io.canonical_json import canonical_json, digest
from odebench.io.files import sha256_file, write_atomically
from odebench.io.folders import cache_folder, published_folder, weights_folders
from odebench.protocol.spec import Name, Solver, Spec

RECIPE_VERSION: Literal[1] = 1
"""Raised when the training code computes something else from the same recipe."""

BETA = 6.0
"""The default weight of the divergence in TRADES, its authors' own."""
ADVERSARIAL_SHARE = 5 / 6
"""The weight in RSLAD of the loss at the adversarial image, its authors' own."""


class Loss(Spec):
    """Cross-entropy on the labels, or Hinton's distillation of a teacher (Hinton, Vinyals, Dean 2015, eq. 4).

    Distillation: (1 - weight) CE(s, y) + weight temperature^2 KL(softmax(t / temperature) || softmax(s /
    temperature)), s and t the logits of student and teacher, KL averaged over the images ("batchmean").
    """

    kind: Literal["cross-entropy", "distillation"]
    temperature: Annotated[float, Field(gt=0)] | None = None
    weight: Annotated[float, Field(ge=0, le=1)] | None = None
    smoothing: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of every label that CE spreads over all classes (Szegedy et al. 2016, section 7)."""

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "smoothing")

    @model_validator(mode="after")
    def _consistent(self) -> Loss:
        given = (self.temperature is not None, self.weight is not None)
        if given != (self.kind == "distillation",) * 2:
            raise ValueError("distillation needs a temperature and a weight, cross-entropy takes neither")
        return self


class Adversary(Spec):
    """Adversarial training: on which images x' near x a model is trained, and how these are found.

    "madry" (Madry et al. 2018, eq. 2.1): the recipe's own loss at x', where x' maximises CE(s(x'), y). "trades"
    (Zhang et al. 2019, algorithm 1): the recipe's own loss at x plus beta KL(p(x) || p(x')), where x' maximises that
    divergence. "rslad" (Zi et al. 2021, eq. 5 and 6): 5/6 of the recipe's own loss at x' and 1/6 of it at x, where x'
    maximises KL(q(x) || p(x')); it goes with a teacher, and its authors' loss is distillation of temperature 1 and
    weight 1 from one that was adversarially trained. s are the model's logits, p their softmax, q the teacher's, KL
    averaged over the images ("batchmean"). `epsilon` and `step`, the length of one of the `steps`, are in units of the
    image range [0, 1]. `beta` is TRADES' alone, and 6 unless given.
    """

    kind: Literal["madry", "trades", "rslad"]
    norm: Literal["linf"] = "linf"
    epsilon: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]
    step: Annotated[float, Field(gt=0, le=10)]
    beta: Annotated[float, Field(ge=0, le=1000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("kind") == "trades" and "beta" not in fields:
            return fields | {"beta": BETA}
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> Adversary:
        if (self.beta is not None) != (self.kind == "trades"):
            raise ValueError("trades needs a beta, madry and rslad take none")
        return self


class Schedule(Spec):
    """AdamW with a linear warm-up over the first `warmup` of the steps and a cosine decay to zero."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, le=1000)]
    weight_decay: Annotated[float, Field(ge=0, le=1000)]
    warmup: Annotated[float, Field(ge=0, lt=1)]


class Recipe(Spec):
    """Architecture and its arguments, data, loss, schedule, train seed, the teacher's own recipe, the adversary.

    `label_noise` is the share of train images whose label is another one, drawn once for the data set; `train_images`
    is how many train images are used (None: all), the first of a stratified order. A recipe without an adversary,
    without noise or with all images is written without that key, so that digests are those of before there was one.
    """

    version: Literal[1] = RECIPE_VERSION
    architecture: str
    arguments: dict[str, JsonValue]
    horizon: float | None
    solver: Solver | None
    dataset: str
    loss: Loss
    schedule: Schedule
    augmentation: Literal["none", "flip-crop"]
    train_seed: Annotated[int, Field(ge=0)]
    teacher: Recipe | None
    adversary: Adversary | None = None
    label_noise: Annotated[float, Field(gt=0, lt=1)] | None = None
    train_images: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _taught(self) -> Recipe:
        if (self.loss.kind == "distillation") != (self.teacher is not None):
            raise ValueError("a teacher goes with distillation, and only with it")
        if self.adversary is not None and self.adversary.kind == "rslad" and self.teacher is None:
            raise ValueError("rslad distils, so it needs a teacher")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "adversary", "label_noise", "train_images")

    @property
    def key(self) -> str:
        """The digest of the recipe, which names its weights."""
        return digest(self)


def _without(dumped: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields without those of `names` that are absent: digests are those of before there were such fields."""
    return {name: value for name, value in dumped.items() if name not in names or value is not None}


class TrainedOn(Spec):
    """What weights were trained on: the kind of device, cpu or cuda, and the version of torch."""

    device: Name
    torch: Name


def find_weights(recipe: Recipe, folders: Sequence[Path] | None = None) -> Path | None:
    """The file of the weights of a recipe, or None: in the `folders`, by default published or in the cache folder."""
    if folders is None:
        folders = weights_folders(cache_folder(), published_folder())
    paths = [weights_path(recipe, folder) for folder in folders]
    return next((path for path in paths if path.exists()), None)


def weights_path(recipe: Recipe, folder: Path | None = None) -> Path:
    """The path of the weights of a recipe: named by its digest, in the cache folder unless another is given."""
    return (folder or cache_folder() / "weights") / f"{recipe.key}.safetensors"


def trained_on(weights: Path) -> TrainedOn | None:
    """What the weights of a file were trained on, if a training here noted it beside them or beside the same bytes in
    the cache folder; None where it is not known, as of weights that were downloaded or that others published."""
    own, note = cache_folder() / "weights" / weights.name, training_note(weights)
    try:
        if not note.exists() and training_note(own).exists() and sha256_file(own) == sha256_file(weights):
            note = training_note(own)
        return TrainedOn.model_validate_json(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def note_training(weights: Path, trained_on: TrainedOn) -> None:
    """Notes beside weights what they were trained on; their own bytes are the same wherever they were trained."""
    write_atomically(training_note(weights), canonical_json(trained_on).encode())


def training_note(weights: Path) -> Path:
    """The file beside weights that says what they were trained on."""
    return weights.with_suffix(".trained-on.json")
