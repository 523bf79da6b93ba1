"""Image folders and archives: decoding, caching, and one clear line for all that can be wrong."""

from __future__ import annotations

import os
import tarfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odebench.dataset import archive, describe_dataset, load_dataset, stratified_order
from odebench.dataset.builtin import CIFAR10_JPEG
from odebench.dataset.folder import load_image_folder
from odebench.errors import DatasetError

SUFFIXES = (".tar", ".tar.gz", ".tar.xz")
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tar.xz": "w:xz"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ODEBENCH_DATA", raising=False)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def encode(array, kind="PNG"):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def picture(seed, *, height=8, width=8, colour=False):
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tiny(*, colour=False, n_train=6, n_test=2):
    """The files of a sound data set of two classes, path to bytes."""
    files = {}
    for part, n in (("train", n_train), ("test", n_test)):
        for number, label in enumerate(("cat", "dog")):
            for i in range(n):
                seed = 1000 * number + 10 * i + (part == "test")
                files[f"{part}/{label}/{i}.png"] = encode(picture(seed, colour=colour))
    return files


def write_folder(data, files, name="pets"):
    for path, content in files.items():
        target = data / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return data / name


def write_archive(data, files, *, suffix=".tar", extra=(), name="pets"):
    path = data / f"{name}{suffix}"
    with tarfile.open(path, MODES[suffix]) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return path


def refused(data, message):
    """Loading "pets" fails with one line that matches, and leaves nothing in the cache."""
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset("pets", data_dir=data)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in (data.parent / "cache").rglob("*"))


# what comes out


@pytest.mark.parametrize("colour", [False, True])
def test_folder(data, colour):
    write_folder(data, tiny(colour=colour))
    dataset = load_dataset("pets", data_dir=data)
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_shape == (3 if colour else 1, 8, 8)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (11, 1, 4)
    labels = torch.tensor([0, 0, 1, 1])
    seeds = [1, 11, 1001, 1011]
    order = stratified_order(labels)
    assert torch.equal(dataset.test.labels, labels[order])
    for position, index in enumerate(order.tolist()):
        pixels = torch.from_numpy(picture(seeds[index], colour=colour))
        expected = (pixels.permute(2, 0, 1) if colour else pixels.unsqueeze(0)) / 255
        assert torch.equal(dataset.test.images[position], expected)


def digests(dataset):
    return dataset.train.sha256, dataset.validation.sha256, dataset.test.sha256


def test_folder_and_archives_of_any_order_and_compression_are_one_data_set(data):
    files = tiny(n_test=5)
    write_folder(data, files, name="folder")
    found = {digests(load_dataset("folder", data_dir=data))}
    for seed, suffix in enumerate(SUFFIXES):
        name = f"archive{suffix.replace('.', '-')}"
        paths = np.random.default_rng(seed).permutation(list(files)).tolist()
        write_archive(data, {path: files[path] for path in paths}, suffix=suffix, name=name)
        found.add(digests(load_dataset(name, data_dir=data)))
    below = {f"./top/{path}": content for path, content in files.items()}
    write_archive(data, below, name="below")
    found.add(digests(load_dataset("below", data_dir=data)))
    assert len(found) == 1


def test_one_colour_image_makes_all_colour(data):
    grey = picture(1)
    files = {**tiny(), "train/cat/colour.png": encode(picture(5, colour=True))}
    write_folder(data, files)
    dataset = load_dataset("pets", data_dir=data)
    assert dataset.image_shape == (3, 8, 8)
    channels = torch.from_numpy(grey).expand(3, 8, 8) / 255
    assert any(torch.equal(image, channels) for image in dataset.test.images)


def test_jpeg_and_other_modes(data):
    rgba = np.concatenate([picture(1, colour=True), np.full((8, 8, 1), 255, np.uint8)], axis=2)
    files = {
        **tiny(),
        "train/cat/a.JPG": encode(picture(2), "JPEG"),
        "train/dog/a.jpeg": encode(rgba[..., :3], "JPEG"),
    }
    files["test/cat/alpha.png"] = encode(rgba)
    write_folder(data, files)
    dataset = load_dataset("pets", data_dir=data)
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (14, 5)
    expected = torch.from_numpy(rgba[..., :3]).permute(2, 0, 1) / 255
    assert any(torch.equal(image, expected) for image in dataset.test.images)


