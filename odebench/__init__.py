"""The robustness benchmark for Neural ODE image classifiers.

`odebench.evaluate` judges any nn.Module; the command line is `odebench`; plugins need only the names of this module.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odebench.registry import load_target

__version__ = "0.1.0"

if TYPE_CHECKING:
    from odebench.analysis.dataframe import load_results
    from odebench.attack.definition import AttackDefinition
    from odebench.attack.early_stopping import with_early_stopping as pursued
    from odebench.dataset import Dataset, DatasetDefinition, Split
    from odebench.errors import OdebenchError
    from odebench.evaluation.evaluate import evaluate
    from odebench.evaluation.plan import Slice
    from odebench.model.definition import ModelDefinition, Setting
    from odebench.model.solver import integrate
    from odebench.protocol.recipe import Loss, Schedule
    from odebench.protocol.spec import Solver, ThreatModel, adaptive, fixed_step
    from odebench.result.file import read_result, write_result
    from odebench.result.schema import Result

_EXPORTS = {
    "AttackDefinition": "odebench.attack.definition:AttackDefinition",
    "Dataset": "odebench.dataset:Dataset",
    "DatasetDefinition": "odebench.dataset:DatasetDefinition",
    "Loss": "odebench.protocol.recipe:Loss",
    "ModelDefinition": "odebench.model.definition:ModelDefinition",
    "OdebenchError": "odebench.errors:OdebenchError",
    "Result": "odebench.result.schema:Result",
    "Schedule": "odebench.protocol.recipe:Schedule",
    "Setting": "odebench.model.definition:Setting",
    "Slice": "odebench.evaluation.plan:Slice",
    "Solver": "odebench.protocol.spec:Solver",
    "Split": "odebench.dataset:Split",
    "ThreatModel": "odebench.protocol.spec:ThreatModel",
    "adaptive": "odebench.protocol.spec:adaptive",
    "evaluate": "odebench.evaluation.evaluate:evaluate",
    "fixed_step": "odebench.protocol.spec:fixed_step",
    "integrate": "odebench.model.solver:integrate",
    "load_results": "odebench.analysis.dataframe:load_results",
    "pursued": "odebench.attack.early_stopping:with_early_stopping",
    "read_result": "odebench.result.file:read_result",
    "write_result": "odebench.result.file:write_result",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'odebench' has no attribute {name!r}")
    return load_target(_EXPORTS[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])


__all__ = [
    "AttackDefinition",
    "Dataset",
    "DatasetDefinition",
    "Loss",
    "ModelDefinition",
    "OdebenchError",
    "Result",
    "Schedule",
    "Setting",
    "Slice",
    "Solver",
    "Split",
    "ThreatModel",
    "__version__",
    "adaptive",
    "evaluate",
    "fixed_step",
    "integrate",
    "load_results",
    "pursued",
    "read_result",
    "write_result",
]
