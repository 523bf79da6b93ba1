"""Frames: what goes in comes out, of every kind of number, and broken bytes are one line."""

from __future__ import annotations

import pytest
import torch

from odebench.io.frame import PREFIX, decode_frame, encode_frame, frame_lengths


def test_what_goes_in_comes_out_of_every_kind_of_number() -> None:
    shared = torch.arange(6.0)
    tensors = {
        "fp32": torch.rand(2, 1, 3),
        "fp64": torch.rand(3, dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "int64": torch.tensor(-5),
        "transposed": torch.rand(2, 3).t(),
        "row": shared[1:3],
        "whole": shared,
        "empty": torch.zeros(0, 4),
        "asked": torch.rand(2, requires_grad=True),
    }
    for given in (tensors, tensors | {"bf16": torch.rand(4).bfloat16()}):
        frame = encode_frame({"order": "ask", "number": 3}, given)
        text, body = frame_lengths(frame[:PREFIX])
        assert len(frame) == PREFIX + text + body
        header, found = decode_frame(frame[PREFIX : PREFIX + text], frame[PREFIX + text :])
        assert header == {"order": "ask", "number": 3}
        assert found.keys() == given.keys()
        for name, tensor in given.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name


def test_broken_bytes_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^its tensors are not safetensors: "):
        decode_frame(b"{}", b"none")
    with pytest.raises(ValueError, match=r"^its header "):
        decode_frame(b"{", encode_frame({}, {})[PREFIX + 2 :])
