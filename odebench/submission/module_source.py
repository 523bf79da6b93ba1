"""The Python modules of an entry's folder: parsed, and neither imported nor run."""

from __future__ import annotations

import ast
import re
import sys
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from odebench.io.text import unseen
from odebench.submission.entry import ENTRY_FILE
from odebench.submission.finding import Finding, finding
from odebench.submission.folder import CODE_SUFFIX
from odebench.submission.local_imports import imports

_ENCODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")
"""The encoding that a line declares, as Python looks for it in the first two lines (PEP 263)."""
_REVEALING = {
    *("sys", "os", "ctypes", "inspect", "gc", "threading", "multiprocessing", "importlib", "builtins"),
    *("posix", "_ctypes", "_thread", "_posixsubprocess", "subprocess", "socket", "traceback", "weakref", "mmap"),
}
"""Modules with which code can look at who asks it, or at more than its images."""
_DATA = (
    *("sklearn", "torchvision", "datasets", "mnist", "keras", "tensorflow"),
    *("odebench.dataset", "odebench.load_dataset", "odebench.*"),
)
"""Modules that hold data sets, whose test images a model must not look its answers up in."""
_MOST_NAMES = 10
_RESERVED = {*sys.stdlib_module_names, "odebench", "torch", "torchvision", "torchdiffeq", "torchode", "numpy"}


def module_problem(name: str, attribute: str, texts: Mapping[str, str]) -> tuple[str, int | None, str] | None:
    """Why the module `name` does not define `attribute`, as file, line and sentence; None if it does."""
    file = f"{name}{CODE_SUFFIX}"
    if file not in texts:
        modules = [one.removesuffix(CODE_SUFFIX) for one in texts if one.endswith(CODE_SUFFIX)]
        return ENTRY_FILE, None, f"there is no {file} in the folder; its modules: {', '.join(modules) or 'none'}"
    try:
        defined = top_level_names(texts[file])
    except SyntaxError as error:
        return file, error.lineno, f"is not Python: {error.msg}"
    if attribute not in defined:
        known = ", ".join(sorted(defined)[:20]) or "nothing"
        return ENTRY_FILE, None, f"{file} defines no {attribute!r} at its top level; it defines {known}"
    return None


def module_findings(folder: Path, texts: Mapping[str, str]) -> list[Finding]:
    """Findings about modules that are not Python, have another encoding, or hide other modules of the same name."""
    found = []
    for file, text in texts.items():
        if not file.endswith(CODE_SUFFIX):
            continue
        if file.removesuffix(CODE_SUFFIX) in _RESERVED:
            said = "would hide a module of that name that others import; rename it"
            found.append(finding(str(folder / file), None, "code", said))
        # line ends as Python's tokenizer knows them: str.splitlines knows more
        named = [match[1] for line in re.split(r"\r\n|\r|\n", text)[:2] if (match := _ENCODING.match(line)) is not None]
        if named and named[0].lower() not in ("utf-8", "utf_8", "utf8"):
            said = f"names the encoding {named[0]}, with which it may be other code than it looks; save it as UTF-8"
            found.append(finding(str(folder / file), None, "code", said))
            continue
        if (line := _unseen_line(text)) is not None:
            said = "has characters that cannot be seen or turn the direction of writing: it is not what it looks like"
            found.append(finding(str(folder / file), line, "code", said))
        try:
            top_level_names(text)
        except SyntaxError as error:
            found.append(finding(str(folder / file), error.lineno, "code", f"is not Python: {error.msg}"))
    return found


def _unseen_line(text: str) -> int | None:
    """The first line with an unseen character; form feeds and a byte order mark in front are Python's."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        if unseen(line.replace("\f", "")):
            return number
    return None


def revealing_imports(module: Path) -> Iterator[str]:
    """A note for an entry's own module and each file beside it that it reaches by imports, where it imports modules
    with which code can look around, by name or as a text."""
    for path in _reached(module):
        found: dict[str, int] = {}
        for name, line in imports(path, path.parent):
            found.setdefault(name.partition(".")[0], line)
        listed = [f"{name} (line {line})" for name, line in sorted(found.items()) if name in _REVEALING]
        if listed:
            yield f"{path.name} imports {', '.join(listed)}: read what for"


def data_imports(module: Path) -> Iterator[str]:
    """A note for each import of a module that holds data sets, by an entry's own module or one that it imports. A model
    that looks up test images is robust on them, and check 22 does not see it where it knows validation images, too."""
    for path in _reached(module):
        for name, line in imports(path, path.parent):
            if name == "odebench" or any(name == data or name.startswith(f"{data}.") for data in _DATA):
                yield f"{path.name} imports {name} (line {line}), which holds data sets: has it test images?"


def _reached(module: Path) -> list[Path]:
    """A module, then the files beside it that it imports, or that those import."""
    beside = {*module.parent.glob(f"*{CODE_SUFFIX}")}
    reached, waiting = set[Path](), [module]
    while waiting:
        path = waiting.pop()
        reached.add(path)
        names = (name.partition(".")[0] for name, _ in imports(path, path.parent))
        waiting += {path.with_name(f"{name}{CODE_SUFFIX}") for name in names} & beside - reached
    return [module, *sorted(reached - {module})]


def foreign_names(folder: Path) -> Iterator[str]:
    """A note for each file of an entry that has names with other letters than ASCII's, which may look like others."""
    for path in sorted(folder.glob(f"*{CODE_SUFFIX}")):
        found: dict[str, int] = {}
        with suppress(SyntaxError, tokenize.TokenError, OSError), path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.NAME and not token.string.isascii():
                    found.setdefault(token.string, token.start[0])
        listed = [f"{ascii(name)[:60]} (line {line})" for name, line in list(found.items())[:_MOST_NAMES]]
        if listed:
            yield f"{path.name} has names that may look like others: {', '.join(listed)}"


def top_level_names(text: str) -> set[str]:
    """The names that a module defines or imports at its top level, also inside branches. Raises SyntaxError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # as bytes, so that a declared encoding is used as Python would use it
            waiting: list[ast.stmt] = list(ast.parse(text.encode()).body)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(f"it is nested too deeply, or not a text ({type(error).__name__})") from error
    found: set[str] = set()
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            waiting += [node for node in ast.iter_child_nodes(statement) if isinstance(node, ast.stmt)]
            waiting += [line for handler in getattr(statement, "handlers", []) for line in handler.body]
    return found
