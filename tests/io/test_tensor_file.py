"""Checkpoints: equal bytes for equal contents, no pickle ever opened, and each kind of damage named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from odebench.errors import WeightError
from odebench.io.files import FileError
from odebench.io.safetensors_file import METADATA_KEY
from odebench.io.tensor_file import load_weights, read_tensors, write_tensors

RECIPE = {"recipe": {"b": [1, 2.5, None], "a": "é"}, "epoch": 3}


def tensors() -> dict[str, Tensor]:
    return {
        "weight": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
        "bias": torch.tensor([0.5, -0.0, 1e-30]),
        "count": torch.tensor(5),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "double": torch.tensor([[1.0]], dtype=torch.float64),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    write_tensors(path, tensors(), RECIPE)
    found, metadata = read_tensors(path)
    assert metadata == RECIPE
    assert set(found) == set(tensors())
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_views_and_tied_weights_are_written(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3).requires_grad_()
    write_tensors(tmp_path / "a", {"turned": base.T, "same": base, "again": base, "row": base[1]}, {})
    found, _ = read_tensors(tmp_path / "a")
    assert torch.equal(found["turned"], base.T)
    assert torch.equal(found["same"], found["again"])
    assert torch.equal(found["row"], base[1])


def test_what_was_read_may_be_changed_without_changing_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_tensors(path, tensors(), {})
    before = path.read_bytes()
    found, _ = read_tensors(path)
    found["weight"].add_(1)
    assert path.read_bytes() == before


def test_files_of_others_have_no_metadata(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "plain.safetensors")
    save_file(tensors(), tmp_path / "other.safetensors", metadata={"format": "pt"})
    for name in ("plain", "other"):
        found, metadata = read_tensors(tmp_path / f"{name}.safetensors")
        assert set(found) == set(tensors())
        assert metadata == {}


WRITE = """
import sys, torch
from pathlib import Path
from odebench.io.tensor_file import write_tensors
names = ["w", "b", "a.long.name", "z", "0", "é"]
for path in sys.argv[1:]:
    tensors = {name: torch.full((3, 2), float(len(name))) for name in names}
    recipe = {key: {"x": 1, "y": [1, 2]} for key in names}
    write_tensors(Path(path), tensors, {"recipe": recipe, "epoch": 1, "train_sha256": "ab"})
    names.reverse()
"""
"""Writes equal contents, in one order and back; once a process with a seed of its own for the order of sets."""


def test_equal_contents_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    digests = []
    for seed in ("0", "4711"):
        paths = [tmp_path / f"{seed}-{order}.safetensors" for order in ("on", "back")]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", WRITE, *map(str, paths)], check=True, env=environment)
        digests += [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert len(digests) == 4
    assert len(set(digests)) == 1


class Trap:
    """An object whose unpickling leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def _pickles(trace: Path) -> dict[str, bytes]:
    found = {f"protocol {number}": pickle.dumps({"w": Trap(trace)}, protocol=number) for number in (2, 3, 4, 5)}
    found["gzip"] = gzip.compress(found["protocol 4"])
    for title, zipped in (("torch zip", True), ("torch legacy", False)):
        buffer = io.BytesIO()
        torch.save({"w": torch.zeros(2), "trap": Trap(trace)}, buffer, _use_new_zipfile_serialization=zipped)
        found[title] = buffer.getvalue()
    return found


