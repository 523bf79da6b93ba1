"""PGD-20 through odebench against foolbox on torchdiffeq's adjoint, as a user of both would write it.

Both sides attack the same clean-correct images, a chunk of 100 at a time, from the same random starts with the same
step, on the same weights, whose solver is dopri5 with rtol = atol = 1e-3.

    python benchmarks/speed/attack_vs_foolbox.py
    python benchmarks/speed/attack_vs_foolbox.py --surrogate rk4:0.5
    python benchmarks/speed/attack_vs_foolbox.py --levers --repeats 1

The last line is foolbox's seconds over odebench's at equal work: clean verdict, attack and verdicts, without the checks
of the model that an evaluation begins with. The whole evaluation's ratio stands in the table.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench import attacked, clocked, finish, median, middle_ratio, network, parser, show, switched_off, test_images
from bench import turn_about as in_turns
from foolbox import PyTorchModel
from foolbox.attacks import LinfProjectedGradientDescentAttack
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from odebench.attack.foolbox import pgd
from odebench.attack.wrapped_model import WrappedModel
from odebench.evaluation.verdict import Judge
from odebench.model.classifier import Classifier
from odebench.numerics.seeding import call_seed, seeded
from odebench.protocol.spec import Solver, adaptive, fixed_step

STEPS = 20
CHUNK = 100
TOLERANCE = 1e-3
NEAR_TIE = 1e-2
Felled = tuple[Tensor, Tensor]
"""A mask of the images that fell, and all candidates (the clean image where none was made)."""


class Field(nn.Module):
    """The vector field as the module that odeint_adjoint asks for."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        rate: Tensor = self.field(t, state)
        return rate


