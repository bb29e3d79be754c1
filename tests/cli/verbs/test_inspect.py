from __future__ import annotations

import json

import pytest
import torch

from structured_ensembles import Ensemble
from structured_ensembles.artefact.file import Record
from structured_ensembles.cli.verbs.inspect import _width_table
from structured_ensembles.evaluation.blocks.structure import _expected, by_chance, mean_overlap, overlaps, widths
from structured_ensembles.options.choices import Combine
from structured_ensembles.types import Group

from ..conftest import invoke


def record(*kept, channels=8, groups=2):
    """A record of members that keep the same channels of each of some groups."""
    names = [f"layer{i}" for i in range(groups)]
    return Record(
        method="structured",
        members=len(kept),
        classes=("a", "b"),
        input_shape=(1, 8, 8),
        combine=Combine.PROBABILITIES,
        network=None,
        groups=tuple(Group(name, channels, (), private=True) for name in names),
        channels=tuple({name: torch.tensor(member) for name in names} for member in kept),
    )


def test_overlap_is_intersection_over_union():
    found = overlaps(record([0, 1, 2], [2, 3], [5]))

    assert found == {"1,2": pytest.approx(1 / 4), "1,3": 0, "2,3": 0}
    assert mean_overlap(record([0, 1, 2], [2, 3], [5])) == pytest.approx(1 / 12)


def test_overlap_by_chance_is_what_random_members_share():
    generator = torch.Generator().manual_seed(0)

    def draw():
        return set(torch.randperm(100, generator=generator)[:40].tolist())

    pairs = [(draw(), draw()) for _ in range(300)]
    shared = sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs)

    assert _expected(40, 40, 100) == pytest.approx(shared, abs=0.01)


def test_one_member_has_nobody_to_share_with():
    alone = record([0, 1])

    assert overlaps(alone) == {}
    assert by_chance(alone) is None


def test_many_members_are_summed_up():
    members = [list(range(n)) for n in range(1, 9)] + [[0]]
    heads, lines = _width_table(widths(record(*members, groups=1)))

    assert heads == ["layer", "whole", "smallest", "mean", "largest"]
    assert lines == [["layer0", "8", "1", f"{(36 + 1) / 9:.1f}", "8"]]


def test_json_agrees_with_the_file(artefact):
    found = json.loads(invoke("inspect", artefact, "--json").stdout)
    ensemble = Ensemble.load(artefact)

    assert found["cost"]["bytes_on_disk"] == artefact.stat().st_size
    assert found["cost"]["parameters"] == sum(p.numel() for p in ensemble.parameters())
    assert found["whole_network"]["bytes_on_disk"] == (artefact.parent / "single.safetensors").stat().st_size
    for name, layer in found["widths"].items():
        for m, width in enumerate(layer["members"]):
            assert ensemble.members[m].get_submodule(name).weight.shape[0] == width


def test_the_tables_show_every_layer_and_member(artefact):
    result = invoke("inspect", artefact)

    assert result.exit_code == 0
    for text in ("member 1", "member 2", "network.0", "network.4", "network.8", "whole network", "Overlap"):
        assert text in result.stdout


def test_a_single_network_is_inspected_too(finished):
    result = invoke("inspect", finished / "single.safetensors")

    assert result.exit_code == 0
    assert "Width" not in result.stdout
    assert "1.00x" in result.stdout
