from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from structured_ensembles.data.sources import load
from structured_ensembles.errors import DataError, SettingsError, StructensError


def test_digits_are_divided_by_class_and_always_the_same_way():
    data = load("Digits")
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert data.input_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert data.train.images.dtype == torch.float32
    assert (float(data.train.images.min()), float(data.train.images.max())) == (0.0, 1.0)
    assert torch.equal(data.test.images, load("digits").test.images)
    shares = torch.bincount(data.test.labels) / torch.bincount(torch.cat([data.train.labels, data.test.labels]))
    assert torch.allclose(shares, torch.tensor(0.25), atol=0.004)


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    data, source = load("digits"), load_digits()
    ours = torch.cat([data.train.images, data.test.images]) * 16
    mine = {
        (tuple(image), label)
        for image, label in zip(
            ours.flatten(1).int().tolist(), torch.cat([data.train.labels, data.test.labels]).tolist(), strict=True
        )
    }
    theirs = {
        (tuple(image), label)
        for image, label in zip(source.data.astype(int).tolist(), source.target.tolist(), strict=True)
    }
    assert mine == theirs


def test_image_size_stretches_any_source_with_a_notice():
    data = load("digits", image_size=12)
    assert data.input_shape == (1, 12, 12)
    assert data.test.images.shape[2:] == (12, 12)
    assert data.notices == ("All images were resized from 8x8 (height x width) to 12x12.",)
    assert load("digits", image_size=8).notices == ()


@pytest.mark.parametrize("size", [0, -3])
def test_image_size_must_be_positive(size):
    with pytest.raises(SettingsError, match=f"image_size is {size}: it must be 1 pixel or more"):
        load("digits", image_size=size)


@pytest.mark.parametrize(
    ("wrong", "near"), [("digit", "digits"), ("CIFAR-10", "CIFAR10"), ("fashon_mnist", "FashionMNIST")]
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong, near):
    with pytest.raises(SettingsError, match=f"unknown data source or path '{wrong}': did you mean '{near}'"):
        load(wrong)


@pytest.mark.parametrize("path", ["nowhere/at/all", "missing.npz", "./digits_folder", "~/no_such_folder_of_images"])
def test_a_path_that_does_not_exist(path):
    with pytest.raises(DataError, match=f"the data path {path} does not exist"):
        load(path)


def test_the_nearest_file_is_proposed(tmp_path):
    (tmp_path / "flowers.npz").touch()
    with pytest.raises(DataError, match=r"flower\.npz does not exist: did you mean .*flowers\.npz\?"):
        load(str(tmp_path / "flower.npz"))


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "images.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"images\.tar is neither a folder nor an \.npz file: unpack"):
        load(str(tmp_path / "images.tar"))


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load("digits").name == "digits"
    with pytest.raises(DataError, match="has no class folders"):
        load("./digits")


def test_a_file_is_found_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images, labels = np.zeros((4, 5, 5), np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert load("~/mine.npz").name == "mine.npz"


@settings(max_examples=200)
@given(source=st.one_of(st.text(max_size=30), st.just("x" * 5000), st.just("a\0b"), st.just("  ")))
def test_no_text_raises_anything_but_our_errors(source):
    if source.strip().strip("./") and source.lower() != "digits":
        with pytest.raises(StructensError):
            load(source)
