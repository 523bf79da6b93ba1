"""What goes wrong is one line on standard error and an exit code, and leaves nothing half-written behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from result_factory import make_result
from safetensors.torch import save_file

from odebench.cli import _exit_code
from odebench.dataset.builtin import DIGITS
from odebench.io.files import FileError, write_atomically
from odebench.io.tensor_file import read_tensors
from odebench.model.definition import load_definition
from odebench.model.training import build
from odebench.result.file import read_result, write_result

INTERRUPTED = "interrupted; a training resumes after its last complete epoch, an attack starts over"
RUN = "run -m ode -a pgd -n 100"
SMALL = "run -m ode -a pgd -n 20 --chunk 20 --epsilon 0.1 --parameter steps=1"


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command within this process, in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("COLUMNS", "FORCE_COLOR", "ODEBENCH_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(line: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["odebench", *line.split(" ")])
        capsys.readouterr()
        code = _exit_code()
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


def command(line: str) -> list[str]:
    return [sys.executable, "-m", "odebench", *line.split()]


def environment(cache: Path) -> dict[str, str]:
    own = ("ODEBENCH", "COLUMNS", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    own_folders = {"ODEBENCH_CACHE": str(cache), "ODEBENCH_LEADERBOARD": ""}
    return {**kept, **own_folders, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_one_line(said: Said, code: int, message: str) -> None:
    assert "Traceback" not in said.out + said.err
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert re.search(rf"^odebench: .*{message}", said.err), said.err
    assert "please report it" not in said.err
    assert said.code == code


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """A disk on which no file grows beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- wrong words -------------------------------------------------------------------------------------------------

