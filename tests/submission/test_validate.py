"""Validating entries: a good one, bad ones each refused with its reason, and no line of them executed."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from entry_factory import CODE, SHAPES, change_entry, write_entry, write_weights
from safetensors.torch import load_file, save_file

from odebench.cli import _exit_code
from odebench.errors import UsageError
from odebench.io.files import FileError, sha256_file
from odebench.io.safetensors_file import unfit_tensor
from odebench.submission.entry import Weights, looks_like, template_text
from odebench.submission.file_kind import foreign_kind
from odebench.submission.finding import finding
from odebench.submission.fix import fix_entry
from odebench.submission.limits import MAX_TEXT_BYTES, MAX_WEIGHTS_BYTES
from odebench.submission.module_source import data_imports, foreign_names, revealing_imports, top_level_names
from odebench.submission.validate import validate_entry
from odebench.submission.weights import fetching


@pytest.fixture(autouse=True)
def _nothing_of_it_runs(tmp_path: Path) -> object:
    yield
    assert not list(tmp_path.rglob("trace")), "contributed code was imported"
    assert "model" not in sys.modules


def test_a_good_entry_has_no_findings(tmp_path: Path) -> None:
    report = validate_entry(write_entry(tmp_path))
    assert report.findings == ()
    assert (report.id, report.weights_here, report.weights_elsewhere) == ("mine", 1, 1)


def test_an_entry_is_validated_by_its_id_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ODEBENCH_LEADERBOARD", str(Path(__file__).parents[2] / "leaderboard"))
    monkeypatch.setattr(sys, "argv", ["odebench", "validate", "kd-ode"])
    assert _exit_code() == 0
    assert capsys.readouterr().out.startswith("kd-ode: good")


def test_the_module_would_leave_a_trace(tmp_path: Path) -> None:
    mine = write_entry(tmp_path / "other")
    subprocess.run([sys.executable, "-c", "import model"], cwd=mine, check=True)
    (mine / "trace").unlink()


SEED = "    train_seed: 0\n    norm"
"""Where the claim says its train seed."""


# --- entry.yaml --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line", "rule", "message"),
    [
        # schema and types
        ([("licence: MIT", "license: MIT")], 18, "schema", "unknown key 'license'; did you mean 'licence'"),
        ([("licence: MIT\n", "")], 1, "schema", "has no 'licence'; add it"),
        ([("authors: [Ada Lovelace]", "authors: []")], 17, "authors", "authors is empty; name at least one"),
        (
            [
                (
                    "weights:\n",
                    "weights:\n  - {dataset: digits, horizon: 1, train_seed: 7, file: one.safetensors, sha256: SHA, "
                    "bytes: SIZE}\n",
                )
            ],
            11,
            "weights",
            "train seed 0 has the file of train seed 7 in line 10; two seeds are two trainings",
        ),
        ([("train_seed: 0, file", "trainseed: 0, file")], 10, "schema", "did you mean 'train_seed'"),
        ([("step: 0.25", "step: 1e-3")], 6, "schema", "YAML reads this as text; write 0.001 without quotes"),
        ([("bytes: 1000", 'bytes: "1000"')], 16, "schema", "YAML reads this as text; write 1000.0 without"),
        ([("learning_rate: 0.01", "learning_rate: 1e-2")], 7, "number", "write 0.01 without quotes"),
        ([("channels: 4", "channels: 4e0")], 3, "number", "takes '4e0' for a text, since it has no dot; write 4.0"),
        ([("method: rk4", "method: rk5")], 6, "schema", "unknown method 'rk5'"),
        ([("rk4, backend: torchdiffeq", "rk4")], 6, "schema", "has no 'backend'; add it"),
        ([("norm: linf", "norm: l1")], 24, "schema", "it must be 'linf' or 'l2'"),
        ([("robust_accuracy: 0.35", "robust_accuracy: 35")], 29, "schema", "a share from 0 to 1; did you mean 0.35"),
        ([("epsilon: 0.1", "epsilon: 8/0")], 25, "schema", "a finite number, such as 0.1 or 8/255"),
        ([("epsilon: 0.1", "epsilon: .inf")], 25, "schema", "finite number"),
        # numbers that are others to YAML than to a reader
        ([("n: 500", "n: 8:20")], 27, "schema", r"YAML does not read '8:20' as decimal \(0764 and 8:20 are 500\)"),
        ([("n: 500", "n: 0764")], 27, "schema", "YAML does not read '0764' as decimal"),
        ([("n: 500", "n: 0x1F4")], 27, "schema", "YAML does not read '0x1F4' as decimal"),
        ([("epsilon: 0.1", "epsilon: 0:0.1")], 25, "schema", "YAML does not read '0:0.1' as decimal"),
        # limits
        ([("epsilon: 0.1", "epsilon: 1.0e+308")], 25, "schema", r"epsilon cannot be 1e\+308: it must be at most 10000"),
        ([("horizons: [1, 2]", "horizons: [1, 1.0e+300]")], 5, "schema", "it must be at most 1000000"),
        ([("parameters: 80", f"parameters: {10**200}")], 5, "schema", "it must be at most 10000000000000"),
        ([("horizon: 1, train_seed: 0", f"horizon: 1, train_seed: {2**63}")], 10, "schema", "train_seed cannot be"),
        ([("n: 500", f"n: {10**9}")], 27, "schema", "n cannot be 1000000000: it must be at most 1000000"),
        ([("channels: 4", f"channels: '{'4' * 20_000}'")], 3, "schema", "more than 20000 characters of JSON"),
        ([("id: mine", f"id: {'m' * 201}")], 1, "schema", "it must have at most 200 characters"),
        ([("horizons: [1, 2]", "horizons: [1, -2]")], 5, "schema", "must be above 0"),
        ([("sha256: SHA", "sha256: abc")], 10, "schema", "sha256 cannot be 'abc'"),
        ([("id: mine", "id: [mine")], 2, "yaml", "this is not YAML"),
        ([("licence: MIT", "licence: !!python/object/apply:os.system [ls]")], 18, "schema", "could not|a text"),
        ([("licence: MIT", "licence: 2025-02-31")], 18, "schema", "not what YAML reads it as"),
        # identity
        ([("id: mine", "id: other")], 1, "id", "is not the folder's name; write id: mine"),
        ([("id: mine", "id: Mine")], 1, "id", "small letters, digits and single dashes"),
        ([("id: mine", "id: kd-0de")], 1, "id", "looks like 'kd-ode', a registered model; choose another"),
        ([("id: mine", "id: resnel")], 1, "id", "is not the folder's name"),
        ([("licence: MIT", 'licence: "MI\\u202eT"')], 18, "schema", "has characters that cannot be seen, or that hide"),
        ([("parameters: 80", f"parameters: 0x{'f' * 5000}")], 5, "schema", "is a number of more than 300 characters"),
        ([("id: mine", "id: kd-ode")], 1, "clash", "'kd-ode' is the name of a registered model"),
        # licence, authors, paper
        ([("licence: MIT", "licence: mit")], 18, "licence", "did you mean 'MIT'. accepted .SPDX."),
        ([("licence: MIT", "licence: Apache 2")], 18, "licence", "did you mean 'Apache-2.0'"),
        ([("licence: MIT", "licence: proprietary")], 18, "licence", "not among the accepted licences; accepted"),
        ([("arXiv:2203.05103", "mine")], 19, "paper", "an https address, arXiv:1234.56789 or doi"),
        # model
        ([("model:Net", "kd-oed")], 2, "model", "unknown model 'kd-oed'; did you mean 'kd-ode'"),
        ([("model:Net", "resnet")], 2, "model", "resnet is a registered model, so model.py is never used"),
        ([("model:Net", "model:Nut")], 2, "model", "model.py defines no 'Nut' at its top level; it defines Net, Path"),
        ([("model:Net", "modle:Net")], 2, "model", "there is no modle.py in the folder; its modules: model"),
        ([("model:Net", "os.path:join")], 2, "model", "module:attribute of this folder"),
        ([("model:Net", "../x:Net")], 2, "model", "module:attribute of this folder"),
        # data sets, horizons, solver
        ([("name: digits", "name: digts")], 5, "dataset", "unknown data set 'digts'; did you mean 'digits'"),
        ([("horizons: [1, 2]", "horizons: [1, 1, 2]")], 5, "horizon", "a horizon appears twice"),
        ([("solver: {method: rk4, backend: torchdiffeq, step: 0.25}\n", "")], 5, "solver", "so say the solver"),
        ([("horizons: [1, 2], ", "")], 5, "solver", "so give the horizons of digits"),
        # weights
        ([("sha256: SHA", f"sha256: {'a' * 64}")], 10, "sha256", "another sha256 than aaaaaaaaaaaa...; write sha256: "),
        ([("bytes: SIZE", "bytes: 17")], 10, "bytes", r"has \d+ bytes; write bytes: \d+"),
        ([("parameters: 80", "parameters: 81")], 10, "parameters", "holds 80 numbers in 3 tensors, the entry says 81"),
        ([("file: one", "file: two")], 10, "weights", "two.safetensors is not there as a whole safetensors file"),
        ([("file: one", "file: ../one")], 10, "weights", "lies outside the folder"),
        ([("file: one.safetensors", "file: /etc/passwd")], 10, "weights", "lies outside the folder"),
        ([("file: one.safetensors", "file: model.py")], 10, "weights", "must be a safetensors file"),
        (
            [("file: one", f"file: ../../weights/{'0' * 64}")],
            10,
            "weights",
            "is not there as a plain file; put it there",
        ),
        ([("file: one.safetensors, ", "")], 10, "weights", "either a file or a url"),
        ([("url: https", "url: http")], 14, "url", "must be like https://host/path or hf://owner/name/file@revision"),
        ([("//example.org", "//user:word@example.org")], 14, "url", "without user or password"),
        ([("https://example.org/two", "file:///etc/two")], 14, "url", "must be like https"),
        ([("bytes: 1000", "bytes: 3000000000")], 16, "size", "more than the 2,000,000,000"),
        ([("horizon: 2\n", "horizon: 3\n")], 12, "horizon", "horizon 3 is not one of the entry's, which has on digits"),
        ([("horizon: 2\n", "horizon: 3\n")], 5, "weights", "there are no weights for digits at horizon 2"),
        ([("horizon: 2\n", "horizon: 1\n")], 11, "weights", "of line 10 again"),
        ([("dataset: digits, horizon", "dataset: mnist, horizon")], 10, "dataset", "'mnist' is not among the entry's"),
        # claims
        ([("robust_accuracy: 0.35", "robust_accuracy: 0.98")], 29, "claim", "0.98 cannot be above clean_accuracy 0.97"),
        ([("attack: pgd", "attack: pdg")], 26, "claim", "unknown attack 'pdg'; did you mean 'pgd'"),
        ([("attack: pgd", "attack: cw")], 26, "claim", "cw attacks in l2, not in linf"),
        ([("n: 500", "n: 250")], 27, "claim", "not whole chunks of 100"),
        ([("n: 500", "n: 5000")], 27, "claim", "digits has 500 test images"),
        ([("epsilon: 0.1", "epsilon: 8")], 25, "claim", "did you mean 8/255"),
        (
            [("horizon: 1\n    train_seed: 0\n    norm", "horizon: 4\n    train_seed: 0\n    norm")],
            22,
            "horizon",
            "horizon 4",
        ),
        (
            [("train_seed: 0\n    norm", "train_seed: 1\n    norm")],
            21,
            "claim",
            "there are no weights of this data set",
        ),
    ],
)
def test_what_cannot_be_is_named_with_its_line(
    tmp_path: Path, changes: list[tuple[str, str]], line: int, rule: str, message: str
) -> None:
    mine = write_entry(tmp_path, *changes)
    report = validate_entry(mine)
    found = [each for each in report.findings if re.search(message, each.message)]
    file = f"{mine}/entry.yaml"
    assert [(each.file, each.line, each.rule) for each in found] == [(file, line, rule)], report.findings


def test_every_error_is_reported_at_once(tmp_path: Path) -> None:
    mine = write_entry(tmp_path, ("licence: MIT", "licence: mit"), ("bytes: SIZE", "bytes: 1"), ("n: 500", "n: 1"))
    assert [(each.line, each.rule) for each in validate_entry(mine).findings] == [
        (10, "bytes"),
        (18, "licence"),
        (27, "claim"),
    ]
    both = write_entry(tmp_path / "schema", ("licence: MIT", "license: MIT"), ("n: 500", "n: many"))
    assert [each.line for each in validate_entry(both).findings] == [1, 18, 27]


def test_a_claim_about_what_another_claims_is_named_with_both_lines(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    claim = text[text.index("claims:\n") + len("claims:\n") :]
    (mine / "entry.yaml").write_text(text + claim.replace("0.35", "0.36"), encoding="utf-8")
    (found,) = validate_entry(mine).findings
    assert (found.rule, found.line) == ("claim", text.count("\n") + 1)
    first = text[: text.index("claims:\n")].count("\n") + 2
    assert found.message == f"line {first} claims something about the same evaluation; remove one"


def test_what_is_not_filled_in_yet_hides_nothing_else(tmp_path: Path) -> None:
    mine = write_entry(tmp_path, ("authors: [Ada Lovelace]", "authors: []"), ("bytes: SIZE", "bytes: 1"))
    assert {each.rule for each in validate_entry(mine).findings} == {"authors", "bytes"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_finite(tmp_path: Path, number: float, dtype: torch.dtype) -> None:
    path = tmp_path / "one.safetensors"
    tensors = {"whole": torch.arange(3), "largest": torch.full((2,), torch.finfo(dtype).max, dtype=dtype)}
    save_file(tensors, path)
    assert unfit_tensor(path) is None
    save_file({**tensors, "spoilt": torch.tensor([0.0, number], dtype=dtype)}, path)
    assert str(unfit_tensor(path)).startswith("spoilt holds numbers that are not finite")


def test_a_late_number_of_an_odd_place_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.io.safetensors_file._BLOCK", 4)
    path = tmp_path / "one.safetensors"
    tensors = {
        "a": torch.zeros(3, dtype=torch.uint8),
        "b": torch.zeros(11),
        "none": torch.zeros(0),
        "one": torch.tensor(1.0),
    }
    save_file(tensors, path, {"odd": "x"})
    assert unfit_tensor(path) is None
    tensors["b"][10] = torch.inf
    save_file(tensors, path, {"odd": "x"})
    assert str(unfit_tensor(path)).startswith("b holds")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_other_types_are_not_passed_over(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"small": torch.zeros(2).to(dtype)}, tmp_path / "one.safetensors")
    assert re.match(
        r"small has the type F8_E\dM\d; save it as F64, F32", str(unfit_tensor(tmp_path / "one.safetensors"))
    )


def test_what_lies_elsewhere_has_a_limit_together(tmp_path: Path) -> None:
    mine = write_entry(tmp_path, ("bytes: 1000", "bytes: 1_900_000_000"))
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    one = text[text.index("  - dataset: digits\n    horizon: 2") : text.index("authors")]
    more = "".join(
        one.replace("train_seed: 0", f"train_seed: {seed}").replace("1" * 64, f"{seed}" * 64) for seed in range(2, 8)
    )
    (mine / "entry.yaml").write_text(text.replace("authors", f"{more}authors"), encoding="utf-8")
    (only,) = validate_entry(mine).findings
    assert (only.rule, only.line) == ("size", 9)
    assert "13,300,000,000 bytes elsewhere are more than the 10,000,000,000 of an entry" in only.message


def test_an_entrys_weights_are_finite_whatever_seed_is_drawn(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    weights = mine / "one.safetensors"
    before = sha256_file(weights)
    tensors = load_file(weights)
    tensors["stem.bias"][2] = torch.nan
    save_file(tensors, weights)
    change_entry(mine, (before, sha256_file(weights)))
    (only,) = validate_entry(mine).findings
    assert (only.rule, only.line) == ("weights", 10)
    assert only.message.startswith("one.safetensors: stem.bias holds numbers that are not finite")


def test_weights_elsewhere_are_looked_at_once_they_are_fetched(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    elsewhere = tmp_path / "two.safetensors"
    asked = []

    def fetch(weights: Weights) -> Path:
        asked.append(weights.url)
        return elsewhere

    write_weights(elsewhere)
    old = ('"' + "1" * 64 + '"', "bytes: 1000")
    change_entry(mine, (old[0], f'"{sha256_file(elsewhere)}"'), (old[1], f"bytes: {elsewhere.stat().st_size}"))
    assert validate_entry(mine, fetch=fetch).findings == ()
    assert asked == ["https://example.org/two.safetensors"]
    change_entry(mine, ("licence: MIT", "licence: none"))
    assert [each.rule for each in validate_entry(mine, fetch=fetch).findings] == ["licence"]
    assert len(asked) == 1, "nothing is fetched for an entry that must be mended anyway"
    change_entry(mine, ("licence: none", "licence: MIT"))
    write_weights(elsewhere, {**SHAPES, "more": (2,)})
    found = validate_entry(mine, fetch=fetch).findings
    assert {each.rule for each in found} == {"sha256", "bytes", "parameters"}
    save_file({name: torch.full(shape, torch.nan) for name, shape in SHAPES.items()}, elsewhere)
    assert "stem.weight" not in str(validate_entry(mine, fetch=fetch).findings[0].message)
    assert [
        each
        for each in validate_entry(mine, fetch=fetch).findings
        if "two.safetensors: head.weight holds" in each.message
    ]
    elsewhere.write_bytes(b"<html>")
    (only,) = validate_entry(mine, fetch=fetch).findings
    assert only.message.startswith("https://example.org/two.safetensors is not a whole safetensors file")


def test_weights_that_have_vanished_are_a_finding(tmp_path: Path) -> None:
    mine = write_entry(tmp_path, ("https://example.org", "https://127.0.0.1:9"))
    (only,) = validate_entry(mine, fetch=fetching()).findings
    assert (only.rule, only.line) == ("url", 14)
    assert "https://127.0.0.1:9/two.safetensors cannot be fetched" in only.message
    change_entry(mine, ("127.0.0.1:9/", "127.0.0.1:99999/"))
    assert [each.rule for each in validate_entry(mine, fetch=fetching()).findings] == ["url"]
    change_entry(mine, ("127.0.0.1:99999/", "127.0.0.1:999999/"))
    assert [each.rule for each in validate_entry(mine).findings] == ["url"]


def test_the_readers_own_trouble_is_no_finding(tmp_path: Path) -> None:
    def fetch(weights: Weights) -> Path:
        raise FileError("the disk is full")

    with pytest.raises(FileError, match="the disk is full"):
        validate_entry(write_entry(tmp_path), fetch=fetch)


def test_two_entries_cannot_have_one_id(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "entry.yaml").write_text("id: 'mine'\n", encoding="utf-8")
    (only,) = validate_entry(mine).findings
    assert (only.rule, only.line) == ("clash", 1)
    assert "is that of the entry in yours, too" in only.message


# --- files -------------------------------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


class _Touch:
    """What a pickle can do: writes a file as soon as it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path / "trace"),)


