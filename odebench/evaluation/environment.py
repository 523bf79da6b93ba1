"""What a result is computed with: the versions of packages, the device, the threads."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import torch

from odebench.errors import UsageError
from odebench.io.versions import package_versions
from odebench.result.schema import Versions

SMALL = 28 * 28
"""The number of values of an image up to which threads wait for each other longer than they compute."""
_CPU_INFO = Path("/proc/cpuinfo")


def versions() -> Versions:
    """The versions of Python and of the packages that figures depend on."""
    return Versions.model_validate(package_versions())


def devices() -> list[str]:
    """The names of the devices of this machine: cpu, and with cards also cuda, cuda:0, cuda:1, ..."""
    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *(["cuda", *cards] if cards else [])]


def usable_device(name: str) -> str:
    """The same name, if this machine has the device. Raises UsageError with the devices that it has."""
    there = devices()
    if name not in there:
        raise UsageError(f"no device {name!r} on this machine; there is {', '.join(there)}")
    return name


def one_thread_if_small(image_shape: Sequence[int]) -> None:
    """Makes torch compute on one thread for images of at most 28 x 28 values: so the published weights and results were
    found, and the number of threads changes last digits. OMP_NUM_THREADS, where set, decides instead."""
    if prod(image_shape) <= SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def device_name(device: str) -> str:
    """The device as a result names it: its kind, and in brackets the name of the card, or that of the processor with
    the instruction set that torch uses."""
    if device == "cpu":
        return f"cpu ({_processor()}, {torch.backends.cpu.get_cpu_capability()})"
    return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"


def _processor() -> str:
    """The name of the processor if the system tells it, else its kind."""
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(\S.*)$", _CPU_INFO.read_text(errors="replace"), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine() or "unknown"
