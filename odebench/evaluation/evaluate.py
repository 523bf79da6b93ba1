"""Evaluating models: any module by `evaluate`, a registered or submitted one by `run` and its plan."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from odebench.attack.candidate_file import CandidateError, Candidates, write_candidates
from odebench.attack.registry import ATTACKS
from odebench.dataset import Dataset, Split
from odebench.errors import DatasetError, ResultError, UsageError
from odebench.evaluation.arguments import (
    AttackFunction,
    Data,
    attacks_of,
    check_kinds,
    check_modules,
    data_of,
    images_of,
    threat_model_of,
)
from odebench.evaluation.environment import usable_device
from odebench.evaluation.execution import measure
from odebench.evaluation.fresh_start import start_of_module, start_of_plan
from odebench.evaluation.loading import LoadedModels, known_weights, load_models, train_images
from odebench.evaluation.measurements import Measurements
from odebench.evaluation.plan import Plan, Slice
from odebench.evaluation.preflight import Preflight
from odebench.evaluation.way_back import check_sources
from odebench.io.files import FileError, check_writable
from odebench.model.classifier import Classifier
from odebench.model.foreign_module import attributes_kept
from odebench.progress import SILENT, Progress
from odebench.protocol.recipe import weights_path
from odebench.protocol.spec import NAME_PATTERN, AttackSpec, Evaluation, ModelSpec, Solver, ThreatModel
from odebench.result.file import read_result, result_path, write_result
from odebench.result.flags import broken_attack
from odebench.result.schema import Result


def evaluate(
    model: nn.Module,
    dataset: Data = "digits",
    *,
    attacks: AttackFunction | str | Sequence[AttackFunction | str] = ("pgd",),
    threat_model: ThreatModel | None = None,
    images: Slice | int | None = None,
    horizon: float | None = None,
    solver: Solver | None = None,
    attack_seed: int = 0,
    parameters: Mapping[str, Mapping[str, JsonValue]] | None = None,
    sources: Mapping[str, nn.Module] | None = None,
    name: str | None = None,
    arguments: Mapping[str, JsonValue] | None = None,
    device: str = "cpu",
    data_dir: Path | str | None = None,
    progress: Progress = SILENT,
) -> list[Result]:
    """The results of any module that maps images in [0, 1] to logits: one per attack, as the command line writes them.

    A module that exposes stem, field(t, state), head, horizon and solver is integrated by odebench; any other is
    called as a whole. The module is in evaluation mode while it is judged, and its parameters,
    buffers and attributes are restored afterwards (not what attributes hold deeper inside).

    `dataset` is a registered name, the path of an image folder, images and labels as tensors, a torch Dataset of image
    tensors, or an odebench.Dataset. Tensors are named by a digest of theirs; odebench.Dataset.from_tensors gives them a
    name. `images` is how many of its test images, or a Slice. An attack is a registered
    name, or a function (model, images, labels, *, epsilon, ...) -> adversarial images, which also gets norm, seed and
    fallen if it takes them; its other keyword arguments are its parameters. Nobody else can run a function: its
    results cannot be published. `threat_model` is by default the attack's first norm with the data set's epsilons.
    `name` and `arguments` are part of the run key: they distinguish models of
    one class with equal weights, such as two strengths of one defence. `parameters` holds those of each attack, such as
    {"worst-case": {"effort": "standard"}}. `sources` are other modules, by name, on which transfer (and the worst case)
    crafts candidates. `odebench.write_result` stores a result.

    Warns of an attack whose candidates are mostly invalid. Raises UsageError for unknown names and values out of range,
    ModelError for a module that is not a classifier, DatasetError for images outside [0, 1].
    """
    check_kinds(
        horizon=horizon, solver=solver, threat_model=threat_model, attack_seed=attack_seed, name=name, device=device
    )
    device, chosen, asked_for = usable_device(str(device)), images_of(images), attacks_of(attacks, parameters)
    check_modules(model, sources)
    data, definition = data_of(dataset, None if data_dir is None else Path(data_dir), progress)
    models = _wrapped_modules(model, sources or {}, data, device, horizon=horizon, solver=solver)
    split = data_split(data, chosen.split)
    part = chosen.of(data.name, len(split))
    if name is not None and not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"the name {name!r} becomes part of file names: no slash or control character, no dot in front"
        )
    evaluations = [
        Evaluation(
            model=ModelSpec(
                name=name or type(model).__name__, arguments=dict(arguments or {}), weights=models.weights_sha256
            ),
            train_horizon=None,
            horizon=models.classifier.horizon,
            solver=models.classifier.solver,
            dataset=part,
            threat_model=threat_model_of(attack, definition, threat_model),
            attack=AttackSpec(
                name=attack.name,
                parameters=asked_for.parameters[attack.name],
                seed=attack_seed,
                sources=tuple(models.sources) if attack.needs_sources else (),
            ),
            chunk=chosen.chunk_of(len(split)),
            precision="fp32",
        )
        for attack in asked_for.definitions.values()
    ]
    without_sources = replace(models, sources={}, sources_sha256={})
    preflights: dict[ThreatModel, Preflight] = {}
    results = []
    with ATTACKS.lending(asked_for.functions), attributes_kept([model, *(sources or {}).values()]):
        if any(one.attack.sources for one in evaluations):
            check_sources(models.sources, split)
        for evaluation in evaluations:
            asked = models if evaluation.attack.sources else without_sources
            measured = measure(evaluation, asked, split, preflights=preflights, progress=progress)
            results.append(measured.result(evaluation))
            for line in broken_attack(results[-1]):
                warnings.warn(f"{evaluation.attack.name}: {line}", stacklevel=2)
    return results


def _wrapped_modules(
    model: nn.Module,
    sources: Mapping[str, nn.Module],
    data: Dataset,
    device: str,
    *,
    horizon: float | None,
    solver: Solver | None,
) -> LoadedModels:
    """A module and its sources as classifiers. Raises DatasetError, and ModelError for what does not fit."""
    if data.n_classes < 2:
        raise DatasetError(f"{data.name} has {data.n_classes} class; a classifier can only err among two or more")
    classifier = Classifier(model, n_classes=data.n_classes, device=device, horizon=horizon, solver=solver)
    return LoadedModels(
        classifier,
        module_digest(model),
        {name: Classifier(source, n_classes=data.n_classes, device=device) for name, source in sources.items()},
        {name: module_digest(source) for name, source in sources.items()},
        train_images=train_images(data),
        start=start_of_module(classifier),
    )


def run(
    plan: Plan,
    dataset: Dataset,
    *,
    results: Path,
    force: bool = False,
    candidates: Candidates | None = None,
    address: str | None = None,
    save_candidates: Path | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> tuple[Result, Path, bool]:
    """Runs a plan, training the models that it needs, and writes its result below `results`.

    Returns the result, its file, and whether it is new: a plan whose result exists runs again only with `force`.
    `candidates` are those that a plan of the attack "candidates" judges, `address` is where their file can be had, for
    the result to name; `save_candidates` names a file for the last candidates judged.

    Raises ResultError if the existing result was found with other images or weights than those at hand, CandidateError
    for candidates made for other images, UsageError if candidates of an existing result should be saved.
    """
    device = usable_device(device)
    path = result_path(results, plan.evaluation)
    split = data_split(dataset, plan.evaluation.dataset.split)
    if path.exists() and not force:
        result = read_result(path)
        _check_found(path, result, plan, split)
        if save_candidates is not None:
            raise UsageError(f"{path} is there already, and holds no candidates; give --force to find them again")
        named = None if result.found.candidates is None else result.found.candidates.address
        if address is not None and address != named:
            raise UsageError(
                f"{path} is there already and names another address ({named}); give --force to judge again"
            )
        return result, path, False
    check_writable(path.parent)
    if save_candidates is not None:
        check_writable(save_candidates.parent)
        if save_candidates.exists() and not save_candidates.is_file():
            kind = "folder" if save_candidates.is_dir() else "device or pipe"
            raise FileError(f"cannot write {save_candidates}: it is a {kind}; name a file")
    given = None if candidates is None else given_candidates(plan, candidates, split)
    with load_models(plan, dataset, device, progress) as models:
        measured = measure(
            plan.evaluation,
            replace(models, start=start_of_plan(plan, models)),
            split,
            candidates=given,
            keep_candidates=save_candidates is not None,
            progress=progress,
        )
    if candidates is not None:
        measured = measured.of_candidates(str(plan.evaluation.attack.parameters["file_sha256"]), address)
    result = measured.result(plan.evaluation)
    written = write_result(result, results, replace=force)
    if save_candidates is not None:
        write_candidates(save_candidates, _judged_candidates(plan.evaluation, split, measured))
    return result, written, True


def given_candidates(plan: Plan, candidates: Candidates, split: Split) -> dict[float, Tensor]:
    """A file's candidates by epsilon, one for each image of a plan. Raises CandidateError for those of other images."""
    if candidates.dataset_sha256 != split.sha256:
        raise CandidateError(
            f"the candidates were made for {candidates.dataset} {candidates.split} images "
            f"{candidates.dataset_sha256[:12]}, those at hand are {split.sha256[:12]}"
        )
    part = plan.evaluation.dataset
    if int(candidates.indices.max()) >= len(split):
        raise CandidateError(f"the file has a candidate for image {int(candidates.indices.max())} of {len(split)}")
    inside = (candidates.indices >= part.offset) & (candidates.indices < part.offset + part.n)
    if not inside.any():
        raise CandidateError(
            f"the file has no candidate for images {part.offset} to {part.offset + part.n - 1}, but for "
            f"{int(candidates.indices.min())} to {int(candidates.indices.max())}: choose -n and --offset"
        )
    return candidates.by_epsilon(split.images[part.offset : part.offset + part.n], offset=part.offset)


