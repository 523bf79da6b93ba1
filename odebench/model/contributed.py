"""Modules that entries bring: imported from the entry's folder, built, and given their weights.

Any error in such code becomes a ModelError. The code runs with all rights of this process: see
odebench.model.process.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from odebench.errors import ModelError, OdebenchError
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.io.text import first_line
from odebench.model.classifier import is_ode
from odebench.model.definition import Contributed
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step

OFFERED_HORIZON, OFFERED_SOLVER = 1.0, fixed_step(step=0.25)
"""What code of one's own is built with that needs a horizon, a solver or a step, unless others are asked for."""


def load_contribution(contributed: Contributed, weights: Path) -> nn.Module:
    """The module of an entry, with its weights and in evaluation mode.

    Raises ModelError for code that cannot be imported or built, and WeightError for weights that do not fit it.
    """
    module = build_contribution(contributed)
    tensors, _ = read_tensors(weights)
    try:
        load_weights(module, tensors, source=weights)
        return module.eval()
    except (OdebenchError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # state_dict, load_state_dict and eval may be the entry's own
        raise ModelError(f"{_where(contributed)} cannot take its weights: {_line(error)}") from error


def build_contribution(contributed: Contributed, *, imported: dict[str, Path] | None = None) -> nn.Module:
    """The untrained module of an entry, initialised by its train seed. Leaves the global generators as they were.

    The folder is importable while the module is imported and built, and no compiled files are left in it. `imported`
    is given the file of each module that was imported meanwhile, by its name. Raises ModelError for code that cannot be
    imported or built, or whose module does not fit what the entry says.
    """
    where = _where(contributed)
    arguments: dict[str, Any] = {
        "image_shape": contributed.image_shape,
        "n_classes": contributed.n_classes,
        **contributed.arguments,
    }
    if contributed.horizon is not None:
        arguments |= {"horizon": contributed.horizon, "solver": contributed.solver}
    before = dict(sys.modules)
    with _importable(contributed.folder), seeded(contributed.train_seed):
        try:
            attribute = getattr(_imported(contributed), contributed.attribute)
        except (Exception, SystemExit) as error:
            raise ModelError(f"{where} cannot be imported: {_line(error)}") from error
        if contributed.fitting:
            arguments = _fitting(attribute, arguments, where)
        try:
            module = attribute(**arguments)
        except (Exception, SystemExit) as error:
            given = f"with {', '.join(arguments)}" if arguments else "without arguments"
            raise ModelError(f"{where} cannot be built {given}: {_line(error)}") from error
        if imported is not None:
            imported |= {
                name: file
                for name, one in list(sys.modules.items())
                if before.get(name) is not one and (file := _file(one)) is not None
            }
    if not isinstance(module, nn.Module):
        raise ModelError(f"{where} gave a {type(module).__name__}, not a torch.nn.Module")
    if contributed.fitting:
        return module
    if contributed.horizon is None and is_ode(module):
        raise ModelError(f"{where} has a field that odebench integrates: say its horizons and solver in entry.yaml")
    if contributed.horizon is not None and not is_ode(module):
        raise ModelError(
            f"{where} does not expose stem, field, head, horizon and solver, so odebench cannot integrate it: add "
            "them, or remove horizons and solver in entry.yaml"
        )
    return module


def _imported(contributed: Contributed) -> ModuleType:
    if "." in contributed.module:
        return importlib.import_module(contributed.module)
    path = contributed.folder / f"{contributed.module}.py"
    spec = importlib.util.spec_from_file_location(contributed.module, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[contributed.module] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Puts the folder first on the search path while inside. Afterwards its modules are forgotten, so that those of
    another entry may have the same names."""
    path, compiles, before = str(folder.absolute()), sys.dont_write_bytecode, dict(sys.modules)
    sys.path.insert(0, path)
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = compiles
        if path in sys.path:
            sys.path.remove(path)
        for name, module in list(sys.modules.items()):
            if before.get(name) is not module and _lies_in(module, folder):
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]


def arguments_asked(contributed: Contributed) -> dict[str, bool]:
    """The arguments that the class or function of an entry takes by name, and whether it needs each.

    Raises ModelError for code that cannot be imported.
    """
    with _importable(contributed.folder), seeded(contributed.train_seed):
        try:
            attribute = getattr(_imported(contributed), contributed.attribute)
        except (Exception, SystemExit) as error:
            raise ModelError(f"{_where(contributed)} cannot be imported: {_line(error)}") from error
    return _asked(attribute)


def _parameters(attribute: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(attribute).parameters
    except (TypeError, ValueError):  # what is not callable is refused when it is called
        return {}


def _asked(attribute: Any) -> dict[str, bool]:
    return {
        name: one.default is one.empty
        for name, one in _parameters(attribute).items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }


def _fitting(attribute: Any, arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """Those of the arguments that a class or function takes, with **kwargs all; horizon, solver and step have values
    where it needs them. Raises ModelError where it needs another."""
    asked = _asked(attribute)
    solver = arguments.get("solver") or OFFERED_SOLVER
    offered = {"horizon": OFFERED_HORIZON, "solver": solver, "step": solver.step or OFFERED_SOLVER.step} | arguments
    if others := [name for name, needed in asked.items() if needed and name not in offered]:
        raise ModelError(
            f"{where} needs {', '.join(others)}, which odebench does not give: it gives {', '.join(offered)} by name; "
            "give the others default values"
        )
    found = {name: offered[name] for name, needed in asked.items() if name in arguments or (needed and name in offered)}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in _parameters(attribute).values())
    return found | arguments if takes_all else found


def _lies_in(module: object, folder: Path) -> bool:
    file = _file(module)
    places = [file] if file is not None else []
    if file is None and isinstance(module, ModuleType):  # a package without __init__.py has folders alone
        places = [Path(place).absolute() for place in vars(module).get("__path__", ())]
    return any(place.is_relative_to(folder.absolute()) for place in places)


def _file(module: object) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if isinstance(file, str) else None


def _where(contributed: Contributed) -> str:
    return f"{contributed.folder / contributed.module}.py:{contributed.attribute}"


def _line(error: BaseException) -> str:
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
