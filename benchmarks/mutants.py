"""Measures whether the default tests notice broken code: 60 mutants of the package, and which of them a test kills.

    python benchmarks/mutants.py --map [--folder DIR]
    python benchmarks/mutants.py --output FILE [--jobs N] [--only ID ...] [--folder DIR]
    python benchmarks/mutants.py --draw

A reorganised or faster suite is compared with the one before by the same mutants. `--draw` has drawn them once, with a
seed fixed here, into `mutants.json` beside this script: an operator of comparison, of arithmetic or of logic, a
constant, or a returned value, in one place of a module drawn by its length. Docstrings, annotations, `__all__` and what
stands in a `raise` or in an f-string are left alone. A mutant is named by its function, the text it changes, and which
of several equal texts of that function it is, never by a path or a line; so it is found again after files have moved.
Where functions of several modules fit, the name of the module decides. The same change in a later state of the package,
where its function or text has another name, stands in the list under `moved`, by the number of the mutant. A mutant
that is not found is reported as gone.

Every job changes a copy of the checkout, under `--folder`, which has a virtual environment of its own: what the tests
and all their processes import is that copy. `--map` runs the default tests once and notes how long each takes and which
lines it executes, itself and in the processes it starts. Tests that fail there, with and without coverage, are left
out. The map is of one state of the checkout: after a change, make it again. One that was stopped goes on with the next
call; for another checkout, choose another folder.

For a mutant these tests run, until one fails:

- those that execute a line of the changed statement, themselves or in their processes;
- all of a file, if one of them does so while its fixtures are set up or torn down, as these may be shared;
- for what is executed at import (constants of a module or a class, defaults, decorators), as every test does that:
  those that execute a line which uses a name assigned there, or a name assigned from it at import in turn; those that
  execute that function; and all of the files that mention the constant, the class or the function;
- all of the files named like the module, for what is executed at import, or where no test is known to execute it.

Files named like the module come first, quick ones before slow ones, and tests of more than a minute last. A mutant
survives where all pass. The other tests execute none of these lines and so could not fail, but for what a cache of the
process kept from another test, for code built and installed elsewhere (as of the wheel), or in a process that was
killed, or forbidden to write, and so could not tell its lines. Where no test ends for long, the mutant counts as
killed, by time; where a test fails as something took too long, all run once more, as the machine may be busy.
Survivors are only named: whether one is equivalent to the original, a reader must say.

`--output` is written after every mutant, and those in it are not run again. The table is printed at the end. Needs git
and coverage.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = "odebench"
LIST = Path(__file__).with_suffix(".json")
SEED = 20
COUNT = 60
LEAST_SECONDS = 180.0  # without the end of a test, before its loop is taken for endless
SLOWER = 4.0  # than in the map a test may be
IMPORTED = "<module>"
LATE = re.compile("TimeoutExpired|TimeoutError|timed out")

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
}

# Runs in the process of the tests while the map is made.
PLUGIN = """
import json
from pathlib import Path

import coverage
import pytest

FOLDER = Path({folder!r})


def pytest_collection_modifyitems(items):
    done = set(json.loads((FOLDER / "done.json").read_text(encoding="utf-8")))
    items[:] = [item for item in items if item.nodeid not in done]


