"""What a result was computed with: the versions of packages and the name of the device."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from pathlib import Path

import torch

from odebench.errors import UsageError
from odebench.io.versions import package_versions
from odebench.result.schema import Versions

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
