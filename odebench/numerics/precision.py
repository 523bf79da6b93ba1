"""What fp32 means while a model is trained, attacked or judged: fp32, in one order, on every device."""

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
    """No TF32 or bf16 in place of fp32, and of cuDNN's kernels those that add in one order, while inside; as before
    afterwards.

    By default torch convolves in TF32 on NVIDIA's cards since Ampere: factors have 10 bits of mantissa instead of 23,
    which moves logits by a share of about 1e-3. A process may ask for the same in products of matrices, and on the CPU.
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
    """torch's older switches; none where a process has set the newer ones, which must not be mixed with them."""
    try:
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _newer() -> list[Any]:
    """What has a newer switch, `fp32_precision`; nothing before torch 2.9."""
    found = (getattr(getattr(torch.backends, backend), part, None) for backend, part in _PARTS)
    return [part for part in found if hasattr(part, "fp32_precision")]


def _set(benchmark: bool, deterministic: bool, older: tuple[bool, str] | None) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
    if older is not None:
        cudnn.allow_tf32 = older[0]
        torch.set_float32_matmul_precision(older[1])
