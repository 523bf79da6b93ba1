"""Models in a process of their own: answers are those of this process, and whatever goes wrong is one line."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
import torch
from small_model import SmallOde, linear
from stateful_models import Awkward, Keeping, Locked
from torch import Tensor, nn

from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelError, ModelProcessError
from odebench.io.frame import PREFIX, decode_frame, encode_frame, frame_lengths
from odebench.io.tensor_file import write_tensors
from odebench.model import process_channel as process_module
from odebench.model import process_program
from odebench.model.blueprint import Blueprint
from odebench.model.classifier import Classifier
from odebench.model.definition import Contributed, load_definition
from odebench.model.process import ModelProcess
from odebench.model.question import Question, answer_question
from odebench.model.training import build
from odebench.numerics.seeding import seeded
from odebench.protocol.spec import fixed_step

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
COTANGENTS = torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(4))


def classifier(module: nn.Module | None = None) -> Classifier:
    with seeded(0):
        return Classifier(SmallOde().eval() if module is None else module.eval(), n_classes=10)


def noisy() -> Classifier:
    """One that prints a lot and does as the first pixel says."""
    with seeded(0):
        return classifier(Awkward(SmallOde()))


def with_wish(wish: float) -> Tensor:
    images = IMAGES.clone()
    images[0, 0, 0, 0] = wish
    return images


# --- a true process ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def child() -> Iterator[ModelProcess]:
    with ModelProcess(Blueprint.of_module(noisy())) as started:
        yield started


def test_the_answer_is_that_of_this_process(child: ModelProcess) -> None:
    for gradients in (False, True):
        question = Question(IMAGES, gradients=gradients)
        there, here = child.ask(question), answer_question(noisy(), question)
        assert torch.equal(there.logits, here.logits)
        assert not there.failed.any()
        assert there.nfe is None
        assert there.gradients is None


def test_cotangents_give_gradients_at_the_same_point(child: ModelProcess) -> None:
    question = Question(IMAGES, gradients=True, cotangents=COTANGENTS)
    points = IMAGES.clone().requires_grad_()
    logits = noisy().answer(points).logits
    expected = [torch.autograd.grad(logits, points, each, retain_graph=True)[0] for each in COTANGENTS]
    assert child.ask(question).gradients is not None
    torch.testing.assert_close(child.ask(question).gradients, torch.stack(expected), rtol=1e-6, atol=1e-8)


def test_fp64_is_a_copy_of_its_own(child: ModelProcess) -> None:
    there = child.ask(Question(IMAGES, precision="fp64", gradients=True, cotangents=COTANGENTS))
    double = noisy()
    double.module.double()
    here = double.answer(IMAGES.double()).logits
    assert there.logits.dtype == torch.float64
    assert there.gradients is not None
    assert there.gradients.dtype == torch.float64
    torch.testing.assert_close(there.logits, here, rtol=1e-12, atol=1e-12)
    single = child.ask(Question(IMAGES))
    assert single.logits.dtype == torch.float32
    assert torch.equal(single.logits, answer_question(noisy(), Question(IMAGES)).logits)


def test_the_seed_decides_random_numbers(child: ModelProcess) -> None:
    first, again, other = (child.ask(Question(with_wish(0.25), seed=seed)).logits for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(first, answer_question(noisy(), Question(with_wish(0.25), seed=1)).logits)


def test_an_integrated_model_takes_horizon_and_solver_from_the_question() -> None:
    question = Question(IMAGES, horizon=3.0, solver=fixed_step("euler", step=0.5))
    there = Question.of_order(*decoded(encode_frame(*question.order())))
    assert (there.horizon, there.solver, there.seed) == (3.0, question.solver, 0)
    answer = answer_question(classifier(), question)
    assert answer.nfe is not None
    assert answer.nfe.tolist() == [6] * 5
    assert answer_question(classifier(), Question(IMAGES)).nfe.tolist() == [4] * 5  # type: ignore[union-attr]


def test_a_model_that_ends_the_process_is_one_line(child: ModelProcess) -> None:
    """The last of those that share the process."""
    with pytest.raises(ModelProcessError, match=r"^the model's process ended with code 7 instead of an answer to que"):
        child.ask(Question(with_wish(0.75)))
    with pytest.raises(ModelProcessError, match=r"has ended: start another one \(the model.s process ended with"):
        child.ask(Question(IMAGES))


# --- blueprints --------------------------------------------------------------------------------------------------


def decoded(frame: bytes) -> tuple[dict[str, object], dict[str, Tensor]]:
    text, body = frame_lengths(frame[:PREFIX])
    assert len(frame) == PREFIX + text + body
    return decode_frame(frame[PREFIX : PREFIX + text], frame[PREFIX + text :])


def sent(blueprint: Blueprint) -> Blueprint:
    return Blueprint.of_order(*decoded(encode_frame(*blueprint.order(1))))


def test_a_recipe_is_sent_whole(tmp_path: Path, narrow: None) -> None:
    recipe = load_definition("kd-ode").recipe(DIGITS)
    module = build(recipe)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01)
    write_tensors(tmp_path / "w.safetensors", module.state_dict(), {})
    blueprint = Blueprint.of_file(recipe, tmp_path / "w.safetensors", classifier(module))
    assert sent(blueprint) == blueprint
    question = Question(IMAGES)
    there = answer_question(sent(blueprint).build(torch.float32), question)
    assert torch.equal(there.logits, answer_question(classifier(module), question).logits)


def test_an_entry_is_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, image_shape, n_classes, bias):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, n_classes, bias=bias))\n"
    )
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    write_tensors(tmp_path / "w.safetensors", module.state_dict(), {})
    entry = Contributed(tmp_path, "model", "Net", {"bias": False}, (1, 8, 8), 10, 0, None, None, "key")
    blueprint = Blueprint.of_file(entry, tmp_path / "w.safetensors", classifier(module))
    assert sent(blueprint) == blueprint
    there = sent(blueprint).build(torch.float32)
    assert torch.equal(there.answer(IMAGES).logits, classifier(module).answer(IMAGES).logits)


def test_an_entry_may_import_torchvision(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torchvision\nfrom torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self, image_shape, n_classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    write_tensors(tmp_path / "w.safetensors", module.state_dict(), {})
    entry = Contributed(tmp_path, "model", "Net", {}, (1, 8, 8), 10, 0, None, None, "key")
    with ModelProcess(Blueprint.of_file(entry, tmp_path / "w.safetensors", classifier(module))) as process:
        told = process.ask(Question(IMAGES)).logits
    assert torch.equal(told, classifier(module).answer(IMAGES).logits)


def test_a_module_is_sent_as_it_was_when_the_bytes_were_taken() -> None:
    factor = [2.0]

    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10] * factor[0] + (lambda: 1.0)()

    blueprint = Blueprint.of_module(classifier(Scaled()))
    factor[0] = 3.0
    there = sent(blueprint).build(torch.float32)
    assert torch.equal(there.answer(IMAGES).logits, IMAGES.flatten(1)[:, :10] * 2 + 1)


def test_a_module_that_has_kept_an_activation_is_sent() -> None:
    asked = classifier(Keeping(linear(10)))
    expected = answer_question(asked, Question(IMAGES, gradients=True)).logits
    assert torch.equal(sent(Blueprint.of_module(asked)).build(torch.float32).answer(IMAGES).logits, expected)


def test_a_module_that_no_pickle_takes_is_one_line() -> None:
    with pytest.raises(ModelProcessError, match=r"^Locked cannot be copied to another process \(Type.*lock"):
        Blueprint.of_module(classifier(Locked(linear(10))))


def test_a_pickle_must_hold_a_module() -> None:
    with pytest.raises(ModelError, match="the pickle holds a int, not a torch"):
        Blueprint(cloudpickle.dumps(3), None, 10, "cpu", None, None).build(torch.float32)


# --- the program, in this process --------------------------------------------------------------------------------


def served(blueprint: Blueprint, *questions: Question) -> list[tuple[dict[str, object], dict[str, Tensor]]]:
    """What the program answers before its pipe ends."""
    orders = [blueprint.order(1), *(one.order() for one in questions)]
    frames = [encode_frame(header | {"number": i, "token": "t"}, held) for i, (header, held) in enumerate(orders)]
    heard = io.BytesIO()
    process_program._serve(io.BytesIO(b"".join(frames)), heard)
    told, data = [], heard.getvalue()
    while data:
        size = PREFIX + sum(frame_lengths(data[:PREFIX]))
        told.append(decoded(data[:size]))
        data = data[size:]
    return told


def test_the_program_ends_with_its_pipe_and_goes_on_after_an_error() -> None:
    told = served(Blueprint.of_module(noisy()), Question(with_wish(0.5)), Question(IMAGES))
    assert [(header["number"], header["token"]) for header, _ in told] == [(0, "t"), (1, "t"), (2, "t")]
    assert told[1][0]["error"] == "Awkward raised RuntimeError: an awkward\x1b[31m image"
    assert torch.equal(told[2][1]["logits"], answer_question(noisy(), Question(IMAGES)).logits)


def test_the_program_says_why_it_cannot_build() -> None:
    no_module = served(Blueprint(cloudpickle.dumps(3), None, 10, "cpu", None, None))
    assert no_module == [({"number": 0, "token": "t", "error": "the pickle holds a int, not a torch.nn.Module"}, {})]
    no_pickle = served(Blueprint(b"nothing", None, 10, "cpu", None, None))
    assert "UnpicklingError" in str(no_pickle[0][0]["error"])


def test_the_program_ends_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import sys, time; from odebench.model.process_program import _end_with; _end_with(int(sys.argv[1])); "
        "open(sys.argv[2], 'w').close(); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time; from pathlib import Path; mark = Path(sys.argv[1]); "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid()), str(mark)])\n"
        "while not mark.exists(): time.sleep(0.01)\n"
        "print(child.pid); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    said = subprocess.run([sys.executable, "-c", parent, str(tmp_path / "mark")], capture_output=True, timeout=60)
    assert ended(int(said.stdout))


def test_the_program_does_not_outlive_a_parent_that_is_gone_already() -> None:
    program = "from odebench.model.process_program import _end_with; _end_with(1 << 30)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 1


# --- bad children ------------------------------------------------------------------------------------------------

FAKE = """
import os, struct, subprocess, sys, time
source, sink = int(sys.argv[1]), int(sys.argv[2])
def hear(size):
    while size:
        size -= len(os.read(source, size))
