"""Masksembles against obvious loops and against the library's own masks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.implicit import torch_uncertainty
from structured_ensembles.implicit.torch_uncertainty import masksembles
from structured_ensembles.networks.architectures.resnet import resnet20

from .small import ARCHITECTURES, images, network_of, parameters


def layers() -> nn.Sequential:
    return nn.Sequential(
        *[
            nn.Conv2d(3, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 16, 3, stride=4, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        ],
        *[nn.Linear(256, 20), nn.ReLU(), nn.Linear(20, 10)],
    )


def masked_by_hand(network: nn.Module, masks: dict[str, Tensor], member: int, inputs: Tensor) -> Tensor:
    for name, module in network.named_children():
        if name in masks:
            mask = masks[name][member].float()
            inputs = inputs * (mask.view(-1, 1, 1) if inputs.dim() == 4 else mask)
        inputs = module(inputs)
    return inputs


def masks_of(shared: nn.Module) -> dict[str, Tensor]:
    return {name.split(".")[1]: mask for name, mask in shared.named_buffers() if name.endswith("masks")}


@settings(max_examples=10)
@given(members=st.integers(1, 5), batch=st.integers(1, 7), scale=st.sampled_from([1.5, 2.0, 3.0]))
def test_masksembles_is_a_loop_over_masks(members: int, batch: int, scale: float) -> None:
    network = layers()
    shared = masksembles(copy.deepcopy(network), members, scale=scale)
    masks = masks_of(shared)
    assert list(masks) == ["2", "5", "7"]
    inputs = images(batch)
    expected = torch.stack([masked_by_hand(network, masks, member, inputs) for member in range(members)])
    torch.testing.assert_close(shared.eval()(inputs), expected)
    runs = [row * members // batch for row in range(batch)]
    sizes = [runs.count(member) for member in range(members)]
    assert max(sizes) - min(sizes) <= 1
    trained = torch.stack([expected[member, row] for row, member in enumerate(runs)])
    torch.testing.assert_close(shared.train()(inputs), trained)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_masksembles_shapes_weights_and_members(name: str, batch: int) -> None:
    torch.manual_seed(0)
    network = network_of(name)
    before = copy.deepcopy(network.state_dict())
    shared = masksembles(network, 4)
    assert shared.train()(images(batch)).shape == (batch, 10)
    answers = shared.eval()(images(batch))
    assert answers.shape == (4, batch, 10)
    assert not torch.equal(answers[0], answers[1])
    torch.testing.assert_close(answers[:, :1], shared(images(batch)[:1]), rtol=1e-4, atol=1e-4)
    shared = masksembles(network_of(name), 4)
    weights = {
        key.removeprefix("network.").replace(".layer.", "."): value for key, value in shared.state_dict().items()
    }
    assert set(before) == {key for key in weights if not key.endswith("masks")}
    assert parameters(shared) == parameters(network_of(name))


def test_masksembles_keeps_the_weights() -> None:
    network = network_of("resnet20")
    before = [parameter.clone() for parameter in network.parameters()]
    for parameter, kept in zip(masksembles(network, 4).parameters(), before, strict=True):
        assert torch.equal(parameter, kept)


def test_masks_are_bytes_and_as_many_as_the_librarys() -> None:
    from torch_uncertainty.models.classification import masked_resnet

    theirs = masked_resnet(
        in_channels=3, num_classes=10, arch=20, num_estimators=4, scale=2.0, conv_bias=False, style="cifar"
    )
    shared = masksembles(resnet20((3, 32, 32), 10), 4)
    masks = [buffer for name, buffer in shared.named_buffers() if name.endswith("masks")]
    assert all(mask.dtype == torch.bool for mask in masks)

    def shapes(tensors: list[Tensor]) -> list[tuple[int, ...]]:
        return sorted(tuple(tensor.shape) for tensor in tensors)

    assert shapes(masks) == shapes([parameter for name, parameter in theirs.named_parameters() if "mask" in name])
    assert shared.half().eval()(torch.rand(1, 3, 32, 32).half()).dtype == torch.float16


def test_masks_hold_equally_many_channels_and_cover_all() -> None:
    for mask in masks_of(masksembles(layers(), 4)).values():
        assert len(mask.sum(1).unique()) == 1
        assert mask.any(0).all()
        assert not torch.equal(mask[0], mask[1])


def test_masksembles_refuses_what_it_cannot_mask() -> None:
    with pytest.raises(SettingsError, match=r"scale must be a number from 1\.1 to 6, not 7"):
        masksembles(layers(), 4, scale=7)
    with pytest.raises(SettingsError, match="members must be"):
        masksembles(layers(), 0)
    with pytest.raises(NetworkError, match="none but the first has 10 input channels or more"):
        masksembles(nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 10)), 4)
    with pytest.raises(NetworkError, match=r"'0' \(TransformerEncoderLayer\) reads the weights"):
        masksembles(nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32)), 4)


def test_an_endless_search_for_masks_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_uncertainty, "MOST_DRAWS", 3)
    with pytest.raises(NetworkError, match="no 4 masks of scale 2 were found for the 12 input channels of Conv2d"):
        masksembles(layers(), 4)
    from torch_uncertainty.layers import masksembles as library

    assert library.np is np


def test_masksembles_needs_logits() -> None:
    shared = masksembles(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 10, 3)), 2)
    with pytest.raises(NetworkError, match=r"must be logits \(B, K\) = \(6, K\), but is \(6, 10, 12, 12\)"):
        shared.eval()(images(3))