def pickled(protocol: int) -> Spoil:
    return lambda mine: (mine / "one.safetensors").write_bytes(pickle.dumps(_Touch(mine), protocol=protocol))


def zipped_behind(mine: Path) -> None:
    """A whole safetensors file whose last tensor is a zip archive, as torch.load would read it."""
    archive = mine / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", pickle.dumps(_Touch(mine)))
    data = archive.read_bytes()
    archive.unlink()
    from safetensors.torch import save_file

    save_file({"a": torch.frombuffer(bytearray(data), dtype=torch.uint8)}, mine / "one.safetensors")


@pytest.mark.parametrize(
    ("spoil", "file", "rule", "message"),
    [
        (pickled(0), "one.safetensors", "pickle", "is a pickle, whatever its name says"),
        (pickled(2), "one.safetensors", "pickle", "is a pickle"),
        (pickled(4), "one.safetensors", "pickle", "is a pickle"),
        (pickled(5), "one.safetensors", "pickle", "is a pickle"),
        (lambda mine: torch.save({"a": torch.ones(1)}, mine / "one.safetensors"), "one.safetensors", "pickle", "zip"),
        (
            zipped_behind,
            "one.safetensors",
            "pickle",
            "is a zip archive with something before it, whatever its name says",
        ),
        (lambda mine: (mine / "README.md").write_bytes(pickle.dumps([1])), "README.md", "pickle", "is a pickle"),
        (lambda mine: (mine / "a.py").write_bytes(gzip.compress(b"import os")), "a.py", "pickle", "a gzip archive"),
        (lambda mine: (mine / "a.npy").write_bytes(b"\x93NUMPY\x01\x00"), "a.npy", "pickle", "a numpy array"),
        (
            lambda mine: (mine / "one.safetensors").write_bytes((mine / "one.safetensors").read_bytes()[:-1]),
            "one.safetensors",
            "weights",
            "is not a whole safetensors file",
        ),
        (lambda mine: (mine / "one.safetensors").write_bytes(b""), "one.safetensors", "weights", "not a whole"),
        (lambda mine: write_weights(mine / "two.safetensors"), "two.safetensors", "weights", "is not listed"),
        (lambda mine: (mine / "notes.txt").write_text("-"), "notes.txt", "file", "is not expected here"),
        (lambda mine: (mine / ".hidden").write_text("-"), ".hidden", "file", "rename or delete it"),
        (lambda mine: (mine / "sub").mkdir(), "sub", "file", "is a folder"),
        (lambda mine: (mine / "README.md").unlink(), "README.md", "file", "is missing"),
        (lambda mine: (mine / "entry.yaml").unlink(), "entry.yaml", "file", "is missing; odebench new-entry"),
        (lambda mine: (mine / "README.md").write_text(" \n"), "README.md", "file", "is empty"),
        (
            lambda mine: (mine / "README.md").write_text(template_text("README.md").replace("{id}", "mine")),
            "README.md",
            "file",
            "holds the template's text",
        ),
        (lambda mine: (mine / "README.md").write_bytes(b"\xff"), "README.md", "file", "is not text in UTF-8"),
        (lambda mine: (mine / "a.py").symlink_to("/etc/passwd"), "a.py", "link", "is a link"),
        (lambda mine: (mine / "weights").symlink_to(mine.parent), "weights", "link", "is a link"),
        (lambda mine: os.mkfifo(mine / "a.py"), "a.py", "file", "is no plain file"),
        (
            lambda mine: (mine / "README.md").write_text("a" * (MAX_TEXT_BYTES + 1)),
            "README.md",
            "size",
            "has 100,001 bytes, more than the 100,000",
        ),
        (
            lambda mine: os.truncate(mine / "one.safetensors", MAX_WEIGHTS_BYTES + 1),
            "one.safetensors",
            "size",
            "publish it elsewhere and give its url",
        ),
        (lambda mine: (mine / "model.py").write_text(CODE + "if"), "model.py", "code", "is not Python"),
        (lambda mine: (mine / "model.py").write_text("(" * 5000), "model.py", "code", "is not Python"),
        (
            lambda mine: (mine / "model.py").write_text(f"# -*- coding: utf-7 -*-\n{CODE}"),
            "model.py",
            "code",
            "names the encoding utf-7, with which it may be other code than it looks",
        ),
        *(
            (
                lambda mine, end=end: (mine / "model.py").write_text(f"#{end} coding: utf-7\n{CODE}", newline=""),
                "model.py",
                "code",
                "names the encoding utf-7",
            )
            for end in ("\x0b", "\x0c", "\x1c", "\x1d")
        ),
        (
            lambda mine: (mine / "model.py").write_text(f"{CODE}# \u202e gnihton\n"),
            "model.py",
            "code",
            "has characters that cannot be seen or turn the direction of writing",
        ),
        (lambda mine: (mine / "__pycache__").mkdir(), "__pycache__", "file", "PYTHONDONTWRITEBYTECODE=1 keeps it away"),
        (lambda mine: (mine / "torch.py").write_text(CODE), "torch.py", "code", "would hide a module of that name"),
    ],
)
def test_files_that_must_not_be_are_named(tmp_path: Path, spoil: Spoil, file: str, rule: str, message: str) -> None:
    mine = write_entry(tmp_path)
    spoil(mine)
    report = validate_entry(mine)
    found = [each for each in report.findings if (each.file, each.rule) == (str(mine / file), rule)]
    assert len(found) == 1, report.findings
    assert message in found[0].message


