"""Training: losses by hand, and the same weights to the bit whether whole, interrupted or killed."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from odebench.dataset import Dataset, Split, load_dataset
from odebench.dataset.builtin import DIGITS
from odebench.errors import ModelError, WeightError
from odebench.io.files import list_sha256, note_sha256, sha256_file
from odebench.io.tensor_file import read_tensors, write_tensors
from odebench.model import losses, training
from odebench.model.augmentation import augment
from odebench.model.definition import load_definition
from odebench.model.losses import distillation_loss
from odebench.model.ode import OdeNet
from odebench.model.resnet import ResNet
from odebench.model.training import Trained, find_or_train, learning_rate, undamaged
from odebench.protocol.recipe import Recipe, Schedule, TrainedOn, trained_on, training_note, weights_path
from odebench.protocol.spec import fixed_step

N_TRAIN, BATCH, EPOCHS = 150, 32, 3
STEPS = math.ceil(N_TRAIN / BATCH)


def small_digits() -> Dataset:
    whole = load_dataset("digits")
    assert whole.train is not None
    train = Split(whole.train.images[:N_TRAIN], whole.train.labels[:N_TRAIN])
    validation = Split(whole.test.images[:50], whole.test.labels[:50])
    return Dataset("digits", whole.classes, train, validation, whole.test)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return small_digits()


def recipe_of(kind: str, **changes: Any) -> Recipe:
    """A short recipe: a model, then "/" and an adversary if any (of the teacher, too, for RSLAD), "+" to augment."""
    given = {"epochs": EPOCHS, "batch_size": BATCH} | changes
    name, _, adversary = kind.rstrip("+").partition("/")
    if adversary:
        given |= {"adversary": adversary, "adversary_steps": 2}
    definition = load_definition(name)
    # one step of the solver instead of four: what is asked of a training does not depend on it
    solver = fixed_step(step=1.0) if definition.has_horizon else None
    recipe = definition.recipe(DIGITS, train_seed=3, solver=solver, changes=given)
    if recipe.teacher is not None:
        robust = {"adversary": "madry", "adversary_steps": 1} if adversary == "rslad" else {}
        teacher = load_definition("resnet").recipe(DIGITS, train_seed=3, changes={"epochs": 3, **robust})
        recipe = recipe.model_copy(update={"teacher": teacher})
    return recipe.model_copy(update={"augmentation": "flip-crop"}) if kind.endswith("+") else recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Callable[[str], Trained]:
    """Uninterrupted trainings, each run once."""
    folder, found = tmp_path_factory.mktemp("whole"), {}

    def train(kind: str) -> Trained:
        if kind not in found:
            found[kind] = find_or_train(recipe_of(kind), digits, folder=folder)
        return found[kind]

    return train


class Watching:
    """Progress that keeps what it is told, and may raise when it is told of a step."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.lines: list[str] = []
        self.notes: dict[str, list[str]] = {}
        self.begun: dict[str, tuple[float, float]] = {}
        self.name, self.stop_at = "", stop_at

    @contextmanager
    def track(self, name: str, *, total: float, done: float = 0) -> Iterator[Watching]:
        self.name, self.begun[name] = name, (done, total)
        self.notes[name] = []
        yield self

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        if amount:
            self.notes[self.name].append(note)
        if self.stop_at and self.stop_at[0] in self.name and len(self.notes[self.name]) == self.stop_at[1]:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        self.lines.append(line)

    def steps(self, part: str) -> int:
        return sum(len(notes) for name, notes in self.notes.items() if part in name)


# Losses and schedule


def by_hand(student: Tensor, labels: Tensor, teacher: Tensor, temperature: float, weight: float) -> float:
    total = 0.0
    for s, y, t in zip(student.double(), labels, teacher.double(), strict=True):
        p = torch.exp(t / temperature) / torch.exp(t / temperature).sum()
        q = torch.exp(s / temperature) / torch.exp(s / temperature).sum()
        divergence = float((p * (p / q).log()).sum())
        entropy = -float((torch.exp(s) / torch.exp(s).sum())[y].log())
        total += (1 - weight) * entropy + weight * temperature**2 * divergence
    return total / len(student)


