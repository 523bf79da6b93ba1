"""Who may import whom, where torch is, how long a module may be, and that no code knows the name of a built-in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from odebench.attack.registry import ATTACKS
from odebench.dataset.registry import DATASETS
from odebench.model.registry import MODELS

ROOT = Path(__file__).parents[1] / "odebench"

# Package: the packages of odebench that it may import, in functions too, beside the modules of the root. Each imports
# only packages that stand before it here.
PACKAGES: dict[str, str] = {
    "io": "",
    "numerics": "",
    "protocol": "io",
    "dataset": "io",
    "model": "io numerics protocol dataset",
    "attack": "io numerics protocol model",
    "result": "io numerics protocol",
    "leaderboard": "io numerics protocol result",
    "analysis": "io numerics protocol result leaderboard",
    "evaluation": "io numerics protocol dataset model attack result",
    "submission": "io numerics protocol dataset model attack result leaderboard evaluation",
    "sweep": "io protocol dataset model attack result leaderboard evaluation",
    "render": "io protocol result leaderboard analysis",
    "cli": "io protocol dataset model attack result leaderboard analysis evaluation submission sweep render",
}
AT_THE_ROOT = {"", "__main__", "errors", "progress", "registry", "solver"}

MOST_LINES = 300
LONGER = {}
"""Modules of more lines, with the reason."""

HEAVY = {"torch", "torchvision", "torchdiffeq", "torchode", "foolbox", "pyautoattack", "sklearn", "scipy"}
LIGHT_PACKAGES = {"protocol", "result", "leaderboard", "analysis", "render", "cli"}
LIGHT_MODULES = {
    *("io.files", "io.yaml_document", "io.canonical_json", "io.https", "io.remote_weights", "io.git", "io.text"),
    *("io.folders", "io.safetensors_file", "io.versions", "io.scratch"),
    *("dataset", "dataset.definition", "dataset.registry", "dataset.builtin", "dataset.load", "dataset.data_folder"),
    *("model.definition", "model.registry", "model.builtin", "model.wall", "model.audit_hook"),
    *(
        "attack.definition",
        "attack.function",
        "attack.registry",
        "attack.builtin",
        "attack.worst_case_stages",
        "attack.probes",
    ),
    *("evaluation.plan", "evaluation.model_reference", "evaluation.transfer_source", "evaluation.slice_files"),
    *("evaluation.checks.rule", "evaluation.checks.reach"),
    *(
        "submission.entry",
        "submission.folder",
        "submission.module_source",
        "submission.weights",
        "submission.file_kind",
    ),
    *("submission.finding", "submission.validate", "submission.new_entry", "submission.published_entry"),
    *("submission.submitted_model", "submission.pull_request", "submission.review", "submission.review_markdown"),
    *(
        "sweep.protocol_cells",
        "sweep.scheduler",
        "sweep.task",
        "sweep.cluster",
        "sweep.completed",
        "sweep.cost",
        "sweep.publish",
    ),
    *("sweep.trainings", "submission.claims"),
}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def short(name: str) -> str:
    return name.removeprefix("odebench").removeprefix(".")


def is_own(name: str) -> bool:
    return name.split(".")[0] == "odebench"


def named(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names, in full."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are written in full"
        module = str(node.module)
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            yield inner if is_own(module) and short(inner) in MODULES else module


def imports(tree: ast.AST) -> set[str]:
    """All modules of the package that a module imports, in functions and for the type checker too."""
    return {short(name) for node in ast.walk(tree) for name in named(node) if is_own(name)}


def imports_at_once(tree: ast.AST) -> set[str]:
    """All modules that importing a module imports: none of its functions', none of the type checker's."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found |= set(named(node)) | imports_at_once(node)
    return found


def package_of(module: str) -> str:
    """The package that a module lies in; "" for the modules of the root."""
    name = module.partition(".")[0]
    return name if (ROOT / name).is_dir() and name else ""


def levels(graph: dict[str, set[str]]) -> list[set[str]]:
    """The nodes by level: each imports only nodes of the levels before it. Nodes in a circle are in no level."""
    done: set[str] = set()
    found: list[set[str]] = []
    while ready := {node for node, needs in graph.items() if node not in done and needs <= done}:
        found.append(ready)
        done |= ready
    return found


def test_the_package_of_a_module_may_import_what_it_imports() -> None:
    wrong = []
    for module, tree in MODULES.items():
        if (package := package_of(module)) not in PACKAGES:
            continue
        allowed = {package, *PACKAGES[package].split()}
        wrong += [
            f"odebench.{module} must not import odebench.{other}"
            for other in sorted(imports(tree))
            if other not in AT_THE_ROOT and package_of(other) not in allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_the_table_promises_no_more_than_is_used() -> None:
    used: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for module, tree in MODULES.items():
        if (package := package_of(module)) in used:
            used[package] |= {package_of(other) for other in imports(tree)} - {package, ""}
    assert used == {package: set(allowed.split()) for package, allowed in PACKAGES.items()}


def test_every_module_lies_in_a_package_of_the_table() -> None:
    at_the_root = {module for module in MODULES if not package_of(module)}
    assert at_the_root == AT_THE_ROOT, "a new module goes into a package"
    assert {package_of(module) for module in MODULES} - {""} == set(PACKAGES)


def test_the_listing_stays_short() -> None:
    """A reader takes in at most ten levels of packages, and modules of one idea."""
    graph = {package: set(allowed.split()) for package, allowed in PACKAGES.items()}
    assert len(levels(graph)) <= 10
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in files.items()}
    long = {module for module, count in lines.items() if count > MOST_LINES}
    assert long <= set(LONGER), f"split, or give a reason in LONGER: {sorted(long - set(LONGER))}"
    assert set(LONGER) <= long, f"strike from LONGER: {sorted(set(LONGER) - long)}"


