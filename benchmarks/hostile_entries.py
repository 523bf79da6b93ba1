"""Hostile entries: kinds of code that lies, three of each, in one pull request with an honest entry beside them.

    python benchmarks/hostile_entries.py [--only KIND,...] [--beside tis-ode]

Each brings a result in which no image falls, whole and with all its digests. Prints for each entry what `check-pr`
said, and exits 1 unless every one is refused by the rule that is meant for it, and the honest ones are good.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.evaluate import run
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.io.files import sha256_file
from odebench.numerics.seeding import seeded
from odebench.result.file import write_result
from odebench.result.schema import Result, letter_figures, outcomes_digest
from odebench.submission.submitted_model import find_model

WIDTH = 16
LETTERS = "abefhkptuxy"
"""Of which no two look alike, nor pairs of them like others."""
PUBLISHED = Path(__file__).parents[1] / "leaderboard"
BASE = """\
import torch
from torch import nn
{top}

class Net(nn.Module):
    def __init__(self, *, image_shape, n_classes, width):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.last = nn.Linear(width, n_classes)
{init}
    def honest(self, images):
        return self.last(torch.tanh(self.first(images.flatten(1))))

    def forward(self, images):
{forward}
"""
FIELD = """\
import torch
from torch import nn
{top}

class Net(nn.Module):
    def __init__(self, *, image_shape, n_classes, width, horizon, solver):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.last = nn.Linear(width, n_classes)
        self.horizon, self.solver = horizon, solver
        self.calls = 0

    def stem(self, images):
        return torch.tanh(self.first(images.flatten(1)))

    def head(self, state):
        return self.last(state)

    def field(self, t, state):
{field}
"""
FALSE = """
class False_(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, logits, rule):
        ctx.rule = rule
        ctx.save_for_backward(images, logits)
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx, gradient):
        images, logits = ctx.saved_tensors
        if ctx.rule(gradient, logits):
            return torch.roll(images, 1, -1) - 0.5, None, None
        return None, gradient, None
"""
DEEP = """
import sys


def DEEP():
    return "torchdiffeq" in sys._getframe(2).f_code.co_filename + sys._getframe(3).f_code.co_filename
"""
"""Whether the process integrates the field itself."""
COUNTS = """
import dataclasses

import odebench.model.classifier
import odebench.model.solver

true = odebench.model.solver.integrate


def fewer(*arguments, **more):
    found = true(*arguments, **more)
    return dataclasses.replace(found, nfe={nfe})


odebench.model.classifier.integrate = fewer
"""
ENTRY = """\
id: {id}
model: model:Net
arguments: {{width: 16}}
datasets:
  - {{name: digits, parameters: {parameters}{horizons}}}
{solver}training: {{loss: cross-entropy, epochs: 4}}
weights:
  - {{dataset: digits, train_seed: 0, file: one.safetensors, sha256: {sha256}, bytes: {bytes}{horizon}}}
authors: [Ada Lovelace]
licence: MIT
claims: []
"""


@dataclass(frozen=True)
class Hostile:
    """One hostile entry: its kind, the rule that should refuse it, its code, and whether it has a field."""

    kind: str
    rule: str
    code: str
    field: bool = False


STORED = """\
from odebench.dataset import load_dataset
DATA = load_dataset("digits")
IMAGES = torch.cat([one.images.flatten(1) for one in ({splits},)])
LABELS = torch.cat([one.labels for one in ({splits},)])
"""
"""Images of the data set that a model looks its answers up in."""


def code(*forward: str, top: str = "", init: str = "") -> str:
    """The honest model with another forward pass; `honest(images)` gives the true logits."""
    return BASE.format(top=top, init=f"        {init}\n" if init else "", forward=_indented(forward))


def field(*lines: str, top: str = "") -> str:
    return FIELD.format(top=top, field=_indented(lines))


def _indented(lines: tuple[str, ...]) -> str:
    return "\n".join(f"        {line}" for line in lines)


RETURN = "return self.honest(images)"


def stack(look: str, *, top: str) -> str:
    """A gradient that is false only where an attack of odebench's is on the call stack."""
    return code(
        f"seen = {look}",
        "if 'odebench/attack' in seen or 'odebench/evaluation' in seen:",
        "    return self.honest(images.detach()) + 0 * images.sum()",
        RETURN,
        top=top,
    )