def test_what_is_no_image_or_in_another_part_is_left_alone(data):
    files = tiny()
    expected = len(files)
    files |= {
        "README.txt": b"",
        "train/cat/._0.png": b"",
        "val/cat/0.png": b"no image",
        "train/notes.csv": b"",
    }
    for load in (write_folder, write_archive):
        load(data, files, name=load.__name__)
        found = load_dataset(load.__name__, data_dir=data)
        assert sum(len(split) for split in (found.train, found.validation, found.test)) == expected


def test_describe(data):
    write_archive(data, tiny(colour=True), suffix=".tar.xz")
    definition = describe_dataset("pets", data_dir=data)
    assert (definition.name, definition.image_shape) == ("pets", (3, 8, 8))
    assert definition.classes == ("cat", "dog")
    assert definition.epsilons == {}
    assert definition.loader == "odebench.dataset.folder:load_image_folder"
    again = load_image_folder(definition, data, Recorder())
    assert again.test.sha256 == load_dataset("pets", data_dir=data).test.sha256
    with pytest.raises(DatasetError, match=r"'pets': no image folder or archive of that name in .*cache"):
        load_image_folder(definition, data.parent / "cache", Recorder())


def test_cifar10_jpeg_is_a_folder_or_archive_of_that_name(data):
    with pytest.raises(DatasetError, match=r"put a folder cifar10-jpeg with train/<class>/ and test/<class>/ there"):
        load_dataset("cifar10-jpeg", data_dir=data)
    assert describe_dataset("cifar10-jpeg", data_dir=data) is CIFAR10_JPEG
    files = {
        f"{part}/{label}/{i}.png": encode(picture(100 * number + i, height=32, width=32, colour=True))
        for part, n in (("train", 3), ("test", 1))
        for number, label in enumerate(CIFAR10_JPEG.classes)
        for i in range(n)
    }
    write_archive(data, files, suffix=".tar.xz", name="cifar10-jpeg")
    found = load_dataset("cifar10-jpeg", data_dir=data)
    assert (found.name, found.classes, found.image_shape) == ("cifar10-jpeg", CIFAR10_JPEG.classes, (3, 32, 32))
    assert len(found.test) == 10


def test_another_folder_of_that_name_is_refused_with_what_to_do(data):
    write_folder(data, tiny(colour=True), name="cifar10-jpeg")
    with pytest.raises(DatasetError) as caught:
        load_dataset("cifar10-jpeg", data_dir=data)
    assert str(caught.value) == (
        f"{data / 'cifar10-jpeg'} is not cifar10-jpeg, which has images of shape [3, 32, 32] in the classes airplane, "
        "automobile, bird, cat, deer, dog, frog, horse, ship, truck; give yours another name"
    )


def test_a_folder_goes_before_an_archive(data):
    write_folder(data, tiny())
    write_archive(data, tiny(colour=True))
    assert load_dataset("pets", data_dir=data).image_shape == (1, 8, 8)


def test_the_later_of_two_members_counts(data):
    with tarfile.open(data / "pets.tar", "w") as tar:
        for content in (encode(picture(7)), encode(picture(8))):
            for name in ("train/cat/0.png", "test/cat/0.png"):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    dataset = load_dataset("pets", data_dir=data)
    assert torch.equal(dataset.test.images, torch.from_numpy(picture(8))[None, None] / 255)


def test_nothing_is_extracted(data):
    write_archive(data, tiny(), suffix=".tar.xz")
    load_dataset("pets", data_dir=data)
    files = [path.relative_to(data.parent) for path in data.parent.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".safetensors", ".xz"]


class Recorder:
    """Progress that remembers."""

    def __init__(self):
        self.total = self.done = 0.0
        self.lines = []

    @contextmanager
    def track(self, name, *, total, done=0):
        self.total += total
        yield self

    def advance(self, amount=1, *, note=""):
        self.done += amount

    def say(self, line):
        self.lines.append(line)


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_progress_reaches_its_total(data, write):
    recorder = Recorder()
    write(data, tiny())
    load_dataset("pets", data_dir=data, progress=recorder)
    assert 0 < recorder.done <= recorder.total
    assert recorder.done > 0.5 * recorder.total