@pytest.mark.parametrize("kind", sorted(_pickles(Path("trace"))))
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights"])
def test_pickles_are_refused_whatever_they_are_called(tmp_path: Path, kind: str, name: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / name
    path.write_bytes(_pickles(trace)[kind])
    message = r"is a pickle \(or an archive of one\), which can run code when loaded; save the state dict with safeten"
    with pytest.raises(WeightError, match=message):
        read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("number", [0, 1])
def test_older_pickles_are_refused_as_no_safetensors(tmp_path: Path, number: int) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "old").write_bytes(pickle.dumps({"w": Trap(trace)}, protocol=number))
    with pytest.raises(WeightError, match="old is not a whole safetensors file"):
        read_tensors(tmp_path / "old")
    assert not trace.exists()


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path: Path, length: int) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": torch.ones(2)}, {"note": ""})
    size = length - int.from_bytes(path.read_bytes()[:8], "little")
    write_tensors(path, {"w": torch.ones(2)}, {"note": "x" * size})
    assert int.from_bytes(path.read_bytes()[:8], "little") == length
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    found, metadata = read_tensors(path)
    assert torch.equal(found["w"], torch.ones(2))
    assert metadata == {"note": "x" * size}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "whole", tensors(), RECIPE)
    whole = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for length in {*range(0, 24), *range(0, len(whole), 7), len(whole) - 1}:
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightError, match="cut is not a whole safetensors file: "):
            read_tensors(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(WeightError, match="cut is not a whole safetensors file: "):
        read_tensors(cut)
    cut.write_bytes(os.urandom(400))
    with pytest.raises(WeightError, match="cut is "):
        read_tensors(cut)


def test_files_that_cannot_be_read_are_told_why(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"cannot read .*missing: No such file or directory"):
        read_tensors(tmp_path / "missing")
    with pytest.raises(WeightError, match=r"cannot read .*: Is a directory"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "its metadata under 'odebench' is not JSON"),
        ("", "its metadata under 'odebench' is not JSON"),
        ("[" * 100_000, "its metadata under 'odebench' is not JSON"),
        *((value, "its metadata under 'odebench' is not a JSON object") for value in ("[1]", "null", '"a"', "3")),
    ],
    ids=lambda value: value[:12],
)
def test_metadata_that_is_no_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(tensors(), path, metadata={METADATA_KEY: text})
    with pytest.raises(WeightError, match=message):
        read_tensors(path)


def test_metadata_is_one_key_of_canonical_json(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"w": torch.ones(1)}, RECIPE)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {METADATA_KEY: '{"epoch":3,"recipe":{"a":"é","b":[1,2.5,null]}}'}


# Into a module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("steps", torch.tensor(0))


def state() -> dict[str, Tensor]:
    return {
        "linear.weight": torch.ones(2, 3),
        "linear.bias": torch.ones(2),
        "steps": torch.tensor(4),
    }


def test_weights_are_put_into_a_module() -> None:
    module = Net()
    load_weights(module, state(), source=Path("w"))
    assert module.linear.weight.tolist() == [[1.0] * 3] * 2
    assert module.steps == 4
    assert module.linear.weight.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear.bias": None}, "w has no tensor 'linear.bias': it belongs to another model than this one"),
        ({"extra": torch.ones(1)}, "w has a tensor 'extra' that this model does not: it belongs to another one"),
        ({"linear.weight": torch.ones(3, 2)}, r"w: linear.weight has shape \(3, 2\), this model needs \(2, 3\)"),
        ({"linear.bias": torch.ones(2, 1)}, r"w: linear.bias has shape \(2, 1\), this model needs \(2,\)"),
        ({"linear.bias": torch.ones(2).double()}, "w: linear.bias is torch.float64, this model needs torch.float32"),
        ({"linear.bias": torch.ones(2).half()}, "w: linear.bias is torch.float16, this model needs torch.float32"),
        ({"steps": torch.tensor(1.0)}, "w: steps is torch.float32, this model needs torch.int64"),
        ({"linear.bias": torch.tensor([1.0, float("nan")])}, "w: linear.bias holds NaN or infinity; the weights are"),
        ({"linear.bias": torch.tensor([1.0, float("inf")])}, "w: linear.bias holds NaN or infinity; the weights are"),
        ({"linear.bias": torch.tensor([1.0, -float("inf")])}, "w: linear.bias holds NaN or infinity; the weights are"),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(change: dict[str, Any], message: str) -> None:
    module = Net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    given = {name: tensor for name, tensor in (state() | change).items() if tensor is not None}
    with pytest.raises(WeightError, match=message):
        load_weights(module, given, source=Path("w"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_full_disk_is_one_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "weights.safetensors"
    write_tensors(path, {"w": torch.ones(4)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FileError) as raised:
            write_tensors(path, {"w": torch.zeros(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(raised.value) == f"cannot write {path}: File too large; free space or name another folder"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found, _ = read_tensors(path)
    assert torch.equal(found["w"], torch.ones(4))
