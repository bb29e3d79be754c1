"""Large networks as published: their channels are found, and cutting them is the same as switching them off."""

from __future__ import annotations

import pytest

from .cutting import check, draw_channels

PRIVATE_TIED_WIDEST = {
    "vgg16_bn": (13 + 2, 0, 4096),
    "convnext_tiny": (3 + 3 + 9 + 3, 0, 4 * 768),
    "densenet121": (58, 1 + 58 + 3, 512),
    "vit_b_16": (12, 0, 3072),
}


@pytest.mark.slow
def test_large_networks_are_cut_as_they_were_published(published):
    private, tied, widest = PRIVATE_TIED_WIDEST[published.name]
    groups = published.topology.groups
    assert [sum(group.private for group in groups), len(groups)] == [private, private + tied]
    assert max(group.channels for group in groups) == widest
    assert published.topology.classes == 10
    shares = [0.2 + 0.6 * index / len(groups) for index in range(len(groups))]
    check(published.network, published.example, groups, draw_channels(groups, shares, seed=3))