MODELS = "kd-ode, kd-ode-at, kd-ode-stemless, ode, ode-ablated, ode-at, ode-stemless, resnet, self-kd-ode"
WRONG = {
    # names
    "run -m kdode -a pgd": f"unknown model 'kdode'; did you mean 'kd-ode'\\? known: {MODELS}$",
    "run -m ode -a pdg": r"unknown attack 'pdg'; did you mean 'pgd'\? known: .*cw, .*fgsm, .*pgd",
    "run -m ode -a pgd -d digit": r"unknown data set 'digit'; did you mean 'digits'\? known: cifar10, cifar10-jpeg, ",
    "run -m ode -a pgd -d ../secret": r"unknown data set '\.\./secret'; known: ",
    "train -m resnett": r"unknown model 'resnett'; did you mean 'resnet'\?",
    "train -m ode -d mnits": r"unknown data set 'mnits'; did you mean 'mnist'\?",
    # recipes
    f"{RUN} --set adversary=pgd": "adversary='pgd' does not fit a recipe: it must be none, madry, trades or rslad",
    f"{RUN} --set beta=6": "beta without an adversary: add adversary=madry or adversary=trades",
    f"{RUN} --set adversary=madry --set adversary_epsilon=8": r"adversary_epsilon=8 is above 1, .* did you mean 8/255",
    # radii
    f"{RUN} --epsilon -0.1": r"epsilon -0\.1 must be a finite number above 0",
    f"{RUN} --epsilon nan": "epsilon 'nan' is not a finite number; write it like 0.1 or 8/255",
    f"{RUN} --epsilon inf": "epsilon 'inf' is not a finite number",
    f"{RUN} --epsilon 0": "epsilon 0 must be a finite number above 0",
    f"{RUN} --epsilon 8": r"epsilon 8 is above 1, but images are in \[0, 1\]; did you mean 8/255 = 0\.03137\?",
    f"{RUN} --epsilon 0.1,8/0": "epsilon '8/0' is not a finite number",
    f"{RUN} --epsilon 0.1,": "epsilon '' is not a finite number",
    f"{RUN} --norm l2 --epsilon 8.1": r"epsilon 8\.1 is above 8, the largest l2 distance between two images of digits",
    f"{RUN} --norm l1": "pgd attacks in linf and l2, not in l1",
    "run -m ode -a cw --norm linf": "cw attacks in l2, not in linf",
    # horizons
    **{
        f"{RUN} --{name} {value}": f"horizon {shown}"
        for name in ("horizon", "train-horizon")
        for value, shown in {
            "0": "0 must be a finite number above 0",
            "-1": "-1 must be a finite number above 0",
            "inf": "'inf' is not a finite number",
            "nan": "'nan' is not a finite number",
            "one": "'one' is not a finite number",
        }.items()
    },
    f"{RUN} --horizon 1e9": r"a step of 0\.25 needs more than 10000 steps to reach horizon 1e\+09; take a longer step",
    "train -m ode --horizon 0": "horizon 0 must be a finite number above 0",
    "run -m resnet -a pgd --horizon 1": "resnet integrates nothing, so it takes no --horizon and no --solver",
    "run -m resnet -a pgd --solver rk4": "resnet integrates nothing, so it takes no --horizon and no --solver",
    "train -m resnet --horizon 1": "resnet integrates nothing",
    # images
    "run -m ode -a pgd -n 0": "choose -n between 1 and 500",
    "run -m ode -a pgd -n -100": "choose -n between 1 and 500",
    "run -m ode -a pgd -n 101": "101 images from 0 on are not whole chunks of 100; .* take -n 100 or 200$",
    "run -m ode -a pgd -n 600": "digits has 500 test images; 600 from 0 on cannot be taken: choose -n between 1",
    # typer's own words before some version
    "run -m ode -a pgd -n all": "Invalid value for '-n': (it must be a whole number|'all' is not a whole number.)$",
    "run -m ode -a pgd --max-steps 0": (
        "Invalid value for '--max-steps': (it must be at least 1|0 is not in the range x>=1.)$"
    ),
    "run -m ode -a pgd -n 100 --offset 30": "no chunk begins at offset 30: choose a multiple of 100 from 0 to 400",
    "run -m ode -a pgd -n 100 --offset 500": "no chunk begins at offset 500",
    "run -m ode -a pgd -n 200 --offset 400": "200 from 400 on cannot be taken: choose -n between 1 and 100",
    "run -m ode -a pgd --chunk 0": "a chunk has at least one image, not 0",
    f"{RUN} --split train": "--split is test or validation, not 'train'",
    f"{RUN} --split foo": "--split is test or validation, not 'foo'",
    # the machine
    f"{RUN} --device cuda:99": "no device 'cuda:99' on this machine; there is cpu",
    f"{RUN} --device gpu": "no device 'gpu' on this machine; there is cpu",
    "train -m ode --device gpu": "no device 'gpu' on this machine; there is cpu",
    # the recipe and the attack
    **{
        f"{start} --set {pair}": message
        for start in (RUN, "train -m ode")
        for pair, message in {
            "epochs=x": "epochs='x' .*whole number",
            "epochs=0": "epochs=0 .*at least 1",
            "epochs=NaN": "epochs='NaN' .*whole number",
            "learning_rate=Infinity": "learning_rate='Infinity' .*a number",
            "nosuch=1": "a recipe has no nosuch; known: epochs, batch_size",
            "temperature=2": "cross-entropy takes neither",
            "epochs": "'epochs' is not of the form name=value, such as epochs=30",
        }.items()
    },
    f"{RUN} --parameter steps=0": "pgd: steps must be a whole number of at least 1, not 0",
    f"{RUN} --parameter steps=many": "pgd: steps must be a whole number of at least 1, not 'many'",
    f"{RUN} --parameter relative_step=Infinity": "pgd: relative_step must be a .*number above 0, not 'Infinity'",
    f"{RUN} --parameter relative_step=1e999": "pgd: relative_step must be a .*number above 0, not '1e999'",
    f"{RUN} --parameter nosuch=1": "pgd has no parameter nosuch; known: steps, random_start, relative_step",
    f"{RUN} --seed -1": "train seed '-1' is neither an integer of at least 0",
    f"{RUN} --seed 99999999999999999999": "train seed 99999999999999999999 must be an integer from 0 to",
    # the solver
    f"{RUN} --solver rk5": "unknown method 'rk5' for torchode; adaptive there: dopri5, .*; fixed-step .*: euler, ",
    f"{RUN} --solver rk4 --tolerance 1e-3": "rk4 takes fixed steps, on torchdiffeq: give --step alone",
    f"{RUN} --solver rk4 --backend torchode": "rk4 takes fixed steps, on torchdiffeq: give --step alone",
    f"{RUN} --solver rk4 --max-steps 9": "rk4 takes fixed steps, on torchdiffeq: give --step alone",
    f"{RUN} --solver rk4 --step 0": "the fixed-step method rk4 needs a step above 0",
    f"{RUN} --solver rk4 --step 1e-9": "a step of 1e-09 needs more than 10000 steps to reach horizon 1; take a",
    f"{RUN} --solver dopri5 --step 0.1": "the adaptive method dopri5 takes tolerances, not a step",
    f"{RUN} --solver dopri5 --tolerance 0": "the adaptive method dopri5 needs rtol and atol above 0",
    f"{RUN} --solver dopri5 --tolerance nan": "tolerance 'nan' is not a finite number",
    f"{RUN} --solver dopri5 --max-steps 0": "Invalid value for '--max-steps'",
    f"{RUN} --solver dopri5 --backend scipy": "backend cannot be 'scipy': it must be 'torchdiffeq' or 'torchode'",
    f"{RUN} --step 0.1 --max-steps 9": "--step, --max-steps without a --solver, such as --solver rk4",
    f"{RUN} --tolerance 0.1": "--tolerance without a --solver, such as --solver dopri5",
    "run -m my_net.py -a pgd": "name the class in my_net.py, too, such as my_net.py:Net",
    # the command line
    "run": "Missing option '--model'",
    "run -m ode": "Missing option '--attack'",
    "train": "Missing option '--model'",
    "run -m": "Option '-m' requires an argument",
    f"{RUN} --epsilno 0.1": "No such option: --epsilno",
    f"{RUN} --epochs 3": "--epochs; a field of the recipe goes with --set, .*; a parameter of the attack",
    "train -m ode --lr 3": "No such option: --lr; a field of the recipe goes with --set, such as --set epochs=3$",
    f"{RUN} more": "'more' stands without an option; this command takes options alone",
    "run ode pgd": "'ode pgd' stands without an option; write --model ode --attack pgd$",
    "run ode -a pgd": "'ode' stands without an option; write --model ode$",
    "diagnose ode": "'ode' stands without an option; write --model ode$",
    "evaluate -m ode": "No such command 'evaluate'. Did you mean 'run'",
    "list": "No such command 'list'. Did you mean 'models'",
    "compare . kd-ode": "kd-ode is a model: compare it with a model, or files and folders of results",
    "compare kd-oed oed": "no model, file, folder or commit is called 'kd-oed'; did you mean 'kd-ode'",
    f"{RUN} --horizon abc": "horizon 'abc' is not a finite number; write it like 0.5 or 1e-3",
    f"{RUN} --results=": "--results is empty; give a value, or leave it out",
    "run -m ode --attack=": "--attack is empty; give a value",
    "run -m ode -a pgd,": "an attack is missing before or after a comma",
    "verify ode --results absent": "there is no folder absent of results; name another",
    "rnu": "No such command 'rnu'",
    "leaderboard --format xml": "Invalid value for '--format'.*'xml' is not one of 'md', 'html', 'csv', 'json'",
}