def test_a_folder_has_limits(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    for number in range(101):
        (mine / f"a{number}.py").touch()
    assert "holds more than 100 files" in " ".join(each.message for each in validate_entry(mine).findings)
    large = write_entry(tmp_path / "large")
    for number in range(4):
        (large / f"{number}.safetensors").touch()
        os.truncate(large / f"{number}.safetensors", 9_000_000)
    assert "bytes, more than the 30,000,000 of an entry" in " ".join(
        each.message for each in validate_entry(large).findings
    )


def test_the_folder_itself_is_no_link_and_exists(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    (tmp_path / "link").symlink_to(mine)
    (only,) = validate_entry(tmp_path / "link").findings
    assert only.rule == "link"
    with pytest.raises(UsageError, match=r"there is no folder .*; odebench new-entry gone writes one"):
        validate_entry(tmp_path / "gone")


def test_shared_weights_are_looked_at_where_they_lie(tmp_path: Path) -> None:
    name = "a" * 64
    mine = write_entry(tmp_path / "entries", ("file: one", f"file: ../../weights/{name}"))
    (tmp_path / "weights").mkdir()
    (mine / "one.safetensors").rename(tmp_path / "weights" / f"{name}.safetensors")
    assert validate_entry(mine).findings == ()
    write_weights(tmp_path / "weights" / f"{name}.safetensors", {**SHAPES, "more": (2,)})
    assert {each.rule for each in validate_entry(mine).findings} == {"sha256", "bytes", "parameters"}
    (tmp_path / "weights" / f"{name}.safetensors").write_bytes(pickle.dumps(1))
    assert [each.rule for each in validate_entry(mine).findings] == ["weights"]


def test_texts_are_no_pickles_and_pickles_without_a_mark_are_found() -> None:
    for text in ("# mine\n", ".", "(lp0\n.", "cool model\nby me\n.", "import os\n", ""):
        assert foreign_kind(text.encode()) is None
    assert foreign_kind(b"cos\nsystem\n(S'true'\ntR.") == "a pickle"


def test_a_module_may_say_that_it_is_utf8(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    for line in ("# -*- coding: utf-8 -*-", "# vim: set fileencoding=UTF8 :", "\ufeff# with a mark"):
        (mine / "model.py").write_text(f"{line}\n{CODE}", encoding="utf-8")
        assert validate_entry(mine).findings == ()


def test_names_of_a_module_are_read_without_running_it() -> None:
    text = "import a.b\nfrom c import d as e\nx, y = 1, 2\nz: int = 3\n"
    text += "if x:\n    def f(): pass\nelse:\n    class G: pass\n"
    text += "try:\n    import h\nexcept ImportError:\n    h = None\nassert False\n"
    assert top_level_names(text) == {"a", "e", "x", "y", "z", "f", "G", "h"}


def test_what_strangers_write_cannot_move_the_cursor() -> None:
    assert str(finding("a\x1b[2J", 3, "id", "b\nc\ud800é")) == r"a\x1b[2J, line 3: b\nc\ud800é"
    assert len(finding("a", None, "id", "b" * 1000).message) == 400


# --- registered models -------------------------------------------------------------------------------------------

REGISTERED = """\
id: mine
model: kd-ode
arguments: {adversary: trades}
datasets:
  - {name: digits, horizons: [1], parameters: 9530}
solver: {method: rk4, backend: torchdiffeq, step: 0.25}
training: {epochs: 15, adversary: trades}
teacher: resnet
authors: [Ada Lovelace]
licence: MIT
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "rule", "message"),
    [
        ("id: mine", "id: mine", None, None, None),
        ("adversary: trades}\ndata", "adversray: trades}\ndata", 3, "arguments", "a recipe has no adversray"),
        ("{adversary: trades}\nd", "{adversary: trades, teacher_adversary: madry}\nd", None, None, None),
        ("adversary: trades}\nt", "adversary: trades, teacher_adversary: madry}\nt", 7, "training", "says 'none' on"),
        (
            "{adversary: trades}\nd",
            "{teacher_adversary: pgd}\nd",
            3,
            "arguments",
            "the teacher, resnet: adversary='pgd'",
        ),
        ("epochs: 15", "epochs: 20", 7, "training", "training.epochs is 20, the recipe says 15 on digits"),
        ("teacher: resnet", "teacher: ode", 8, "training", "the teacher of kd-ode is resnet"),
        ("step: 0.25", "step: 0.5", 6, "solver", "kd-ode is trained with rk4 step 0.25 on digits"),
        (", horizons: [1]", "", 5, "horizon", "kd-ode needs horizons"),
        ("model: kd-ode", "model: ode-ablated", 5, "horizon", "ode-ablated has no horizons; remove them"),
    ],
)
def test_a_registered_model_is_what_its_recipe_says(
    tmp_path: Path, old: str, new: str, line: int | None, rule: str | None, message: str | None
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# mine\n", encoding="utf-8")
    assert REGISTERED.count(old) == 1
    (mine / "entry.yaml").write_text(REGISTERED.replace(old, new), encoding="utf-8")
    found = [(each.line, each.rule, each.message) for each in validate_entry(mine).findings]
    if message is None:
        assert found == []
    else:
        assert [each for each in found if each[:2] == (line, rule) and message in each[2]], found


# --- the command -------------------------------------------------------------------------------------------------


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["odebench", *words])
    return _exit_code()


def test_the_command_names_findings_and_exits_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write_entry(tmp_path)
    assert typed(monkeypatch, "validate", str(mine)) == 0
    assert capsys.readouterr().out == "mine: good; weights files here: 1, 1 elsewhere not looked at (--fetch)\n"
    change_entry(mine, ("licence: MIT", "licence: mit"))
    assert typed(monkeypatch, "validate", str(mine / "entry.yaml")) == 1
    out = capsys.readouterr().out
    said = f"{mine}/entry.yaml, line 18: licence 'mit' is not among the accepted licences; did you mean"
    assert " ".join(out.split()).startswith(said)
    assert [line for line in out.splitlines() if len(line) > 80 and str(mine) not in line] == []
    assert out.endswith("mine: 1 finding\n")
    assert typed(monkeypatch, "validate", "--json", str(mine)) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["id"], report["ok"], report["path"]) == ("mine", False, str(mine))
    assert [(each["line"], each["rule"]) for each in report["findings"]] == [(18, "licence")]


def test_all_entries_are_validated_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "validate") == 2
    assert "there are no entries in leaderboard/entries" in capsys.readouterr().err
    write_entry(tmp_path / "leaderboard" / "entries")
    assert typed(monkeypatch, "validate") == 0
    assert capsys.readouterr().out.startswith("mine: good")


def test_validating_imports_neither_torch_nor_the_model(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    code = (
        "import sys; from odebench.submission.validate import validate_entry; from pathlib import Path; "
        "assert not validate_entry(Path(sys.argv[1])).findings; assert not {'torch', 'model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(mine)], check=True)


def test_an_id_looks_like_another_where_readers_would_take_it_for_that() -> None:
    known = ("kd-ode", "ode", "resnet", "modern-ode")
    for given, other in (("kd-0de", "kd-ode"), ("kdode", "kd-ode"), ("0de", "ode"), ("re5net", "resnet")):
        assert looks_like(given, known) == other
    assert looks_like("modem-ode", known) == "modern-ode"
    assert looks_like("kd-ode", known) is None
    assert looks_like("kd-ode-2", known) is None


def test_imports_with_which_code_can_look_around_are_named(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    (mine / "model.py").write_text("import torch\nfrom gc import collect\nx = __import__('sys')\n", encoding="utf-8")
    (mine / "train.py").write_text("import sys\n", encoding="utf-8")
    (mine / "torn.py").write_text("import os\nif", encoding="utf-8")
    found = ["model.py imports gc (line 2), importlib (line 3): read what for"]
    assert list(revealing_imports(mine / "model.py")) == found, "a training is not run here"
    (mine / "model.py").write_text("import torch\nimport more\n", encoding="utf-8")
    (mine / "more.py").write_text("import math\nimport inspect\n", encoding="utf-8")
    assert list(revealing_imports(mine / "model.py")) == ["more.py imports inspect (line 2): read what for"]


def test_imports_of_data_sets_are_noted_where_the_model_reaches_them(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    assert list(data_imports(mine / "model.py")) == []
    (mine / "train.py").write_text("from odebench.dataset import load_dataset\n", encoding="utf-8")
    (mine / "sklearned.py").write_text("import model\nfrom sklearn.datasets import load_digits\n", encoding="utf-8")
    assert list(data_imports(mine / "model.py")) == [], "what trains needs data"
    (mine / "model.py").write_text("import torch\n\nfrom sklearned import load_digits\n", encoding="utf-8")
    (note,) = data_imports(mine / "model.py")
    assert note == (
        "sklearned.py imports sklearn.datasets.load_digits (line 2), which holds data sets: has it test images?"
    )


@pytest.mark.parametrize(
    ("line", "notes"),
    [
        ("import odebench", 1),
        ("from odebench import load_dataset", 1),
        ("from odebench import dataset", 1),
        ("from odebench import *", 1),
        ("from odebench.dataset.builtin import DIGITS", 1),
        ("import sklearn.datasets as d", 1),
        ("from odebench.solver import integrate", 0),
        ("from odebench import integrate", 0),
        (f"def unused():\n    import {'a' * 300}", 0),
    ],
)
def test_each_way_to_import_a_data_set_is_noted(tmp_path: Path, line: str, notes: int) -> None:
    (tmp_path / "model.py").write_text(f"{line}\n", encoding="utf-8")
    assert len(list(data_imports(tmp_path / "model.py"))) == notes


def test_names_that_may_look_like_others_are_noted(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    (mine / "more.py").write_text("x = 'é'  # é\n", encoding="utf-8")
    assert list(foreign_names(mine)) == []
    text = "import torch\nl\u0435n = min\n\uff45val = l\u0435n\n"
    (mine / "more.py").write_text(text, encoding="utf-8")
    assert list(foreign_names(mine)) == [
        "more.py has names that may look like others: 'l\\u0435n' (line 2), '\\uff45val' (line 3)"
    ]


# --- all at once, and --fix ----------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_and_in_words(tmp_path: Path) -> None:
    mine = write_entry(
        tmp_path,
        ("licence: MIT", "licence: mit"),
        ("robust_accuracy: 0.35", "robust_accuracy: 35"),
        ("train_seed: 0, file", "train_seed: zero, file"),
        ("bytes: 1000", "bytes: 0"),
        ("authors: [Ada Lovelace]", "authors: [3]"),
        ("paper: arXiv:2203.05103", "paper: mine"),
        ("model: model:Net", "model: model:Nets"),
    )
    said = [(one.line, one.message) for one in validate_entry(mine).findings]
    assert [line for line, _ in said] == [2, 10, 16, 17, 18, 19, 29]
    text = "\n".join(message for _, message in said)
    assert "train_seed cannot be 'zero': it must be a whole number" in text
    assert "bytes cannot be 0: it must be at least 1" in text
    assert "authors cannot be 3: it must be a text" in text
    assert not re.search(r"valid|Input|String|should", text)


def test_fix_writes_what_the_files_say_and_nothing_else(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    good = (mine / "entry.yaml").read_text(encoding="utf-8")
    sha256, size = sha256_file(mine / "one.safetensors"), (mine / "one.safetensors").stat().st_size
    change_entry(mine, (sha256, f'"{"0" * 64}"'), (f"bytes: {size}", "bytes: 1"), ("parameters: 80", "parameters: 1"))
    assert fix_entry(mine) == [
        f"{mine / 'entry.yaml'}: datasets.0.parameters is now 80",
        f"{mine / 'entry.yaml'}: weights.0.sha256 is now {sha256}",
        f"{mine / 'entry.yaml'}: weights.0.bytes is now {size}",
    ]
    assert (mine / "entry.yaml").read_text(encoding="utf-8") == good.replace(sha256, f'"{sha256}"')
    assert fix_entry(mine) == []
    assert not validate_entry(mine).findings


@pytest.mark.parametrize("written", ["[1, 2]", "1 KB", "&p 3"])
def test_fix_writes_nothing_that_would_not_be_read_as_meant(tmp_path: Path, written: str) -> None:
    mine = write_entry(tmp_path)
    size = (mine / "one.safetensors").stat().st_size
    change_entry(mine, (f"bytes: {size}", f"bytes: {written}"))
    before = (mine / "entry.yaml").read_bytes()
    (said,) = fix_entry(mine)
    assert said.endswith(f"write weights.0.bytes: {size} yourself; its line could not be told")
    assert (mine / "entry.yaml").read_bytes() == before


def test_fix_adds_keys_that_are_missing(tmp_path: Path) -> None:
    mine = write_entry(tmp_path)
    text = (mine / "entry.yaml").read_text(encoding="utf-8")
    lines = [
        "  - dataset: digits\n    horizon: 1\n    train_seed: 0\n    file: one.safetensors  # mine\n"
        if line.startswith("  - {dataset: digits, horizon: 1")
        else line
        for line in text.splitlines(keepends=True)
    ]
    (mine / "entry.yaml").write_text("".join(lines), encoding="utf-8")
    assert validate_entry(mine).findings
    assert len(fix_entry(mine)) == 2
    assert not validate_entry(mine).findings