def _enter(item, phase):
    (FOLDER / "current").write_text(f"{{item.nodeid}}|{{phase}}", encoding="utf-8")
    coverage.Coverage.current().switch_context(f"{{item.nodeid}}|{{phase}}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    _enter(item, "setup")
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    _enter(item, "run")
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    _enter(item, "teardown")
    return (yield)


def pytest_runtest_logreport(report):
    with (FOLDER / "reports.jsonl").open("a", encoding="utf-8") as reports:
        line = {{"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}}
        reports.write(json.dumps(line) + "\\n")


def pytest_sessionfinish():
    (FOLDER / "current").unlink(missing_ok=True)
"""
# Runs at the start of every other process then: these know the test that is running, whatever their environment is.
CHILD = """
import os
from pathlib import Path


def _begin():
    try:
        context = Path({folder!r}, "current").read_text(encoding="utf-8")
        import coverage
    except (OSError, ImportError):
        return
    os.environ["COVERAGE_PROCESS_START"] = {settings!r}
    os.environ["MUTANTS_CONTEXT"] = context + "|process"
    coverage.process_startup()
    del os.environ["COVERAGE_PROCESS_START"], os.environ["MUTANTS_CONTEXT"]


_begin()
"""
SETTINGS = """[run]
source = {tree}/{package}
data_file = {folder}/coverage/data
parallel = true
relative_files = true
context = ${{MUTANTS_CONTEXT-}}
patch = _exit
disable_warnings = no-data-collected, module-not-measured, module-not-imported, couldnt-parse
"""


@dataclass(frozen=True)
class Sandbox:
    """A copy of the checkout, and an environment in which it is installed."""

    folder: Path

    @property
    def tree(self) -> Path:
        """The copy."""
        return self.folder / "tree"

    @property
    def python(self) -> Path:
        """The interpreter that imports the copy."""
        return self.folder / "env" / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where the environment keeps its own modules."""
        return next((self.folder / "env" / "lib").glob("python*")) / "site-packages"

    def make(self) -> Sandbox:
        """Copies what git knows or does not ignore; entries of the leaderboard are only read, and so linked."""
        shutil.rmtree(self.folder, ignore_errors=True)
        words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            source, target = CHECKOUT / name, self.tree / name
            if not source.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if not name.startswith("leaderboard/"):
                    raise OSError
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)
        venv.create(self.folder / "env", with_pip=False, symlinks=True)
        others = [place for place in sys.path if place.endswith("-packages")]
        (self.site / "tree.pth").write_text("\n".join([str(self.tree), *others]) + "\n", encoding="utf-8")
        for script in Path(sys.executable).parent.iterdir():
            if script.is_file() and not script.is_symlink() and script.read_bytes()[:2] == b"#!":
                first, _, rest = script.read_text(encoding="utf-8").partition("\n")
                copy = self.python.with_name(script.name)
                if "python" in first and not copy.exists():
                    copy.write_text(f"#!{self.python}\n{rest}", encoding="utf-8")
                    copy.chmod(0o755)
        found = self.run("-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", capture_output=True).stdout.strip()
        if Path(found) != self.tree / PACKAGE / "__init__.py":
            sys.exit(f"{self.python} imports {found}, not {self.tree}")
        return self

    def environment(self) -> dict[str, str]:
        """The variables of processes here."""
        kept = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        path = os.pathsep.join([str(self.python.parent), os.environ.get("PATH", os.defpath)])
        return kept | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs Python in the copy."""
        return subprocess.run(
            [str(self.python), *words], cwd=self.tree, env=self.environment(), text=True, check=False, **options
        )


def test_options() -> list[str]:
    """What every run of pytest is given: one process, nothing kept, and the same examples."""
    options = ["-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        options += ["-n", "0"]
    if importlib.util.find_spec("hypothesis"):
        options += ["--hypothesis-seed", "0"]
    return options


@dataclass(frozen=True)
class Map:
    """What the tests do: how long they take, which fail anyway, and which executes a line."""

    seconds: dict[str, float]
    failing: list[str]
    contexts: list[str]
    lines: dict[str, dict[str, list[int]]]

    def executing(self, path: str, numbers: Iterable[int]) -> set[str]:
        """The tests that execute one of these lines; all of a file where what did it may be shared."""
        found = {index for number in numbers for index in self.lines.get(path, {}).get(str(number), [])}
        tests, files = set(), set()
        for context in (self.contexts[index] for index in found):
            test, _, phase = context.removesuffix("|process").rpartition("|")
            tests.add(test)
            if phase != "run":
                files.add(file_of(test))
        return {test for test in self.seconds if test in tests or file_of(test) in files}


def file_of(test: str) -> str:
    """The path of the file of a test."""
    return test.partition("::")[0]


def _read(reports: Path) -> list[dict[str, Any]]:
    """What the plugin wrote."""
    return [json.loads(line) for line in reports.read_text(encoding="utf-8").splitlines()]


def make_map(folder: Path) -> None:
    """Runs all default tests under coverage, and those that failed once more without; goes on where it was stopped."""
    import coverage

    box, complete = Sandbox(folder / "map"), folder / "map.json"
    reports, current = box.folder / "reports.jsonl", box.folder / "current"
    if complete.exists() or not reports.exists():
        complete.unlink(missing_ok=True)
        box.make()
        (box.folder / "coverage").mkdir()
        reports.touch()
    done = {report["test"] for report in _read(reports)}
    if current.exists():  # a test during which all was stopped
        done.discard(current.read_text(encoding="utf-8").rpartition("|")[0])
        current.unlink()
    (box.folder / "done.json").write_text(json.dumps(sorted(done)), encoding="utf-8")
    settings = box.folder / "coverage.ini"
    settings.write_text(SETTINGS.format(tree=box.tree, package=PACKAGE, folder=box.folder), encoding="utf-8")
    (box.site / "mutants_plugin.py").write_text(PLUGIN.format(folder=str(box.folder)), encoding="utf-8")
    child = CHILD.format(folder=str(box.folder), settings=str(settings))
    (box.site / "mutants_child.py").write_text(child, encoding="utf-8")
    late = box.site / "z_mutants.pth"  # read after that of the tree, which tells where coverage is
    late.write_text("import mutants_child\n", encoding="utf-8")
    run = ["-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-p", "mutants_plugin"]
    code = box.run(*run, *test_options()).returncode
    if code not in (0, 1, 5):
        sys.exit(f"pytest ended with {code}")
    seconds: dict[str, float] = defaultdict(float)
    suspects = {}
    for report in _read(reports):
        seconds[report["test"]] += report["seconds"]
        if report["outcome"] == "failed":
            suspects[report["test"]] = True
    failing = []
    if suspects:
        again = Sandbox(folder / "again").make()
        for path in sorted({file_of(test) for test in suspects}):
            tests = [test for test in suspects if file_of(test) == path]
            said = again.run("-m", "pytest", "-q", "-rfE", *test_options(), *tests, capture_output=True).stdout
            failing += [test for test in tests if re.search(rf"^(FAILED|ERROR) {re.escape(test)}( |$)", said, re.M)]
    combined = coverage.Coverage(config_file=str(settings), data_file=str(box.folder / "coverage" / "data"))
    os.chdir(box.tree)
    combined.combine([str(box.folder / "coverage")])
    combined.save()
    data = combined.get_data()
    numbers: dict[str, int] = {}
    lines: dict[str, dict[str, list[int]]] = {}
    for path in sorted(data.measured_files()):
        lines[path] = {
            str(line): [numbers.setdefault(context, len(numbers)) for context in contexts if context]
            for line, contexts in sorted(data.contexts_by_lineno(path).items())
        }
    whole = Map(dict(seconds), failing, list(numbers), lines)
    complete.write_text(json.dumps(asdict(whole)), encoding="utf-8")
    print(f"{len(seconds)} tests, {sum(seconds.values()):.0f} s, {len(lines)} files; failing anyway: {failing}")


@dataclass(frozen=True)
class Mutant:
    """One change, named so that it is found again elsewhere; `occurrence` counts equal changes of the function."""

    id: str
    kind: str
    function: str
    module: str
    original: str
    replaced: str
    occurrence: int

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What is looked for."""
        return self.kind, self.function, self.original, self.replaced


@dataclass(frozen=True)
class Place:
    """Where a mutant is in the checkout: bytes of a file, and the lines of the statement around them."""

    mutant: Mutant
    start: int
    end: int
    text: bytes
    lines: range
    imported: bool
    """Whether it is executed at import."""
    assigned: tuple[str, ...] = ()
    """The names that depend on it, if so."""

    def mutated(self, source: bytes) -> bytes:
        """The whole file with the change."""
        return source[: self.start] + self.text + source[self.end :]


@dataclass(frozen=True)
class Use:
    """A name on a line; at import, what is assigned from it."""

    name: str
    path: str
    line: int
    assigned: tuple[str, ...] | None


@dataclass(frozen=True)
class Scope:
    """What is around a node."""

    function: str = IMPORTED
    inside: bool = False
    """Whether it is the body of a function."""
    assigned: tuple[str, ...] = ()
    statement: ast.stmt | None = None

    def named(self, name: str) -> str:
        """The qualified name of what is defined here."""
        return name if self.function == IMPORTED else f"{self.function}.{name}"


@dataclass
class Module:
    """A file of the package: its places, its uses of names, and the lines of its functions."""

    path: str
    source: bytes
    places: list[Place] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    bodies: dict[str, range] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)
    _seen: dict[tuple[str, ...], int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def read(cls, path: str, source: bytes) -> Module:
        """Reads it."""
        module = cls(path, source)
        module._starts = [0]
        for line in source.splitlines(keepends=True):
            module._starts.append(module._starts[-1] + len(line))
        module._body(ast.parse(source).body, Scope())
        return module

    def _body(self, statements: list[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        """Walks a statement; what is only for people or type checkers is passed over."""
        if isinstance(node, ast.Raise) or (isinstance(node, ast.If) and _no_code(node.test)):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            head = Scope(scope.named(node.name), scope.inside, (node.name, *scope.assigned[:1]), node)
            for part in node.decorator_list:
                self._expression(part, [node], head)
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args]
            pairs = [*zip(named[len(named) - len(arguments.defaults) :], arguments.defaults, strict=True)]
            for argument, value in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
                if value is not None:
                    self._expression(value, [_spanning(argument, value)], head)
            self.bodies[head.function] = range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
            self._body(node.body, Scope(head.function, True))
            return
        if isinstance(node, ast.ClassDef):
            head = Scope(scope.named(node.name), scope.inside, (node.name,), node)
            for part in [*node.decorator_list, *node.bases, *(word.value for word in node.keywords)]:
                self._expression(part, [node], head)
            self._body(node.body, Scope(head.function, scope.inside, (node.name,)))
            return
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        names = tuple(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        if "__all__" in names:
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = tuple(alias.asname or alias.name for alias in node.names)
            for alias in node.names:
                self._use(alias.name.rpartition(".")[2], node.lineno, scope.inside, (alias.asname or alias.name,))
        inner = Scope(scope.function, scope.inside, (*scope.assigned, *names), node)
        if isinstance(node, ast.AnnAssign) and not scope.inside:  # a class may be made of the classes of its fields
            for word in ast.walk(node.annotation):
                if isinstance(word, ast.Name):
                    self._use(word.id, word.lineno, False, scope.assigned or names)
        if isinstance(node, ast.AugAssign):
            self._operator(node, node.target, node.value, ARITHMETIC.get(type(node.op)), "=", inner)
        if isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            self._add("return", node, self._span(node.value), b"None", inner)
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    self._statement(child, scope)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    self._body(child.body, scope)
                elif isinstance(child, ast.withitem):
                    self._expression(child.context_expr, [node], inner)
                elif isinstance(child, ast.expr) and name != "annotation":
                    self._expression(child, [node], inner)

    def _expression(self, node: ast.AST, around: list[ast.AST], scope: Scope) -> None:
        """Walks an expression. Inside of an f-string the places are not known before Python 3.12."""
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self._use(node.id, node.lineno, scope.inside, scope.assigned)
        elif isinstance(node, ast.Attribute):
            self._use(node.attr, node.end_lineno or node.lineno, scope.inside, scope.assigned)
        elif isinstance(node, ast.keyword) and node.arg:
            self._use(node.arg, node.lineno, scope.inside, scope.assigned)
        elif isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                text, others = COMPARISONS[type(operator)]
                for other in others:
                    self._between("comparison", node, (left, right), (text, other), scope)
        elif isinstance(node, ast.BinOp):
            self._operator(node, node.left, node.right, ARITHMETIC.get(type(node.op)), "", scope)
        elif isinstance(node, ast.BoolOp):
            change = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                self._between("logic", node, (left, right), change, scope)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start, _ = self._span(node)
            if self.source[start : start + 4] == b"not ":
                self._add("logic", node, (start, start + 4), b"", scope)
        elif isinstance(node, ast.Constant):
            for other in _other_constants(node.value):
                outer = around[-1]
                start, end = self._span(outer)
                narrow = isinstance(outer, ast.FunctionDef | ast.ClassDef) or _is_block(outer) or end - start > 200
                self._add("constant", node if narrow else outer, self._span(node), other.encode(), scope)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.comprehension):
                for part in (child.iter, *child.ifs):
                    self._expression(part, [*around, node], scope)
            elif isinstance(child, ast.expr | ast.keyword):
                self._expression(child, [*around, node], scope)

    def _operator(
        self,
        node: ast.AST,
        left: ast.expr,
        right: ast.expr,
        change: tuple[str, str] | None,
        suffix: str,
        scope: Scope,
    ) -> None:
        """An operator of arithmetic, but for one that clearly is of texts, paths, or collections."""
        if change and not any(_is_no_number(part) for part in (left, right)):
            self._between("arithmetic", node, (left, right), (change[0] + suffix, change[1] + suffix), scope)

    def _between(
        self, kind: str, node: ast.AST, sides: tuple[ast.expr, ast.expr], change: tuple[str, str], scope: Scope
    ) -> None:
        start, end = self._span(sides[0])[1], self._span(sides[1])[0]
        found = re.fullmatch(rb"[\s)]*(" + re.escape(change[0].encode()) + rb")[\s(\\]*", self.source[start:end])
        if found:
            self._add(kind, node, (start + found.start(1), start + found.end(1)), change[1].encode(), scope)

    def _add(self, kind: str, shown: ast.AST, span: tuple[int, int], text: bytes, scope: Scope) -> None:
        start, end = self._span(shown)
        original = self.source[start:end].decode()
        replaced = (self.source[start : span[0]] + text + self.source[span[1] : end]).decode()
        number = self._seen[kind, scope.function, original, replaced]
        self._seen[kind, scope.function, original, replaced] += 1
        mutant = Mutant("", kind, scope.function, self.path, original, replaced, number)
        lines = _lines(scope.statement) if scope.statement else range(0)
        self.places.append(Place(mutant, *span, text, lines, not scope.inside, scope.assigned))

    def _use(self, name: str, line: int, inside: bool, assigned: tuple[str, ...]) -> None:
        self.uses.append(Use(name, self.path, line, None if inside else assigned))

    def _span(self, node: Any) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset


def _lines(statement: ast.stmt) -> range:
    """The lines of a statement, of one with a body those of its head."""
    body = getattr(statement, "body", None) or getattr(statement, "cases", None)
    last = body[0].lineno - 1 if isinstance(body, list) and isinstance(body[0], ast.stmt) else statement.end_lineno
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(part.lineno for part in decorators)])
    return range(first, max(statement.lineno, last or 0) + 1)


def _spanning(first: ast.arg, last: ast.expr) -> ast.AST:
    """An argument with its default, as one."""
    whole = ast.arg(first.arg)
    whole.lineno, whole.col_offset = first.lineno, first.col_offset
    whole.end_lineno, whole.end_col_offset = last.end_lineno, last.end_col_offset
    return whole


def _is_block(node: ast.AST) -> bool:
    return isinstance(node, ast.stmt) and hasattr(node, "body")


def _no_code(test: ast.expr) -> bool:
    """Whether the code under a condition is for type checkers, or only what a module does as a program."""
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_no_number(node: ast.expr) -> bool:
    collections = ast.List | ast.Tuple | ast.Set | ast.Dict | ast.ListComp | ast.SetComp | ast.DictComp | ast.JoinedStr
    return isinstance(node, collections) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _other_constants(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), *([str(value - 1)] if value > 0 else [])]
    if isinstance(value, float):
        return [repr(value * 2 if value else 1.0)]
    return []