def read():
    data = b""
    while len(data) < 12:
        data += os.read(source, 12 - len(data))
    hear(sum(struct.unpack(">IQ", data)))
def say(text):
    data = bytes.fromhex(text)
    while data:
        data = data[os.write(sink, data):]
"""
"""A child without torch, which starts in no time and says what it likes."""


def ended(pid: int) -> bool:
    """Whether a process is gone, or will be in a moment."""
    for _ in range(500):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def running() -> set[int]:
    return {one.pid for one in psutil.Process().children(recursive=True)}


@pytest.fixture
def own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@contextmanager
def nothing_left() -> Iterator[None]:
    """Processes and descriptors are afterwards what they were, and no scratch folder lies about."""
    before = running(), psutil.Process().num_fds()
    yield
    assert (running(), psutil.Process().num_fds()) == before
    assert not list(Path(tempfile.gettempdir()).glob("odebench-*"))


def said(header: dict[str, Any], **tensors: Tensor) -> str:
    return encode_frame({"token": "known"} | header, tensors).hex()


LOGITS, FAILED = torch.zeros(5, 10), torch.zeros(5, dtype=torch.bool)
READY = f"read(); say({said({'number': 0})!r}); "


def whole(number: object = 1, **changes: Tensor | None) -> str:
    tensors = {"logits": LOGITS, "failed": FAILED} | changes
    return said({"number": number}, **{name: one for name, one in tensors.items() if one is not None})


def raw(text: bytes, body: bytes = b"", *, text_length: int | None = None, body_length: int | None = None) -> str:
    lengths = len(text) if text_length is None else text_length, len(body) if body_length is None else body_length
    return (lengths[0].to_bytes(4, "big") + lengths[1].to_bytes(8, "big") + text + body).hex()


def ask_fake(monkeypatch: pytest.MonkeyPatch, body: str, question: Question | None = None, seconds: float = 20) -> str:
    """The line that comes of a fake child which does what `body` says."""
    monkeypatch.setattr("odebench.model.process_channel._PROGRAM", FAKE + body)
    monkeypatch.setattr("odebench.model.process_channel._token", lambda: "known")
    fake = ModelProcess(Blueprint(b"any", None, 10, "cpu", None, None), build_seconds=seconds, answer_seconds=seconds)
    with nothing_left(), pytest.raises(ModelProcessError) as caught, fake as started:
        started.ask(question or Question(IMAGES))
    (line,) = str(caught.value).splitlines()
    return line


class Armed:
    """A pickle that leaves a file where it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, ("sprung",)