@pytest.mark.parametrize("line", ["run ode -h", "diagnose ode --help"])
def test_help_is_shown_whatever_stands_beside_it(line: str, call: Call) -> None:
    said = call(line)
    assert (said.code, "Usage: odebench" in said.out) == (0, True)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_is_one_line_and_exit_2(line: str, call: Call, tmp_path: Path) -> None:
    assert_one_line(call(line), 2, WRONG[line])
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("leaderboard", "there is no folder results here; run an evaluation first, such as odebench run --model"),
        ("leaderboard absent", "absent is not a folder of results; `odebench run` writes results to ./results"),
        ("datasets --data-dir absent", "the data folder absent .* does not exist; create it or name another"),
        (f"{RUN} --data-dir absent", "the data folder absent .* does not exist; create it or name another"),
    ],
)
def test_a_folder_that_is_not_there_is_one_line_and_exit_1(line: str, message: str, call: Call, tmp_path: Path) -> None:
    assert_one_line(call(line), 1, message)
    assert files(tmp_path) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("line", [RUN, "train -m ode"])
def test_a_machine_without_cuda_says_so_before_any_work(line: str, call: Call, tmp_path: Path) -> None:
    assert_one_line(call(f"{line} --device cuda"), 2, "no device 'cuda' on this machine; there is cpu")
    assert files(tmp_path) == {}


@pytest.mark.parametrize("results", ["taken", "taken/below", "taken/below/deeper"])
def test_results_cannot_go_to_or_below_a_file(results: str, call: Call, tmp_path: Path) -> None:
    Path("taken").write_text("a file")
    said = call(f"{RUN} --results {results}")
    assert_one_line(said, 1, "cannot write in taken.*: (taken is not a folder|Not a directory); name another folder")
    assert files(tmp_path) == {"work/taken": b"a file"}, "nothing was trained for a result that cannot be written"


