"""The time of an attack against that of its convolutions alone: what is added to bare arithmetic.

Every convolution of one whole evaluation, forward and backward, is recorded with its shapes, layout and precision by a
dispatch mode; then exactly these are run again, in order, with nothing between them.

    python benchmarks/speed/floor.py
    python benchmarks/speed/floor.py --attack worst-case --images 100

The last line is the evaluation's seconds over those of its convolutions: the median over rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from bench import attacked, finish, median, middle_ratio, network, parser, show, test_images, turn_about
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_FORWARD, _BACKWARD = _ATEN.convolution.default, _ATEN.convolution_backward.default
Call = tuple[Any, ...]


class Recorder(TorchDispatchMode):
    """Notes each convolution that is run while inside, tensors as (shape, strides, type)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (_FORWARD, _BACKWARD):
            self.calls.append((func, *(_note(value) for value in args)))
        return func(*args, **(kwargs or {}))


def _note(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ("tensor", tuple(value.shape), tuple(value.stride()), value.dtype)
    return tuple(value) if isinstance(value, list) else value


class Replay:
    """The recorded convolutions, one operand of each shape made beforehand."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        made = {call: [_made(value) for value in call[1:]] for call in set(calls)}
        self.ready = [(call[0], made[call]) for call in calls]

    def __call__(self) -> None:
        with torch.no_grad():
            for func, operands in self.ready:
                func(*operands)


def _made(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        _, shape, stride, dtype = value
        return torch.randn(shape).to(dtype).as_strided(shape, stride) if _dense(shape, stride) else torch.randn(shape)
    return list(value) if isinstance(value, tuple) else value


def _dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return reach <= torch.Size(shape).numel()


def main() -> None:
    options = parser(str(__doc__).split("\n")[0])
    options.add_argument("--attack", default="pgd", help="which attack (default %(default)s)")
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    net = network(given.channels)
    images, labels = test_images(given.images)

    def attack() -> None:
        attacked(net, images, labels, attack=given.attack, epsilon=given.epsilon, precision=given.precision)

    with Recorder() as recorder:
        attack()
    replay = Replay(recorder.calls)
    tasks: dict[str, Callable[[], None]] = {f"{given.attack}, {given.precision}": attack, "its convolutions": replay}
    seconds, _ = turn_about(tasks, given.repeats, cpu=given.cpu_clock)
    slow, fast = seconds.values()
    counts = Counter(call[0] for call in recorder.calls)
    print(f"{counts[_FORWARD]} convolutions forward, {counts[_BACKWARD]} backward")
    rows = [(name, median(values), middle_ratio(values, fast)) for name, values in seconds.items()]
    show(("way", "seconds", "times the convolutions"), rows)
    finish(middle_ratio(slow, fast))


if __name__ == "__main__":
    main()
