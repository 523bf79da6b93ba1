"""Training by a recipe: one loop for all models, which resumes after the last complete epoch to the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from odebench.dataset import Dataset
from odebench.errors import ModelError, OdebenchError, WeightError
from odebench.io.files import note_sha256, noted_sha256, sha256_file
from odebench.io.tensor_file import load_weights, read_tensors, write_tensors
from odebench.io.text import first_line
from odebench.model.accuracy import accuracy, predict
from odebench.model.adversarial_training import adversarial_images
from odebench.model.augmentation import augment
from odebench.model.losses import adversarial_loss, loss_function
from odebench.model.training_data import train_split
from odebench.numerics.precision import full_fp32
from odebench.progress import SILENT, Progress, Step
from odebench.protocol.recipe import (
    Recipe,
    Schedule,
    TrainedOn,
    find_weights,
    note_training,
    weights_path,
)
from odebench.registry import load_target


@dataclass(frozen=True)
class Trained:
    """A module with the weights of a recipe, and the sha256 of their file."""

    module: nn.Module
    path: Path
    weights_sha256: str


def learning_rate(schedule: Schedule, progress: float) -> float:
    """The learning rate when `progress` in [0, 1] of all steps is done: linear warm-up, then cosine to zero."""
    if progress < schedule.warmup:
        return schedule.learning_rate * progress / schedule.warmup
    rest = (progress - schedule.warmup) / (1 - schedule.warmup)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def build(recipe: Recipe) -> nn.Module:
    """The untrained module of a recipe, initialised by its train seed. Leaves the global generators as they were.

    Raises ModelError where the architecture cannot be imported or does not take its arguments.
    """
    arguments: dict[str, Any] = dict(recipe.arguments)
    if recipe.horizon is not None:
        arguments |= {"horizon": recipe.horizon, "solver": recipe.solver}
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.train_seed)
        try:
            return cast(nn.Module, load_target(recipe.architecture)(**arguments))
        except Exception as error:  # a plugin's module may raise anything
            said = f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"{recipe.architecture} cannot be built: {said}") from error


def find_or_train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    folder: Path | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Trained:
    """The trained model of a recipe: with the weights that are found, else trained now, its teacher first.

    Weights are looked for in `folder`, or without one among those published and in the cache folder. A model trained
    now is saved in `folder`, or without one in the cache folder. Raises WeightError where the weights found are
    damaged, belong to another recipe or were trained on other images.
    """
    path = weights_path(recipe, folder)
    if folder is None:
        path = find_weights(recipe) or path
    module = build(recipe)
    if path.exists():
        digest = undamaged(path)
        tensors, metadata = read_tensors(path)
        _check_origin(path, metadata, recipe, dataset)
        load_weights(module, tensors, source=path)
        if path != weights_path(recipe, folder):
            progress.say(f"{_title(recipe)}: not needed, published weights are used ({path.parent})")
        return Trained(module.to(device).eval(), path, digest)
    teacher = None
    if recipe.teacher is not None:
        teacher = find_or_train(recipe.teacher, dataset, folder=folder, device=device, progress=progress).module
    run = _Training(recipe, module.to(device), dataset, teacher, device=device, partial=path.with_suffix(".partial"))
    accuracy = run.finish(progress)
    metadata = {"recipe": recipe.model_dump(mode="json"), "train_sha256": run.train_sha256}
    note_training(path, TrainedOn(device=torch.device(device).type, torch=torch.__version__))
    write_tensors(path, module.state_dict(), metadata)
    run.partial.unlink(missing_ok=True)
    progress.say(f"{_title(recipe)}: trained, {accuracy:.1%} on the validation images")
    return Trained(module, path, note_sha256(path))


def undamaged(path: Path) -> str:
    """The sha256 of a weights file. Raises WeightError where another was noted when it was written."""
    found, noted = sha256_file(path), noted_sha256(path)
    if noted is not None and noted != found:
        raise WeightError(
            f"{path} is damaged: its sha256 is {found[:12]}, and {noted[:12]} was noted when it was written; delete it "
            "to train again, or have it back from where it is published"
        )
    return found


def _check_origin(path: Path, metadata: dict[str, Any], recipe: Recipe, dataset: Dataset) -> None:
    if metadata.get("recipe") != recipe.model_dump(mode="json"):
        raise WeightError(f"{path} was not trained by the recipe it is named after; delete it to train again")
    if dataset.train is not None and metadata.get("train_sha256") != dataset.train.sha256:
        raise WeightError(
            f"{path} was trained on other images ({str(metadata.get('train_sha256'))[:12]}) than the {dataset.name} "
            f"at hand ({dataset.train.sha256[:12]}); delete it to train again"
        )


def _title(recipe: Recipe) -> str:
    kind = "distilling" if recipe.teacher is not None else "training"
    if recipe.adversary is not None:
        kind = f"adversarially {kind}"
    horizon = f" T={recipe.horizon:g}" if recipe.horizon is not None else ""
    return f"{kind} {recipe.architecture.rpartition(':')[2]}{horizon} seed {recipe.train_seed}"


class _Training:
    """A training under way, with all that must be saved to resume it to the same bits."""

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        dataset: Dataset,
        teacher: nn.Module | None,
        *,
        device: str,
        partial: Path,
    ) -> None:
        if dataset.train is None:
            raise ModelError(f"{dataset.name} has no training images, so nothing can be trained on it")
        self.recipe, self.module, self.teacher = recipe, module, teacher
        self.device, self.partial = device, partial
        self.train_sha256, self.validation = dataset.train.sha256, dataset.validation
        self.train = train_split(recipe, dataset.train, len(dataset.classes))
        self.steps_per_epoch = math.ceil(len(self.train.labels) / recipe.schedule.batch_size)
        self.loss = loss_function(recipe.loss)
        self._begin()

    def _begin(self) -> None:
        decay = self.recipe.schedule.weight_decay
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=0.0, weight_decay=decay)
        self.generator = torch.Generator().manual_seed(self.recipe.train_seed)
        self.epoch = 0

    def finish(self, progress: Progress) -> float:
        """Trains the epochs that are missing, saves after each, and returns the accuracy on the validation images."""
        self._resume(progress)
        epochs = self.recipe.schedule.epochs
        done, total = self.epoch * self.steps_per_epoch, epochs * self.steps_per_epoch
        with full_fp32(), progress.track(_title(self.recipe), total=total, done=done) as step:
            if self.epoch < epochs:
                soft = self._teacher_logits(step)
            while self.epoch < epochs:
                self._run_epoch(soft, step)
                self.epoch += 1
                self._save()
        self.module.eval()
        return accuracy(self.module, self.validation or self.train, device=self.device)

    def _teacher_logits(self, step: Step) -> Tensor | None:
        """The teacher's logits on all train images; None without a teacher, or where an augmentation changes them."""
        if self.teacher is None:
            return None
        self.teacher.eval()
        if self.recipe.augmentation != "none":
            return None
        step.advance(0, note="asking the teacher")
        return predict(self.teacher, self.train.images, device=self.device)

    def _run_epoch(self, soft: Tensor | None, step: Step) -> None:
        self.module.train()
        recipe, batch = self.recipe, self.recipe.schedule.batch_size
        order = torch.randperm(len(self.train.labels), generator=self.generator)
        total, correct, seen = 0.0, 0, 0
        for index, rows in enumerate(torch.split(order, batch)):
            images = augment(self.train.images[rows], recipe.augmentation, self.generator).to(self.device)
            labels = self.train.labels[rows].to(self.device)
            done = (self.epoch + index / self.steps_per_epoch) / recipe.schedule.epochs
            self.optimiser.param_groups[0]["lr"] = learning_rate(recipe.schedule, done)
            targets = None if soft is None else soft[rows].to(self.device)
            if self.teacher is not None and targets is None:
                with torch.no_grad():
                    targets = self.teacher(images)
            try:
                logits, loss = self._ask(images, labels, targets)
            except (OdebenchError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                said = f"{type(error).__name__}: {first_line(error)}"
                raise ModelError(f"{_title(recipe)}: the model raised {said}") from error
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += loss.item() * len(rows)
            correct += int((logits.argmax(1) == labels).sum())
            seen += len(rows)
            if not math.isfinite(total):
                raise self._diverged("the loss is not finite")
            note = f"{self.epoch + 1}/{recipe.schedule.epochs} loss {total / seen:.3f} acc {correct / seen:.1%}"
            step.advance(note=note)
        # No loss is computed after the last step, which may spoil the weights too.
        if not all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            raise self._diverged("a weight is not finite")

    def _ask(self, images: Tensor, labels: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits and the loss of a batch: at the images, at adversarial ones (Madry), or at both (TRADES, RSLAD).

        The logits of TRADES and RSLAD are those at the clean images. `targets` are the teacher's logits at the clean
        images, also where the student sees others (as in ARD, Goldblum et al. 2020).
        """
        adversary = self.recipe.adversary
        found = images
        if adversary is not None:
            found = adversarial_images(
                self.module, images, labels, adversary=adversary, generator=self.generator, targets=targets
            )
        if adversary is None or adversary.kind == "madry":
            logits = self.module(found)
            return logits, self.loss(logits, labels, targets)
        logits, others = self.module(images), self.module(found)
        return logits, adversarial_loss(logits, others, labels, targets, adversary=adversary, loss=self.loss)

    def _diverged(self, why: str) -> ModelError:
        return ModelError(f"{_title(self.recipe)} diverged in epoch {self.epoch + 1}: {why}; lower the learning rate")

    def _save(self) -> None:
        tensors = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        tensors["generator"] = self.generator.get_state()
        metadata: dict[str, JsonValue] = {
            "recipe": self.recipe.key,
            "train_sha256": self.train_sha256,
            "epoch": self.epoch,
        }
        write_tensors(self.partial, tensors, metadata)

    def _resume(self, progress: Progress) -> None:
        """Goes on from the checkpoint, if there is a complete one of this training; else starts from the beginning."""
        if not self.partial.exists():
            return
        try:
            tensors, metadata = read_tensors(self.partial)
            if metadata["recipe"] != self.recipe.key or metadata["train_sha256"] != self.train_sha256:
                raise WeightError(f"{self.partial} belongs to another training")
            own = {name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")}
            load_weights(self.module, own, source=self.partial)
            states: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith("optimiser."):
                    _, index, key = name.split(".", 2)
                    states.setdefault(int(index), {})[key] = tensor
            whole = self.optimiser.state_dict()
            self.optimiser.load_state_dict({"state": states, "param_groups": whole["param_groups"]})
            for parameter, moments in self.optimiser.state.items():
                if {moments[name].shape for name in ("exp_avg", "exp_avg_sq")} != {parameter.shape}:
                    raise WeightError(f"{self.partial} has moments of a wrong shape")
            self.generator.set_state(tensors["generator"])
            self.epoch = int(metadata["epoch"])
        except (OdebenchError, KeyError, ValueError, TypeError, RuntimeError) as error:
            progress.say(f"starting over, the checkpoint cannot be used: {error}")
            self.module.load_state_dict(build(self.recipe).state_dict())
            self._begin()
            return
        progress.say(f"{_title(self.recipe)}: going on after epoch {self.epoch} of {self.recipe.schedule.epochs}")
