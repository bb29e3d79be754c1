"""One entry makes a kind of module known to whatever cuts, finds and counts channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery, topology
from structured_ensembles.types import Side


class ChannelRMS(nn.Module):
    """Each channel over the root mean square of its pixels; a kind of which nobody has heard."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gain, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        size = maps.square().mean(dim=(2, 3), keepdim=True).add(1e-5).sqrt()
        return maps / size * self.gain.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)


RMS = kinds.Kind((ChannelRMS,), kinds.Role.NORM, {Side.OUT: "channels"}, {Side.OUT: ("gain", "shift")})


def network() -> nn.Module:
    return nn.Sequential(
        *[nn.Conv2d(1, 6, 3), ChannelRMS(6), nn.ReLU(), nn.Conv2d(6, 8, 3), ChannelRMS(8), nn.ReLU()],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)],
    )


def test_one_entry_makes_a_norm_that_can_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, RMS))
    whole, inputs = network().eval(), torch.rand(2, 1, 8, 8)
    found = topology.find(whole, inputs)
    assert found.widths == {"0": 6, "3": 8}
    assert not found.notices
    channels = {"0": torch.tensor([1, 4]), "3": torch.tensor([0, 2, 7])}
    smaller = surgery.cut(whole, found.groups, channels)
    assert (smaller[1].channels, smaller[4].shift.shape) == (2, (3,))
    with surgery.zeroed(whole, found.groups, channels):
        torch.testing.assert_close(smaller(inputs), whole(inputs))


@pytest.mark.parametrize(
    ("module", "norm", "any_norm"),
    [
        (nn.BatchNorm2d(3), True, True),
        (nn.InstanceNorm1d(3), True, True),
        (nn.GroupNorm(1, 3), False, True),
        (nn.LayerNorm(3), False, True),
        (nn.PReLU(3), False, False),
        (nn.ConvTranspose2d(3, 3, 1), False, False),
    ],
)
def test_normalisations_out_of_which_nothing_can_be_cut_are_told_apart(
    module: nn.Module, norm: bool, any_norm: bool
) -> None:
    assert (kinds.is_norm(module), kinds.normalises(module)) == (norm, any_norm)


@pytest.mark.parametrize(("module", "shape"), [(nn.Conv2d(3, 3, 1), (4, 3, 1, 1)), (nn.Linear(3, 3), (4, 1, 1, 3))])
def test_values_of_channels_are_spread_over_their_dimension(module: nn.Module, shape: tuple[int, ...]) -> None:
    like = torch.empty(4, 3, 2, 3)
    assert kinds.spread(module, torch.empty(4, 3), like).shape == shape
    assert kinds.spread(module, torch.empty(3), like).shape == (1, *shape[1:])
