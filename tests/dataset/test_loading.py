"""Data sets: order, digests, validation, finding by name, and the loaders on files of the true formats."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from email.message import Message
from importlib.metadata import EntryPoint
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given
from hypothesis import strategies as st

from odebench.dataset import (
    Dataset,
    DatasetDefinition,
    Split,
    builtin,
    describe_dataset,
    download,
    idx,
    load_dataset,
    stratified_order,
)
from odebench.dataset.registry import DATASETS
from odebench.errors import DatasetError, UsageError
from odebench.progress import SILENT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ODEBENCH_DATA", raising=False)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def no_debian(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "debian")


def published_by_torchvision(name):
    """torchvision's class of a data set. It is asked by a few tests alone, and takes seconds to import."""
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


def images(n=4, channels=1, side=8):
    return torch.linspace(0, 1, n * channels * side * side).reshape(n, channels, side, side)


# order


@given(st.lists(st.integers(0, 6), max_size=200))
def test_order_is_a_balanced_permutation(labels):
    order = stratified_order(torch.tensor(labels, dtype=torch.int64))
    assert sorted(order.tolist()) == list(range(len(labels)))
    totals = {label: labels.count(label) for label in labels}
    seen = dict.fromkeys(totals, 0)
    for position in order.tolist():
        seen[labels[position]] += 1
        not_run_out = [seen[label] for label in totals if seen[label] < totals[label]]
        highest = max(seen.values())
        assert all(highest - count <= 1 for count in not_run_out)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9))
def test_order_depends_on_the_classes_rank_alone(labels, stretch):
    tensor = torch.tensor(labels)
    assert stratified_order(tensor).tolist() == stratified_order(tensor * stretch - 3).tolist()


def test_order_takes_classes_in_turn_and_skips_those_that_ran_out():
    labels = torch.tensor([2, 2, 2, 0, 1, 0])
    assert labels[stratified_order(labels)].tolist() == [0, 1, 2, 0, 2, 2]


def test_order_is_shuffled_within_a_class_and_frozen():
    order = stratified_order(torch.zeros(10, dtype=torch.int64))
    assert order.tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]  # numpy.random.RandomState(0).permutation(10)
    assert order.dtype == torch.int64


# splits and their digest


def test_split_converts_uint8_when_asked():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    split = Split(pixels, torch.tensor([0]))
    assert split.images.dtype == torch.float32
    assert torch.equal(split.images, pixels.float() / 255)
    assert repr(split) == "Split(1 images of (1, 16, 16))"


def test_sha256_is_of_shape_images_and_labels():
    split = Split(images(), torch.arange(4))
    expected = hashlib.sha256(np.array([4, 1, 8, 8], "<i8").tobytes())
    expected.update(images().numpy().astype("<f4").tobytes())
    expected.update(np.arange(4, dtype="<i8").tobytes())
    assert split.sha256 == expected.hexdigest()


