"""From what a user wrote to a grid of streams, and back."""

from __future__ import annotations

import pytest
import yaml

from structured_ensembles.cli.configuration import merged, read, streams, text
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.plans import StreamGrid


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"preset": "published", "strategies": ("naive", "hat"), "seeds": (3, 5), "keep": 1.0},
        {"sources": ("a.npz", "b.npz"), "network_argument": {"width": 8}, "architecture": "mlp", "epochs": 3},
        {"stream": "rotated", "tasks": 3, "image_size": 16, "capacity": "equal", "cross_block": "trainable"},
    ],
)
def test_a_grid_is_read_back_from_its_file(values, tmp_path):
    grid = streams(values)
    path = tmp_path / "continual.yaml"
    path.write_text(text(grid), encoding="utf-8")
    again = streams(read(path, StreamGrid))

    assert again == grid
    assert repr(again) == repr(grid)


def test_who_names_epochs_wants_so_many():
    grid = streams({"epochs": 99})

    assert (grid.plan.settings.training.epochs, grid.plan.settings.training.max_steps) == (99, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": ("a", "b"), "data": "digits"}, "leave out data"),
        ({"sources": ("a", "b"), "tasks": 2, "stream": "split"}, "leave out stream, tasks"),
        ({"sources": ("a",)}, "sources a is one task"),
        ({"tasks": 1}, "tasks 1 must be at least 2"),
        ({"strategies": ("packnett",)}, "unknown strategy 'packnett': did you mean 'packnet'"),
        ({"strategies": ()}, "strategies must be at least one"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"seeds": (-1,)}, "seed -1 must be at least 0"),
        ({"keep": 0.0}, "keep 0.0 is outside"),
    ],
)
def test_values_outside_their_limits_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        streams(values)


@pytest.mark.parametrize(
    ("option", "capacity"), [({"keep": 0.25}, "geometric"), ({"channels": 4}, "fixed"), ({"delta": 0.1}, "auto")]
)
def test_a_number_of_a_capacity_means_that_capacity_also_over_a_file(option, capacity):
    stored = yaml.safe_load(text(streams({})))
    for values in (option, merged(stored, option, StreamGrid)):
        chosen = streams(values).plan.settings
        assert (chosen.capacity, getattr(chosen, next(iter(option)))) == (capacity, next(iter(option.values())))
    with pytest.raises(SettingsError, match="name the capacity"):
        streams({"keep": 0.25, "channels": 4})


def test_tasks_get_equal_shares_unless_a_share_is_given():
    def capacity(**values):
        return streams(values).plan.settings.capacity

    assert capacity() == "equal"
    assert capacity(keep=0.25) == capacity(preset="published") == "geometric"
    assert capacity(keep=0.25, capacity="auto") == "auto"
