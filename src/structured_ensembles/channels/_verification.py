"""What the surgery promises, tried on every group: cutting channels is the same as zeroing them."""

from __future__ import annotations

import torch

from structured_ensembles.channels import surgery
from structured_ensembles.channels._probe import Probe
from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.networks import modules
from structured_ensembles.types import Channels, Group


def verified(probe: Probe, groups: list[Group]) -> tuple[list[Group], list[str]]:
    """The groups for which cutting equals zeroing, and why the others are left out."""
    notices: list[str] = []

    def hold(part: list[Group]) -> list[Group]:
        problem = _problem(probe, part)
        if problem is None:
            return part
        if len(part) == 1:
            notices.append(f"The output channels of {part[0].name!r} are left whole: {problem}.")
            return []
        half = len(part) // 2
        return hold(part[:half]) + hold(part[half:])

    good = hold(groups) if groups else []
    if len(good) < len(groups) and good and (problem := _problem(probe, good)):
        msg = f"groups that can be cut alone cannot be cut together, {good[0].name!r} to {good[-1].name!r}: {problem}"
        raise NetworkError(msg)
    return good, notices


def _problem(probe: Probe, groups: list[Group]) -> str | None:
    """What goes wrong when some channels of every group are cut; None if nothing does."""
    for channels in (_random_half(groups), _first_half(groups)):
        if problem := _difference(probe, groups, channels):
            return problem
    return None


def _difference(probe: Probe, groups: list[Group], channels: Channels) -> str | None:
    try:
        with torch.no_grad():
            cut = surgery.cut(probe.network, groups, channels)
            smaller = cut(probe.example)
            if probe.idle:
                modules.run_once(cut, probe.example, training=True)
            with surgery.zeroed(probe.network, groups, channels):
                expected = probe.network(probe.example)
    except Exception as error:  # noqa: BLE001 (whatever a cut network raises is the finding)
        return f"the network fails without some of them ({first_line(error)})"
    if smaller.shape != expected.shape:
        return f"the output's shape depends on them ({tuple(smaller.shape)} instead of {tuple(expected.shape)})"
    effect, largest = float((expected - probe.output).abs().max()), float(expected.abs().max())
    difference, epsilon = float((smaller - expected).abs().max()), torch.finfo(expected.dtype).eps
    # Compared with what the channels do to the output, which may be little; rounding grows with the output itself.
    limit = max(epsilon**0.5 * min(effect, largest), 1000 * epsilon * largest)
    if difference <= limit:  # NaN is not
        return None
    return f"cutting them is not the same as zeroing them (off by {difference:.2g})"


def _random_half(groups: list[Group]) -> Channels:
    generator = torch.Generator().manual_seed(0)
    return {
        group.name: torch.randperm(group.channels, generator=generator)[: _about_half(group)].sort().values
        for group in groups
    }


def _first_half(groups: list[Group]) -> Channels:
    """Random channels may happen to lie the same way in a mirrored order; the first ones do not."""
    return {group.name: torch.arange(_about_half(group)) for group in groups}


def _about_half(group: Group) -> int:
    """An odd number, so that a network that divides a width by two is caught."""
    return group.channels // 2 | 1
