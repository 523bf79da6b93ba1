"""Which files of one's own a Python file imports, found by reading them; nothing is run."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}
"""Folders whose modules are installed: of another's package nothing is looked at."""
_PACKAGE = "__init__.py"


def local_imports(file: Path, folder: Path) -> dict[Path, str]:
    """The files of one's own that `file` imports, directly or by others, with their dotted names; `folder` is searched
    first, then where Python searches.

    The packages around a module count, since they are run as well; so do imports inside of functions. What is imported
    by a name made at run time, or from an installed package, does not.
    """
    if not is_local(file):
        return {}
    names: dict[Path, str] = {}
    waiting = [(file, folder), *((path, folder) for path in _packages_of(file, folder))]
    while waiting:
        path, root = waiting.pop()
        if path in names or not is_local(path):
            continue
        parts = path.relative_to(root).with_suffix("").parts
        names[path] = ".".join(parts[:-1] if path.name == _PACKAGE else parts)
        for name, _ in imports(path, root):
            waiting += [(found, place) for place in _roots_of(name, folder, root) for found in _files_of(name, place)]
    return {path: names[path] for path in sorted(names.keys() - {file})}


def is_local(path: Path) -> bool:
    """Whether a file or folder is code of one's own: not installed, nor of Python or of odebench."""
    return not _INSTALLED & set(path.parts) and not any(path.is_relative_to(folder) for folder in _others())


@cache
def _others() -> list[Path]:
    return [Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))]


def imports(path: Path, folder: Path) -> list[tuple[str, int]]:
    """The dotted names that a file below `folder` imports, and the lines; none if it is not Python. `from a import b`
    is a.b, which may be no module; __import__ and its like count as importlib."""
    with suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = path.relative_to(folder).parent.parts
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
        return [(name, getattr(node, "lineno", 0)) for node in nodes for name in _imported(node, package)]
    return []


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        around = package[: len(package) - node.level + 1] if node.level else ()
        return [".".join(filter(None, [*around, node.module, alias.name])) for alias in node.names]
    if isinstance(node, ast.Name) and node.id in ("__import__", "__builtins__", "__loader__", "__spec__"):
        return ["builtins" if node.id == "__builtins__" else "importlib"]
    return []


def _roots_of(name: str, folder: Path, root: Path) -> Iterator[Path]:
    """The folder that the first part of a dotted name lies in, as Python finds it."""
    top = name.partition(".")[0]
    for place in (folder, root):
        if _is(place / top) or _is(place / f"{top}.py"):
            yield place
            return
    with suppress(ImportError, ValueError, AttributeError, OSError):  # as of __main__
        spec = find_spec(top)
        places = spec.submodule_search_locations if spec is not None else None
        if places is not None:
            yield from (Path(place).absolute().parent for place in places)
        elif spec is not None and spec.has_location and spec.origin is not None:
            yield Path(spec.origin).absolute().parent


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """The files that are run when a dotted name is imported: its packages and its module, if they lie in the folder."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        yield from (path for path in (place / _PACKAGE, place.with_name(f"{place.name}.py")) if _is(path, file=True))


def _is(path: Path, *, file: bool = False) -> bool:
    try:
        return path.is_file() if file else path.exists()
    except OSError:  # a name that no file can have, such as one of more than 255 bytes
        return False


def _packages_of(file: Path, folder: Path) -> list[Path]:
    """The __init__.py of each package that a file lies in."""
    inner = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
    return [path for parent in inner if (path := parent / _PACKAGE).is_file()]