def test_sha256_does_not_depend_on_how_pixels_are_stored():
    pixels = torch.randint(0, 256, (5000, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(5000, dtype=torch.int64)
    assert Split(pixels, labels).sha256 == Split(pixels.float() / 255, labels).sha256


def test_a_part_of_a_split_has_its_images_and_labels_in_order() -> None:
    split = Split(images(), torch.arange(4))
    part = split.part(slice(1, 3))
    assert torch.equal(part.images, split.images[1:3])
    assert part.labels.tolist() == [1, 2]


def test_sha256_changes_with_a_pixel_a_label_the_order_and_the_shape():
    pixels, labels = images(), torch.tensor([0, 1, 1, 0])
    other = pixels.clone()
    other[3, 0, 7, 7] -= 1e-6
    relabelled = torch.tensor([0, 1, 1, 1])
    back = torch.tensor([3, 2, 1, 0])
    splits = [
        Split(pixels, labels),
        Split(other, labels),
        Split(pixels, relabelled),
        Split(pixels[back], labels[back]),
        Split(pixels.reshape(4, 1, 4, 16), labels),
    ]
    assert len({split.sha256 for split in splits}) == len(splits)


# a user's own images


def test_from_tensors_orders_and_names_classes():
    labels = torch.tensor([1, 1, 0, 2], dtype=torch.int32)
    dataset = Dataset.from_tensors("mine", images().double(), labels)
    order = stratified_order(labels)
    assert torch.equal(dataset.test.images, images()[order])
    assert dataset.test.labels.tolist() == [0, 1, 2, 1]
    assert dataset.classes == ("0", "1", "2")
    assert (dataset.train, dataset.validation) == (None, None)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.n_classes == 3


def test_from_tensors_takes_class_names():
    assert Dataset.from_tensors("mine", images(2), torch.tensor([0, 1]), ["cat", "dog"]).classes == (
        "cat",
        "dog",
    )


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (images() * 255, None, r"'mine': pixels lie in \[0, 255\], expected \[0, 1\]; divide by 255"),
        (images() * 4 - 2, None, r"pixels lie in \[-2, 2\], expected \[0, 1\]; undo the normalisation"),
        (torch.full((4, 1, 8, 8), float("nan")), None, "256 pixels are NaN or infinite"),
        (torch.full((4, 1, 8, 8), float("inf")), None, "256 pixels are NaN or infinite"),
        (images()[:, 0], None, r"images have shape \(4, 8, 8\), expected four dimensions"),
        (images(channels=2), None, r"images have 2 channels, expected 1 \(grey\) or 3 \(colour\)$"),
        (torch.zeros(4, 8, 8, 3), None, r"images have 8 channels.*permute\(0, 3, 1, 2\)"),
        (torch.zeros(4, 1, 8, 7), None, "images are 8x7, expected at least 8x8"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), "there are no images"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), None, r"images are uint8.*images\.float\(\) / 255"),
        (images(), torch.zeros(4), "labels are float32, expected integers from 0"),
        (images(), torch.zeros(4, dtype=torch.bool), "labels are bool, expected integers from 0"),
        (images(), torch.zeros(3, dtype=torch.int64), r"labels have shape \(3,\), expected \(4,\)"),
        (images(), torch.zeros(4, 1, dtype=torch.int64), r"labels have shape \(4, 1\), expected \(4,\)"),
        (images(), torch.tensor([0, 1, -1, 0]), r"labels lie in \[-1, 1\], expected \[0, 1\] for 2 classes"),
    ],
)
def test_from_tensors_refuses(pixels, labels, message):
    labels = torch.zeros(len(pixels), dtype=torch.int64) if labels is None else labels
    with pytest.raises(DatasetError, match=message):
        Dataset.from_tensors("mine", pixels, labels)


def test_from_tensors_refuses_labels_beyond_the_classes():
    with pytest.raises(DatasetError, match=r"labels lie in \[0, 3\], expected \[0, 1\] for 2 classes"):
        Dataset.from_tensors("mine", images(), torch.arange(4), ("a", "b"))


def test_dataset_refuses_splits_of_two_shapes():
    test, train = (Split(images(side=side), torch.tensor([0, 1, 0, 1])) for side in (8, 9))
    with pytest.raises(DatasetError, match="train images are 1x9x9, test images 1x8x8"):
        Dataset("mine", ("a", "b"), train, None, test)


