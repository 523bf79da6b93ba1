"""The fields of leaderboard.json and leaderboard.csv: their names, order, types and meanings."""

from __future__ import annotations

import json
from typing import Any

SCHEMA_VERSION = 1
"""Of the data files: raised when a field goes or changes its meaning."""
_ACCURACY = {"type": "number", "minimum": 0, "maximum": 1}
_NFE = {"type": ["number", "null"], "description": "Mean evaluations of the vector field per image; null: no field."}
_TEXTS = {"type": "array", "items": {"type": "string"}}


def _share(name: str) -> dict[str, dict[str, Any]]:
    ends = {"": "mean over train seeds", "_low": "lower end of its 95% interval", "_high": "upper end of the interval"}
    return {
        f"{name}_accuracy{end}": _ACCURACY | {"description": f"{name.title()} accuracy: {said}."}
        for end, said in ends.items()
    }


PROPERTIES: dict[str, dict[str, Any]] = {
    "dataset": {"type": "string", "description": "Data set."},
    "split": {"type": "string", "description": "Part of the data set."},
    "dataset_sha256": {"type": "string", "description": "The sha256 of the whole ordered set of images."},
    "norm": {"enum": ["linf", "l2"], "description": "Norm of the perturbation."},
    "epsilon": {"type": "number", "description": "Radius of the ball, for images in [0, 1]."},
    "model": {"type": "string", "description": "Built-in model or id of an entry."},
    "arguments": {"type": "object", "description": "Arguments of the model, without its train seed."},
    "solver": {"type": ["string", "null"], "description": "Solver of the verdict; null: integrates nothing."},
    "train_horizon": {"type": ["number", "null"], "description": "Time horizon T of training; null: none."},
    "horizon": {"type": ["number", "null"], "description": "Time horizon T of the evaluation; null: none."},
    "ranked": {"type": "boolean", "description": "Has a worst-case result, was examined, and is deterministic."},
    "rank": {
        "type": ["integer", "null"],
        "description": "1 + the models that are significantly better in the mean over their horizons, at this norm and "
        "epsilon; null: unranked, or beside the usual solver or training.",
    },
    "n": {"type": "integer", "description": "Images."},
    "seeds": {"type": "integer", "description": "Train seeds."},
    "attacks": _TEXTS | {"description": "Attacks in the union."},
    **_share("clean"),
    **_share("robust"),
    "nfe_clean": _NFE,
    "nfe_adversarial": _NFE,
    "examined": {"type": "boolean", "description": "Has the checks that look for masked gradients."},
    "flags": _TEXTS | {"description": "Flags that checks raised."},
    "credits": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Who made candidates elsewhere, on how many images these succeeded, on how many they alone.",
    },
}
"""In the order of the columns."""


def schema_text() -> str:
    """The JSON Schema of leaderboard.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Figures of the odebench leaderboard",
        "description": "One object for each model, horizon, norm and epsilon. leaderboard.csv has the same columns: "
        "null is empty, lists are separated by spaces, arguments and credits are JSON.",
        "type": "object",
        "properties": {
            "schema_version": {"const": SCHEMA_VERSION},
            "figures": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": PROPERTIES,
                    "required": list(PROPERTIES),
                    "additionalProperties": False,
                },
            },
        },
        "required": ["schema_version", "figures"],
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=1) + "\n"