# the cache


@pytest.fixture
def no_decoding(monkeypatch):
    def install():
        def refuse(*args, **kwargs):
            raise AssertionError("decoded again")

        monkeypatch.setattr(Image, "open", refuse)

    return install


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_the_second_load_comes_from_the_cache(data, write, no_decoding):
    write(data, tiny())
    first = load_dataset("pets", data_dir=data)
    no_decoding()
    second = load_dataset("pets", data_dir=data)
    assert second.classes == first.classes
    for one, other in (
        (first.train, second.train),
        (first.validation, second.validation),
        (first.test, second.test),
    ):
        assert one.sha256 == other.sha256


def test_a_changed_folder_is_decoded_again(data):
    path = write_folder(data, tiny()) / "test" / "cat" / "0.png"
    before = load_dataset("pets", data_dir=data).test.sha256
    path.write_bytes(encode(picture(99)))
    os.utime(path, ns=(1, 1))
    assert load_dataset("pets", data_dir=data).test.sha256 != before


def flip_last_byte(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'\\"version\\":1', b'\\"version\\":0'),
        lambda content: content.replace(b"odebench", b"otherkey"),
        flip_last_byte,
    ],
)
def test_a_damaged_cache_file_is_decoded_again(data, damage):
    write_folder(data, tiny())
    before = load_dataset("pets", data_dir=data)
    [file] = (data.parent / "cache" / "datasets").iterdir()
    sound = file.read_bytes()
    assert damage(sound) != sound
    file.write_bytes(damage(sound))
    after = load_dataset("pets", data_dir=data)
    assert (after.test.sha256, after.train.sha256) == (before.test.sha256, before.train.sha256)
    assert file.read_bytes() == sound


def test_a_cache_that_cannot_be_written_is_done_without(data):
    write_folder(data, tiny())
    (data.parent / "cache").write_text("a file in the way")
    recorder = Recorder()
    assert len(load_dataset("pets", data_dir=data, progress=recorder).test) == 4
    assert len(recorder.lines) == 1
    assert recorder.lines[0].startswith("the decoded images of pets are not kept: cannot write")


# what can be wrong with images and classes


@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train/cat/1.png": b"no image"},
            r"train/cat/1\.png is damaged or not an image: no JPEG or PNG file; replace",
        ),
        ({"train/cat/1.png": b""}, r"train/cat/1\.png is damaged or not an image: no JPEG or PNG file; replace"),
        ({"test/dog/1.png": encode(picture(1))[:-30]}, r"test/dog/1\.png is damaged or not an image"),
        ({"test/dog/1.jpg": encode(picture(1), "JPEG")[:-30]}, r"test/dog/1\.jpg is damaged or not an image"),
        ({"test/dog/1.png": encode(picture(1), "GIF")}, r"test/dog/1\.png is damaged or not an image"),
        (
            {"test/dog/1.png": encode(picture(1, height=9, width=10))},
            r"test/dog/1\.png is 9x10 but t.*/.*\.png is 8x8 \(height x width\); resize|"
            r"t.*/.*\.png is 8x8 but test/dog/1\.png is 9x10 \(height x width\); resize",
        ),
        (
            {"train/cat/1.png": encode(np.zeros((8, 8), np.uint16))},
            r"train/cat/1\.png has pixels of mode 'I;16'; expected 8-bit grey or RGB",
        ),
        (
            {"train/bird/1.png": encode(picture(1))},
            r"class 'bird' has no images in test/; add some or remove",
        ),
        (
            {"test/bird/1.png": encode(picture(1))},
            r"class 'bird' has no images in train/; add some or remove",
        ),
        (
            {"train/1.png": encode(picture(1))},
            r"train/1\.png is not right in a class folder; expected train/<class>/",
        ),
        ({"test/cat/deep/1.png": encode(picture(1))}, r"test/cat/deep/1\.png is not right in a class folder"),
        ({"top/train/cat/1.png": encode(picture(1))}, r"train/ and test/ in several places \(\., top\)"),
    ],
)
def test_wrong_images(data, write, changes, message):
    write(data, {**tiny(), **changes})
    refused(data, message)


