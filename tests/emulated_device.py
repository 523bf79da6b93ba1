"""A device that is not the CPU for torch and needs no card: its memory is the CPU's, its rules are those of CUDA.

It is PyTorch's door for devices of others (the dispatch key PrivateUse1), filled in from Python: every operator is
computed by its CPU kernel on the same memory, and the result belongs to the device. As on CUDA, operands of two devices
are refused (but for numbers of no dimension), so are a generator of another device and numpy's view of a tensor, the
device has random numbers of its own, and autocast has its own lists of operators.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

try:
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
except ImportError:  # before torch 2.10
    AVAILABLE = False
    _DummyBackendModule = object
else:
    AVAILABLE = True

NAME = "emulated"
DEVICE = torch.device("privateuseone", 0)
_CPU_DEVICE = torch.device("cpu")
_STRUCTURED = "CompositeExplicitAutogradNonFunctional"
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

calls: Counter[str] = Counter()
"""How often each operator ran on the device."""

_MAY_MIX = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"}
"""Operators that take indices from the CPU on CUDA, too."""

_LOWER = ("conv1d", "conv2d", "linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "addbmm")
_FP32 = (
    "softmax.int",
    "log_softmax.int",
    "group_norm",
    "layer_norm",
    "cross_entropy_loss",
    "exp",
    "log",
    "norm.Scalar",
)
"""What autocast runs in the lower precision and in fp32 on CUDA: those operators that our models use."""


class _Module(_DummyBackendModule):
    """What torch asks of torch.emulated: above all a generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def manual_seed_all(self, seed: int) -> None:
        # as on a card: the same seed gives other numbers than on the CPU
        self.generator.manual_seed(seed + 1)

    def get_rng_state(self, device: object = None) -> Tensor:
        return self.generator.get_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        self.generator.set_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


module = _Module()