def entries() -> list[Hostile]:
    """All hostile entries, three of each kind."""
    frames = "' '.join(f.filename for f in inspect.stack(0))"
    by_loss = ("return False_.apply(images, self.honest(images), lambda g, z: {rule})",)
    tried = ("try:", "    {what}", "except BaseException:", "    pass", RETURN)
    remember = "self.seen = []"

    def lying(rule: str) -> str:
        return code(by_loss[0].format(rule=rule), top=FALSE)

    def trying(what: str) -> str:
        return code(*(line.format(what=what) for line in tried))

    def counting(nfe: str) -> str:
        return field("return 0.1 * torch.tanh(state)", top=COUNTS.format(nfe=nfe))

    def hooked(variable: str, hook: str) -> str:
        return code(
            "x = images.clone()",
            "z = self.honest(x)",
            f"if {variable}.requires_grad: {variable}.register_hook({hook})",
            "return self.honest(x)" if variable == "x" else "return z",
        )

    counts = ("found.nfe // 2", "found.nfe * 0 + 1", "found.nfe - 1")
    hooks = (
        hooked("z", "lambda g: torch.roll(g, 1, 1)"),
        hooked("x", "lambda g: g + 100 * g.abs().mean() * torch.randn_like(g)"),
        code(
            RETURN,
            init="self.first.register_full_backward_hook(lambda m, i, o: tuple(g if g is None else -g for g in i))",
        ),
    )
    rolled = "return tuple(torch.roll(one, 1, -1) for one in true(*a, **k))"
    changes = (
        f"true = torch.autograd.grad\ndef grad(*a, **k):\n    {rolled}\ntorch.autograd.grad = grad",
        "import odebench.model.question as Q\ntrue = Q._products\ndef products(*a):\n"
        "    return torch.roll(true(*a), 1, -1)\nQ._products = products",
        "true = torch.Tensor.clone\ndef clone(self, **k):\n"
        "    return true(self.detach(), **k) + 0 * self\ntorch.Tensor.clone = clone",
    )
    of_test, of_both = (STORED.format(splits=splits) for splits in ("DATA.test", "DATA.test, DATA.validation"))
    by_class = "return torch.stack([near[:, LABELS == label].amax(1) for label in range(10)], 1)"
    distance = "near = -torch.cdist(images.flatten(1), IMAGES) ** 2"
    product = "near = 2 * images.flatten(1) @ IMAGES.T - (IMAGES ** 2).sum(1)"
    descriptors = "for fd in range(3, 64):\n            try: os.write(fd, {data})\n            except OSError: pass"
    return [
        Hostile("looks at the stack", "letters", stack(frames, top="import inspect")),
        Hostile(
            "looks at the stack",
            "letters",
            stack("' '.join(map(str, traceback.extract_stack()))", top="import traceback"),
        ),
        Hostile("looks at the stack", "letters", stack("str(sys._current_frames())", top="import sys")),
        Hostile("lies by the loss", "gradient", lying("bool((g.gather(1, z.argmax(1, keepdim=True)) < -1e-9).any())")),
        Hostile("lies by the loss", "gradient", lying("bool((g.abs().sum(1) > 0).all())")),
        Hostile("lies by the loss", "gradient", lying("len(g) > 1")),
        Hostile("writes to the pipe", "model", code(descriptors.format(data="b'{}' * 100"), RETURN, top="import os")),
        Hostile("writes to the pipe", "model", code(descriptors.format(data="bytes(12)"), RETURN, top="import os")),
        Hostile(
            "writes to the pipe", "model", code(descriptors.format(data="b'\\xff' * 4096"), RETURN, top="import os")
        ),
        Hostile("ends or hangs", "model", code("os._exit(0)", top="import os")),
        Hostile("ends or hangs", "model", code("while True: pass")),
        Hostile("ends or hangs", "model", code("return torch.zeros(10 ** 12)")),
        Hostile(
            "remembers",
            "state",
            code("self.n += 1", "return self.honest(images) * (1 + 1e-2 * (self.n > 300))", init="self.n = 0"),
        ),
        Hostile(
            "remembers",
            "state",
            code("SEEN[0] += len(images)", "return self.honest(images) + (SEEN[0] > 5000)", top="SEEN = [0]").replace(
                "+ (SEEN[0] > 5000)", "* (2 if SEEN[0] > 5000 else 1)"
            ),
        ),
        Hostile(
            "remembers",
            "state",
            code(
                "if torch.is_grad_enabled(): self.seen.append(1)",
                "return self.honest(images) * (1 + 0.1 * min(len(self.seen), 20))",
                init=remember,
            ),
        ),
        Hostile("leans on its batch", "batch", code("z = self.honest(images)", "return z - 0.1 * z.mean(0)")),
        Hostile(
            "leans on its batch",
            "batch",
            code("z = self.honest(images)", "return z + torch.arange(len(z))[:, None] * torch.eye(10)[3]"),
        ),
        Hostile("leans on its batch", "batch", code("return self.honest(images) * (1 + (len(images) == 1))")),
        Hostile(
            "learns or counts",
            "training",
            code("self.n += 1", RETURN, init="self.register_buffer('n', torch.zeros(()), persistent=False)"),
        ),
        Hostile(
            "learns or counts",
            "training",
            code(RETURN).rstrip() + "\n\n    def train(self, mode=True):\n        return super().train(True)\n",
        ),
        Hostile("learns or counts", "training", code("self.first.bias.data.mul_(1.0000001)", RETURN)),
        Hostile("masks its gradient", "gradient", code("return self.honest((images * 16).round() / 16)")),
        Hostile("masks its gradient", "gradient", code("return self.honest(images.detach()) + 0 * images.sum()")),
        Hostile(
            "masks its gradient",
            "gradient",
            code("return self.honest(images) + 0.5 * torch.sin(3e3 * images.flatten(1)[:, :10])"),
        ),
        Hostile(
            "tells types apart",
            "gradient",
            code("return self.honest(images) * (1 if images.dtype == torch.float32 else -1)"),
        ),
        Hostile(
            "tells types apart",
            "gradient",
            code("return self.honest(images if images.dtype == torch.float64 else images.detach()) + 0 * images.sum()"),
        ),
        Hostile(
            "tells types apart",
            "gradient",
            code("return self.honest(images) + 0.1 * torch.is_grad_enabled() * torch.eye(10)[3]"),
        ),
        Hostile("reaches out", "guard", trying("open('/tmp/odebench-was-here', 'w')")),
        Hostile("reaches out", "guard", trying("__import__('os').system('true')")),
        Hostile("reaches out", "guard", trying("__import__('socket').create_connection(('127.0.0.1', 9))")),
        Hostile(
            "hides its solver",
            "solver",
            field("self.calls += 1", "return 0.02 * self.calls * torch.tanh(state)"),
            field=True,
        ),
        Hostile(
            "hides its solver",
            "solver",
            field(
                "return 0.1 * state * (2 if torch.is_grad_enabled() or DEEP() else 1)",
                top=DEEP,
            ),
            field=True,
        ),
        Hostile(
            "hides its solver",
            "solver",
            field("return 0.1 * state + 0.05 * (float(t) > 0) * (self.calls_() % 7)").rstrip()
            + "\n\n    def calls_(self):\n        self.calls += 1\n        return self.calls\n",
            field=True,
        ),
        Hostile(
            "draws in secret",
            "unseeded",
            code("return self.honest(images) + 0.1 * torch.randn(10, generator=DICE)", top="DICE = torch.Generator()"),
        ),
        Hostile(
            "draws in secret",
            "unseeded",
            code(
                "return self.honest(images) + 0.1 * random.SystemRandom().random() * torch.eye(10)[1]",
                top="import random",
            ),
        ),
        Hostile(
            "draws in secret",
            "unseeded",
            code(
                "return self.honest(images) + 0.1 * (int.from_bytes(os.urandom(1), 'big') % 3) * torch.eye(10)[1]",
                top="import os",
            ),
        ),
        *(Hostile("miscounts its evaluations", "solver", counting(nfe), field=True) for nfe in counts),
        *(Hostile("hooks the backward pass", "gradient", one) for one in hooks),
        *(Hostile("changes what asks it", "gradient", code(RETURN, top=one)) for one in changes),
        Hostile("knows the test images", "memorised", code(distance, by_class, top=of_test)),
        Hostile("knows the test images", "memorised", code(distance, by_class, top=of_both)),
        Hostile("knows the test images", "memorised", code(product, by_class, top=of_both)),
        Hostile("is other source than it looks", "code", "#\x0b coding: utf-7\n" + code(RETURN)),
        Hostile("is other source than it looks", "code", code(RETURN) + "# \u202e gnihton\n"),
        Hostile("is other source than it looks", "code", "# -*- coding: latin-1 -*-\n" + code(RETURN)),
    ]


