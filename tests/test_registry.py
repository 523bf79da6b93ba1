"""Names stay strings until they are used, nobody shadows a name, and a bad plugin is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from odebench.attack.registry import ATTACKS
from odebench.dataset.registry import DATASETS
from odebench.errors import OdebenchError, UsageError
from odebench.model.registry import MODELS
from odebench.registry import Registry, RegistryEntry, RegistryError, load_target

FIRST = SimpleNamespace(name="first", summary="the first one")
SECOND = SimpleNamespace(name="second", summary="the second one")
CHECKOUT = Path(__file__).parents[1]


def registry(built_in: str = __name__) -> Registry:
    return Registry("thing", "odebench.things", built_in=built_in)


def plug(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str, str | None]) -> None:
    """Installs plugins: (name, target, "distribution version")."""

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "odebench.things"
        found = []
        for name, target, who in points:
            point = EntryPoint(name, target, group)
            if who is not None:
                distribution, version = who.split()
                vars(point)["dist"] = SimpleNamespace(name=distribution, version=version)
            found.append(point)
        return found

    monkeypatch.setattr("odebench.registry.entry_points", entry_points)


def plugin_module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "plugin_under_test.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "plugin_under_test", raising=False)


def test_entries_keep_the_order_and_import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, ("third", "also.never.imported:X", "pack 1.2"))
    before = set(sys.modules)
    assert registry().entries() == {
        "first": RegistryEntry("first", f"{__name__}:FIRST", "the first one", "built in"),
        "second": RegistryEntry("second", f"{__name__}:SECOND", "the second one", "built in"),
        "third": RegistryEntry("third", "also.never.imported:X", "from the plugin pack 1.2", "pack 1.2"),
    }
    assert registry().entry("second").target == f"{__name__}:SECOND"
    assert set(sys.modules) == before


@pytest.mark.parametrize("kept", [MODELS, ATTACKS, DATASETS], ids=lambda kept: kept.kind)
def test_every_built_in_name_loads_a_definition_of_that_name(kept: Registry) -> None:
    assert kept.entries()
    for name, entry in kept.entries().items():
        assert kept.load(name).name == name
        assert entry.origin == "built in"
        assert 10 < len(entry.summary) < 70, "one line of a table"


@pytest.mark.parametrize(
    ("name", "near"), [("frist", " did you mean 'first'?"), ("secnod", " did you mean 'second'?"), ("qqq", "")]
)
def test_an_unknown_name_gets_the_nearest_match_and_the_list(name: str, near: str) -> None:
    for ask in (registry().entry, registry().load):
        with pytest.raises(UsageError) as caught:
            ask(name)
        assert str(caught.value) == f"unknown thing '{name}';{near} known: first, second"


def test_a_registry_without_names_says_none() -> None:
    with pytest.raises(UsageError, match=r"unknown thing 'x'; known: none$"):
        registry("odebench.errors").entry("x")


def test_a_plugin_is_loaded_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_module(
        tmp_path,
        monkeypatch,
        "from types import SimpleNamespace as N\nclass Inner:\n    DEEP = N(name='third')\nBARE = object()\n",
    )
    plug(
        monkeypatch, ("third", "plugin_under_test:Inner.DEEP", "pack 1.2"), ("bare", "plugin_under_test:BARE", "pack 1")
    )
    assert "third" in registry().entries()
    assert "plugin_under_test" not in sys.modules
    assert registry().load("third").name == "third"
    assert registry().load("bare") is sys.modules["plugin_under_test"].BARE


@pytest.mark.parametrize(
    ("points", "sides"),
    [
        (
            [("third", "a:X", "one 1.0"), ("third", "b:Y", "two 2.0")],
            ["a:X (one 1.0)", "b:Y (two 2.0)", "'third'"],
        ),
        ([("third", "a:X", "one 1.0"), ("third", "a:X", "two 2.0")], ["a:X (one 1.0)", "a:X (two 2.0)"]),
        ([("third", "a:X", None), ("third", "b:Y", None)], ["a:X (an unnamed distribution)", "b:Y (an unnamed"]),
        (
            [("first", "a:X", "one 1.0")],
            [f"{__name__}:FIRST (built in)", "a:X (one 1.0)", "'first'"],
        ),
        ([("first", f"{__name__}:FIRST", "one 1.0")], ["(built in)", "(one 1.0)"]),
    ],
    ids=["two plugins", "one target, two plugins", "unnamed", "a built-in name", "a built-in name and target"],
)
def test_a_name_clash_names_both_sides(
    points: list[tuple[str, str, str | None]], sides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(monkeypatch, *points)
    for ask in (registry().entries, lambda: registry().entry("second"), lambda: registry().load("second")):
        with pytest.raises(RegistryError, match=r"^two things are called '\w+': .* rename or uninstall one") as caught:
            ask()
        for side in sides:
            assert side in str(caught.value)


def test_one_plugin_found_twice_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, ("third", "a:X", "one 1.0"), ("third", "a:X", "one 1.0"))
    assert registry().entries()["third"].origin == "one 1.0"


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        (None, "no_such_module_at_all:X", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("Y = 1", "plugin_under_test:X", "AttributeError: .* has no attribute 'X'"),
        ("Y = 1", "plugin_under_test", "ValueError: 'plugin_under_test' is not of the form module:attribute"),
        ("X = nonsense", "plugin_under_test:X", "NameError: name 'nonsense' is not defined"),
        ("X = (", "plugin_under_test:X", "SyntaxError: .*never closed"),
        ("raise RuntimeError('needs a card')", "plugin_under_test:X", "RuntimeError: needs a card"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_an_error_that_names_it(
    source: str | None, target: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source is not None:
        plugin_module(tmp_path, monkeypatch, source)
    plug(monkeypatch, ("third", target, "pack 1.2"))
    assert "third" in registry().entries()
    with pytest.raises(RegistryError, match=rf"^the thing 'third' \(pack 1\.2\) cannot be loaded: {why}"):
        registry().load("third")


def test_a_plugin_whose_definition_has_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_module(tmp_path, monkeypatch, "from types import SimpleNamespace\nX = SimpleNamespace(name='fourth')")
    plug(monkeypatch, ("third", "plugin_under_test:X", "pack 1.2"))
    with pytest.raises(RegistryError, match=r"'third' \(pack 1\.2\) cannot be used: .* calls itself 'fourth'"):
        registry().load("third")


@pytest.mark.parametrize("target", ["", ":", "a", "a.b"])
def test_load_target_wants_module_and_attribute(target: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form module:attribute|Empty module name"):
        load_target(target)


def test_errors_of_the_registry_are_one_of_ours() -> None:
    assert issubclass(RegistryError, OdebenchError)
    assert RegistryError.exit_code == 1
    assert UsageError.exit_code == 2


PLUGIN = '''
"""A model and an attack of a plugin."""
from odebench.attack.definition import AttackDefinition
from odebench.model.definition import ModelDefinition, Setting
from odebench.protocol.recipe import Schedule

TWIST = AttackDefinition("twist", "twisted:twist", ("linf",), {"share": 1.0})
LINEAR = ModelDefinition(
    "linear",
    "twisted:Linear",
    {1: Setting({}, Schedule(epochs=1, batch_size=128, learning_rate=0.1, weight_decay=0.0, warmup=0.0))},
    has_horizon=False,
)


def __getattr__(name):
    import torch

    class Linear(torch.nn.Module):
        def __init__(self, image_shape, n_classes):
            super().__init__()
            self.layer = torch.nn.Linear(torch.Size(image_shape).numel(), n_classes)

        def forward(self, images):
            return self.layer(images.flatten(1))

    def twist(model, images, labels, *, norm, epsilon, seed, fallen, share):
        images = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        step = torch.autograd.grad(loss, images)[0].sign()
        return (images.detach() + share * epsilon * step).clamp(0, 1)

    found = {"Linear": Linear, "twist": twist}
    if name not in found:
        raise AttributeError(name)
    return found[name]
'''


def test_an_installed_plugin_is_listed_and_used(tmp_path: Path) -> None:
    site = tmp_path / "site"
    information = site / "twisted_pack-0.3.dist-info"
    information.mkdir(parents=True)
    (site / "twisted.py").write_text(PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: twisted-pack\nVersion: 0.3\n")
    (information / "entry_points.txt").write_text(
        "[odebench.attacks]\ntwist = twisted:TWIST\n\n[odebench.models]\nlinear = twisted:LINEAR\n"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(CHECKOUT)]), "COLUMNS": "80"}

    def odebench(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "odebench", *words],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert any(line.split()[0] == "linear" and "twisted-pack 0.3" in line for line in odebench("models").splitlines())
    assert "twisted-pack 0.3" in odebench("attacks")
    said = odebench(
        "run",
        "-m",
        "linear",
        "-a",
        "twist",
        "-n",
        "20",
        "--chunk",
        "20",
        "--parameter",
        "share=0.5",
        "--epsilon",
        "0.1",
    )
    assert "linear on digits (test), 20 images, twist in linf" in said
    assert [path.parent.name for path in (empty / "results").rglob("*.json")] == ["linear"]
