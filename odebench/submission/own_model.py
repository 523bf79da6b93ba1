"""A model of one's own on the command line: my_net.py:Net, or package.module:Net, with a file of weights.

Imports no torch before the module is built.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError, unknown_name
from odebench.evaluation.model_reference import ResolvedModel, file_identity
from odebench.io.canonical_json import digest
from odebench.io.files import sha256_file
from odebench.model.definition import Contributed
from odebench.protocol.spec import NAME_PATTERN, check_horizon
from odebench.submission.folder import CODE_SUFFIX
from odebench.submission.local_imports import is_local, local_imports
from odebench.submission.module_source import top_level_names

if TYPE_CHECKING:
    from odebench.protocol.spec import Solver

CODE = "code"
"""The argument of a model of one's own that tells versions of its code apart: the digest of its files."""


@dataclass(frozen=True)
class _Built:
    """The horizon and solver of a module (None where it exposes no field), the arguments that its constructor takes,
    and whether it needs each; the files of the modules that it imported, by their names."""

    horizon: float | None
    solver: Solver | None
    asked: Mapping[str, bool]
    offered_horizon: float
    imported: Mapping[str, Path]


@dataclass(frozen=True)
class OwnModel:
    """A class or function of a Python file that builds a module, and the file of its weights.

    `module` is a dotted name below `folder`, `code` its file. It is called with those of image_shape, n_classes,
    horizon, solver and step that it takes.
    """

    folder: Path
    module: str
    attribute: str
    weights: Path | None
    _built: dict[str, _Built] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The name of the class or function, which stands in results."""
        return self.attribute

    @cached_property
    def code(self) -> Path:
        """The file of the code."""
        return self.folder.joinpath(*self.module.split(".")).with_suffix(CODE_SUFFIX)

    def code_digest(self, imported: Mapping[str, Path]) -> str:
        """Twelve letters that tell versions of the code apart: of its file, of the local files that it imports as it
        reads, and of those among the modules that were `imported` by name as it was built."""
        reached = {**{path: name for name, path in imported.items()}, **local_imports(self.code, self.folder)}
        files = {self._title(self.code): self.code}
        for path, name in sorted(reached.items()):
            if _is_own(path) and path != self.code:
                title = self._title(path, name)
                files[f"{title} {path.name}" if title in files else title] = path
        if len(files) == 1:
            return sha256_file(self.code)[:12]
        return digest({title: sha256_file(path) for title, path in files.items()})[:12]

    def _title(self, path: Path, name: str = "") -> str:
        """What a file is called in the digest, on all machines: its path below the folder, elsewhere its module."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else name

    def takes_horizon(self, dataset: DatasetDefinition) -> bool:
        built = self._own(dataset)
        return built.horizon is not None or "horizon" in built.asked

    def resolve(
        self,
        dataset: DatasetDefinition,
        *,
        horizon: float | None,
        train_horizon: float | None,
        train_seed: int,
        changes: Mapping[str, JsonValue],
    ) -> ResolvedModel:
        """The module at `horizon`, by default its own. Raises UsageError for what needs a recipe, and without weights;
        ModelError for code that cannot be run."""
        if changes or train_horizon is not None or train_seed:
            raise UsageError(f"{self.name} is code of your own, without a recipe: no --set, --train-horizon or --seed")
        origin = self._origin(dataset)
        built = self._own(dataset)
        if horizon is not None:
            check_horizon(horizon)
        arguments: dict[str, JsonValue] = {CODE: self.code_digest(built.imported)}
        if built.horizon is not None:
            origin = replace(origin, horizon=built.horizon if horizon is None else horizon, solver=built.solver)
        elif horizon is not None and "horizon" not in built.asked:
            raise UsageError(f"{self.name} exposes no field to integrate, so it takes no --horizon and no --solver")
        elif horizon is not None or built.asked.get("horizon"):  # it integrates by itself
            own: dict[str, JsonValue] = {"horizon": built.offered_horizon if horizon is None else horizon}
            origin, arguments = replace(origin, arguments=own), arguments | own
        return ResolvedModel(self.name, arguments, origin, origin.key, self.weights)

    def _origin(self, dataset: DatasetDefinition) -> Contributed:
        if self.weights is None:
            raise UsageError(
                f"{self.name} needs --weights FILE.safetensors; write it by "
                "safetensors.torch.save_file(net.state_dict(), 'FILE.safetensors')"
            )
        return Contributed(
            folder=self.folder,
            module=self.module,
            attribute=self.attribute,
            arguments={},
            image_shape=dataset.image_shape,
            n_classes=len(dataset.classes),
            train_seed=0,
            horizon=None,
            solver=None,
            key=file_identity(self.weights),
            fitting=True,
        )

    def _own(self, dataset: DatasetDefinition) -> _Built:
        """What the module says of itself. It is built once."""
        if dataset.name not in self._built:
            from odebench.model.classifier import Classifier
            from odebench.model.contributed import OFFERED_HORIZON, arguments_asked, build_contribution

            origin = self._origin(dataset)
            imported = {name: path for one in self._built.values() for name, path in one.imported.items()}
            module = build_contribution(origin, imported=imported)
            asked = Classifier(module, n_classes=len(dataset.classes))
            self._built[dataset.name] = _Built(
                asked.horizon, asked.solver, arguments_asked(origin), OFFERED_HORIZON, imported
            )
        return self._built[dataset.name]


def _is_own(path: Path) -> bool:
    return is_local(path) and path.is_file()  # some modules name files that are not there


def own_model(text: str, weights: Path | None) -> OwnModel:
    """The model that FILE.py:NAME or package.module:NAME names; nothing of it is run. Raises UsageError where there is
    no such file, or nothing of that name in it."""
    place, _, attribute = text.rpartition(":")
    if not attribute.isidentifier() or not re.fullmatch(NAME_PATTERN, attribute):
        raise UsageError(f"--model {text!r} must be FILE.py:NAME or package.module:NAME, such as my_net.py:Net")
    folder, module = _located(place, text)
    found = OwnModel(folder, module, attribute, weights)
    try:
        names = top_level_names(found.code.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{found.code} cannot be read: {error}") from error
    except SyntaxError as error:
        raise UsageError(f"{found.code}, line {error.lineno}: is not Python: {error.msg}") from error
    if attribute not in names:
        raise unknown_name(f"name in {found.code}:", attribute, names)
    return found


def _located(place: str, text: str) -> tuple[Path, str]:
    """The folder that is importable, and the dotted name of the module below it."""
    if place.endswith(CODE_SUFFIX):
        path = Path(os.path.abspath(Path(place).expanduser()))
        if not path.is_file():
            raise UsageError(f"there is no file {place} for --model {text}")
        if not path.stem.isidentifier():
            raise UsageError(f"{place} cannot be imported: its name must be letters, digits and _")
        return path.parent, path.stem
    top, *inner = place.split(".")
    if all(part.isidentifier() for part in (top, *inner)):
        spec = PathFinder.find_spec(top, [str(Path.cwd())]) or PathFinder.find_spec(top)
        if spec is not None and spec.origin is not None:
            # of a package the origin is its __init__.py, which lies one folder deeper
            file = Path(os.path.abspath(spec.origin))
            folder = file.parent.parent if spec.submodule_search_locations else file.parent
            if folder.joinpath(top, *inner).with_suffix(CODE_SUFFIX).is_file():
                return folder, place
    raise UsageError(f"there is no module {place} for --model {text}; give a file, such as my_net.py:Net")
