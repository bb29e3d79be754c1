"""What it means that a network is cut rightly: it computes what the whole one does with the same channels at zero."""

from __future__ import annotations

import torch

from structured_ensembles.channels import surgery


def tolerance(expected):
    """Float32 sums of another length differ by some 1e-7 of their terms, over a hundred layers; a wrong cut by 1e-1."""
    return 1e-4 * float(expected.abs().max())


def draw_channels(groups, shares, seed):
    """Random kept channels, at least one in each group."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.randperm(group.channels, generator=generator)[: max(1, round(share * group.channels))]
        .sort()
        .values
        for group, share in zip(groups, shares, strict=True)
    }


def check(network, example, groups, channels):
    with torch.no_grad():
        whole = network(example)
        smaller = surgery.cut(network, groups, channels)
        with surgery.zeroed(network, groups, channels):
            expected = network(example)
        actual = smaller(example)
        assert torch.equal(network(example), whole), "the network is not as it was"
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance(expected))
    if any(len(channels[group.name]) < group.channels for group in groups):
        assert size(smaller) < size(network)
        assert (expected - whole).abs().max() > tolerance(whole), "what was removed had no effect"


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())
