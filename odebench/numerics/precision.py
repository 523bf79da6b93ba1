"""True fp32 on every device while a model is trained, attacked or judged, always summed in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_PARTS = (
    ("cuda", "matmul"),
    ("cudnn", "conv"),
    ("cudnn", "rnn"),
    ("mkldnn", "matmul"),
    ("mkldnn", "conv"),
    ("mkldnn", "rnn"),
)


@contextmanager
def full_fp32() -> Iterator[None]:
    """Turns off TF32, bf16 in place of fp32, and cuDNN's kernels without a fixed order, while inside.

    By default torch convolves in TF32 on NVIDIA's cards since Ampere: with 10 bits of mantissa instead of 23, which
    changes logits by about 1e-3 of their size. A process may have asked for the same in matrix products and on the CPU.
    """
    cudnn = torch.backends.cudnn
    order, older = (cudnn.benchmark, cudnn.deterministic), _older()
    parts = _newer()
    precisions = [part.fp32_precision for part in parts]
    _set(False, True, None if older is None else (False, "highest"))
    for part in parts:
        part.fp32_precision = "ieee"
    try:
        yield
    finally:
        _set(*order, older)
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision


def _older() -> tuple[bool, str] | None:
    """torch's older switches; None where the process has set the newer ones, which must not be mixed with them."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _newer() -> list[Any]:
    """The backends with the newer switch, `fp32_precision`; none before torch 2.9."""
    found = (getattr(getattr(torch.backends, backend), part, None) for backend, part in _PARTS)
    return [part for part in found if hasattr(part, "fp32_precision")]


def _set(benchmark: bool, deterministic: bool, older: tuple[bool, str] | None) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
    if older is not None:
        cudnn.allow_tf32 = older[0]
        torch.set_float32_matmul_precision(older[1])
