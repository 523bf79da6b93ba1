"""Values as JSON text that is the same for equal values, and its sha256."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, JsonValue


def canonical_json(value: BaseModel | JsonValue | dict[str, Any]) -> str:
    """The JSON text of a value, with sorted keys and no white space: equal values give equal text."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: BaseModel | JsonValue | dict[str, Any]) -> str:
    """The sha256, in hexadecimal, of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