def modules() -> list[Module]:
    """All of the package."""
    paths = sorted((CHECKOUT / PACKAGE).rglob("*.py"))
    return [Module.read(path.relative_to(CHECKOUT).as_posix(), path.read_bytes()) for path in paths]


def draw() -> list[Mutant]:
    """Draws: a module by its lines, a kind of those it has, and a place."""
    chance, drawn = random.Random(SEED), list[Place]()
    known = [module for module in modules() if module.places]
    lengths = [module.source.count(b"\n") for module in known]
    while len(drawn) < COUNT:
        (module,) = chance.choices(known, lengths)
        kind = chance.choice(sorted({place.mutant.kind for place in module.places}))
        place = chance.choice([place for place in module.places if place.mutant.kind == kind])
        taken = any(place.start < other.end and other.start < place.end for other in drawn if same_module(place, other))
        if not taken and _compiles(place.mutated(module.source)):
            drawn.append(place)
    return [Mutant(**asdict(place.mutant) | {"id": f"m{number:02}"}) for number, place in enumerate(drawn, start=1)]


def same_module(one: Place, other: Place) -> bool:
    """Whether both are in one file."""
    return one.mutant.module == other.mutant.module


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def find(mutant: Mutant, places: list[Place], moved: dict[str, dict[str, str]]) -> Place | str:
    """The place of a mutant, or why there is none."""
    for wanted in (mutant, replace(mutant, **moved.get(mutant.id, {}))):
        fitting = [place for place in places if place.mutant.name == wanted.name]
        if len({place.mutant.module for place in fitting}) > 1:
            alike = [place for place in fitting if Path(place.mutant.module).stem == Path(wanted.module).stem]
            exact = [place for place in alike if place.mutant.module == wanted.module]
            fitting = exact or alike
            if len({place.mutant.module for place in fitting}) != 1:
                continue
        found = [place for place in fitting if place.mutant.occurrence == wanted.occurrence]
        if found or len(fitting) == 1:
            return (found or fitting)[0]
    return "gone"