@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.9), (1.0, 0.5), (30.0, 1.0), (2.5, 0.0)])
@pytest.mark.parametrize("classes", [2, 10])
def test_distillation_is_hintons_loss(temperature: float, weight: float, classes: int) -> None:
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(6, classes), 3 * torch.randn(6, classes)
    labels = torch.randint(classes, (6,))
    loss = distillation_loss(student, labels, teacher, temperature=temperature, weight=weight)
    assert float(loss) == pytest.approx(by_hand(student, labels, teacher, temperature, weight), rel=1e-4)


def test_distillation_averages_over_images_not_over_classes() -> None:
    student, teacher, labels = torch.tensor([[1.0, -1.0]]), torch.tensor([[-2.0, 0.5]]), torch.tensor([0])
    loss = distillation_loss(student, labels, teacher, temperature=2.0, weight=1.0)
    # classes that nobody believes in change nothing, where an average over classes would divide by five
    absent = torch.full((1, 8), -1e4)
    wide = distillation_loss(
        torch.cat([student, absent], 1), labels, torch.cat([teacher, absent], 1), temperature=2.0, weight=1.0
    )
    torch.testing.assert_close(wide, loss)
    doubled = distillation_loss(
        student.repeat(2, 1), labels.repeat(2), teacher.repeat(2, 1), temperature=2.0, weight=1.0
    )
    torch.testing.assert_close(doubled, loss)


def test_distillation_of_weight_zero_is_cross_entropy_and_of_oneself_is_nothing() -> None:
    torch.manual_seed(0)
    student, labels = torch.randn(5, 10, requires_grad=True), torch.randint(10, (5,))
    teacher = torch.randn(5, 10)
    loss = distillation_loss(student, labels, teacher, temperature=4.0, weight=0.0)
    plain = functional.cross_entropy(student, labels)
    torch.testing.assert_close(loss, plain)
    gradients = [torch.autograd.grad(value, student)[0] for value in (loss, plain)]
    torch.testing.assert_close(*gradients)
    same = distillation_loss(student, labels, student.detach(), temperature=4.0, weight=1.0)
    assert float(same.detach()) == pytest.approx(0, abs=1e-6)
    assert float(torch.autograd.grad(same, student)[0].abs().max()) < 1e-6


def test_the_soft_gradient_does_not_vanish_with_temperature() -> None:
    # Hinton's limit: for a high temperature, the gradient is (s - t) / classes an image, for logits of zero mean
    student = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    teacher = torch.tensor([[-1.0, 2.0, -1.0]])
    loss = distillation_loss(student, torch.tensor([0]), teacher, temperature=1e3, weight=1.0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, student)[0], (student - teacher).detach() / 3, rtol=1e-2, atol=1e-2
    )


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    schedule = Schedule(epochs=1, batch_size=1, learning_rate=0.4, weight_decay=0.0, warmup=0.2)
    expected = {0.0: 0.0, 0.05: 0.1, 0.1: 0.2, 0.2: 0.4, 0.4: 0.4 * 0.5 * (1 + math.cos(math.pi / 4)), 0.6: 0.2}
    for progress, value in (expected | {1.0: 0.0}).items():
        assert learning_rate(schedule, progress) == pytest.approx(value, abs=1e-12)
    assert learning_rate(schedule, 1 + 1e-9) == pytest.approx(0, abs=1e-12)
    steady = schedule.model_copy(update={"warmup": 0.0})
    assert learning_rate(steady, 0.0) == 0.4
    assert learning_rate(steady, 0.5) == pytest.approx(0.2)


# Augmentation


