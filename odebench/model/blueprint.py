"""How a fresh process builds the classifier that is under attack: from a recipe, an entry's code, or a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from pydantic import JsonValue
from torch import Tensor, nn

from odebench.errors import ModelError, ModelProcessError
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.io.text import first_line
from odebench.model.classifier import Classifier
from odebench.model.contributed import load_contribution
from odebench.model.definition import Contributed, Origin
from odebench.model.training import build
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import Solver


@dataclass(frozen=True)
class Blueprint:
    """What a classifier is built from: a recipe or an entry's code with a weights file, or a pickled module.

    `device` is a name of torch's. `horizon` and `solver` are None for a module that odebench does not integrate.
    """

    origin: Origin | bytes
    weights: Path | None
    n_classes: int
    device: str
    horizon: float | None
    solver: Solver | None

    @classmethod
    def of_file(cls, origin: Origin, weights: Path, classifier: Classifier) -> Blueprint:
        """The blueprint of a classifier that was built from a recipe or an entry's code and a weights file."""
        return cls(origin, weights, classifier.n_classes, str(classifier.device), classifier.horizon, classifier.solver)

    @classmethod
    def of_module(cls, classifier: Classifier) -> Blueprint:
        """The blueprint of a classifier whose module was handed over: its state as it is now.

        To be taken before the first question, since a module may remember what it is asked. Raises ModelProcessError
        for a module that cannot be pickled, such as one that holds a lock or an open file.
        """
        try:
            pickled = cloudpickle.dumps(classifier.module)
        except Exception as error:  # the module's own code may run, and raise anything
            name, kind = type(classifier.module).__name__, type(error).__name__
            raise ModelProcessError(
                f"{name} cannot be copied to another process ({kind}: {first_line(error)}): it must hold nothing "
                "that cannot be pickled, such as a lock or an open file"
            ) from error
        return cls(pickled, None, classifier.n_classes, str(classifier.device), classifier.horizon, classifier.solver)

    def order(self, threads: int) -> tuple[dict[str, JsonValue], dict[str, Tensor]]:
        """The header and tensors that tell a process to build the classifier, and to compute on `threads` threads."""
        header: dict[str, JsonValue] = {
            "threads": threads,
            "weights": None if self.weights is None else str(self.weights.absolute()),
            "n_classes": self.n_classes,
            "device": self.device,
            "horizon": self.horizon,
            "solver": _plain(self.solver),
        }
        origin = self.origin
        if isinstance(origin, bytes):
            return header | {"kind": "pickle"}, {"pickle": torch.frombuffer(bytearray(origin), dtype=torch.uint8)}
        if isinstance(origin, Recipe):
            return header | {"kind": "recipe", "origin": origin.model_dump(mode="json")}, {}
        entry: dict[str, JsonValue] = {
            "folder": str(origin.folder.absolute()),
            "module": origin.module,
            "attribute": origin.attribute,
            "arguments": dict(origin.arguments),
            "image_shape": list(origin.image_shape),
            "n_classes": origin.n_classes,
            "train_seed": origin.train_seed,
            "horizon": origin.horizon,
            "solver": _plain(origin.solver),
            "key": origin.key,
            "fitting": origin.fitting,
        }
        return header | {"kind": "entry", "origin": entry}, {}

    @classmethod
    def of_order(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Blueprint:
        """The blueprint of an order, in the process that gets it."""
        given = header.get("origin")
        origin: Origin | bytes
        if header["kind"] == "pickle":
            origin = tensors["pickle"].numpy().tobytes()
        elif header["kind"] == "recipe":
            origin = Recipe.model_validate(given)
        else:
            parts: dict[str, Any] = dict(given or {})
            parts |= {"folder": Path(parts["folder"]), "image_shape": tuple(parts["image_shape"])}
            origin = Contributed(**parts | {"solver": _solver(parts["solver"])})
        return cls(
            origin,
            None if header["weights"] is None else Path(header["weights"]),
            header["n_classes"],
            header["device"],
            header["horizon"],
            _solver(header["solver"]),
        )

    def build(self, dtype: torch.dtype) -> Classifier:
        """The classifier, built in this process: a pickle is loaded, which may run code.

        Raises ModelError, WeightError and whatever loading a pickle raises.
        """
        origin = self.origin
        if isinstance(origin, bytes):
            module = cloudpickle.loads(origin)
            if not isinstance(module, nn.Module):
                raise ModelError(f"the pickle holds a {type(module).__name__}, not a torch.nn.Module")
        else:
            assert self.weights is not None
            if isinstance(origin, Recipe):
                module = build(origin)
                load_weights(module, read_tensors(self.weights)[0], source=self.weights)
            else:
                module = load_contribution(origin, self.weights)
        if dtype == torch.float64:
            module.double()
        return Classifier(
            module, n_classes=self.n_classes, device=self.device, horizon=self.horizon, solver=self.solver
        )


def _plain(solver: Solver | None) -> JsonValue:
    return None if solver is None else solver.model_dump(mode="json")


def _solver(given: Any) -> Solver | None:
    return None if given is None else Solver.model_validate(given)