@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize("part", ["train", "test"])
def test_no_train_or_test(data, write, part):
    write(data, {path: content for path, content in tiny().items() if not path.startswith(part)})
    refused(data, rf"has no images in {part}/; expected train/<class>/ and test/<class>/")


def test_too_small(data):
    write_folder(data, {f"{part}/cat/0.png": encode(picture(1, height=7)) for part in ("train", "test")})
    refused(data, r"0\.png is 7x8; expected at least 8x8")


def test_empty_class_folder(data):
    (write_folder(data, tiny()) / "test" / "emu").mkdir()
    refused(data, "class 'emu' has no images in train/")


def test_empty_class_in_an_archive(data):
    empty = tarfile.TarInfo("train/emu")
    empty.type = tarfile.DIRTYPE
    write_archive(data, tiny(), extra=[empty])
    refused(data, "class 'emu' has no images in train/")


def test_empty_folder(data):
    (data / "pets").mkdir()
    refused(data, "has no images in train/")


@pytest.mark.parametrize("limit", [50, 20])
def test_decompression_bomb(data, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # PIL warns from here on and refuses from twice as much
    write_folder(data, tiny())
    refused(data, r"\.png is far too big, perhaps a decompression bomb")


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_file_of_too_many_bytes(data, write, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    write(data, {**tiny(), "train/cat/1.png": bytes(1001)})
    refused(data, r"train/cat/1\.png has 1,001 bytes; an image may have 1,000 at most")


# what can be wrong with folders


def test_broken_link(data):
    (write_folder(data, tiny()) / "train" / "cat" / "gone.png").symlink_to("nowhere")
    refused(data, r"train/cat/gone\.png cannot be read: No such file")


def test_linked_class_folders_are_followed(data):
    folder = write_folder(data, tiny())
    (folder / "train").rename(data.parent / "elsewhere")
    (folder / "train").symlink_to(data.parent / "elsewhere")
    assert len(load_dataset("pets", data_dir=data).test) == 4


def test_folder_that_links_to_itself(data):
    folder = write_folder(data, tiny())
    (folder / "loop").symlink_to(folder)
    refused(data, "in a class folder|in several places")


def test_unreadable(data, monkeypatch):
    folder = write_folder(data, tiny())
    iterdir = Path.iterdir

    def refuse(path):
        if path.name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    refused(data, rf"{folder}/(train|test)/cat cannot be read: Permission denied")


def test_unreadable_archive(data, monkeypatch):
    path = write_archive(data, tiny())

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("odebench.dataset.folder.sha256_file", refuse)
    refused(data, rf"{path} cannot be read: Permission denied")


# what can be wrong with archives


@pytest.mark.parametrize("name", ["/train/cat/9.png", "train/../../9.png", "../9.png", "/etc/passwd"])
def test_member_that_points_outside(data, name):
    write_archive(data, {**tiny(), name: encode(picture(1))})
    refused(data, r"points outside the archive; expected relative paths without '\.\.'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_link_or_device(data, kind):
    member = tarfile.TarInfo("train/cat/9.png")
    member.type, member.linkname = kind, "train/cat/0.png"
    write_archive(data, tiny(), extra=[member])
    refused(data, r"train/cat/9\.png is a link or a device; expected files and folders only")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"this is not a tar archive" * 100])
def test_no_tar(data, suffix, content):
    (data / f"pets{suffix}").write_bytes(content)
    refused(data, r"is not a tar archive, or is cut short: .*; fetch it again")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.6])
def test_truncated_archive(data, suffix, share):
    path = write_archive(data, tiny(), suffix=suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(data, "cut short")


def test_tar_cut_between_two_members(data):
    path = write_archive(data, tiny())
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    refused(data, "is cut short or damaged after 15 members; fetch it again")


def test_tar_with_a_damaged_header_in_the_middle(data):
    path = write_archive(data, tiny())
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[8].offset
    content = bytearray(path.read_bytes())
    content[middle + 150] ^= 0xFF
    path.write_bytes(content)
    refused(data, "is cut short or damaged after 8 members; fetch it again")
