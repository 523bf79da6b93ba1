"""One gradient of an ODE classifier as attacks of the second version take it, against that through torchdiffeq and
against its bare convolutions.

    python benchmarks/speed/quick_gradient.py

rk4 with step 0.5 on images of Fashion-MNIST's shape, 100 at once. The net is not trained: its time hangs on shapes. The
last line is the time through torchdiffeq over that of the quick way: the median over rounds. The table's last column is
that over the quick way's convolutions alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench import finish, median, middle_ratio, parser, show, turn_about
from floor import Recorder, Replay

from odebench.attack.wrapped_model import WrappedModel
from odebench.model.classifier import Classifier
from odebench.model.ode import OdeNet
from odebench.protocol.spec import fixed_step


def main() -> None:
    """Prints seconds of both ways, how far their logits are apart, and the ratio."""
    given = parser(str(__doc__).split("\n")[0]).parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    solver = fixed_step(step=0.5)
    net = OdeNet(
        image_shape=(1, 28, 28), n_classes=10, channels=given.channels, stem="conv", horizon=1.0, solver=solver
    ).eval()
    images, found = torch.rand(100, 1, 28, 28), {}

    def gradient(quick: bool) -> Callable[[], None]:
        wrapped = WrappedModel(Classifier(net, n_classes=10).modified(quick=quick))

        def take() -> None:
            for _ in range(10):
                points = images.clone().requires_grad_()
                logits = wrapped(points)
                torch.autograd.grad(logits.logsumexp(1).sum(), points)
            found[quick] = logits.detach()

        return take

    ways = {"torchdiffeq": gradient(False), "quick": gradient(True)}
    with Classifier(net, n_classes=10).frozen():
        with Recorder() as recorder:
            ways["quick"]()
        ways["convolutions"] = Replay(recorder.calls)
        seconds, _ = turn_about(ways, given.repeats, cpu=given.cpu_clock)
    apart = float(((found[True] - found[False]).abs().amax(1) / found[False].abs().amax(1)).max())
    print(f"logits differ by {apart:.1e} of the largest at most")
    slow, fast, bare = seconds.values()
    rows = [(n, median(v), middle_ratio(v, fast), middle_ratio(v, bare)) for n, v in seconds.items()]
    show(("way", "seconds", "times the quick way", "times the convolutions"), rows)
    finish(middle_ratio(slow, fast))


if __name__ == "__main__":
    main()
