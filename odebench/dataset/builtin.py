"""The built-in data sets. Each definition here is a name of `odebench datasets`, listed in this order."""

from odebench.dataset.data_folder import ARCHIVE_SUFFIXES
from odebench.dataset.definition import DatasetDefinition

_DIGIT_CLASSES = tuple("0123456789")
IDX_STEMS = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def _idx_files(folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The idx files of a folder, plain or gzip."""
    return tuple(f"{folder}/{stem}" for stem in IDX_STEMS), tuple(f"{folder}/{stem}.gz" for stem in IDX_STEMS)


DIGITS = DatasetDefinition(
    name="digits",
    summary="handwritten digits, 8x8 grey, in scikit-learn: no download",
    image_shape=(1, 8, 8),
    classes=_DIGIT_CLASSES,
    epsilons={"linf": (0.05, 0.1, 0.15), "l2": (0.25, 0.5, 0.75)},
    loader="odebench.dataset.digits:load_digits",
    sizes={"train": 1097, "validation": 200, "test": 500},
    files=((),),
)

FASHION_MNIST = DatasetDefinition(
    name="fashion-mnist",
    summary="clothing, 28x28 grey",
    image_shape=(1, 28, 28),
    classes=("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    epsilons={"linf": (0.005, 0.015, 0.04), "l2": (0.1, 0.25, 0.75)},
    loader="odebench.dataset.idx:load_fashion_mnist",
    sizes={"train": 55000, "validation": 5000, "test": 10000},
    # Debian's package has its files compressed alone
    files=(_idx_files(DEBIAN_FASHION_MNIST)[1], *_idx_files("FashionMNIST/raw")),
)

MNIST = DatasetDefinition(
    name="mnist",
    summary="handwritten digits, 28x28 grey",
    image_shape=(1, 28, 28),
    classes=_DIGIT_CLASSES,
    epsilons={"linf": (0.1, 0.2, 0.3), "l2": (1.0, 1.5, 2.0)},
    loader="odebench.dataset.idx:load_mnist",
    sizes={"train": 55000, "validation": 5000, "test": 10000},
    files=_idx_files("MNIST/raw"),
)

CIFAR10 = DatasetDefinition(
    name="cifar10",
    summary="objects, 32x32 colour",
    image_shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    epsilons={"linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255), "l2": (0.1, 0.25, 0.5)},
    loader="odebench.dataset.cifar10:load_cifar10",
    sizes={"train": 45000, "validation": 5000, "test": 10000},
    files=(("cifar-10-batches-py",), ("cifar-10-python.tar.gz",)),
)

CIFAR10_JPEG = DatasetDefinition(
    name="cifar10-jpeg",
    summary="cifar10 after JPEG compression, as an image folder",
    image_shape=(3, 32, 32),
    classes=CIFAR10.classes,
    epsilons={"linf": (0.25 / 255, 1 / 255, 3 / 255), "l2": (0.03, 0.15, 0.4)},
    loader="odebench.dataset.folder:load_image_folder",
    sizes={"train": 45000, "validation": 5000, "test": 10000},
    files=tuple((f"cifar10-jpeg{suffix}",) for suffix in ("", *ARCHIVE_SUFFIXES)),
)

SVHN = DatasetDefinition(
    name="svhn",
    summary="house numbers, 32x32 colour",
    image_shape=(3, 32, 32),
    classes=_DIGIT_CLASSES,
    epsilons={"linf": (1 / 255, 2 / 255, 4 / 255, 8 / 255), "l2": (0.1, 0.25, 0.5)},
    loader="odebench.dataset.svhn:load_svhn",
    sizes={"train": 68257, "validation": 5000, "test": 26032},
    files=(("train_32x32.mat", "test_32x32.mat"),),
)
