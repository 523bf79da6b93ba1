"""Which files of a folder a Python file imports, found by reading them; nothing is run."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}
"""Folders whose modules are installed: of another's package nothing is looked at."""


def local_imports(file: Path, folder: Path, *, within: Path) -> list[Path]:
    """The files below `within` that `file` imports, directly or by others, sorted; `folder` is where imports begin.

    The packages around a module count, since they are run as well; so do imports inside of functions. What is imported
    by a name made at run time, or from an installed package, does not.
    """
    if not is_local(within):
        return []
    found: set[Path] = set()
    waiting = [file, *_packages_of(file, folder)]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_relative_to(within):
            continue
        found.add(path)
        for name in _imported_names(path, folder):
            waiting += _files_of(name, folder)
    return sorted(found - {file})


def is_local(path: Path) -> bool:
    """Whether a file or folder is code of one's own: not installed, nor of Python or of odebench."""
    return not _INSTALLED & set(path.parts) and not any(path.is_relative_to(folder) for folder in _others())


@cache
def _others() -> list[Path]:
    return [Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))]


def _imported_names(path: Path, folder: Path) -> Iterator[str]:
    """The dotted names that a file imports; of `from a import b` both a and a.b, of which one may be a module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # it imports nothing that can be known; running it will say why
    package = path.relative_to(folder).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*around, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """The files that are run when a dotted name is imported: its packages and its module, if they lie in the folder."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        yield from (path for path in (place / "__init__.py", place.with_name(f"{place.name}.py")) if _is_file(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have, such as one of more than 255 bytes
        return False


def _packages_of(file: Path, folder: Path) -> list[Path]:
    """The __init__.py of each package that a file lies in."""
    inner = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
    return [path for parent in inner if (path := parent / "__init__.py").is_file()]