def test_a_file_or_folder_of_another_kind_is_named(call: Call, tmp_path: Path) -> None:
    Path("mine").mkdir()
    Path("taken").write_text("a file")
    for line in ("run -m mine -a pgd", "verify mine"):
        assert_one_line(call(line), 2, "there is no entry in mine: no entry.yaml; odebench new-entry writes one")
    assert_one_line(call("validate taken"), 2, "taken is a file; name the folder of an entry")
    assert_one_line(
        call("datasets --data-dir taken"), 1, r"the data folder taken \(--data-dir\) is no folder; name another"
    )
    with full_disk(700):
        assert_one_line(call("new-entry my-ode --to drafts"), 1, "cannot write .*: File too large")
    assert files(tmp_path) == {"work/taken": b"a file"}
    assert not Path("drafts/my-ode").exists()


def test_nothing_but_a_file_is_replaced_by_a_file(call: Call) -> None:
    os.mkfifo("pipe")
    said = call(f"{RUN} --save-candidates pipe")
    assert_one_line(said, 1, "cannot write pipe: it is a device or pipe; name a file")
    with pytest.raises(FileError, match="cannot write pipe: it is no regular file; name another"):
        write_atomically(Path("pipe"), b"")
    assert Path("pipe").is_fifo()


def test_torch_is_not_waited_for_where_an_option_is_wrong(tmp_path: Path) -> None:
    code = (
        "import sys; from odebench.cli import _exit_code as run; assert run() == 2; assert 'torch' not in sys.modules"
    )
    for words in ("-n 0", "--parameter steps=many", "--set epochs=0", "--offset 7"):
        line = [sys.executable, "-c", code, "run", "-m", "ode", "-a", "pgd", *words.split()]
        done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_defect_of_ours_is_one_line_that_asks_for_a_report(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("odebench.cli.evaluation.plan", defect)
    said = call(RUN)
    expected = "odebench: RuntimeError: first line second line (ODEBENCH_DEBUG=1 shows where; please report it)\n"
    assert said == Said(1, "", expected)
    monkeypatch.setenv("ODEBENCH_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first line"):
        call(RUN)


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights files, most of them bad."""
    folder = tmp_path_factory.mktemp("bad")
    good, other = (dict(build(load_definition(name).recipe(DIGITS)).state_dict()) for name in ("ode", "resnet"))
    name = next(name for name, tensor in good.items() if tensor.ndim == 4)
    nan = good[name].clone()
    nan.view(-1)[3] = float("nan")
    save_file(good, folder / "good.safetensors")
    save_file(other, folder / "other.safetensors")
    save_file({**good, name: nan}, folder / "nan.safetensors")
    save_file({**good, name: good[name].flatten().clone()}, folder / "shape.safetensors")
    save_file({**good, name: good[name].double()}, folder / "type.safetensors")
    save_file({**good, "more": torch.zeros(1)}, folder / "more.safetensors")
    torch.save(good, folder / "pickle.safetensors")
    whole = (folder / "good.safetensors").read_bytes()
    for room in (0, 4, 100, len(whole) - 1):
        (folder / f"cut{room}.safetensors").write_bytes(whole[:room])
    (folder / "text.safetensors").write_text("no weights at all")
    (folder / "folder.safetensors").mkdir()
    (folder / "last.txt").write_text(f"cut{len(whole) - 1}")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "cannot read .*absent.safetensors: No such file or directory"),
        ("folder", "cannot read .*folder.safetensors: Is a directory"),
        ("pickle", "pickle.safetensors is a pickle .*, which can run code when loaded; .*safetensors.torch.save_file"),
        ("other", "other.safetensors has no tensor 'stem.*': it belongs to another model than this one"),
        ("more", "more.safetensors has a tensor 'more' that this model does not"),
        ("nan", "nan.safetensors: .* holds NaN or infinity; the weights are damaged"),
        ("shape", r"shape.safetensors: .* has shape \(\d+,\), this model needs \(\d+, \d+, \d, \d\)"),
        ("type", r"type.safetensors: .* is torch.float64, this model needs torch.float32"),
        ("cut0", "cut0.safetensors is not a whole safetensors file"),
        ("cut4", "cut4.safetensors is not a whole safetensors file"),
        ("cut100", "cut100.safetensors is not a whole safetensors file"),
        ("last", r"cut\d+.safetensors is not a whole safetensors file"),
        ("text", "text.safetensors is not a whole safetensors file"),
    ],
)
def test_bad_weights_are_one_line(name: str, message: str, weights: Path, call: Call, tmp_path: Path) -> None:
    if name == "last":
        name = (weights / "last.txt").read_text()
    assert_one_line(call(f"{RUN} --weights {weights / name}.safetensors"), 1, message)
    assert files(tmp_path) == {}


def test_weights_in_the_cache_that_were_damaged_are_named(call: Call, tmp_path: Path) -> None:
    trained = call("train -m ode --horizon 0.25 --set epochs=1")
    assert trained.code == 0, trained.err
    path = Path(re.findall("weights: (.*)", trained.out)[0])
    path.write_bytes(path.read_bytes()[:-5])
    before = files(tmp_path)
    assert_one_line(call(f"{RUN} --horizon 0.25 --set epochs=1"), 1, f"{path.name} is damaged: its sha256 is")
    assert files(tmp_path) == before


# --- damaged results ---------------------------------------------------------------------------------------------


def damaged(path: Path, kind: str) -> None:
    stored = json.loads(path.read_text())
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        changes = {
            "another version": {"schema_version": 3},
            "an extra key": {"surprise": 1},
            "a string for a number": {"cost": stored["cost"] | {"seconds": "1.5"}},
            "another evaluation": {"evaluation": stored["evaluation"] | {"chunk": 50}},
        }
        path.write_text(json.dumps(stored | changes[kind]))


DAMAGES = {
    "truncated": "is not whole JSON",
    "empty": "is not whole JSON",
    "bytes": "is not whole JSON",
    "another version": "has schema version 3, this odebench reads 1 and 2; run the evaluation again",
    "an extra key": "is not a result: surprise: ",
    "a string for a number": "is not a result: cost.seconds cannot be ",
    "another evaluation": "is not a result: .*run_key is not the digest of the evaluation",
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("format", ["md", "csv", "json"])
def test_a_damaged_result_is_named_and_left_out_and_the_rest_is_shown(kind: str, format: str, call: Call) -> None:
    write_result(make_result({0.1: "rrrf"}, model="kd-ode"), Path("results"))
    alone = call(f"leaderboard -f {format}")
    assert alone.code == 0
    path = write_result(make_result({0.1: "rfff"}, model="ode"), Path("results"))
    damaged(path, kind)
    said = call(f"leaderboard -f {format}")
    assert (said.code, said.out) == (1, alone.out)
    problem, count = said.err.splitlines()
    assert re.match(rf"odebench: {path} {DAMAGES[kind]}", problem), problem
    assert count == "odebench: 1 problem; files that cannot be read are left out"


def test_all_problems_are_named(call: Call) -> None:
    paths = [write_result(make_result({0.1: "rf"}, attack_seed=seed), Path("results")) for seed in range(3)]
    for path in paths[:2]:
        damaged(path, "truncated")
    said = call("leaderboard")
    assert said.code == 1
    assert said.err.count("\n") == 3
    assert all(str(path) in said.err for path in paths[:2])
    assert "2 problems; files that cannot be read are left out" in said.err


def test_a_file_that_holds_no_result_stops_a_run_in_one_line(call: Call, weights: Path) -> None:
    line = f"{SMALL} --weights {weights / 'good.safetensors'}"
    said = call(line)
    assert said.code == 0, said.err
    (path,) = Path("results").rglob("*.json")
    whole = path.read_bytes()
    for kind in ("truncated", "an extra key"):
        path.write_bytes(whole)
        damaged(path, kind)
        assert_one_line(call(line), 1, f"{path.name} {DAMAGES[kind]}")
    assert call(f"{line} --force").code == 0
    assert read_result(path).outcomes_sha256 == json.loads(whole)["outcomes_sha256"]


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("line", ["leaderboard", "leaderboard --output /dev/full", "models", "schema", "-h"])
def test_a_full_device_is_one_line(line: str, tmp_path: Path) -> None:
    write_result(make_result({0.1: "rf"}), tmp_path / "results")
    before = files(tmp_path)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(line), cwd=tmp_path, env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert_one_line(Said(done.returncode, "", done.stderr), 1, "No space left on device")
    assert files(tmp_path) == before


def test_a_leaderboard_that_does_not_fit_the_disk_leaves_the_old_one(call: Call, tmp_path: Path) -> None:
    write_result(make_result({0.1: "rf"}), Path("results"))
    Path("board.md").write_text("the old one")
    before = files(tmp_path)
    with full_disk(100):
        said = call("leaderboard --output board.md")
    assert_one_line(said, 1, "cannot write board.md: File too large; free space or name another folder")
    assert files(tmp_path) == before


def test_weights_that_do_not_fit_the_disk_leave_nothing(call: Call, tmp_path: Path) -> None:
    with full_disk(1000):
        said = call(f"{RUN} --set epochs=1")
    assert_one_line(said, 1, r"cannot write .*: File too large; free space or name another folder")
    assert files(tmp_path) == {}


def test_a_result_that_does_not_fit_the_disk_leaves_nothing(call: Call, weights: Path, tmp_path: Path) -> None:
    line = f"{SMALL} --weights {weights / 'good.safetensors'}"
    with full_disk(1000):
        said = call(line)
    weak, estimate, rest = said.err.split("\n", 2)
    assert weak.startswith("warning: pgd with 1 step is weak")
    assert estimate.startswith("pgd on 20 images")
    assert_one_line(Said(said.code, said.out, rest), 1, r"cannot write results/ode/digits-pgd-.*\.json: File too large")
    assert files(tmp_path) == {}


# --- interruption ------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_from_its_last_whole_epoch(call: Call, tmp_path: Path) -> None:
    line = f"{SMALL} --horizon 0.25 --set epochs=3"
    process = subprocess.Popen(
        command(line),
        cwd=tmp_path / "work",
        env=environment(tmp_path / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, SIGINT is ignored, and that would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        until = time.monotonic() + 120
        while not list((tmp_path / "cache").rglob("*.partial")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    weak, _, err = err.partition("\n")
    assert weak.startswith("warning: pgd with 1 step is weak")
    said = Said(process.returncode, out, err)
    assert_one_line(said, 130, f"{INTERRUPTED}$")
    (partial,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert partial.suffix == ".partial", "one whole checkpoint, no result, no temporary file"
    epoch = read_tensors(partial)[1]["epoch"]
    assert 1 <= epoch < 3
    said = call(line)
    assert said.code == 0, said.err
    assert f"training OdeNet T=0.25 seed 0: going on after epoch {epoch} of 3\n" in said.err
    assert not partial.exists()
    assert len(list(Path("results").rglob("*.json"))) == 1


def test_an_interrupted_attack_leaves_no_result(
    call: Call, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("odebench.attack.foolbox.pgd", interrupt)
    said = call(f"{RUN} --epsilon 0.1 --weights {weights / 'good.safetensors'}")
    assert said.code == 130
    assert said.err.splitlines()[-1] == f"odebench: {INTERRUPTED}"
    assert files(tmp_path) == {}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, typer.Abort])
def test_an_interruption_anywhere_is_exit_130(
    stop: type[BaseException], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(**_: object) -> None:
        raise stop

    monkeypatch.setattr("odebench.cli.app", interrupt)
    assert_one_line(call("models"), 130, f"{INTERRUPTED}$")


# --- readers and writers that go away ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["--version", "models", "schema", "leaderboard", "-h", "run -h"])
def test_a_reader_that_goes_away_is_no_error_of_ours(line: str, tmp_path: Path) -> None:
    write_result(make_result({0.1: "rf"}), tmp_path / "results")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(line), cwd=tmp_path, env=environment(tmp_path), stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_reader_may_take_one_line(tmp_path: Path) -> None:
    line = " ".join(command("models"))
    done = subprocess.run(
        f"{line} | head -1", shell=True, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.stdout.split() == ["name", "what", "it", "is", "from"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [("models", 0, ""), ("schema", 0, ""), ("run -m kdode -a pgd", 2, "unknown model"), ("-h", 0, "")],
)
def test_closed_streams_are_no_error_of_ours(line: str, code: int, err: str, tmp_path: Path) -> None:
    text = " ".join(command(line))
    done = subprocess.run(
        f"{text} >&-", shell=True, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == code
    assert err in done.stderr
    assert done.stderr.count("\n") == bool(err)
    done = subprocess.run(
        f"{text} 2>&-", shell=True, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == code
    assert not re.search("^odebench:", done.stdout, re.MULTILINE), "what is said of an error is no result"