def _judged_candidates(evaluation: Evaluation, split: Split, measured: Measurements) -> Candidates:
    """The last candidates judged, as a file holds them. Raises CandidateError where nothing was attacked."""
    found = [
        (row, epsilon, image)
        for epsilon, outcomes in zip(evaluation.threat_model.epsilons, measured.outcomes, strict=True)
        for row, image in sorted((outcomes.judged or {}).items())
    ]
    if not found:
        raise CandidateError("nothing was attacked, since no image is classified correctly: there are no candidates")
    return Candidates(
        images=torch.stack([image for _, _, image in found]),
        indices=torch.tensor([row + evaluation.dataset.offset for row, _, _ in found]),
        epsilons=torch.tensor([epsilon for _, epsilon, _ in found], dtype=torch.float64),
        dataset=evaluation.dataset.name,
        split=evaluation.dataset.split,
        dataset_sha256=split.sha256,
        norm=evaluation.threat_model.norm,
        source=f"{evaluation.attack.name} on {evaluation.model.name}, run {evaluation.run_key[:16]}",
    )


def _check_found(path: Path, result: Result, plan: Plan, split: Split) -> None:
    """Raises ResultError where a stored result was found with other data or weights than those at hand."""
    if result.evaluation != plan.evaluation:
        raise ResultError(f"{path} holds another evaluation than its name says; delete it, or give --force")
    pairs = {"images": (result.found.dataset_sha256, split.sha256)}
    if (weights := known_weights(plan)) is not None:
        pairs["weights"] = (result.found.weights_sha256, weights)
    for what, (stored, here) in pairs.items():
        if stored != here:
            own = what == "weights" and plan.weights is None and weights_path(plan.recipe).exists()
            raise ResultError(
                f"{path} was found with {what} {stored[:12]}, but those at hand are {here[:12]}; "
                "give --force to run it again with them"
                + ("; ODEBENCH_LEADERBOARD= takes your own weights instead of published ones" if own else "")
            )


def data_split(data: Dataset, name: str) -> Split:
    """The named split. Raises DatasetError where a data set has none."""
    split = data.test if name == "test" else data.validation
    if split is None:
        raise DatasetError(f"{data.name} has no {name} images; choose --split test")
    return split


def module_digest(module: nn.Module) -> str:
    """The sha256 of a module's class name and state dict: names, types, shapes and bytes, in order of the names."""
    found = hashlib.sha256(type(module).__qualname__.encode())
    state: Mapping[str, Tensor] = module.state_dict()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"/{name}/{tensor.dtype}/{tuple(tensor.shape)}/".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