def _is_here(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def on_cpu(tensor: Tensor) -> Tensor:
    """The CPU tensor that shares the memory of one on the device."""
    storage = tensor.untyped_storage().memory
    return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


class _DLManagedTensor(ctypes.Structure):
    """DLPack's description of a tensor (dlpack.h, version 0), here of bytes in a row on a device of no known kind."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype_code", ctypes.c_uint8),
        ("dtype_bits", ctypes.c_uint8),
        ("dtype_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_EXT_DEV, _UINT, _BITS = 12, 1, 8
# One for all: torch keeps its address and looks at nothing but `deleter`, which is none, when it frees a tensor.
_bytes = _DLManagedTensor(
    device_type=_EXT_DEV, ndim=1, dtype_code=_UINT, dtype_bits=_BITS, dtype_lanes=1, shape=(ctypes.c_int64 * 1)()
)
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def on_device(tensor: Tensor) -> Tensor:
    """The tensor on the device that takes over the memory of one on the CPU."""
    empty: Tensor = torch._C._acc.create_empty_tensor((0,), tensor.dtype)
    memory = tensor.untyped_storage()
    _bytes.data, _bytes.shape[0] = memory.data_ptr(), memory.nbytes()
    storage = torch._C._from_dlpack(_capsule(ctypes.byref(_bytes), b"dltensor", None)).untyped_storage()
    storage.memory = memory
    return _set(empty, storage, tensor)


def _set(tensor: Tensor, storage: torch.UntypedStorage, like: Tensor) -> Tensor:
    """The same tensor, now a view of `storage` as `like` is one of its own."""
    where = like.storage_offset(), like.size(), like.stride()
    found: Tensor = torch.ops.aten.set_.source_Storage_storage_offset.redispatch(_CPU, tensor, storage, *where)
    return found


def _as_strided(tensor: Tensor, *where: Any) -> Tensor:
    viewed: Tensor = torch.ops.aten.as_strided.default.redispatch(_CPU, tensor, *where)
    return viewed


class _Kernel:
    """An operator by its CPU kernel, on the memory of the device's tensors; its results belong to the device."""

    def __init__(self, operator: Any) -> None:
        self.operator, self.name = operator, operator._schema.name
        self.draws = any(argument.name == "generator" for argument in operator._schema.arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls[self.name] += 1
        call = _Call(self.name)
        plain = [call.plain(value) for value in args]
        named = {name: call.plain(value) for name, value in kwargs.items()}
        call.check(args[0] if args else None)
        if self.draws:
            named["generator"] = module.generator
        found = self.operator(*plain, **named)
        call.resize()
        return call.here(found)


class _Call:
    """One call of an operator: which tensor on the device each one on the CPU stands for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.others: list[Tensor] = []

    def plain(self, value: Any) -> Any:
        """What the CPU kernel gets for an argument."""
        if isinstance(value, Tensor):
            if value.device.type != NAME:
                self.others.append(value)
                return value
            twin = on_cpu(value)
            self.pairs.append((twin, value))
            return twin
        if isinstance(value, (list, tuple)):
            return [self.plain(one) for one in value]
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device.type}'")
        return _CPU_DEVICE if isinstance(value, torch.device) else value

    def check(self, first: Any) -> None:
        """Refuses operands of two devices as CUDA does: numbers may come from the CPU, and so may indices."""
        strangers = [other for other in self.others if other.ndim]
        if self.name in _MAY_MIX:  # the indices, not what they index
            strangers = strangers if first is not None and first.device.type != NAME else []
        if strangers and self.pairs:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {self.name} got one on {strangers[0].device}"
            )

    def resize(self) -> None:
        """Hands over the size of results that were to be written to a tensor without one."""
        for twin, original in self.pairs:
            if twin.size() != original.size():
                _set(original, on_device(twin).untyped_storage(), twin)

    def here(self, value: Any) -> Any:
        """What the caller gets for a result: an argument, a view of one, or a new tensor."""
        if isinstance(value, Tensor):
            for twin, original in self.pairs:
                if value is twin:
                    return original
                if value.untyped_storage()._cdata == twin.untyped_storage()._cdata:
                    return _as_strided(original, value.size(), value.stride(), value.storage_offset())
            return on_device(value)
        if isinstance(value, (list, tuple)):
            return type(value)([self.here(one) for one in value])
        return value


_kernels: dict[Any, _Kernel] = {}


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    if operator not in _kernels:
        _kernels[operator] = _Kernel(operator)
    return _kernels[operator](*args, **kwargs)


def _made_of_others() -> Iterator[Any]:
    """Operators for which torch has a way by other operators; their own kernels are quicker."""
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, _STRUCTURED):
            base, _, overload = name.removeprefix("aten::").partition(".")
            yield getattr(getattr(torch.ops.aten, base), overload or "default")


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    plain = [on_cpu(tensor) if _is_here(tensor) else tensor for tensor in (source, target)]
    plain[1].copy_(plain[0])
    return target


def _to_copy(tensor: Tensor, *, device: torch.device | None = None, **how: Any) -> Tensor:
    """A copy in another type or on another device; at once, since there is no pinned memory to wait for."""
    plain = on_cpu(tensor) if _is_here(tensor) else tensor
    copied: Tensor = torch.ops.aten._to_copy(plain, device=_CPU_DEVICE, **how | {"non_blocking": False})
    return on_device(copied) if (device or tensor.device).type == NAME else copied


def _autocast(packet: str) -> Callable[..., Any]:
    name, _, overload = packet.partition(".")
    operator = getattr(getattr(torch.ops.aten, name), overload or "default")
    lower = name in _LOWER

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32

        def cast(value: Any) -> Any:
            fits = _is_here(value) and value.is_floating_point() and value.dtype != torch.float64
            return value.to(dtype) if fits else value

        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            args, kwargs = pytree.tree_map(cast, (args, kwargs))
            return operator(*args, **kwargs)

    return run


_libraries: list[torch.library.Library] = []


def install() -> None:
    """Makes the device known to torch, once a process. As for CUDA, torch has one kind of such a device."""
    if _libraries:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    rest, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend((rest, aten))
    rest.fallback(_run, "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    aten.impl("_to_copy", _to_copy, "PrivateUse1")
    convolutions = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
    for operator in (*convolutions, *_made_of_others()):
        aten.impl(operator, _Kernel(operator), "PrivateUse1")
    rest.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in (*_LOWER, *_FP32):
        aten.impl(name, _autocast(name), "AutocastPrivateUse1")