def depending(place: Place, uses: list[Use]) -> dict[str, set[int]]:
    """The lines, by file, that use what a place at import decides."""
    by_name = defaultdict(list)
    for use in uses:
        by_name[use.name].append(use)
    lines: dict[str, set[int]] = defaultdict(set)
    names, waiting = set(), list(place.assigned)
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        for use in by_name[name]:
            if use.assigned is None:
                lines[use.path].add(use.line)
            else:
                waiting += use.assigned[:1]
    return lines


def likeness(test: str, module: str) -> int:
    """How far the name of a test's file is from that of a module: 0 equal, 1 with its name, 2 its package's, 3 none."""
    stem, own = Path(file_of(test)).stem.removeprefix("test_"), Path(module)
    if stem == own.stem:
        return 0
    if f"_{own.stem}_" in f"_{stem}_":
        return 1
    packages = own.parent.parts[1:]
    return 2 if any(name in stem.split("_") or name in Path(file_of(test)).parts for name in packages) else 3


def selected(place: Place, known: Map, uses: list[Use], bodies: dict[str, range]) -> tuple[list[str], bool]:
    """The tests to run in their order, and whether any is known to execute what is changed."""
    path, tests = place.mutant.module, set[str]()
    if place.imported:
        for where, numbers in depending(place, uses).items():
            tests |= known.executing(where, numbers)
        tests |= known.executing(path, bodies.get(place.mutant.function, ()))
        words = re.compile(rf"\b{re.escape(place.assigned[0])}\b") if place.assigned else None
        files = {file_of(test) for test in known.seconds}
        naming = {file for file in files if words and words.search((CHECKOUT / file).read_text(encoding="utf-8"))}
        tests |= {test for test in known.seconds if file_of(test) in naming}
    else:
        tests |= known.executing(path, place.lines)
    executed = bool(tests)
    if place.imported or not tests:
        tests |= {test for test in known.seconds if likeness(test, path) < 2}
    tests -= set(known.failing)
    spent: dict[str, float] = defaultdict(float)
    for test in tests:
        spent[file_of(test)] += known.seconds[test]

    def rank(test: str) -> tuple[Any, ...]:
        seconds, file = known.seconds[test], file_of(test)
        return seconds > 60, likeness(test, path), spent[file], file, seconds

    return sorted(tests, key=rank), executed


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    id: str
    state: str
    """killed, timeout, survived, gone, or error."""
    by: str = ""
    """The test that failed, or what else happened."""
    why: str = ""
    """What that test said."""
    tests: int = 0
    executed: bool = False
    """Whether any test is known to execute it."""
    seconds: float = 0.0
    where: str = ""


