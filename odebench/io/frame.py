"""Frames: a JSON object and tensors as one length-prefixed message, which cannot run code where it is read.

A frame is the length of the JSON text (4 bytes, big-endian), the length of the tensors (8 bytes), the JSON text in
UTF-8, and the tensors as safetensors. The lengths come first, so that a reader can refuse a frame before it is sent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import Tensor

from odebench.io.canonical_json import canonical_json
from odebench.io.safetensors_file import parse_metadata

_LENGTHS = struct.Struct(">IQ")
PREFIX = _LENGTHS.size
"""How many bytes hold the two lengths."""


def encode_frame(header: Mapping[str, JsonValue], tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a frame."""
    text = canonical_json(dict(header)).encode()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        body = save_arrays({name: tensor.numpy() for name, tensor in plain.items()})
    except TypeError:  # bf16, which numpy lacks; cloned, since safetensors refuses tensors that share memory
        body = save({name: tensor.clone() for name, tensor in plain.items()})
    return _LENGTHS.pack(len(text), len(body)) + text + body


def frame_lengths(prefix: bytes) -> tuple[int, int]:
    """The lengths in bytes of the JSON text and of the tensors, from the first PREFIX bytes of a frame."""
    text, body = _LENGTHS.unpack(prefix)
    return text, body


def decode_frame(text: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON object and the tensors of a frame, all of whose bytes may be hostile. Raises ValueError, one line."""
    try:
        header = parse_metadata(text.decode())
    except ValueError as error:
        raise ValueError(f"its header {error}") from error
    try:
        return header, load(body)
    except Exception as error:  # safetensors, torch and the table of types each raise errors of their own
        raise ValueError(f"its tensors are not safetensors: {type(error).__name__}") from error