def test_dataset_refuses_wrong_types():
    with pytest.raises(DatasetError, match="images are float64, expected float32"):
        Dataset("mine", ("a",), None, None, Split(images().double(), torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(DatasetError, match="labels are int32, expected int64"):
        Dataset("mine", ("a",), None, None, Split(images(), torch.zeros(4, dtype=torch.int32)))


def test_dataset_refuses_a_class_that_cannot_be_trained():
    test, train = Split(images(), torch.arange(4) % 2), Split(images(), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(DatasetError, match="class 'b' has no image left to train on"):
        Dataset("mine", ("a", "b"), train, None, test)


def test_pools_give_a_tenth_to_validation():
    labels = torch.arange(40) % 2
    pool = Split(images(40), labels)
    dataset = Dataset.from_pools("mine", ("a", "b"), train=pool, test=pool)
    order = stratified_order(labels)
    assert dataset.validation is not None
    assert dataset.train is not None
    assert torch.equal(dataset.validation.images, images(40)[order[:4]])
    assert torch.equal(dataset.train.images, images(40)[order[4:]])
    assert torch.equal(dataset.test.images, images(40)[order])


def test_small_pools_have_no_validation():
    pool = Split(images(), torch.arange(4) % 2)
    assert Dataset.from_pools("mine", ("a", "b"), train=pool, test=pool).validation is None


def test_pools_are_checked():
    good, bad = Split(images(), torch.arange(4) % 2), Split(images() * 2, torch.arange(4) % 2)
    with pytest.raises(DatasetError, match=r"data set 'mine', train: pixels lie in \[0, 2\]"):
        Dataset.from_pools("mine", ("a", "b"), train=bad, test=good)


# definitions, without anything heavy


def test_definitions_load_without_torch():
    code = (
        "import sys, odebench.dataset.builtin, odebench.dataset.definition\n"
        "from odebench.dataset import DatasetDefinition, describe_dataset\n"
        "assert describe_dataset('cifar10').image_shape == (3, 32, 32)\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_definition_is_sound():
    for name in ("digits", "fashion-mnist", "mnist", "cifar10", "cifar10-jpeg", "svhn"):
        definition = describe_dataset(name)
        assert definition.name == name
        assert len(set(definition.classes)) == 10
        assert set(definition.epsilons) == {"linf", "l2"}
        for epsilons in definition.epsilons.values():
            assert list(epsilons) == sorted(set(epsilons))
            assert min(epsilons) > 0


def test_package_exports():
    import odebench.dataset

    assert set(odebench.dataset.__all__) <= set(dir(odebench.dataset))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        odebench.dataset.nonsense  # noqa: B018


# digits


def test_digits():
    dataset = load_dataset("digits")
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.train is not None
    assert dataset.validation is not None
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [1097, 200, 500]
    every = torch.cat([split.images for split in (dataset.test, dataset.validation, dataset.train)])
    assert len(torch.unique(every, dim=0)) == 1797
    assert (every.min(), every.max()) == (0, 1)
    assert torch.equal(every * 16, (every * 16).round())
    assert dataset.test.labels[:20].tolist() == 2 * list(range(10))
    assert torch.bincount(dataset.test.labels).tolist() == [50] * 10


def test_digits_are_frozen():
    found = load_dataset("digits").test.sha256
    assert found == "757f265fb306253160fe2bfc1fb2a0c59b9efaa58be7ad903237ea6a25da7d5f"


# idx files


def idx_bytes(values):
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes() + values.tobytes()


def idx_files(n_train=40, n_test=20):
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        files[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        files[f"{part}-labels-idx1-ubyte"] = (np.arange(n) % 10).astype(np.uint8)
    return files


def write_idx(folder, monkeypatch=None, *, gz=True, source=None):
    """Tiny idx files in `folder`; the checksums that `source` publishes become theirs."""
    folder.mkdir(parents=True)
    files = idx_files()
    published = []
    for stem, values in files.items():
        data = gzip.compress(idx_bytes(values)) if gz else idx_bytes(values)
        (folder / (f"{stem}.gz" if gz else stem)).write_bytes(data)
        published.append((f"{stem}.gz", hashlib.md5(data).hexdigest()))
    if source is not None:
        monkeypatch.setattr(source, "resources", published)
    return files


def check_idx(dataset, files):
    order = stratified_order(torch.from_numpy(files["t10k-labels-idx1-ubyte"]))
    expected = torch.from_numpy(files["t10k-images-idx3-ubyte"])[order].unsqueeze(1) / 255
    assert torch.equal(dataset.test.images, expected)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (36, 4, 20)


@pytest.mark.skipif(not idx.DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_from_debian():
    dataset = load_dataset("fashion-mnist")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (55_000, 5_000, 10_000)
    assert torch.bincount(dataset.validation.labels).tolist() == [500] * 10
    assert torch.bincount(dataset.test.labels[:100]).tolist() == [10] * 10
    assert dataset.test.sha256 == "a0e9a48e93e5553eb93dd9756bcd657cc9b66073c869897df54cf740277ddf95"


def test_fashion_mnist_from_debians_folder(tmp_path, monkeypatch):
    files = write_idx(tmp_path / "debian")
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    dataset = load_dataset("fashion-mnist")
    check_idx(dataset, files)
    assert dataset.classes[9] == "ankle boot"


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize(("name", "source"), [("fashion-mnist", "FashionMNIST"), ("mnist", "MNIST")])
def test_idx_from_the_data_folder(name, source, gz, tmp_path, monkeypatch, no_debian, no_network):
    files = write_idx(tmp_path / source / "raw", monkeypatch, gz=gz, source=published_by_torchvision(source))
    check_idx(load_dataset(name, data_dir=tmp_path), files)


def test_idx_without_network(tmp_path, no_debian, no_network):
    for name, folder in (("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")):
        with pytest.raises(DatasetError) as caught:
            load_dataset(name, data_dir=tmp_path)
        message = str(caught.value)
        assert "train-images-idx3-ubyte.gz is missing and cannot be downloaded" in message
        assert "(no route to host)" in message
        assert f"put it into {tmp_path / folder / 'raw'}, or use --dataset digits" in message
        assert "\n" not in message


def test_idx_with_a_wrong_checksum(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz in .* is damaged: its checksum .*digits"):
        load_dataset("mnist", data_dir=tmp_path)


def test_idx_cut_short(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", gz=False)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte in .* is damaged: 15679 bytes of data where 15680"):
        load_dataset("mnist", data_dir=tmp_path)


def test_idx_of_another_kind(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", gz=False)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"<html>not found</html>")
    with pytest.raises(DatasetError, match="is damaged: it is not an idx file of bytes in 1 dimensions"):
        load_dataset("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("keep", [0, 100])
def test_gzip_cut_short(keep, tmp_path, monkeypatch):
    write_idx(tmp_path / "debian")
    path = tmp_path / "debian" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    monkeypatch.setattr(idx, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz in .* is damaged"):
        load_dataset("fashion-mnist")


# downloads


@pytest.fixture
def mirror(monkeypatch):
    """A web server's files by address; an address that is not there is a 404."""
    files = {}

    @contextmanager
    def urlopen(request, timeout):
        if request.full_url not in files:
            raise urllib.error.HTTPError(request.full_url, 404, "Not Found", Message(), None)
        body = files[request.full_url]
        yield SimpleNamespace(headers={"Content-Length": str(len(body))}, read1=BytesIO(body).read1)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return files


def test_mnist_is_downloaded_from_the_second_mirror(tmp_path, monkeypatch, mirror, capsys):
    source = published_by_torchvision("MNIST")
    files = write_idx(tmp_path / "web", monkeypatch, source=source)
    for path in (tmp_path / "web").iterdir():
        mirror[source.mirrors[1] + path.name] = path.read_bytes()
    check_idx(load_dataset("mnist"), files)
    raw = tmp_path / "cache" / "data" / "MNIST" / "raw"
    assert {path.name for path in raw.iterdir()} == {f"{stem}.gz" for stem in files}
    assert capsys.readouterr() == ("", "")


def test_a_download_with_a_wrong_checksum_leaves_nothing(tmp_path, mirror):
    source = published_by_torchvision("MNIST")
    mirror[source.mirrors[0] + "train-images-idx3-ubyte.gz"] = b"a captive portal"
    with pytest.raises(DatasetError, match="does not have the published checksum; HTTP Error 404"):
        load_dataset("mnist")
    assert not any(path.is_file() for path in (tmp_path / "cache" / "data").rglob("*"))


# CIFAR-10


def cifar_batches():
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return {
        name: {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))} for name in names
    }


@pytest.fixture
def cifar_archive(tmp_path, monkeypatch):
    """A tiny archive of CIFAR-10's format, and the published checksums changed to its own."""
    source = published_by_torchvision("CIFAR10")
    contents = {name: pickle.dumps(batch, protocol=2) for name, batch in cifar_batches().items()}
    contents["batches.meta"] = pickle.dumps({"label_names": ["airplane"]})
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(source, "train_list", [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(source, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5["batches.meta"]})
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    return buffer.getvalue()


def check_cifar(dataset):
    test = cifar_batches()["test_batch"]["data"].reshape(10, 3, 32, 32)
    assert dataset.image_shape == (3, 32, 32)
    assert torch.equal(dataset.test.images, torch.from_numpy(test) / 255)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (45, 5, 10)


def test_cifar10_from_the_archive_then_from_its_files(tmp_path, cifar_archive, no_network, capsys):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_archive)
    check_cifar(load_dataset("cifar10", data_dir=tmp_path))
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    check_cifar(load_dataset("cifar10", data_dir=tmp_path))
    assert capsys.readouterr() == ("", "")


def test_cifar10_is_downloaded(cifar_archive, mirror):
    mirror[published_by_torchvision("CIFAR10").url] = cifar_archive
    check_cifar(load_dataset("cifar10"))


def test_cifar10_without_network(tmp_path, no_network):
    with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz is missing.*no route to host.*digits"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_cifar10_with_wrong_checksums(tmp_path, cifar_archive):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_archive + b"\0")
    with pytest.raises(DatasetError, match=r"cifar-10-python\.tar\.gz in .* is damaged: its checksum"):
        load_dataset("cifar10", data_dir=tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_archive)
    load_dataset("cifar10", data_dir=tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({}))
    with pytest.raises(DatasetError, match=r"data_batch_3 in .* is damaged: its checksum"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_cifar10_that_cannot_be_extracted(tmp_path, cifar_archive):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_archive)
    (tmp_path / "cifar-10-batches-py").write_text("a file in the way")
    with pytest.raises(DatasetError, match="data set 'cifar10' cannot be read from"):
        load_dataset("cifar10", data_dir=tmp_path)


# SVHN


def write_svhn(folder, monkeypatch=None):
    source = published_by_torchvision("SVHN")
    rng = np.random.default_rng(0)
    pixels, published = {}, dict(source.split_list)
    for part, n in (("train", 40), ("test", 20)):
        pixels[part] = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        path = folder / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels[part], "y": (np.arange(n)[:, None] % 10 + 1).astype(np.uint8)})
        published[part] = [
            f"http://example.org/{path.name}",
            path.name,
            hashlib.md5(path.read_bytes()).hexdigest(),
        ]
    if monkeypatch is not None:
        monkeypatch.setattr(source, "split_list", published)
    return pixels


def test_svhn(tmp_path, monkeypatch, no_network, capsys):
    pixels = write_svhn(tmp_path, monkeypatch)
    dataset = load_dataset("svhn", data_dir=tmp_path)
    labels = (torch.arange(20) + 1) % 10  # the files call the digit 0 ten
    order = stratified_order(labels)
    assert torch.equal(dataset.test.labels, labels[order])
    assert torch.equal(dataset.test.images, torch.from_numpy(pixels["test"]).permute(3, 2, 0, 1)[order] / 255)
    assert (len(dataset.train), len(dataset.validation)) == (36, 4)
    assert capsys.readouterr() == ("", "")


def test_svhn_with_a_wrong_checksum(tmp_path):
    write_svhn(tmp_path)
    with pytest.raises(DatasetError, match=r"train_32x32\.mat in .* is damaged: its checksum"):
        load_dataset("svhn", data_dir=tmp_path)


def test_svhn_without_network(tmp_path, no_network):
    with pytest.raises(DatasetError, match=r"train_32x32\.mat is missing.*digits"):
        load_dataset("svhn", data_dir=tmp_path)


# finding by name


def test_unknown_name_lists_what_is_in_the_data_folder(tmp_path):
    (tmp_path / "flowers" / "train").mkdir(parents=True)
    (tmp_path / "nested" / "top" / "train").mkdir(parents=True)
    (tmp_path / "something-else").mkdir()
    (tmp_path / ".hidden" / "train").mkdir(parents=True)
    (tmp_path / "pets.tar.xz").touch()
    for call in (load_dataset, describe_dataset):
        with pytest.raises(UsageError) as caught:
            call("flower", data_dir=tmp_path)
        assert str(caught.value) == (
            "unknown data set 'flower'; did you mean 'flowers'? "
            "known: cifar10, cifar10-jpeg, digits, fashion-mnist, flowers, mnist, nested, pets, svhn"
        )


@pytest.mark.parametrize("name", ["../flowers", "a/b", "", ".", ".."])
def test_a_name_is_no_path(name, tmp_path):
    with pytest.raises(UsageError, match="unknown data set"):
        load_dataset(name, data_dir=tmp_path)


def test_data_folder_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match=r"the data folder .*nowhere \(--data-dir\) does not exist"):
        load_dataset("digits", data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("ODEBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"the data folder .*nowhere \(ODEBENCH_DATA\) does not exist"):
        describe_dataset("digits")


def test_data_folder_from_the_environment(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("ODEBENCH_DATA", str(tmp_path))
    files = write_idx(tmp_path / "MNIST" / "raw", gz=False)
    check_idx(load_dataset("mnist"), files)


# plugins


TINY = DatasetDefinition("tiny", (1, 8, 8), ("a", "b"), {}, f"{__name__}:load_tiny")
TINY_MISLABELLED = DatasetDefinition("tiny", (1, 8, 8), ("a", "c"), {}, f"{__name__}:load_tiny")
TINY_BROKEN = DatasetDefinition("tiny", (1, 8, 8), ("a", "b"), {}, "odebench.nowhere:load")


def load_tiny(definition, data_dir, progress):
    return Dataset.from_tensors("tiny", images(), torch.arange(4) % 2, ("a", "b"))


@pytest.fixture
def plugin(monkeypatch):
    def install(attribute):
        points = [EntryPoint("tiny", f"{__name__}:{attribute}", "odebench.datasets")]
        monkeypatch.setattr("odebench.registry.entry_points", lambda *, group: points)

    return install


def test_plugin(plugin):
    plugin("TINY")
    assert describe_dataset("tiny") is TINY
    assert load_dataset("tiny").test.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("load_tiny", "its entry point names no DatasetDefinition"),
        ("TINY_MISLABELLED", "its loader gave .*'b'.*, its definition says .*'c'"),
        ("TINY_BROKEN", "its loader odebench.nowhere:load cannot be loaded: No module"),
    ],
)
def test_broken_plugin(attribute, message, plugin):
    plugin(attribute)
    with pytest.raises(DatasetError, match=message):
        load_dataset("tiny")


def test_registry_names_are_the_definitions():
    known = (builtin.DIGITS, builtin.FASHION_MNIST, builtin.MNIST, builtin.CIFAR10, builtin.CIFAR10_JPEG, builtin.SVHN)
    for definition in known:
        assert DATASETS.load(definition.name) is definition


def test_fetch_keeps_nothing_of_an_interrupted_download(tmp_path, monkeypatch):
    @contextmanager
    def urlopen(request, timeout):
        def read(size):
            raise TimeoutError("timed out")

        yield SimpleNamespace(headers={}, read1=read)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(DatasetError, match=r"file\.gz is missing and cannot be downloaded \(timed out\)"):
        download.fetch(["http://example.org/file.gz"], tmp_path / "file.gz", md5="0", name="x", progress=SILENT)
    assert list(tmp_path.iterdir()) == []
