"""The options of streams against the settings that they stand for."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from structured_ensembles.cli import stream_configuration
from structured_ensembles.cli.configuration import merged, read
from structured_ensembles.cli.kinds import NONE, OneOf, OrNone
from structured_ensembles.cli.stream_options import STREAM_OPTIONS, STREAM_SECTIONS
from structured_ensembles.continual.strategies import STRATEGIES
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Choice, Preset, Rule, StreamKind
from structured_ensembles.options.streams import ContinualSettings

WITHOUT = {"tasks", "training.log", "search.diversity"}
"""Settings that a stream itself decides, and one that needs several members."""


def leaves(value, prefix=""):
    """Every setting by its dotted name."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", inner


def test_every_setting_has_exactly_one_option():
    targets = [option.target for option in STREAM_OPTIONS.values() if option.target]

    assert sorted(targets) == sorted({name for name, _ in leaves(ContinualSettings())} - WITHOUT)
    assert sum(len(section.options) for section in STREAM_SECTIONS) == len(STREAM_OPTIONS)


@pytest.mark.parametrize("preset", list(Preset))
def test_the_help_shows_the_presets_values(preset):
    values = stream_configuration.resolved(stream_configuration.grid({"preset": str(preset)}).plan)
    assert values.pop("preset") == preset
    for name, value in values.items():
        option = STREAM_OPTIONS[name]
        shown = option.published if preset is Preset.PUBLISHED and option.published else option.default
        if shown:
            truth = {"yes": True, "no": False}
            expected = truth[shown] if shown in truth else option.kind.convert(shown, None, None)
            assert expected == (NONE if value is None else tuple(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize(
    "option", [o for o in STREAM_OPTIONS.values() if isinstance(o.kind, OneOf) and o.target], ids=lambda o: o.name
)
def test_choices_are_those_of_the_library(option):
    kind = type(dict(leaves(ContinualSettings()))[option.target])

    assert issubclass(kind, Choice)
    left_out = {Rule.PER_COST, Rule.TAPERED} if kind is Rule else set()  # which weigh members against bytes
    assert sorted(option.kind.known) == sorted(str(choice) for choice in kind if choice not in left_out)


def test_streams_and_strategies_are_those_of_the_library():
    assert STREAM_OPTIONS["stream"].kind.known == tuple(map(str, StreamKind))
    named = STREAM_OPTIONS["strategies"].help.partition(": ")[2].strip(".").split(", ")
    assert sorted(named) == sorted(STRATEGIES)


def test_what_may_be_none_in_the_library_may_be_none_here():
    optional = {option.target for option in STREAM_OPTIONS.values() if isinstance(option.kind, OrNone)}

    assert optional == {"rank_batches", "search.max_steps", "training.max_steps", "training.patience"}


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
    grid = stream_configuration.grid(values)
    path = tmp_path / "continual.yaml"
    path.write_text(stream_configuration.text(grid), encoding="utf-8")
    again = stream_configuration.grid(read(path, STREAM_OPTIONS))

    assert again == grid
    assert repr(again) == repr(grid)


def test_who_names_epochs_wants_so_many():
    grid = stream_configuration.grid({"epochs": 99})

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
        stream_configuration.grid(values)


@pytest.mark.parametrize(
    ("option", "capacity"), [({"keep": 0.25}, "geometric"), ({"channels": 4}, "fixed"), ({"delta": 0.1}, "auto")]
)
def test_a_number_of_a_capacity_means_that_capacity_also_over_a_file(option, capacity):
    stored = yaml.safe_load(stream_configuration.text(stream_configuration.grid({})))
    for values in (option, merged(stored, option)):
        chosen = stream_configuration.grid(values).plan.settings
        assert (chosen.capacity, getattr(chosen, next(iter(option)))) == (capacity, next(iter(option.values())))
    with pytest.raises(SettingsError, match="name the capacity"):
        stream_configuration.grid({"keep": 0.25, "channels": 4})


def test_tasks_get_equal_shares_unless_a_share_is_given():
    def capacity(**values):
        return stream_configuration.grid(values).plan.settings.capacity

    assert capacity() == "equal"
    assert capacity(keep=0.25) == capacity(preset="published") == "geometric"
    assert capacity(keep=0.25, capacity="auto") == "auto"