def test_a_package_imports_only_packages_before_it() -> None:
    before: set[str] = set()
    for package, allowed in PACKAGES.items():
        assert set(allowed.split()) <= before, f"{package} stands too early in PACKAGES"
        before.add(package)


def test_there_is_no_circle_of_modules() -> None:
    graph = {module: imports(tree) - {module} for module, tree in MODULES.items()}
    in_order = set().union(*levels(graph))
    assert in_order == set(graph), f"in a circle: {sorted(set(graph) - in_order)}"


def loaded_with(module: str) -> set[str]:
    """All modules, ours and others', that are imported as soon as `module` is."""
    found: set[str] = set()
    waiting = [f"odebench.{module}"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if is_own(name) and short(name) in MODULES:
            waiting += imports_at_once(MODULES[short(name)])
            waiting += [name.rpartition(".")[0]] * ("." in name)
    return found


def test_torch_is_not_imported_before_it_is_needed() -> None:
    assert set(MODULES) >= LIGHT_MODULES
    light = [m for m in MODULES if package_of(m) in LIGHT_PACKAGES or m in LIGHT_MODULES | AT_THE_ROOT - {"solver"}]
    early = {
        module: sorted(heavy)
        for module in light
        if (heavy := {name.split(".")[0] for name in loaded_with(module)} & HEAVY)
    }
    assert not early, f"importing these modules imports something heavy: {early}"


def test_what_reads_a_leaderboard_opens_no_connection() -> None:
    """Results are read, claims answered and pages drawn from files alone."""
    network = {"odebench.io.https", "odebench.io.remote_weights", "urllib.request", "http.client", "socket"}
    readers = [m for m in MODULES if package_of(m) in {"result", "leaderboard", "analysis", "render"}]
    assert {module: opened for module in readers if (opened := loaded_with(module) & network)} == {}


def test_the_package_itself_imports_the_registry_alone() -> None:
    assert {name for name in imports_at_once(MODULES[""]) if is_own(name)} == {"odebench.registry"}


def test_every_target_in_a_string_exists() -> None:
    targets = {
        node.value
        for tree in MODULES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and re.fullmatch(r"odebench[\w.]*:\w+", str(node.value))
    }
    assert len(targets) > 20
    for target in targets:
        module, _, attribute = target.partition(":")
        assert short(module) in MODULES, target
        defined: set[str] = set()
        for node in MODULES[short(module)].body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign):
                defined |= {name.id for name in node.targets if isinstance(name, ast.Name)}
                defined |= set(texts(node.value)) if "__all__" in ast.unparse(node.targets[0]) else set()
        assert attribute in defined, target


# --- no branch on a name -----------------------------------------------------------------------------------------

BUILT_IN = {
    name
    for registry in (MODELS, ATTACKS, DATASETS)
    for name, entry in registry.entries().items()
    if entry.origin == "built in"
} - {"claims"}
"""Without the one that is also a key of entries and of the page."""


def texts(node: ast.AST | None) -> Iterator[str]:
    """The strings that an expression is, or holds as a tuple, list, set or the keys of a dict."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for element in node.elts:
            yield from texts(element)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            yield from texts(key)
    elif isinstance(node, ast.Call):
        for argument in node.args:
            yield from texts(argument)


def branches(tree: ast.AST) -> list[str]:
    """The names that a comparison, a match, a look-up or a table of cases asks for."""
    found: list[str] = []
    for node in ast.walk(tree):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Dict):
            asked = [node]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = node.args if node.func.attr in ("startswith", "endswith", "get") else []
        found += [text for part in asked for text in texts(part) if text in BUILT_IN]
    return found


def test_no_code_asks_for_a_built_in_name() -> None:
    tables = {"registry", "builtin"}  # where the names are
    found = {m: branches(tree) for m, tree in MODULES.items() if m.rpartition(".")[2] not in tables}
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        'name == "pgd"',
        '"digits" != name',
        'name in ("fgsm", "other")',
        'name in {"ode"}',
        'x if name in frozenset(["resnet"]) else y',
        'match name:\n    case "cw":\n        pass',
        'match name:\n    case "x" | "mnist":\n        pass',
        '{"kd-ode": 1}[name]',
        'settings["cifar10"]',
        'settings.get("svhn")',
        'name.startswith("ode")',
    ],
)
def test_a_branch_on_a_name_would_be_found(code: str) -> None:
    assert len(branches(ast.parse(code))) == 1


def test_a_default_is_no_branch() -> None:
    assert branches(ast.parse('def run(dataset="digits", *, attacks=("pgd",)): return dataset == "mine"')) == []
