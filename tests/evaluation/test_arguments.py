"""What evaluate takes in Python: attacks as functions, tensors and torch Datasets, numbers, paths; and what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from small_model import Linear, grey_images, linear, predicted
from torch import Tensor, nn

import odebench
from odebench.attack.function import FunctionAttack, function_attack
from odebench.attack.registry import ATTACKS
from odebench.errors import DatasetError, ModelError, OdebenchError, ResultError, UsageError
from odebench.protocol.spec import FUNCTION_DIGEST
from odebench.render.publish import publish
from odebench.submission.run_command import run_command

SMALL = odebench.ThreatModel(norm="linf", epsilons=(0.01,))
IMAGES = grey_images(40)
MODEL = linear(3)
LABELS = predicted(MODEL, IMAGES)


def evaluated(attacks: Any, data: Any = (IMAGES, LABELS), **more: Any) -> list[odebench.Result]:
    return odebench.evaluate(MODEL, data, attacks=attacks, threat_model=SMALL, **more)


def towards(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, factor: float = 1.0) -> Tensor:
    """One step of the sign of the gradient."""
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(points), labels), points)
    return (images + factor * epsilon * gradient.sign()).clamp(0, 1).detach()


def still(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, epsilon: float, seed: int, fallen: Any
) -> Tensor:
    assert norm == "linf"
    assert fallen(torch.arange(len(images)), images).sum() == 0
    return images


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_a_function_is_an_attack_like_the_registered_one() -> None:
    mine, fgsm, nothing = evaluated([towards, "fgsm", still])
    assert mine.epsilons[0].outcomes == fgsm.epsilons[0].outcomes
    assert 0 < mine.epsilons[0].outcomes.count("f") < 40
    assert nothing.epsilons[0].outcomes == "r" * 40
    spec = mine.evaluation.attack
    assert spec.name == f"{__name__}.towards"
    assert set(spec.parameters) == {"factor", FUNCTION_DIGEST}
    assert spec.is_function
    assert not fgsm.evaluation.attack.is_function
    assert spec.name not in ATTACKS.entries()
    with pytest.raises(UsageError, match="unknown attack"):
        ATTACKS.load(spec.name)


def test_parameters_reach_a_function_and_name_it_by_its_own_name() -> None:
    (half,) = evaluated(towards, parameters={"towards": {"factor": 1e-6}})
    assert half.epsilons[0].outcomes == "r" * 40
    assert half.evaluation.attack.parameters["factor"] == 1e-6
    with pytest.raises(UsageError, match="has no parameter steps; known: factor"):
        evaluated(towards, parameters={"towards": {"steps": 3}})


def test_the_digest_tells_functions_of_one_name_apart() -> None:
    def made(code: str) -> FunctionAttack:
        names: dict[str, Any] = {"__name__": "mine"}
        exec(code, names)
        return function_attack(names["attack"])

    texts = [f"def attack(model, images, labels, *, epsilon):\n return images + {n}" for n in (0, 0, 1)]
    first, same, other = map(made, texts)
    assert first.name == same.name == other.name == "mine.attack"
    assert first.parameters == same.parameters != other.parameters


def test_a_function_that_holds_values_of_another_is_refused() -> None:
    def made(factor: float) -> Any:
        def attack(model: Any, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
            return images + factor * epsilon

        return attack

    with pytest.raises(UsageError, match=r"holds values of another function, .* keyword arguments with defaults"):
        function_attack(made(0.0))


def test_defaults_of_any_kind_are_in_the_digest() -> None:
    def made(default: tuple[int, ...]) -> FunctionAttack:
        names: dict[str, Any] = {"__name__": "mine", "GIVEN": default}
        exec("def attack(model, images, labels, *, epsilon, at=GIVEN):\n return images", names)
        return function_attack(names["attack"])

    assert made((0,)).parameters == made((0,)).parameters != made((1,)).parameters


def test_a_result_of_a_function_is_stored_and_read_and_never_published(tmp_path: Path) -> None:
    (result,) = evaluated(towards, name="mine")
    path = odebench.write_result(result, str(tmp_path / "results"))
    assert odebench.read_result(str(path)) == result
    with pytest.raises(ResultError, match=r"towards, a function handed over in Python, which nobody else can run"):
        publish(tmp_path, [])
    assert not (tmp_path / "LEADERBOARD.md").exists()
    with pytest.raises(UsageError, match="is a function that was handed over in Python"):
        run_command(result)


class Callable_:
    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float) -> Tensor:
        return images


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (lambda model, images, labels, epsilon: images, "has no name to be stored under; write it as def my_attack"),
        (partial(towards, factor=2), "an attack is a name, such as 'pgd', or a function .*, not partial"),
        (Callable_(), "not Callable_"),
        (3, "not int"),
        (predicted, "cannot be called; it must be of the form my_attack"),
        (partial, "not partial"),
        ([], "there is no attack; give at least one"),
        ([towards, towards], "two attacks are called .*towards; strike one"),
        ("pdg", "unknown attack 'pdg'; did you mean 'pgd'"),
    ],
)
def test_what_is_no_attack_is_told_so(attack: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        evaluated(attack)


def test_a_parameter_without_default_is_named() -> None:
    def needy(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, steps: int) -> Tensor:
        return images

    with pytest.raises(UsageError, match=r"cannot be called; .*, and steps needs a default"):
        evaluated(needy)


# --- data ------------------------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset[Any]):
    def __init__(self, change: Callable[[Tensor], Any] = lambda image: image, n: int = 40) -> None:
        self.change, self.n = change, n
        self.classes = ["a", "b", "c"]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.change(IMAGES[index]), int(LABELS[index])


def test_tensors_and_a_torch_dataset_are_data() -> None:
    (one,) = evaluated("fgsm")
    (other,) = evaluated("fgsm", Pairs())
    assert one.evaluation.dataset.name == f"tensors-{one.found.dataset_sha256[:8]}"
    assert other.evaluation.dataset.name == "Pairs"
    assert one.found.dataset_sha256 == other.found.dataset_sha256
    assert one.epsilons[0].outcomes == other.epsilons[0].outcomes


def test_data_of_any_images_are_named_by_their_digest() -> None:
    sets = [(IMAGES, LABELS), (1 - IMAGES, LABELS)]
    sets += [torch.utils.data.TensorDataset(*one) for one in sets]  # type: ignore[list-item]
    names = [evaluated("fgsm", one)[0].evaluation.dataset.name for one in sets]
    assert len(set(names)) == 4
    assert [name.partition("-")[0] for name in names] == ["tensors"] * 2 + ["TensorDataset"] * 2
    assert names[0].partition("-")[2] == names[2].partition("-")[2]


def test_a_class_whose_name_cannot_be_part_of_a_path_is_one_sentence() -> None:
    with pytest.raises(DatasetError, match=r"the class 'a/b' of the data set becomes part of file names: no slash"):
        evaluated("fgsm", type("a/b", (Pairs,), {})())


def pgd(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, factor: float = 1.0) -> Tensor:
    return images + factor * 0


def test_parameters_of_a_registered_attack_do_not_reach_a_function_of_its_name() -> None:
    registered, own = evaluated(["pgd", pgd], parameters={"pgd": {"steps": 1}})
    assert registered.evaluation.attack.parameters["steps"] == 1
    assert own.evaluation.attack.parameters["factor"] == 1.0
    other = FunctionType(pgd.__code__, {}, "pgd", (), None)
    other.__kwdefaults__, other.__module__, other.__qualname__ = {"factor": 1.0}, "other", "pgd"
    with pytest.raises(UsageError, match=r"parameters for pgd fit .*test_arguments.pgd and other.pgd; give them by"):
        evaluated([pgd, other], parameters={"pgd": {"factor": 2.0}})
    whole = own.evaluation.attack.name
    with pytest.raises(UsageError, match=r"pgd are given twice, also as pgd; remove one"):
        evaluated([pgd], parameters={whole: {}, "pgd": {}})


def test_a_number_is_so_many_images() -> None:
    (result,) = odebench.evaluate(linear(10), attacks="fgsm", threat_model=SMALL, images=100)
    assert (result.evaluation.dataset.name, result.evaluation.dataset.n) == ("digits", 100)


def test_the_path_of_an_image_folder_is_data(tmp_path: Path) -> None:
    from PIL import Image

    for part, label, count in [("train", "a", 12), ("train", "b", 12), ("test", "a", 2), ("test", "b", 2)]:
        folder = tmp_path / "mine" / part / label
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), 40 + 9 * number + (90 if label == "b" else 0)).save(folder / f"{number}.png")
    two = Linear(torch.stack([-torch.ones(64), torch.ones(64)]), torch.zeros(2))
    for data in (str(tmp_path / "mine"), tmp_path / "mine"):
        (result,) = odebench.evaluate(two, data, attacks="fgsm", threat_model=SMALL)
        assert (result.evaluation.dataset.name, result.evaluation.dataset.n) == ("mine", 4)
    (again,) = odebench.evaluate(two, "mine", attacks="fgsm", threat_model=SMALL, data_dir=str(tmp_path))
    assert again.run_key == result.run_key


def test_a_folder_named_like_a_built_in_data_set_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(DatasetError, match="is named like the data set 'digits'; rename the folder"):
        odebench.evaluate(Linear(torch.zeros(2, 64), torch.zeros(2)), tmp_path / "digits", attacks="fgsm")


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (IMAGES, UsageError, "data are a name such as 'digits', .*, not Tensor"),
        ((IMAGES, LABELS, LABELS), UsageError, "not tuple"),
        ("nowhere/mine", DatasetError, "there is no image folder or archive nowhere/mine"),
        (Pairs(lambda image: image.numpy()), DatasetError, "an item is ndarray and more, expected an image tensor"),
        (Pairs(n=0), DatasetError, "there are no images"),
        (Pairs(n=41), DatasetError, "cannot be read: IndexError"),
        (Pairs(lambda image: image * 300), DatasetError, "expected .0, 1.; divide by 255"),
        ((IMAGES, LABELS.float()), DatasetError, "labels are float32, expected integers"),
    ],
)
def test_what_is_no_data_is_told_so(data: Any, error: type[OdebenchError], said: str) -> None:
    with pytest.raises(error, match=said):
        evaluated("fgsm", data)


def test_tensors_need_a_threat_model() -> None:
    said = r"tensors-[0-9a-f]{8} has no default epsilons for linf; give them, such as threat_model=odebench.ThreatModel"
    with pytest.raises(UsageError, match=said):
        odebench.evaluate(MODEL, (IMAGES, LABELS), attacks="fgsm")


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": "all"}, "images are a number, such as images=100, or an odebench.Slice, not 'all'"),
        ({"images": True}, "not True"),
        ({"threat_model": 0.1}, "threat_model must be such as threat_model=odebench.ThreatModel.*, not 0.1"),
        ({"solver": "rk4"}, r"solver must be such as solver=odebench.fixed_step\('rk4', step=0.25\), not 'rk4'"),
        ({"horizon": "1"}, "horizon must be such as horizon=1.0, not '1'"),
        ({"attack_seed": True}, "attack_seed must be such as attack_seed=0, not True"),
        ({"name": 3}, "name must be such as name='my-ode', not 3"),
        ({"parameters": ["steps"]}, "parameters are those of each attack"),
        ({"parameters": {"fgsm": 3}}, "the parameters of fgsm are a dict"),
        ({"parameters": {"pgd": {}}}, "parameters for pgd, which is not among the attacks"),
        ({"sources": [MODEL]}, "sources are modules by name, such as .*, not list"),
    ],
)
def test_a_wrong_type_gets_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        odebench.evaluate(MODEL, **{"dataset": (IMAGES, LABELS), "attacks": "fgsm", "threat_model": SMALL, **given})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("kd-ode", "not the text 'kd-ode'; odebench.load_model gives that of a name"),
        (Linear, "not the class Linear: make one"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_model_is_told_so(model: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        odebench.evaluate(model, (IMAGES, LABELS), attacks="fgsm", threat_model=SMALL)