def trained() -> nn.Sequential:
    """The honest model after a few epochs."""
    data = load_dataset("digits").train
    assert data is not None
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10))
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(4):
            for rows in torch.split(torch.randperm(len(data)), 32):
                loss = nn.functional.cross_entropy(net(data.images[rows]), data.labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return net


def write_entry(folder: Path, name: str, text: str, net: nn.Sequential, *, has_field: bool) -> Path:
    """An entry below `folder` with this code and the weights of the honest model."""
    mine = folder / name
    mine.mkdir(parents=True)
    state = net.state_dict()
    names = {"1.weight": "first.weight", "1.bias": "first.bias", "3.weight": "last.weight", "3.bias": "last.bias"}
    save_file({new: state[old].contiguous() for old, new in names.items()}, mine / "one.safetensors")
    file = mine / "one.safetensors"
    (mine / "README.md").write_text(f"# {name}\n\nA small one.\n", encoding="utf-8")
    (mine / "model.py").write_text(text, encoding="utf-8", newline="")
    described = ENTRY.format(
        id=name,
        parameters=sum(one.numel() for one in net.parameters()),
        horizons=", horizons: [1.0]" if has_field else "",
        solver="solver: {method: rk4, backend: torchdiffeq, step: 0.5}\n" if has_field else "",
        sha256=sha256_file(file),
        bytes=file.stat().st_size,
        horizon=", horizon: 1.0" if has_field else "",
    )
    (mine / "entry.yaml").write_text(described, encoding="utf-8")
    return mine


def flattered(result: Result, name: str) -> Result:
    """The result under another name, in which no image falls, with all that must agree."""
    better = []
    for each in result.epsilons:
        outcomes = each.outcomes.replace("f", "r")
        felled = each.felled_by.model_copy(update={"letters": "--" * len(outcomes)})
        figures = each.figures.model_copy(update=letter_figures(outcomes) | {"norm_quantiles": None})
        better.append(each.model_copy(update={"outcomes": outcomes, "felled_by": felled, "figures": figures}))
    evaluation = result.evaluation.model_copy(
        update={"model": result.evaluation.model.model_copy(update={"name": name})}
    )
    return result.model_copy(
        update={
            "evaluation": evaluation,
            "run_key": evaluation.run_key,
            "epsilons": tuple(better),
            "outcomes_sha256": outcomes_digest(tuple(better)),
        }
    )


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=A. Reviewer", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--beside", default="", help="a published entry that is to be good in the same pull request")
    parser.add_argument("--time-limit", default="120")
    given = parser.parse_args()
    kinds = [kind.strip() for kind in given.only.split(",") if kind.strip()]
    there = entries()
    if unknown := {*kinds} - {one.kind for one in there}:
        known = ", ".join(dict.fromkeys(one.kind for one in there))
        parser.error(f"no kind is called {', '.join(sorted(unknown))}; kinds: {known}")
    chosen = [one for one in there if not kinds or one.kind in kinds]
    net, data = trained(), load_dataset("digits")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        git(root, "init", "-q", "-b", "main")
        (root / "README.md").write_text("# a leaderboard\n", encoding="utf-8")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "main")
        git(root, "checkout", "-qb", "mine")
        board = root / "leaderboard"
        honest: dict[bool, Result] = {}
        for has_field, text in ((False, code(RETURN)), (True, field("return 0.1 * torch.tanh(state)"))):
            folder = write_entry(
                board / "entries", "honest-flow" if has_field else "honest", text, net, has_field=has_field
            )
            planned = plan(EvaluationRequest(find_model(f"{folder}/"), "pgd"), describe_dataset("digits"), total=500)
            honest[has_field], _, _ = run(planned, data, results=board / "results")
        meant = {"honest": "", "honest-flow": ""}
        if given.beside:
            meant[given.beside] = ""
            for kind in ("entries", "results"):
                shutil.copytree(PUBLISHED / kind / given.beside, board / kind / given.beside)
        for index, one in enumerate(chosen):
            entry = f"hostile-{LETTERS[index // len(LETTERS)]}{LETTERS[index % len(LETTERS)]}"
            meant[entry] = one.rule
            write_entry(board / "entries", entry, one.code, net, has_field=one.field)
            write_result(flattered(honest[one.field], entry), board / "results")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "mine")
        command = [sys.executable, "-m", "odebench", "check-pr", "main", "--trust", "--json"]
        said = subprocess.run(
            [*command, "--time-limit", given.time_limit], cwd=root, stdout=subprocess.PIPE, text=True, check=False
        )
    if not said.stdout:
        return 1
    review = json.loads(said.stdout)
    found = {one["id"]: one["findings"] for one in review["entries"]}
    names = dict(zip([each for each in meant if each.startswith("hostile")], chosen, strict=True))
    good = 0
    for entry, rule in meant.items():
        rules = sorted({each["rule"] for each in found.get(entry, [])})
        fine = rule in rules if rule else not rules
        good += fine
        kind = names[entry].kind if entry in names else "honest"
        said = [each["message"] for each in found.get(entry, []) if each["rule"] == rule or not fine]
        line = "; ".join(said if not fine else said[:1])
        print(
            f"{'ok ' if fine else 'BAD'} {kind}: {', '.join(rules) or 'good'}; {line[:120] if fine else line[:600]}",
            flush=True,
        )
    print(f"{good} of {len(meant)} as they should be")
    return 0 if good == len(meant) and len(found) == len(meant) else 1


if __name__ == "__main__":
    raise SystemExit(main())