class UsersNet(nn.Module):
    """The same network as torchdiffeq's examples put it together: stem, ODE block, head."""

    def __init__(self, net: nn.Module, solve: Callable[..., Tensor]) -> None:
        super().__init__()
        self.stem, self.field, self.head, self.solve = net.stem, Field(net.field), net.head, solve

    def forward(self, images: Tensor) -> Tensor:
        times = torch.tensor([0.0, 1.0])
        states = self.solve(self.field, self.stem(images), times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
        logits: Tensor = self.head(states[-1])
        return logits


class Contest:
    """The two sides on one set of images."""

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> None:
        self.net, self.images, self.labels, self.epsilon = net, images, labels, epsilon
        self.solver = adaptive("dopri5", rtol=TOLERANCE)
        with switched_off(net, learn=False):
            self.correct = Judge(Classifier(net, n_classes=10, solver=self.solver)).clean(images, labels) == "r"
        self.shares: dict[str | None, list[float]] = {}

    def _chunks(self) -> list[tuple[Tensor, int]]:
        """The clean-correct images of each chunk, and the seed that odebench gives this attack on it."""
        found = []
        for number, first in enumerate(range(0, len(self.images), CHUNK)):
            rows = first + torch.from_numpy(self.correct[first : first + CHUNK]).nonzero().flatten()
            found.append((rows, call_seed(0, chunk=number, stage="pgd", epsilon=self.epsilon)))
        return found

    def foolbox(self, solve: Callable[..., Tensor], *, learn: bool) -> Felled:
        """foolbox, its own success counted; parameters are frozen unless `learn`."""
        felled, candidates = torch.zeros(len(self.images), dtype=torch.bool), self.images.clone()
        with switched_off(self.net, learn=learn):
            model = PyTorchModel(UsersNet(self.net, solve).eval(), bounds=(0, 1), device="cpu")
            attack = LinfProjectedGradientDescentAttack(rel_stepsize=2.5 / STEPS, steps=STEPS, random_start=True)
            for rows, seed in self._chunks():
                with seeded(seed):
                    _, made, fell = attack(model, self.images[rows], self.labels[rows], epsilons=self.epsilon)
                candidates[rows], felled[rows] = made.detach(), fell
        return felled, candidates

    def dropping(self, backend: str) -> Felled:
        """odebench's PGD, which stops an image at its verified fall, chunk by chunk, with no check around it."""
        felled, candidates = torch.zeros(len(self.images), dtype=torch.bool), self.images.clone()
        classifier = Classifier(self.net, n_classes=10, solver=adaptive("dopri5", rtol=TOLERANCE, backend=backend))
        with classifier.frozen():
            judge, surface = Judge(classifier), WrappedModel(classifier)
            for rows, seed in self._chunks():
                points, labels = self.images[rows], self.labels[rows]

                def fallen(some: Tensor, made: Tensor, points: Tensor = points, labels: Tensor = labels) -> Tensor:
                    verdict = judge.candidates(points[some], labels[some], made, norm="linf", epsilon=self.epsilon)
                    return torch.from_numpy(verdict.letters == "f")

                candidates[rows] = pgd(
                    surface,
                    points,
                    labels,
                    norm="linf",
                    epsilon=self.epsilon,
                    seed=seed,
                    fallen=fallen,
                    steps=STEPS,
                    relative_step=2.5 / STEPS,
                    random_start=True,
                )
                felled[rows] = fallen(torch.arange(len(rows)), candidates[rows])
        return felled, candidates

    def odebench(self, *, surrogate: str | None = None, precision: str = "fp32") -> Felled:
        """A whole evaluation through odebench. Which share of it odebench's own clock counts is kept: all but the
        checks of the model beforehand, which foolbox has none of."""
        keep: dict[float, dict[int, Tensor]] = {}
        whole, result = clocked(
            lambda: attacked(
                self.net,
                self.images,
                self.labels,
                attack="pgd",
                epsilon=self.epsilon,
                parameters={"steps": STEPS},
                solver=self.solver,
                surrogate=None if surrogate is None else _solver(surrogate),
                precision=precision,
                chunk=CHUNK,
                keep=keep,
            )
        )
        self.shares.setdefault(surrogate, []).append(result.cost.seconds / whole)
        candidates = self.images.clone()
        for row, candidate in keep[self.epsilon].items():
            candidates[row] = candidate
        return torch.tensor([letter in "fx" for letter in result.epsilons[0].outcomes]), candidates

    def missed(self, theirs: Felled, ours: Felled) -> tuple[int, int]:
        """Shows the images that foolbox fells and odebench does not, with the gaps between the label's logit and the
        largest other as a share of the largest |logit|; how many there are, and how many are no near ties: foolbox's
        candidate is further than NEAR_TIE from the boundary by the verdict."""
        rows = (theirs[0] & ~ours[0]).nonzero().flatten()
        gaps = []
        users = UsersNet(self.net, odeint_adjoint).eval()
        with switched_off(self.net, learn=False):
            judge = Judge(Classifier(self.net, n_classes=10, solver=self.solver))
            for row in rows.tolist():
                own = self.labels[row : row + 1]
                with torch.no_grad():
                    # As foolbox saw it: in its whole chunk, whose images share one step size.
                    chunk = next(rows for rows, _ in self._chunks() if row in rows)
                    seen = users(theirs[1][chunk])[(chunk == row).nonzero().flatten()]
                declared = judge.answer(theirs[1][row : row + 1]).logits
                best = judge.answer(ours[1][row : row + 1]).logits
                gaps.append((row, *(_gap(logits, own) for logits in (seen, declared, best))))
        if gaps:
            titles = ("image", "foolbox's, as it saw it", "foolbox's, by the verdict", "odebench's, by the verdict")
            show(titles, [(row, *(f"{gap:+.4f}" for gap in found)) for row, *found in gaps])
        return len(gaps), sum(abs(declared) > NEAR_TIE for _, _, declared, _ in gaps)


def _solver(text: str) -> Solver:
    """A fixed-step solver written as method:step, as on odebench's command line."""
    method, _, step = text.partition(":")
    return fixed_step(method, step=float(step))


def _gap(logits: Tensor, labels: Tensor) -> float:
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return float((own - others) / logits.abs().amax())


def main() -> None:
    options = parser(str(__doc__).split("\n")[0], images=256)
    options.add_argument("--surrogate", help="the ratio is that with this solver first, such as rk4:0.5")
    options.add_argument("--levers", action="store_true", help="a table of what each step from one to the other gives")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    net = network(given.channels)
    contest = Contest(net, *test_images(given.images), given.epsilon)
    n = len(contest.images)
    print(f"{int(contest.correct.sum())} of {n} images are clean-correct; linf {given.epsilon:g}, PGD-{STEPS}")
    first = given.surrogate or "rk4:0.5"
    tasks = {
        "foolbox, adjoint": lambda: contest.foolbox(odeint_adjoint, learn=True),
        "odebench, declared solver": contest.odebench,
        f"odebench, {first} first": lambda: contest.odebench(surrogate=first),
    }
    seconds, felled = in_turns(tasks, given.repeats, cpu=given.cpu_clock)
    rows, ratios = [], []
    for name, shares in zip(tasks, ([1.0] * given.repeats, contest.shares[None], contest.shares[first]), strict=True):
        spent = seconds[name]
        own = [whole * share for whole, share in zip(spent, shares, strict=True)]
        whole_ratio, ratio = (middle_ratio(seconds["foolbox, adjoint"], values) for values in (spent, own))
        ratios.append(ratio)
        rows.append((name, median(spent), whole_ratio, median(own), ratio, _robust(contest, felled[name])))
    show(("way", "seconds", "times faster", "without checks", "times faster", "robust"), rows)
    for name in list(tasks)[1:]:
        count, far = contest.missed(felled["foolbox, adjoint"], felled[name])
        print(f"{name}: {count} images that foolbox fells stand, {far} of them no near ties")
    if given.levers:
        _levers(contest, first, cpu=given.cpu_clock)
    finish(ratios[2 if given.surrogate else 1])


def _robust(contest: Contest, felled: Felled) -> str:
    return f"{(int(contest.correct.sum()) - int(felled[0].sum())) / len(contest.images):.1%}"


def _levers(contest: Contest, first: str, *, cpu: bool) -> None:
    ways: dict[str, Callable[[], Felled]] = {
        "foolbox, adjoint": lambda: contest.foolbox(odeint_adjoint, learn=True),
        "parameters frozen": lambda: contest.foolbox(odeint_adjoint, learn=False),
        "direct gradients instead of the adjoint's, not frozen": lambda: contest.foolbox(odeint, learn=True),
        "direct and frozen": lambda: contest.foolbox(odeint, learn=False),
        "and fallen images dropped": lambda: contest.dropping("torchdiffeq"),
        "and torchode": lambda: contest.dropping("torchode"),
        "the same as a whole evaluation, with probes and checks": contest.odebench,
        "and bf16": lambda: contest.odebench(precision="bf16"),
        f"fp32, {first} first": lambda: contest.odebench(surrogate=first),
        f"bf16, {first} first": lambda: contest.odebench(surrogate=first, precision="bf16"),
    }
    rows: list[tuple[str, float, float, str]] = []
    for name, way in ways.items():
        spent, felled = clocked(way, cpu=cpu)
        rows.append((name, spent, (rows[0][1] if rows else spent) / spent, _robust(contest, felled)))
    show(("way", "seconds", "times faster", "robust"), rows)


if __name__ == "__main__":
    main()
