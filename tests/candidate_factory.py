"""Files of candidates, as somebody else would make them."""

from __future__ import annotations

from typing import Any

import torch

from odebench.attack.candidate_file import Candidates
from odebench.dataset import Dataset


def made(digits: Dataset, *, n: int = 20, epsilon: float = 0.1, shift: float = 0.05, **changes: Any) -> Candidates:
    """Brighter images, within epsilon."""
    fields: dict[str, Any] = {
        "images": (digits.test.images[:n] + shift).clamp(0, 1),
        "indices": torch.arange(n),
        "epsilons": torch.full((n,), epsilon, dtype=torch.float64),
        "dataset": "digits",
        "split": "test",
        "dataset_sha256": digits.test.sha256,
        "norm": "linf",
        "source": "a brush",
    }
    return Candidates(**{**fields, **changes})