def test_no_augmentation_leaves_images_alone() -> None:
    images = torch.rand(3, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(augment(images, "none", generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (10, 3, 32, 32), (20, 3, 9, 20), (10, 1, 28, 28)])
def test_augmentation_keeps_shape_and_range_and_is_drawn_from_its_generator(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape)
    kept = images.clone()
    state = torch.get_rng_state()
    first, second, other = (augment(images, "flip-crop", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1


def test_augmentation_flips_and_shifts_each_image_by_itself() -> None:
    n = 300
    images = torch.rand(n, 2, 8, 9) + 0.1
    found = augment(images, "flip-crop", torch.Generator().manual_seed(0))
    seen = set()
    for before, after in zip(images, found, strict=True):
        fitting = set()
        for flipped in (False, True):
            padded = functional.pad(before.flip(2) if flipped else before, (1, 1, 1, 1))
            for top in range(3):
                for left in range(3):
                    if torch.equal(padded[:, top : top + 8, left : left + 9], after):
                        fitting.add((flipped, top, left))
        assert len(fitting) == 1
        seen |= fitting
    assert len(seen) == 18, "both directions, and every shift of up to an eighth"


# End to end


def test_a_training_learns_and_is_found_again(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("resnet", epochs=10)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    watched = Watching()
    first = find_or_train(recipe, digits, folder=tmp_path, progress=watched)
    assert torch.equal(torch.get_rng_state(), state)
    assert training.accuracy(first.module, digits.validation) > 0.8
    assert watched.steps("training ResNet seed 3") == 10 * STEPS
    assert watched.begun == {"training ResNet seed 3": (0, 10 * STEPS)}
    (line,) = watched.lines
    assert line.startswith("training ResNet seed 3: trained, ")
    assert first.path == weights_path(recipe, tmp_path) == tmp_path / f"{recipe.key}.safetensors"
    assert first.weights_sha256 == sha256_file(first.path)
    note = training_note(first.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [first.path.name, first.path.with_suffix(".sha256").name, note.name]
    )
    assert trained_on(first.path) == TrainedOn(device="cpu", torch=torch.__version__)
    note.write_text("{")
    assert trained_on(first.path) is None
    monkeypatch.setattr(training, "_Training", None)
    second = find_or_train(recipe, digits, folder=tmp_path)
    assert second.weights_sha256 == first.weights_sha256
    assert not first.module.training
    assert not second.module.training
    images = digits.test.images[:20]
    with torch.no_grad():
        assert torch.equal(first.module(images), second.module(images))


def test_a_weights_file_says_what_it_was_trained_by(whole: Callable[[str], Trained], digits: Dataset) -> None:
    trained = whole("kd-ode")
    tensors, metadata = read_tensors(trained.path)
    assert Recipe.model_validate(metadata["recipe"], strict=False) == recipe_of("kd-ode")
    assert digits.train is not None
    assert metadata["train_sha256"] == digits.train.sha256
    assert set(metadata) == {"recipe", "train_sha256"}
    assert set(tensors) == set(trained.module.state_dict())


def test_an_adversary_is_told_of_and_makes_other_weights(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    for plain, hardened in (("kd-ode", "kd-ode/madry"), ("ode+", "ode/trades+")):
        assert whole(plain).weights_sha256 != whole(hardened).weights_sha256
    teacher = recipe_of("kd-ode").teacher
    assert teacher is not None
    shutil.copy(weights_path(teacher, whole("kd-ode").path.parent), tmp_path)
    watched = Watching()
    find_or_train(recipe_of("kd-ode/madry", epochs=1), digits, folder=tmp_path, progress=watched)
    assert list(watched.notes) == ["adversarially distilling OdeNet T=1 seed 3"]
    (line,) = watched.lines
    assert line.startswith("adversarially distilling OdeNet T=1 seed 3: trained, ")
    recorded = read_tensors(whole("ode/trades+").path)[1]["recipe"]
    assert recorded["adversary"]["kind"] == "trades"
    assert "adversary" not in read_tensors(whole("kd-ode").path)[1]["recipe"]


@pytest.mark.parametrize("kind", ["kd-ode", "kd-ode/rslad"])
def test_a_distilled_model_has_its_teacher_trained_first(whole: Callable[[str], Trained], kind: str) -> None:
    trained = whole(kind)
    teacher = recipe_of(kind).teacher
    assert teacher is not None
    path = weights_path(teacher, trained.path.parent)
    assert path.exists()
    assert ("adversary" in read_tensors(path)[1]["recipe"]) == (kind == "kd-ode/rslad")


def test_weights_lie_in_the_cache_folder(tmp_path: Path) -> None:
    recipe = recipe_of("ode")
    assert weights_path(recipe) == tmp_path / "cache" / "weights" / f"{recipe.key}.safetensors"


@pytest.mark.parametrize("kind", ["kd-ode", "ode+"])
def test_two_whole_trainings_are_equal(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset, kind: str
) -> None:
    torch.manual_seed(99)
    again = find_or_train(recipe_of(kind), digits, folder=tmp_path)
    assert again.weights_sha256 == whole(kind).weights_sha256
    assert again.path.read_bytes() == whole(kind).path.read_bytes()


def test_distillation_augmentation_and_seed_each_make_other_weights(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    reseeded = recipe_of("ode").model_copy(update={"train_seed": 4})
    found = {whole(kind).weights_sha256 for kind in ("ode", "kd-ode", "ode+", "kd-ode+")}
    tensors = [whole(kind).module.state_dict() for kind in ("ode", "kd-ode", "ode+", "kd-ode+")]
    tensors.append(find_or_train(reseeded, digits, folder=tmp_path).module.state_dict())
    assert len(found) == 4
    assert len({tensor["head.4.weight"].sum().item() for tensor in tensors}) == 5


# Interrupted

INTERRUPTED = ["kd-ode", "kd-ode+", "resnet", "ode+", "kd-ode/madry", "ode/trades+", "kd-ode/rslad", "kd-ode/rslad+"]


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupted_training_goes_on_to_the_same_weights(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset, kind: str
) -> None:
    recipe = recipe_of(kind)
    name = "ResNet" if kind == "resnet" else "OdeNet"
    with pytest.raises(KeyboardInterrupt):
        find_or_train(recipe, digits, folder=tmp_path, progress=Watching((name, STEPS + 2)))
    partial = weights_path(recipe, tmp_path).with_suffix(".partial")
    assert partial.exists()
    assert not weights_path(recipe, tmp_path).exists()
    torch.manual_seed(123)
    torch.rand(7)
    watched = Watching()
    resumed = find_or_train(recipe, digits, folder=tmp_path, progress=watched)
    assert watched.steps(name) == (EPOCHS - 1) * STEPS, "only the epochs that are missing are run"
    assert any(line.endswith(f"going on after epoch 1 of {EPOCHS}") for line in watched.lines)
    assert [begun for title, begun in watched.begun.items() if name in title] == [(STEPS, EPOCHS * STEPS)]
    assert resumed.weights_sha256 == whole(kind).weights_sha256
    assert not partial.exists()
    assert not list(tmp_path.glob(".*"))


def test_a_training_interrupted_at_every_epoch_ends_in_the_same_weights(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    recipe, interruptions = recipe_of("ode+"), 0
    while True:
        try:
            trained = find_or_train(recipe, digits, folder=tmp_path, progress=Watching(("OdeNet", STEPS + 1)))
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == EPOCHS - 1
    assert trained.weights_sha256 == whole("ode+").weights_sha256


def test_an_interrupted_teacher_goes_on_too(tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset) -> None:
    recipe = recipe_of("kd-ode")
    with pytest.raises(KeyboardInterrupt):
        find_or_train(recipe, digits, folder=tmp_path, progress=Watching(("ResNet", STEPS + 3)))
    watched = Watching()
    trained = find_or_train(recipe, digits, folder=tmp_path, progress=watched)
    assert any("training ResNet seed 3: going on after epoch" in line for line in watched.lines)
    assert trained.weights_sha256 == whole("kd-ode").weights_sha256


def test_a_training_stopped_after_its_last_epoch_is_only_written(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("ode")
    with monkeypatch.context() as patch:
        patch.setattr(training, "accuracy", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            find_or_train(recipe, digits, folder=tmp_path)
    watched = Watching()
    trained = find_or_train(recipe, digits, folder=tmp_path, progress=watched)
    assert watched.steps("OdeNet") == 0
    assert trained.weights_sha256 == whole("ode").weights_sha256


HELD = """
import sys, threading
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/model"]
from test_training import Watching, recipe_of, small_digits
from odebench.model.training import find_or_train

class Holding(Watching):
    def __init__(self):
        super().__init__()
        self.held = threading.Event()

    def advance(self, amount=1, *, note=""):
        super().advance(amount, note=note)
        if "OdeNet" in self.name and len(self.notes[self.name]) > 7:
            self.held.set()
            threading.Event().wait()

digits = small_digits()
for kind in sys.argv[3:]:
    holding = Holding()
    given = dict(folder=Path(sys.argv[2]), progress=holding)
    threading.Thread(target=find_or_train, args=(recipe_of(kind), digits), kwargs=given, daemon=True).start()
    assert holding.held.wait(60)
print("held", flush=True)
threading.Event().wait()
"""
"""Trainings that are held in their second epoch, one after the other, by a process that waits for its end."""
KILLED = ("kd-ode", "ode+")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What trainings left behind whose process was killed."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", HELD, str(Path(__file__).parents[1]), str(folder), *KILLED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n", process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return folder


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_training_goes_on_to_the_same_weights(
    killed: Path, whole: Callable[[str], Trained], digits: Dataset, kind: str
) -> None:
    recipe = recipe_of(kind)
    path = weights_path(recipe, killed)
    assert not path.exists()
    epoch = read_tensors(path.with_suffix(".partial"))[1]["epoch"]
    assert 1 <= epoch < EPOCHS
    watched = Watching()
    resumed = find_or_train(recipe, digits, folder=killed, progress=watched)
    assert watched.steps("OdeNet") == (EPOCHS - epoch) * STEPS
    assert watched.steps("ResNet") == 0
    assert resumed.weights_sha256 == whole(kind).weights_sha256


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> Path:
    """The checkpoint of an ode training that was interrupted in its third epoch."""
    folder = tmp_path_factory.mktemp("partial")
    with pytest.raises(KeyboardInterrupt):
        find_or_train(recipe_of("ode"), digits, folder=folder, progress=Watching(("OdeNet", 2 * STEPS + 1)))
    return weights_path(recipe_of("ode"), folder).with_suffix(".partial")


def _rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], Any]) -> None:
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    write_tensors(path, tensors, metadata)


def _first(tensors: dict[str, Tensor], prefix: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(prefix))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(b"rubbish" * 99),
    "pickle": lambda path: torch.save({}, path),
    "no metadata": lambda path: save_file(read_tensors(path)[0], path),
    "metadata a list": lambda path: save_file(read_tensors(path)[0], path, metadata={"odebench": "[]"}),
    "other recipe": lambda path: _rewritten(path, lambda _, m: m.update(recipe="0" * 64)),
    "other images": lambda path: _rewritten(path, lambda _, m: m.update(train_sha256="0" * 64)),
    "no epoch": lambda path: _rewritten(path, lambda _, m: m.pop("epoch")),
    "epoch a word": lambda path: _rewritten(path, lambda _, m: m.update(epoch="two")),
    "epoch a list": lambda path: _rewritten(path, lambda _, m: m.update(epoch=[2])),
    "NaN": lambda path: _rewritten(path, lambda t, _: t[_first(t, "module.")].fill_(math.nan)),
    "no generator": lambda path: _rewritten(path, lambda t, _: t.pop("generator")),
    "short generator": lambda path: _rewritten(path, lambda t, _: t.update(generator=t["generator"][:9].clone())),
    "float generator": lambda path: _rewritten(path, lambda t, _: t.update(generator=t["generator"].float())),
    "no weight": lambda path: _rewritten(path, lambda t, _: t.pop(_first(t, "module."))),
    "no moment": lambda path: _rewritten(path, lambda t, _: t.pop("optimiser.0.exp_avg")),
    "short moment": lambda path: _rewritten(path, lambda t, _: t.update({"optimiser.0.exp_avg": torch.zeros(1)})),
    "strange moment": lambda path: _rewritten(path, lambda t, _: t.update({"optimiser.x.exp_avg": torch.zeros(1)})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_starts_over_and_says_so(
    tmp_path: Path, partial: Path, whole: Callable[[str], Trained], digits: Dataset, damage: str
) -> None:
    shutil.copy(partial, tmp_path)
    DAMAGES[damage](tmp_path / partial.name)
    watched = Watching()
    trained = find_or_train(recipe_of("ode"), digits, folder=tmp_path, progress=watched)
    assert watched.lines[0].startswith("starting over, the checkpoint cannot be used: ")
    assert "\n" not in watched.lines[0]
    assert watched.steps("OdeNet") == EPOCHS * STEPS
    assert trained.weights_sha256 == whole("ode").weights_sha256


def test_an_undamaged_checkpoint_is_taken_up(
    tmp_path: Path, partial: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    shutil.copy(partial, tmp_path)
    watched = Watching()
    trained = find_or_train(recipe_of("ode"), digits, folder=tmp_path, progress=watched)
    assert watched.steps("OdeNet") == (EPOCHS - 2) * STEPS
    assert trained.weights_sha256 == whole("ode").weights_sha256


# Weights that are not those of the recipe


def test_weights_trained_on_other_images_are_refused(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    shutil.copy(whole("ode").path, tmp_path)
    assert digits.train is not None
    images = digits.train.images.clone()
    images[0, 0, 0, 0] += 1 / 16
    other = Dataset("digits", digits.classes, Split(images, digits.train.labels), digits.validation, digits.test)
    message = r"was trained on other images \([0-9a-f]{12}\) than the digits at hand \([0-9a-f]{12}\); delete it"
    with pytest.raises(WeightError, match=message):
        find_or_train(recipe_of("ode"), other, folder=tmp_path)
    without = Dataset("digits", digits.classes, None, None, digits.test)
    assert find_or_train(recipe_of("ode"), without, folder=tmp_path).weights_sha256 == whole("ode").weights_sha256


def test_renamed_weights_are_refused(tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset) -> None:
    shutil.copy(whole("ode").path, weights_path(recipe_of("ode+"), tmp_path))
    with pytest.raises(WeightError, match="was not trained by the recipe it is named after; delete it to train again"):
        find_or_train(recipe_of("ode+"), digits, folder=tmp_path)


def test_a_flipped_bit_of_cached_or_published_weights_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {})
    assert undamaged(path) == sha256_file(path), "nothing was noted"
    note_sha256(path)
    assert undamaged(path) == sha256_file(path)
    data = bytearray(path.read_bytes())
    data[-2] ^= 4
    path.write_bytes(data)
    with pytest.raises(WeightError, match=r"one\.safetensors is damaged: its sha256 is .* delete it to train again"):
        undamaged(path)
    path.with_suffix(".sha256").unlink()
    list_sha256(tmp_path, "*.safetensors", new=())
    assert undamaged(path) == sha256_file(path)
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(WeightError, match="have it back from where it is published"):
        undamaged(path)


def test_damaged_weights_are_refused_not_trained_again(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset
) -> None:
    recipe, path = recipe_of("ode"), tmp_path / whole("ode").path.name
    path.write_bytes(whole("ode").path.read_bytes()[:-1])
    with pytest.raises(WeightError, match="is not a whole safetensors file"):
        find_or_train(recipe, digits, folder=tmp_path)
    shutil.copy(whole("ode").path, path)
    _rewritten(path, lambda tensors, _: tensors["head.4.bias"].fill_(math.inf))
    with pytest.raises(WeightError, match=r"head\.4\.bias holds NaN or infinity; the weights are damaged"):
        find_or_train(recipe, digits, folder=tmp_path)
    shutil.copy(whole("ode").path, path)
    _rewritten(path, lambda _, metadata: metadata.clear())
    with pytest.raises(WeightError, match="was not trained by the recipe it is named after"):
        find_or_train(recipe, digits, folder=tmp_path)


def test_nothing_is_trained_without_images(tmp_path: Path, digits: Dataset) -> None:
    without = Dataset("digits", digits.classes, None, None, digits.test)
    with pytest.raises(ModelError, match="digits has no training images, so nothing can be trained on it"):
        find_or_train(recipe_of("ode"), without, folder=tmp_path)
    assert not list(tmp_path.iterdir())


class Cusp(nn.Module):
    """Finite logits whose gradient is not: the square root at zero."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) @ self.weight).square().sqrt()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            recipe_of("resnet", learning_rate=1000, weight_decay=1000, epochs=9),
            "training ResNet seed 3 diverged in epoch [1-9]: the loss is not finite; lower the learning rate",
        ),
        # one step: the loss is finite, the weights after it are not
        (
            recipe_of("ode-ablated", epochs=1, batch_size=N_TRAIN).model_copy(
                update={"architecture": f"{__name__}:Cusp"}
            ),
            "training Cusp seed 3 diverged in epoch 1: a weight is not finite; lower the learning rate",
        ),
    ],
    ids=["loss", "last step"],
)
def test_a_diverging_training_leaves_no_weights(tmp_path: Path, digits: Dataset, recipe: Recipe, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_or_train(recipe, digits, folder=tmp_path)
    assert not weights_path(recipe, tmp_path).exists()
    for path in tmp_path.iterdir():
        assert all(tensor.isfinite().all() for tensor in read_tensors(path)[0].values())


# Teachers


@pytest.mark.parametrize("kind", ["kd-ode", "kd-ode+"])
def test_the_teacher_is_asked_once_without_augmentation_and_for_every_batch_with_it(
    tmp_path: Path, whole: Callable[[str], Trained], digits: Dataset, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    recipe = recipe_of(kind)
    assert recipe.teacher is not None
    shutil.copy(weights_path(recipe.teacher, whole(kind).path.parent), tmp_path)
    assert digits.train is not None
    asked: list[int] = []
    seen: list[Tensor] = []
    targets: list[Tensor] = []
    of_teacher, of_student, loss = ResNet.forward, OdeNet.forward, losses.distillation_loss

    def teacher(self: ResNet, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        asked.append(len(images))
        return of_teacher(self, images)

    def student(self: OdeNet, images: Tensor) -> Tensor:
        if self.training:
            seen.append(images)
        return of_student(self, images)

    def recorded(logits: Tensor, labels: Tensor, soft: Tensor, **given: float) -> Tensor:
        assert not soft.requires_grad
        assert given == {"temperature": 4.0, "weight": 0.9, "smoothing": 0.0}
        targets.append(soft)
        return loss(logits, labels, soft, **given)

    with monkeypatch.context() as patch:
        patch.setattr(ResNet, "forward", teacher)
        patch.setattr(OdeNet, "forward", student)
        patch.setattr(losses, "distillation_loss", recorded)
        trained = find_or_train(recipe, digits, folder=tmp_path)
    assert trained.weights_sha256 == whole(kind).weights_sha256
    batches = ([BATCH] * (N_TRAIN // BATCH) + [N_TRAIN % BATCH]) * EPOCHS
    assert asked == ([N_TRAIN] if kind == "kd-ode" else batches)
    assert [len(images) for images in seen] == [len(soft) for soft in targets] == batches
    module = find_or_train(recipe.teacher, digits, folder=tmp_path).module
    for images, soft in zip(seen, targets, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(soft, module(images), rtol=1e-4, atol=1e-4)
    known = {image.numpy().tobytes() for image in digits.train.images}
    shown = [image.numpy().tobytes() in known for images in seen for image in images]
    if kind == "kd-ode":
        assert all(shown)
    else:
        assert sum(shown) < len(shown) / 2
    first = [image.numpy().tobytes() for images in seen[:STEPS] for image in images]
    second = [image.numpy().tobytes() for images in seen[STEPS : 2 * STEPS] for image in images]
    assert first != second, "each epoch has an order of its own"
    if kind == "kd-ode":
        assert sorted(first) == sorted(second) == sorted(image.numpy().tobytes() for image in digits.train.images)


def test_predict_and_accuracy_do_not_depend_on_the_batch_size(whole: Callable[[str], Trained], digits: Dataset) -> None:
    module, images = whole("resnet").module, digits.test.images[:70]
    logits = training.predict(module, images)
    torch.testing.assert_close(training.predict(module, images, batch_size=9), logits)
    assert not logits.requires_grad
    split = Split(images, logits.argmax(1))
    assert training.accuracy(module, split) == 1.0
    assert training.accuracy(module, Split(images, (logits.argmax(1) + 1) % 10)) == 0.0


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("no_such_module_at_all:Net", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("odebench.model.resnet:NoNet", "AttributeError: .* has no attribute 'NoNet'"),
        ("odebench.model.ode:OdeNet", "TypeError: .*unexpected keyword argument"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_named(architecture: str, why: str) -> None:
    recipe = recipe_of("resnet").model_copy(update={"architecture": architecture})
    with pytest.raises(ModelError, match=f"^{architecture} cannot be built: {why}"):
        training.build(recipe)


class Broken(ResNet):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nand much more")


def test_a_model_that_raises_while_it_is_trained_is_named(tmp_path: Path, digits: Dataset) -> None:
    recipe = recipe_of("resnet").model_copy(update={"architecture": f"{__name__}:Broken"})
    message = "^training Broken seed 3: the model raised RuntimeError: no kernel$"
    with pytest.raises(ModelError, match=message):
        find_or_train(recipe, digits, folder=tmp_path)
