from __future__ import annotations

import struct
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

from structured_ensembles.data.sources import load
from structured_ensembles.data.sources.named import cache_folder
from structured_ensembles.errors import DataError
from structured_ensembles.options.catalogue import SOURCES

datasets = pytest.importorskip("torchvision.datasets")
NAMES = [name for name in SOURCES if name != "digits"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_args, **_options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def test_files_that_are_there_are_read_without_a_download(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28))
    for prefix, count in (("train", 20), ("t10k", 10)):
        write_idx(tmp_path / f"FashionMNIST/raw/{prefix}-images-idx3-ubyte", images[:count])
        write_idx(tmp_path / f"FashionMNIST/raw/{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    data = load("fashionmnist", root=str(tmp_path))
    assert data.name == "FashionMNIST"
    assert data.input_shape == (1, 28, 28)
    assert data.train.images[:, 0].tolist() == images.tolist()
    assert data.test.labels.tolist() == list(range(10))
    assert data.classes[0] == "T-shirt/top"


class FakeSet:
    """What torchvision's CIFAR and SVHN look like once they are loaded."""

    classes = ("plane", "car")

    def __init__(self, root, download, train=None, split=None):
        assert download
        assert root
        self.which = split or ("train" if train else "test")
        count = 4 if self.which == "train" else 2
        labels = np.arange(count) % 2
        self.data = np.full((count, 32, 32, 3), 7, np.uint8)
        if split is None:
            self.targets = labels.tolist()
        else:
            self.data, self.labels = self.data.transpose(0, 3, 1, 2), np.arange(count * 5) % 10
            self.data = self.data.repeat(5, axis=0)


@pytest.mark.parametrize(("name", "classes", "counts"), [("CIFAR10", 2, (4, 2)), ("svhn", 10, (20, 10))])
def test_sets_that_spell_their_arrays_differently(monkeypatch, tmp_path, name, classes, counts):
    monkeypatch.setattr(datasets, next(one for one in NAMES if one.lower() == name.lower()), FakeSet)
    data = load(name, root=str(tmp_path))
    assert data.input_shape == (3, 32, 32)
    assert (len(data.train), len(data.test)) == counts
    assert len(data.classes) == classes


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_download_says_what_to_do(tmp_path, name):
    with pytest.raises(
        DataError, match=rf"{name} is not in {tmp_path}.*could not be downloaded.*name a folder \(root\)"
    ):
        load(name, root=str(tmp_path))


def test_a_root_that_is_a_file_is_our_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="could not be downloaded"):
        load("mnist", root=str(tmp_path / "file"))


def test_without_torchvision_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"MNIST needs torchvision: pip install 'structured-ensembles\[vision\]'"):
        load("mnist", root=str(tmp_path))


def test_downloads_go_to_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "structured_ensembles"
    with pytest.raises(DataError, match=str(cache_folder())):
        load("mnist")