class Runner:
    """Runs tests against mutants in several copies of the checkout."""

    def __init__(self, known: Map, folder: Path, jobs: int) -> None:
        self._known = known
        self._files = modules()
        self._places = [place for module in self._files for place in module.places]
        self._uses = [use for module in self._files for use in module.uses]
        self._boxes: Queue[Sandbox] = Queue()
        for number in range(jobs):
            self._boxes.put(Sandbox(folder / f"job-{number}").make())

    def judge(self, mutant: Mutant, moved: dict[str, dict[str, str]]) -> Outcome:
        """Finds a mutant and runs its tests."""
        place = find(mutant, self._places, moved)
        if isinstance(place, str):
            return Outcome(mutant.id, place)
        module = next(module for module in self._files if module.path == place.mutant.module)
        tests, executed = selected(place, self._known, self._uses, module.bodies)
        where = f"{module.path}:{module.source.count(bytes([10]), 0, place.start) + 1}"
        if not tests:
            return Outcome(mutant.id, "survived", "no test executes it", where=where)
        box = self._boxes.get()
        began = time.monotonic()
        try:
            write(box.tree / module.path, place.mutated(module.source))
            state, by, why = self._run(box, tests)
        finally:
            write(box.tree / module.path, module.source)
            shutil.rmtree(box.tree / ".hypothesis", ignore_errors=True)
            self._boxes.put(box)
        if state == "survived" and not executed:
            by = "no test is known to execute it"
        return Outcome(mutant.id, state, by, why, len(tests), executed, round(time.monotonic() - began, 1), where)

    def _run(self, box: Sandbox, tests: list[str]) -> tuple[str, str, str]:
        """Runs tests by name; by file, where the mutant changes their names or stops their file from being read."""
        files = list(dict.fromkeys(file_of(test) for test in tests))
        longest = max(seconds for test, seconds in self._known.seconds.items() if file_of(test) in files)
        patience = LEAST_SECONDS + SLOWER * longest
        code, said = _pytest(box, tests, patience)
        if code in (2, 4):
            without = [word for test in self._known.failing for word in ("--deselect", test)]
            code, said = _pytest(box, [*files, *without], patience)
        if code == 1 and LATE.search(said):  # may be due to a busy machine
            code, said = _pytest(box, tests, patience)
        if code == 0:
            return "survived", "", ""
        if code is None:
            return "timeout", f"no test ended within {patience:.0f} s", ""
        crash = re.search(r"^(?:E +|/\S+:\d+: )(\S.*)$", said, re.MULTILINE)
        why = crash[1] if crash else ""
        failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", said, re.MULTILINE)
        if code == 1 or failed:
            return "killed", failed[1] if failed else "a test", why
        if code == 4 and "conftest" in said:
            return "killed", "conftest.py cannot be imported", why
        return "error", f"pytest ended with {code}", said[-300:]


