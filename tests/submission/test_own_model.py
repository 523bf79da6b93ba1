"""A model of one's own on the command line: a file or a module, weights, --trust; no entry."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_model import SmallOde, linear

from odebench.cli import _exit_code
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step
from odebench.result.file import read_result, result_files

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
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "my_net.py:Net -a pgd --trust",
            "Net needs --weights FILE.safetensors; write it by safetensors.torch.save_file(",
        ),
        ("my_net.py:Net -a pgd --weights net.safetensors", "my_net.py, with all that you may do here: read it, then"),
        ("my_net.py:net -a pgd --trust", "unknown name in"),
        ("your_net.py:Net -a pgd --trust", "there is no file your_net.py for --model your_net.py:Net"),
        ("nets.large:Net -a pgd --trust", "there is no module nets.large for --model nets.large:Net; give a file"),
        (
            "my_net.py: -a pgd --trust",
            "'my_net.py:' must be FILE.py:NAME or package.module:NAME, such as my_",
        ),
        ("my_net.py:Net -a pgd --trust --horizon 2 --weights net.safetensors", "Net exposes no field to integrate"),
        ("my_net.py:Net -a pgd --trust --set epochs=2 --weights net.safetensors", "Net is code of your own, without a"),
        ("ode.py:Ode -a pgd --trust --weights net.safetensors", "net.safetensors"),
        ("my_net.py:nn -a pgd --trust --weights net.safetensors", "my_net.py:nn cannot be built"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(f"run -m {line}", monkeypatch, capsys)
    assert code in (1, 2)
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(Path().rglob("*.json"))
    assert torch.is_grad_enabled()
