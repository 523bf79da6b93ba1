"""The robustness benchmark for Neural ODE image classifiers.

`odebench.evaluate` judges any nn.Module; the command line is `odebench`; plugins need only the names of this module.
Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odebench.registry import load_target

__version__ = "0.1.0"

if TYPE_CHECKING:
    from odebench.analysis.dataframe import load_results as load_results
    from odebench.analysis.dataframe import ranking as ranking
    from odebench.attack.definition import AttackDefinition as AttackDefinition
    from odebench.attack.early_stopping import with_early_stopping
    from odebench.dataset.base import Dataset as Dataset
    from odebench.dataset.base import Split as Split
    from odebench.dataset.definition import DatasetDefinition as DatasetDefinition
    from odebench.dataset.load import load_dataset as load_dataset
    from odebench.errors import OdebenchError as OdebenchError
    from odebench.evaluation.evaluate import evaluate as evaluate
    from odebench.evaluation.image_slice import Slice as Slice
    from odebench.model.definition import ModelDefinition as ModelDefinition
    from odebench.model.definition import Setting as Setting
    from odebench.model.solver import integrate as integrate
    from odebench.protocol.recipe import Loss as Loss
    from odebench.protocol.recipe import Schedule as Schedule
    from odebench.protocol.spec import Solver as Solver
    from odebench.protocol.spec import ThreatModel as ThreatModel
    from odebench.protocol.spec import adaptive as adaptive
    from odebench.protocol.spec import fixed_step as fixed_step
    from odebench.result.file import read_result as read_result
    from odebench.result.file import write_result as write_result
    from odebench.result.schema import Result as Result
    from odebench.submission.load_model import load_model as load_model

    pursued = with_early_stopping

_EXPORTS = {
    "AttackDefinition": "odebench.attack.definition:AttackDefinition",
    "Dataset": "odebench.dataset.base:Dataset",
    "DatasetDefinition": "odebench.dataset.definition:DatasetDefinition",
    "Loss": "odebench.protocol.recipe:Loss",
    "ModelDefinition": "odebench.model.definition:ModelDefinition",
    "OdebenchError": "odebench.errors:OdebenchError",
    "Result": "odebench.result.schema:Result",
    "Schedule": "odebench.protocol.recipe:Schedule",
    "Setting": "odebench.model.definition:Setting",
    "Slice": "odebench.evaluation.image_slice:Slice",
    "Solver": "odebench.protocol.spec:Solver",
    "Split": "odebench.dataset.base:Split",
    "ThreatModel": "odebench.protocol.spec:ThreatModel",
    "adaptive": "odebench.protocol.spec:adaptive",
    "evaluate": "odebench.evaluation.evaluate:evaluate",
    "fixed_step": "odebench.protocol.spec:fixed_step",
    "integrate": "odebench.model.solver:integrate",
    "load_dataset": "odebench.dataset.load:load_dataset",
    "load_model": "odebench.submission.load_model:load_model",
    "load_results": "odebench.analysis.dataframe:load_results",
    "pursued": "odebench.attack.early_stopping:with_early_stopping",
    "ranking": "odebench.analysis.dataframe:ranking",
    "read_result": "odebench.result.file:read_result",
    "write_result": "odebench.result.file:write_result",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'odebench' has no attribute {name!r}")
    return load_target(_EXPORTS[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])


__all__ = sorted([*_EXPORTS, "__version__"])