def after(header: dict[str, Any], **tensors: Tensor) -> str:
    """Builds, hears a question and says this."""
    return READY + f"read(); say({said(header, **tensors)!r})"


def answers(number: object = 1, **changes: Tensor | None) -> str:
    return READY + f"read(); say({whole(number, **changes)!r})"


def sends(text: bytes, body: bytes = b"", **lengths: int) -> str:
    return READY + f"read(); say({raw(text, body, **lengths)!r})"


UNREADABLY = "answers question 1 unreadably: its "
NO_NUMBER = "answers question 1 without a number, or errs without words"
BAD = {
    "dies while it builds": ("read(); sys.exit(3)", "ended with code 3 instead of an answer to the order to build"),
    "dies by a signal": (READY + "read(); os.kill(os.getpid(), 9)", "ended by signal 9 instead of an answer to quest"),
    "dies in between": (READY + "os._exit(4)", "ended with code 4 instead of an answer to question 1"),
    "closes its pipe": (READY + "read(); os.close(sink); time.sleep(60)", "closed its pipe instead of an answer to"),
    "guesses": (after({"number": 1, "token": "other"}), "spoke before it was sent question 1"),
    "guesses at once": (
        f"say({said({'number': 0, 'token': 'other'})!r}); time.sleep(60)",
        "spoke before it was sent the",
    ),
    "cannot build": (f"read(); say({said({'number': 0, 'error': 'no'})!r})", "cannot build the model: no$"),
    "raises": (after({"number": 1, "error": "a\x1bb"}), r"cannot answer question 1: a\\x1bb$"),
    "repeats a number": (answers(0), "answers question 0, not question 1"),
    "runs ahead": (answers(2), "answers question 2, not question 1"),
    "has no number": (after({}), NO_NUMBER),
    "says true": (answers(True), NO_NUMBER),
    "errs in numbers": (after({"number": 1, "error": [1]}), NO_NUMBER),
    "no JSON": (sends(b"nonsense"), UNREADABLY + "header is not JSON"),
    "no text": (sends(bytes([255] * 9)), UNREADABLY + "header 'utf-8' codec"),
    "no object": (sends(b"[1]"), UNREADABLY + "header is not a JSON object"),
    "deep": (sends(b"[" * 60_000), UNREADABLY + "header is not JSON"),
    "a pickle": (sends(b"{}", pickle.dumps(Armed())), UNREADABLY + "tensors are not safetensors"),
    "too long a text": (sends(b"", text_length=2**32 - 1), "answers question 1 with 4294967295 bytes; at most"),
    "too large": (sends(b"", body_length=2**64 - 1), "answers question 1 with 18446744073709551615 bytes; at most"),
    "without end": (READY + "read()\nwhile True: say('7b' * 65536)", "answers question 1 with .* bytes; at most"),
    "one image less": (answers(logits=LOGITS[1:]), r"logits torch.float32 \(4, 10\); expected .*\(5, 10\)"),
    "fp64": (answers(logits=LOGITS.double()), "with .*logits torch.float64 .* expected .*logits torch.float32"),
    "no failures": (answers(failed=None), r"with logits torch.float32 \(5, 10\); expected failed"),
    "nothing": (after({"number": 1}), "answers question 1 with nothing; expected failed"),
    "more than asked": (answers(gradients=LOGITS), "with failed .*gradients .*expected failed"),
    "NFE in halves": (answers(nfe=torch.zeros(5)), r"nfe torch.float32 \(5,\); expected"),
    "NaN": (answers(logits=LOGITS / 0), "answers question 1 with logits that are not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_child_is_one_line(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_scratch: None) -> None:
    body, message = BAD[case]
    line = ask_fake(monkeypatch, body)
    assert re.match(f"the model's process .*{message}", line), line
    assert len(line) < 700
    assert not list(tmp_path.rglob("sprung"))
    assert not Path("sprung").exists()


def test_a_child_that_has_spoken_already_is_asked_nothing(monkeypatch: pytest.MonkeyPatch, own_scratch: None) -> None:
    body = f"say({said({'number': 0})!r}); time.sleep(60)"
    ready = process_module._ready
    monkeypatch.setattr(process_module, "_ready", lambda source, event, seconds: ready(source, event, seconds or 20))
    assert ask_fake(monkeypatch, body) == "the model's process spoke before it was sent the order to build the model"


def test_a_child_that_hangs_is_late(monkeypatch: pytest.MonkeyPatch, own_scratch: None) -> None:
    line = ask_fake(monkeypatch, "time.sleep(60)", seconds=0.3)
    assert line == "the model's process has not answered the order to build the model within 0.3 s"
    slow = READY + "read()\nfor _ in range(600): say('00'); time.sleep(0.1)"
    assert ask_fake(monkeypatch, slow, seconds=0.6).endswith("has not answered question 1 within 0.6 s")


def test_a_child_that_does_not_listen_is_late(monkeypatch: pytest.MonkeyPatch, own_scratch: None) -> None:
    large = Question(torch.zeros(400, 1, 28, 28))
    assert "has not answered question 1" in ask_fake(monkeypatch, READY + "time.sleep(60)", large, seconds=0.6)


def test_what_a_child_starts_ends_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_scratch: None) -> None:
    note = tmp_path / "pid"
    start = f"open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid)); "
    ask_fake(monkeypatch, start + READY + f"read(); say({whole(9)!r})")
    assert ended(int(note.read_text()))


def test_a_child_prints_into_nothing_and_sees_no_secret(
    monkeypatch: pytest.MonkeyPatch, own_scratch: None, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ODEBENCH_TOKEN", "secret")
    prints = "print('x' * 10**6); print('y' * 10**6, file=sys.stderr); os.write(1, b'z'); "
    body = prints + READY + f"read(); say({whole()!r}); read(); sys.exit('ODEBENCH_TOKEN' in os.environ)"
    monkeypatch.setattr("odebench.model.process_channel._PROGRAM", FAKE + body)
    monkeypatch.setattr("odebench.model.process_channel._token", lambda: "known")
    with nothing_left(), ModelProcess(Blueprint(b"any", None, 10, "cpu", None, None)) as fake:
        assert torch.equal(fake.ask(Question(IMAGES)).logits, LOGITS)
        with pytest.raises(ModelProcessError, match="with code 0 instead"):
            fake.ask(Question(IMAGES))
    assert capfd.readouterr() == ("", "")


def test_a_child_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch, own_scratch: None) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    fake = ModelProcess(Blueprint(b"any", None, 10, "cpu", None, None))
    with nothing_left(), pytest.raises(ModelProcessError, match="cannot be started: No such file"):
        fake.__enter__()
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(ModelProcessError, match="needs Linux or macOS"):
        fake.__enter__()


def test_products_need_gradients() -> None:
    with pytest.raises(AssertionError, match="needs gradients"):
        Question(IMAGES, cotangents=COTANGENTS)
