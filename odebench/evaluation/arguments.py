"""What `evaluate` takes, in the forms that people write: names, functions, tensors, numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import data as torch_data

from odebench.attack.definition import NamedAttack, Parameters, load_attack
from odebench.attack.function import FunctionAttack, function_attack
from odebench.dataset import Dataset, DatasetDefinition, describe_dataset, load_dataset
from odebench.dataset.registry import DATASETS
from odebench.errors import DatasetError, ModelError, UsageError
from odebench.evaluation.plan import Slice, threat_model
from odebench.io.text import first_line
from odebench.progress import Progress
from odebench.protocol.spec import NAME_PATTERN, Solver, ThreatModel

Data: TypeAlias = "str | Path | Dataset | tuple[Tensor, Tensor] | torch_data.Dataset[Any]"
"""Test images: a registered data set by name, the path of an image folder, images and labels, or a torch Dataset."""

AttackFunction: TypeAlias = Callable[..., Tensor]
"""An attack as a plain function: (model, images, labels, *, epsilon, ...) -> adversarial images."""

PLAIN = (int, float)
"""The types of a number."""


def data_of(given: Any, data_dir: Path | None, progress: Progress) -> tuple[Dataset, DatasetDefinition]:
    """The data set that is meant, and what is known of it beforehand. Raises UsageError, DatasetError."""
    if isinstance(given, Path) or (isinstance(given, str) and "/" in given):
        path = Path(given).expanduser()
        if not path.exists():
            raise DatasetError(f"there is no image folder or archive {path}")
        given, data_dir = path.name.partition(".tar")[0], path.absolute().parent
        if given in DATASETS.entries():
            raise DatasetError(f"{path} is named like the data set {given!r}; rename the folder, or pass {given!r}")
    if isinstance(given, str):
        definition = describe_dataset(given, data_dir=data_dir, progress=progress)
        return load_dataset(given, data_dir=data_dir, progress=progress), definition
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(one, Tensor) for one in given):
        given = _named_by_digest("tensors", Dataset.from_tensors("tensors", *given))
    elif isinstance(given, torch_data.Dataset):
        given = _from_torch(given)
    if not isinstance(given, Dataset):
        raise UsageError(
            f"data are a name such as 'digits', a folder of images, (images, labels), a torch Dataset or an "
            f"odebench.Dataset, not {_kind(given)}"
        )
    return given, DatasetDefinition(given.name, given.image_shape, given.classes, epsilons={}, loader="")


def _from_torch(given: torch_data.Dataset[Any]) -> Dataset:
    """A data set of all items of a torch Dataset, each an image tensor in [0, 1] and its label.

    It is named by its class; of torch's own classes, which hold any images, with the digest of the images.
    """
    name = type(given).__name__
    if not re.fullmatch(NAME_PATTERN, name):
        raise DatasetError(
            f"the class {name!r} of the data set becomes part of file names: no slash or control character, no dot in "
            "front; rename it, or pass odebench.Dataset.from_tensors(name, images, labels)"
        )
    try:
        items = [given[index] for index in range(len(given))]  # type: ignore[arg-type]
    except Exception as error:  # a data set of someone else may raise anything
        said = first_line(error) or "it says no more"
        raise DatasetError(f"data set {name!r} cannot be read: {type(error).__name__}: {said}") from error
    if not items:
        raise DatasetError(f"data set {name!r}: there are no images, expected at least one")
    for item in items:
        if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Tensor)):
            found = f"{_kind(item[0])} and more" if isinstance(item, tuple | list) and item else _kind(item)
            raise DatasetError(
                f"data set {name!r}: an item is {found}, expected an image tensor and its label; for PIL images "
                "give it transform=torchvision.transforms.ToTensor()"
            )
    try:
        images = torch.stack([image for image, _ in items])
        labels = torch.tensor([int(label) for _, label in items])
    except (RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(
            f"data set {name!r}: images must have one shape, and labels be whole numbers ({first_line(error)})"
        ) from error
    classes = getattr(given, "classes", None)
    names = list(map(str, classes)) if isinstance(classes, list | tuple) else []
    data = Dataset.from_tensors(name, images, labels, classes=names or None)
    return _named_by_digest(name, data) if type(given).__module__.startswith("torch.") else data


def _named_by_digest(name: str, given: Dataset) -> Dataset:
    """The data set under a name that tells its images and labels: others of this name are another data set."""
    return replace(given, name=f"{name}-{given.test.sha256[:8]}")


@dataclass(frozen=True)
class Attacks:
    """The attacks that were asked for, by name, with all their parameters; `functions` are those handed over."""

    definitions: Mapping[str, NamedAttack]
    parameters: Mapping[str, Parameters]

    @property
    def functions(self) -> dict[str, NamedAttack]:
        """The attacks that are functions, by name."""
        return {name: one for name, one in self.definitions.items() if isinstance(one, FunctionAttack)}


def attacks_of(given: Any, parameters: Mapping[str, Mapping[str, Any]] | None) -> Attacks:
    """The attacks of names and functions; `parameters` name a function by its own name. Raises UsageError."""
    found: dict[str, NamedAttack] = {}
    short: dict[str, list[str]] = {}
    for one in [given] if isinstance(given, str) or not isinstance(given, Sequence) else given:
        definition = load_attack(one) if isinstance(one, str) else function_attack(one)
        if definition.name in found:
            raise UsageError(f"two attacks are called {definition.name}; strike one, or rename it")
        found[definition.name] = definition
        short.setdefault(definition.name.rpartition(".")[2], []).append(definition.name)
    if not found:
        raise UsageError("there is no attack; give at least one, such as attacks='pgd'")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError(f"parameters are those of each attack, such as {{'pgd': {{'steps': 40}}}}, not {parameters!r}")
    named: dict[str, Any] = {}
    for name, values in (parameters or {}).items():
        meant = [name] if name in found else short.get(name, [name])
        if len(meant) > 1:
            raise UsageError(f"parameters for {name} fit {' and '.join(meant)}; give them by the whole name")
        if meant[0] in named:
            raise UsageError(f"parameters for {meant[0]} are given twice, also as {name}; remove one")
        named[meant[0]] = values
    if strange := set(named) - set(found):
        raise UsageError(
            f"parameters for {', '.join(map(str, sorted(strange)))}, which is not among the attacks; they are named by "
            f"attack, such as parameters={{{next(iter(found))!r}: {{...}}}}"
        )
    for name, values in named.items():
        if not isinstance(values, Mapping):
            raise UsageError(f"the parameters of {name} are a dict, such as {{'steps': 40}}, not {values!r}")
    return Attacks(found, {name: one.complete(named.get(name)) for name, one in found.items()})


def images_of(given: Any) -> Slice:
    """The images that are meant: a slice, or how many from the first on. Raises UsageError."""
    if given is None:
        return Slice()
    if isinstance(given, int) and not isinstance(given, bool):
        return Slice(n=given)
    if not isinstance(given, Slice):
        raise UsageError(f"images are a number, such as images=100, or an odebench.Slice, not {given!r}")
    return given


def threat_model_of(attack: NamedAttack, dataset: DatasetDefinition, given: ThreatModel | None) -> ThreatModel:
    """The threat model of an attack: the one given, else its first norm with the data set's epsilons for it. Raises
    UsageError where the data set has none, or the attack another norm."""
    if given is None and not dataset.epsilons.get(attack.norms[0]):
        raise UsageError(
            f"{dataset.name} has no default epsilons for {attack.norms[0]}; give them, such as "
            f"threat_model=odebench.ThreatModel(norm={attack.norms[0]!r}, epsilons=(0.1,))"
        )
    norm, epsilons = (None, None) if given is None else (given.norm, given.epsilons)
    return threat_model(attack, dataset, norm=norm, epsilons=epsilons)


def check_modules(model: object, sources: object) -> None:
    """Raises ModelError for a model, and UsageError for sources, that are of another kind."""
    if sources is not None and not isinstance(sources, Mapping):
        raise UsageError(f"sources are modules by name, such as sources={{'other': net}}, not {_kind(sources)}")
    for module in [model, *(sources or {}).values()]:
        if isinstance(module, str):
            raise ModelError(
                f"expected a torch.nn.Module, not the text {module!r}; odebench.load_model gives that of a name"
            )
        if not isinstance(module, nn.Module):
            make = ": make one" if isinstance(module, type) else ""
            raise ModelError(f"expected a torch.nn.Module, not {_kind(module)}{make}")


def check_kind(name: str, given: object, kind: type | tuple[type, ...], such: str) -> None:
    """Raises UsageError where an argument is not of the kind that it must be; `such` is an example of a good one."""
    if given is not None and (not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool)):
        raise UsageError(f"{name} must be such as {name}={such}, not {given!r}")


def check_kinds(
    *, horizon: object, solver: object, threat_model: object, attack_seed: object, name: object, device: object
) -> None:
    """Raises UsageError for the first argument of `evaluate` that is of another kind than it must be."""
    check_kind("horizon", horizon, PLAIN, "1.0")
    check_kind("solver", solver, Solver, "odebench.fixed_step('rk4', step=0.25)")
    check_kind("threat_model", threat_model, ThreatModel, "odebench.ThreatModel(norm='linf', epsilons=(0.1,))")
    check_kind("attack_seed", attack_seed, int, "0")
    check_kind("name", name, str, "'my-ode'")
    check_kind("device", device, (str, torch.device), "'cuda'")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
