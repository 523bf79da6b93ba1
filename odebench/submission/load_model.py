"""A model by its name as a module of torch, with the weights that are published or were trained here."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from odebench.dataset import DatasetDefinition, describe_dataset
from odebench.errors import UsageError
from odebench.evaluation.arguments import check_kind
from odebench.evaluation.loading import fetched
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.model.classifier import is_ode
from odebench.model.contributed import load_contribution
from odebench.model.definition import Contributed
from odebench.model.solver import integrate
from odebench.model.training import build, undamaged
from odebench.protocol.recipe import find_weights
from odebench.submission.submitted_model import SubmittedModel, find_model


def load_model(
    name: str,
    dataset: str = "digits",
    *,
    horizon: float | None = None,
    seed: int = 0,
    trust: bool = False,
    data_dir: Path | str | None = None,
) -> nn.Module:
    """The module of a built-in model or of an entry, trained at `horizon` with train `seed`, in evaluation mode.

    It maps images in [0, 1], of shape (batch, channel, height, width), to logits. `horizon` is by default 1, or the
    entry's only one; a model without a field takes none. Its weights are those of ./leaderboard or of the cache folder;
    nothing is trained. The code of an entry runs in this process, so it needs `trust=True`.

    Raises UsageError for an unknown name, and where there are no weights, with the command that trains them.
    """
    if not isinstance(name, str):
        raise UsageError(f"a model is loaded by its name, such as 'kd-ode', not from {type(name).__name__}")
    check_kind("horizon", horizon, Real, "1.0")
    check_kind("seed", seed, Integral, "0")
    check_kind("trust", trust, bool, "True")
    check_kind("data_dir", data_dir, (str, Path), "'data'")
    described = _described(dataset, data_dir)
    model = find_model(name)
    if isinstance(model, SubmittedModel) and model.code is not None and not trust:
        raise UsageError(f"{name} runs {model.code}, with all that you may do here: read it, then give trust=True")
    found = model.resolve(
        described,
        horizon=None if horizon is None else float(horizon),
        train_horizon=None,
        train_seed=int(seed),
        changes={},
    )
    given = fetched(found.weights)
    if isinstance(found.origin, Contributed):
        assert given is not None
        return callable_module(load_contribution(found.origin, given))
    path = find_weights(found.origin) if given is None else given
    if path is None:
        at = "" if found.origin.horizon is None else f"--horizon {found.origin.horizon:g} "
        raise UsageError(
            f"there are no weights of {name} here; train them by: odebench train --model {name} "
            f"--dataset {dataset} {at}--seed {seed}"
        )
    undamaged(path)
    module = build(found.origin)
    load_weights(module, read_tensors(path)[0], source=path)
    return module.eval()


def callable_module(module: nn.Module) -> nn.Module:
    """The module itself, which can be called: one whose field odebench integrates, and that brings no forward, gets
    one that does so with its own horizon and solver."""
    if not is_ode(module) or type(module).forward is not nn.Module.forward:
        return module

    def forward(self: Any, images: Tensor) -> Tensor:
        solution = integrate(self.field, self.stem(images), horizon=self.horizon, solver=self.solver)
        logits: Tensor = self.head(solution.state)
        return logits

    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return module


def _described(dataset: object, data_dir: Path | str | None) -> DatasetDefinition:
    if not isinstance(dataset, str):
        raise UsageError(f"a data set is named, such as 'digits', not {type(dataset).__name__}")
    return describe_dataset(dataset, data_dir=None if data_dir is None else Path(data_dir))
