"""A model of one's own on the command line: a file or a module, weights, --trust; no entry."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import save_file
from small_model import SmallOde, linear

from odebench.cli import _exit_code
from odebench.dataset.builtin import DIGITS
from odebench.io.files import sha256_file
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step
from odebench.result.file import read_result, result_files
from odebench.submission.local_imports import local_imports
from odebench.submission.own_model import own_model

RUN = "--weights net.safetensors -a fgsm -n 20 --chunk 20 --trust"
NET = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, 64))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T + self.bias
"""
ODE = """\
import odebench
from torch import nn

class Ode(nn.Module):
    def __init__(self, horizon=1.0, solver=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 16))
        self.rate = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)
        self.horizon, self.solver = horizon, solver or odebench.fixed_step("rk4", step=0.5)

    def field(self, t, state):
        return self.rate(state)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_net.py").write_text(NET)
    (tmp_path / "nets" / "small").mkdir(parents=True)
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "small" / "__init__.py").write_text("")
    (tmp_path / "nets" / "small" / "plain.py").write_text("from ..base import Net\n")
    (tmp_path / "nets" / "base.py").write_text(NET)
    (tmp_path / "ode.py").write_text(ODE)
    (tmp_path / "half.py").write_text("class Net(")
    (tmp_path / "odd.py").write_bytes(b"\xff")
    (tmp_path / "wide.py").write_text(NET.replace("n_classes)", "n_classes, width)", 1))
    save_file(dict(linear(10).state_dict()), "net.safetensors")
    with seeded(0):
        save_file(dict(SmallOde().state_dict()), "ode.safetensors")
    return tmp_path


def typed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["odebench", *line.split()])
    code = _exit_code()
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("model", ["my_net.py:Net", "nets.small.plain:Net"])
def test_a_file_or_a_module_is_run_with_its_weights(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(f"run -m {model} {RUN}", monkeypatch, capsys)
    assert code == 0, err
    assert out.startswith("Net on digits (test), 20 images, fgsm in linf\n")
    (path,) = result_files(Path("results"))
    result = read_result(path)
    assert result.evaluation.model.other_arguments.keys() == {"code"}
    assert result.found.weights_sha256 == result.evaluation.model.weights
    assert result.evaluation.horizon is None


@pytest.mark.usefixtures("place")
def test_other_code_is_another_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert typed(f"run -m my_net.py:Net {RUN}", monkeypatch, capsys)[0] == 0
        Path("my_net.py").write_text(NET.replace("images.flatten(1)", "(-images).flatten(1)"))
    first, second = (read_result(path) for path in result_files(Path("results")))
    assert first.epsilons[0].outcomes != second.epsilons[0].outcomes


@pytest.mark.usefixtures("place")
def test_a_field_is_integrated_at_its_own_horizon_or_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"run -m ode.py:Ode {RUN.replace('net.', 'ode.')}"
    for more, nfe in (("", 8), (" --horizon 2", 16), (" --solver euler --step 0.5", 2)):
        code, out, err = typed(line + more, monkeypatch, capsys)
        assert code == 0, err
        assert f"NFE {nfe} clean" in out
    evaluations = [read_result(path).evaluation for path in result_files(Path("results"))]
    assert {one.horizon for one in evaluations} == {1.0, 2.0}
    assert fixed_step(step=0.5) in {one.solver for one in evaluations}


@pytest.mark.usefixtures("place")
def test_a_constructor_is_given_what_it_needs_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("asks.py").write_text(ODE.replace("horizon=1.0, solver=None", "horizon, solver, step"))
    line = f"run -m asks.py:Ode {RUN.replace('net.', 'ode.')}"
    for more, nfe in (("", 16), (" --horizon 2 --solver rk4 --step 0.5", 16)):
        code, out, err = typed(line + more, monkeypatch, capsys)
        assert code == 0, err
        assert f"NFE {nfe} clean" in out
    assert {read_result(path).evaluation.horizon for path in result_files(Path("results"))} == {1.0, 2.0}


@pytest.mark.usefixtures("place")
def test_a_constructor_with_kwargs_is_given_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("inner.py").write_text(
        f"{NET}\nclass Inherits(Net):\n    def __init__(self, horizon, **kwargs):\n"
        "        assert set(kwargs) == {'image_shape', 'n_classes'} and horizon == 1\n"
        "        super().__init__(kwargs['n_classes'])\n"
    )
    code, _, err = typed(f"run -m inner.py:Inherits {RUN}", monkeypatch, capsys)
    assert code == 0, err


@pytest.mark.usefixtures("place")
def test_a_module_that_integrates_by_itself_gets_its_horizon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = NET.replace("n_classes)", "n_classes, horizon)", 1).replace(
        "super().__init__()", "super().__init__(); self.T = horizon"
    )
    Path("scaled.py").write_text(scaled.replace("images.flatten(1)", "self.T * images.flatten(1)"))
    assert typed(f"run -m scaled.py:Net {RUN}", monkeypatch, capsys)[0] == 0
    assert typed(f"run -m scaled.py:Net {RUN} --horizon 2", monkeypatch, capsys)[0] == 0
    assert "horizon -1 must be" in typed(f"run -m scaled.py:Net {RUN} --horizon -1", monkeypatch, capsys)[2]
    said = "Net integrates by itself: it takes --horizon, no --solver\n"
    assert said in typed(f"run -m scaled.py:Net {RUN} --solver euler --step 0.5", monkeypatch, capsys)[2]
    Path("scaled.py").write_text(Path("scaled.py").read_text().replace("n_classes, horizon", "n_classes, horizon=1.0"))
    assert said in typed(f"run -m scaled.py:Net {RUN} --solver euler --step 0.5", monkeypatch, capsys)[2]
    evaluations = [read_result(path).evaluation for path in result_files(Path("results"))]
    assert {one.model.arguments["horizon"] for one in evaluations} == {1.0, 2.0}
    assert {one.horizon for one in evaluations} == {None}


@pytest.mark.usefixtures("place")
def test_a_change_in_a_local_import_is_another_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("uses.py").write_text(
        "from parts.signs import sign\n" + NET.replace("images.flatten", "(sign * images).flatten")
    )
    Path("parts").mkdir()
    Path("parts/signs.py").write_text("sign = 1\n")
    Path("other.py").write_text("sign = 1\n")
    assert typed(f"run -m uses.py:Net {RUN}", monkeypatch, capsys)[0] == 0
    Path("other.py").write_text("sign = 2\n")
    assert "there already" in typed(f"run -m uses.py:Net {RUN}", monkeypatch, capsys)[1]
    Path("parts/signs.py").write_text("sign = -1\n")
    assert typed(f"run -m uses.py:Net {RUN}", monkeypatch, capsys)[0] == 0
    first, second = (read_result(path) for path in result_files(Path("results")))
    assert first.epsilons[0].outcomes != second.epsilons[0].outcomes
    assert not any(name.startswith("parts") for name in sys.modules)


def code_of(model: str) -> JsonValue:
    found = own_model(model, Path("net.safetensors"))
    resolved = found.resolve(DIGITS, horizon=None, train_horizon=None, train_seed=0, changes={})
    return resolved.arguments["code"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("model", "shared"), [("nets.sub:Net", "shared.py"), ("late.py:Net", "shared.py"), ("far.py:Net", "lib/away.py")]
)
def test_code_that_is_found_only_as_it_runs_tells_versions_apart(model: str, shared: str) -> None:
    Path("nets/sub.py").write_text(f"import shared\n{NET}")
    Path("late.py").write_text(f"import importlib\nimportlib.import_module('shared')\n{NET}")
    Path("far.py").write_text(f"import away\n{NET}")
    Path("lib").mkdir()
    sys.path.append(os.path.abspath("lib"))
    codes = []
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        Path(shared).write_text(text)
        codes.append(code_of(model))
        sys.modules.pop("away", None)
    assert codes[0] == codes[2] != codes[1]


@pytest.mark.usefixtures("place")
def test_each_of_several_models_is_known_by_what_they_share() -> None:
    for name in ("one", "two"):
        Path(name).mkdir()
        Path(name, "net.py").write_text(f"from common.parts import x\n{NET}")
    Path("lib/common").mkdir(parents=True)
    Path("lib/common/parts.py").write_text("from .deeper import x\n")
    sys.path.append(os.path.abspath("lib"))
    codes = []
    for text in ("x = 1\n", "x = 2\n"):
        Path("lib/common/deeper.py").write_text(text)
        codes += [code_of("one/net.py:Net"), code_of("two/net.py:Net")]
        for module in [one for one in sys.modules if one.partition(".")[0] == "common"]:
            del sys.modules[module]
    assert codes[0] == codes[1] != codes[2] == codes[3]


@pytest.mark.usefixtures("place")
def test_code_without_local_imports_is_known_by_its_file() -> None:
    assert code_of("my_net.py:Net") == sha256_file(Path("my_net.py"))[:12]
    Path("lazy.py").write_text(f"import torch, wave, odebench.model.foreign_module\n{NET}")
    assert code_of("lazy.py:Net") == sha256_file(Path("lazy.py"))[:12]


@pytest.mark.usefixtures("place")
def test_of_an_installed_package_nothing_is_read_but_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("site-packages").mkdir()
    Path("nets").rename("site-packages/theirs")
    sys.path.append(os.path.abspath("site-packages"))
    read: list[Path] = []

    def digest(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("odebench.submission.own_model.sha256_file", digest)
    code = Path("site-packages/theirs/small/plain.py").absolute()
    assert code_of("theirs.small.plain:Net") == sha256_file(code)[:12]
    assert read == [code]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("outside", [False, True])
def test_a_package_and_a_module_of_one_name_both_count(outside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("shared") if outside else Path()
    (folder / "hp").mkdir(parents=True)
    if outside:
        monkeypatch.syspath_prepend(str(folder.absolute()))
    Path("net.py").write_text(f"import hp\n{NET}")
    keys = set()
    for package, module in (("x = 1", "y = 1"), ("x = 2", "y = 1"), ("x = 1", "y = 2")):
        (folder / "hp" / "__init__.py").write_text(package)
        (folder / "hp.py").write_text(module)
        keys.add(code_of("net.py:Net"))
    assert len(keys) == 3


def test_an_import_of_a_name_that_no_file_can_have_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"import {'x' * 300}\nimport other\n")
    (tmp_path / "other.py").write_text("")
    assert local_imports(tmp_path / "net.py", tmp_path) == {tmp_path / "other.py": "other"}


def test_local_imports_are_found_wherever_they_are_written(tmp_path: Path) -> None:
    files = {
        "net.py": "import torch, a\nfrom pack import inner\ndef later():\n    from pack.lazy import x\n",
        "a.py": "import b as c\nimport net\n",
        "b.py": "this is no Python",
        "pack/__init__.py": "",
        "pack/inner.py": "from . import sibling\nfrom .deep.er import y\n",
        "pack/sibling.py": "",
        "pack/lazy.py": "",
        "pack/deep/er.py": "from ..far import z\n",
        "pack/far.py": "",
        "unused.py": "",
        "pack/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [path.relative_to(tmp_path).as_posix() for path in local_imports(tmp_path / "net.py", tmp_path)]
    assert found == sorted(set(files) - {"net.py", "unused.py", "pack/unused.py"})
    inner = local_imports(tmp_path / "pack/inner.py", tmp_path)
    assert [*inner.values()] == ["pack", "pack.deep.er", "pack.far", "pack.sibling"]
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "one.py").write_text("import two")
    (tmp_path / "site-packages" / "two.py").write_text("")
    installed = tmp_path / "site-packages"
    assert local_imports(installed / "one.py", installed) == {}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "wide.py:Net -a pgd --trust --weights net.safetensors",
            "wide.py:Net needs width, which odebench does not give: it gives horizon, solver, step, image_shape, n_c",
        ),
        (
            "my_net.py:Net -a pgd --trust",
            "Net needs --weights FILE.safetensors; write it by safetensors.torch.save_file(",
        ),
        (
            "my_net.py:Net -a pgd --weights net.safetensors",
            "my_net.py, with all that you may do here: read it, then give --trust",
        ),
        ("my_net.py:Net -a pgd", "read it, then give --trust, and --weights FILE.safetensors"),
        ("my_net.py:net -a pgd --trust", "unknown name in"),
        ("half.py:Net -a pgd --trust", "half.py, line 1: is not Python: "),
        ("odd.py:Net -a pgd --trust", "odd.py cannot be read: 'utf-8' codec"),
        ("your_net.py:Net -a pgd --trust", "there is no file your_net.py for --model your_net.py:Net"),
        ("nets.large:Net -a pgd --trust", "there is no module nets.large for --model nets.large:Net; give a file"),
        (
            "my_net.py: -a pgd --trust",
            "'my_net.py:' must be FILE.py:NAME or package.module:NAME, such as my_",
        ),
        ("my_net.py:Net -a pgd --trust --horizon 2 --weights net.safetensors", "Net exposes no field to integrate"),
        ("my_net.py:Net -a pgd --trust --set epochs=2 --weights net.safetensors", "Net is code of your own, without a"),
        ("ode.py:Ode -a pgd --trust --weights net.safetensors", "net.safetensors"),
        ("my_net.py:nn -a pgd --trust --weights net.safetensors", "my_net.py:nn cannot be built without arguments: "),
    ],
)
def test_what_cannot_be_run_is_one_line(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(f"run -m {line}", monkeypatch, capsys)
    assert code in (1, 2)
    assert out == ""
    assert said in err.rstrip()
    assert ("and --weights FILE" in err) is ("--weights" not in line and "--trust" not in line)
    assert len(err.splitlines()) == 1
    assert not list(Path().rglob("*.json"))
    assert torch.is_grad_enabled()