def write(path: Path, source: bytes) -> None:
    """Writes a module, and takes away what was compiled of it: a time in whole seconds may be that of another text."""
    path.write_bytes(source)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def _pytest(box: Sandbox, what: list[str], patience: float) -> tuple[int | None, str]:
    """The exit status of pytest and what it says; no status where it says nothing for too long."""
    said, chosen = box.folder / "said.txt", box.folder / "chosen.txt"
    chosen.write_text("\n".join(what) + "\n", encoding="utf-8")
    words = [str(box.python), "-m", "pytest", "-q", "-x", "-rfE", "--tb=line", *test_options(), f"@{chosen}"]
    with said.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            words, cwd=box.tree, env=box.environment(), stdout=out, stderr=out, start_new_session=True
        )
        size, heard = -1, time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            if said.stat().st_size != size:
                size, heard = said.stat().st_size, time.monotonic()
            if time.monotonic() - heard > patience:
                break
        late = process.returncode is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # processes of tests that were stopped, too
        process.wait()
    return None if late else process.returncode, said.read_text(encoding="utf-8", errors="replace")


def table(mutants: list[Mutant], outcomes: dict[str, Outcome]) -> Iterator[str]:
    """The outcomes as Markdown, survivors first."""
    states = [outcome.state for outcome in outcomes.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    yield f"{len(outcomes)} of {len(mutants)} mutants: {counts or 'none has run'}"
    yield ""
    yield "| mutant | function | kind | change | outcome | by | tests | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | ---: | ---: |"
    for mutant in sorted(mutants, key=lambda mutant: (_last(outcomes.get(mutant.id)), mutant.id)):
        if mutant.id in outcomes:
            got = outcomes[mutant.id]
            change = f"`{_short(mutant.original)}` → `{_short(mutant.replaced)}`"
            name = mutant.function if mutant.function != IMPORTED else f"{Path(mutant.module).stem} {IMPORTED}"
            by = got.by.replace("|", "\\|")
            row = [mutant.id, f"`{name}`", mutant.kind, change, got.state, by, str(got.tests), f"{got.seconds:.0f}"]
            yield f"| {' | '.join(row)} |"


def _last(outcome: Outcome | None) -> int:
    return 1 if outcome is None or outcome.state in ("killed", "timeout") else 0


def _short(text: str) -> str:
    words = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return words if len(words) <= 80 else f"{words[:77]}..."


def main() -> None:
    """Makes the map, draws, or runs the mutants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--map", action="store_true", help="run all default tests and note what they execute")
    what.add_argument("--draw", action="store_true", help="draw the list of mutants, where there is none")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, help="the outcomes as JSON; those in it are kept")
    parser.add_argument("--only", nargs="+", metavar="ID", help="these mutants; default: all")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "odebench-mutants")
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.map:
        make_map(folder)
        return
    if given.draw:
        if LIST.exists():
            sys.exit(f"{LIST} is there: what is to be compared must be the same mutants")
        listed = {"moved": {}, "mutants": [asdict(mutant) for mutant in draw()]}
        LIST.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    listed = json.loads(LIST.read_text(encoding="utf-8"))
    mutants = [Mutant(**mutant) for mutant in listed["mutants"]]
    outcomes: dict[str, Outcome] = {}
    if given.output and given.output.exists():
        kept = json.loads(given.output.read_text(encoding="utf-8"))
        outcomes = {outcome["id"]: Outcome(**outcome) for outcome in kept}
    waiting = [mutant for mutant in mutants if mutant.id in (given.only or [mutant.id]) and mutant.id not in outcomes]
    if waiting:
        known = Map(**json.loads((folder / "map.json").read_text(encoding="utf-8")))
        runner, lock = Runner(known, folder, given.jobs), Lock()

        def run(mutant: Mutant) -> None:
            outcome = runner.judge(mutant, listed["moved"])
            with lock:
                outcomes[mutant.id] = outcome
                said = f"{mutant.id} {mutant.function}: {outcome.state}, {outcome.seconds:.0f} s {outcome.by}"
                print(said, file=sys.stderr, flush=True)
                if given.output:
                    text = json.dumps([asdict(outcomes[name]) for name in sorted(outcomes)], indent=1)
                    given.output.write_text(text + "\n", encoding="utf-8")

        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(run, waiting))
    print("\n".join(table(mutants, outcomes)))


if __name__ == "__main__":
    main()
