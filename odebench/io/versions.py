"""The versions of the packages that results depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("odebench", "numpy", "scipy", "torch", "torchdiffeq", "torchode", "foolbox", "pyautoattack")


def package_versions() -> dict[str, str | None]:
    """The versions of Python and of PACKAGES, None for one that is not installed; imports none of them."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
