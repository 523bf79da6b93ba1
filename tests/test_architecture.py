"""The package has layers: who may import whom, where torch is, and that no code knows a built-in's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from odebench.registry import ATTACKS, DATASETS, MODELS

ROOT = Path(__file__).parents[1] / "odebench"

# Layer: (its modules below odebench, the layers that it imports). A module imports, in functions too, only modules
# that stand before it here. "" is the package itself, a bare folder name the folder's __init__.
LAYERS: dict[str, tuple[str, str]] = {
    "ground": ("errors progress statistic document", ""),
    "value": ("spec file download remote registry protocol", "ground"),
    "record": ("recipe consistency result result_file summary", "ground value"),
    "board": (
        "union credit table leaderboard section contrast claim example difference repository revision frame render "
        "render.markdown render.claim render.difference render.record render.curve "
        "render.terminal render.chart render.panel render.plot render.picture render.board "
        "profile render.sheet render.page publication",
        "ground value record",
    ),
    "dataset": (
        "dataset.definition dataset.order dataset.base dataset.archive dataset.download dataset.decoded "
        "dataset.builtin dataset.digits dataset.idx dataset.cifar10 dataset.svhn dataset.folder dataset.load dataset",
        "ground value",
    ),
    "definition": (
        "attack attack.definition attack.builtin attack.worst_case attack.diagnosis model "
        "model.definition model.builtin subject source plan replan grid estimate slicing",
        "ground value record dataset",
    ),
    "entry": (
        "finding licence header entry contents listed_weights validation submission published_entry entrant",
        "ground value record dataset definition",
    ),
    "model": (
        "arithmetic solver model.layer model.ode model.resnet model.classifier checkpoint candidate ball adversary "
        "training",
        "ground value record dataset",
    ),
    "attack": (
        "attack.seed attack.surface attack.pursuit attack.trace attack.target attack.foolbox attack.autoattack "
        "attack.spsa attack.given attack.transfer",
        "ground model",
    ),
    "verdict": ("verdict ledger", "value record model attack"),
    "check": (
        "check check.rule check.setting check.model check.gradient check.comparison",
        "ground value record definition model attack verdict",
    ),
    "evaluation": (
        "environment groundwork siege examination portion execution "
        "contribution supply evaluation instalment illustration control",
        "ground value record board dataset definition entry model attack verdict check",
    ),
    "verification": (
        "guard inspection isolation admission committed agreement sampling repetition verification",
        "ground value record dataset definition entry model evaluation check",
    ),
    "sweep": (
        "task inventory cluster probe sweep deposit",
        "ground value record dataset definition model evaluation",
    ),
    "review": ("pull_request review render.review", "ground value record board definition entry verification"),
    "package": ("", "ground value record board dataset definition model attack evaluation"),
    "command": (
        "cli.root cli.option cli.screen cli.trust cli.watch cli.run cli.diagnose cli.judge cli.serve cli.board "
        "cli.example cli.sweep cli.claim cli.compare cli.entry cli.verify cli.review cli.listing cli __main__",
        "ground value record board dataset definition entry model evaluation verification sweep review package",
    ),
}
# An image folder is found by the module that loads it in the end.
LATER = {("dataset.folder", "dataset.load")}

HEAVY = {"torch", "torchvision", "torchdiffeq", "torchode", "foolbox", "pyautoattack", "sklearn", "scipy"}
LIGHT_LAYERS = ("ground", "value", "record", "board", "definition", "entry", "package", "command")
LIGHT_MODULES = {
    "task",
    "cluster",
    "sweep",
    "inventory",
    "deposit",
    "pull_request",
    "review",
    "render.review",
    "dataset",
    "dataset.definition",
    "dataset.builtin",
    "dataset.load",
    "check.rule",
    "check.setting",
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


def order() -> list[str]:
    """All modules of the table, in its order."""
    return [module for names, _ in LAYERS.values() for module in (names.split() or [""])]


def layer_of(module: str) -> str:
    return next(layer for layer, (names, _) in LAYERS.items() if module in (names.split() or [""]))


def test_every_module_has_one_place() -> None:
    assert len(order()) == len(set(order())), "a module is named twice"
    missing, gone = set(MODULES) - set(order()), set(order()) - set(MODULES)
    assert not missing, f"give these modules a place in LAYERS: {sorted(missing)}"
    assert not gone, f"strike these from LAYERS: {sorted(gone)}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    if module not in order():
        pytest.fail(f"odebench.{module} has no place in LAYERS")
    before = order()[: order().index(module)]
    wrong = {other for other in imports(MODULES[module]) - set(before) if (module, other) not in LATER}
    assert not wrong, f"odebench.{module} must not import {sorted(wrong)}"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_the_layers_that_the_table_names(layer: str) -> None:
    names, allowed = LAYERS[layer]
    used = {layer_of(other) for module in (names.split() or [""]) for other in imports(MODULES[module])} - {layer}
    promised = set(allowed.split())
    assert used == promised, f"{layer}: not named {sorted(used - promised)}, not used {sorted(promised - used)}"


def test_there_is_no_circle() -> None:
    graph = {module: imports(tree) - {module} for module, tree in MODULES.items()}
    for module, later in LATER:
        graph[module] -= {later}
    done: set[str] = set()
    while ready := {module for module, needs in graph.items() if module not in done and needs <= done}:
        done |= ready
    assert done == set(graph), f"in a circle: {sorted(set(graph) - done)}"


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


@pytest.mark.parametrize(
    "module", [m for layer in LIGHT_LAYERS for m in (LAYERS[layer][0].split() or [""])] + sorted(LIGHT_MODULES)
)
def test_torch_is_not_imported_before_it_is_needed(module: str) -> None:
    heavy = {name.split(".")[0] for name in loaded_with(module)} & HEAVY
    assert not heavy, f"importing odebench.{module} imports {sorted(heavy)}"


def test_the_leaderboard_can_be_read_without_anything_that_computes() -> None:
    reads = {"", "errors", "file", "registry", "spec", "statistic", "consistency", "result", "result_file"}
    board = set(LAYERS["board"][0].split())
    for module in board:
        ours = {short(name) for name in loaded_with(module) if is_own(name)}
        assert ours <= reads | board, f"odebench.{module} imports {sorted(ours - reads - board)}"


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
}


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


@pytest.mark.parametrize("module", [m for m in MODULES if m != "registry" and m.rpartition(".")[2] != "builtin"])
def test_no_code_asks_for_a_built_in_name(module: str) -> None:
    assert branches(MODULES[module]) == []


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
