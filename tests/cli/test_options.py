from __future__ import annotations

import dataclasses

import pytest

from structured_ensembles import networks
from structured_ensembles.cli.configuration import resolved
from structured_ensembles.cli.kinds import NONE, OneOf, OrNone, Pair
from structured_ensembles.cli.options import OPTIONS
from structured_ensembles.experiments.run import Plan
from structured_ensembles.options.choices import Choice, Preset
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.presets import settings
from structured_ensembles.scores import diversity


def leaves(value, prefix=""):
    """Every setting by its dotted name."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner) and field.name != "budget":
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", inner


def test_every_setting_has_exactly_one_option():
    targets = [option.target for option in OPTIONS.values() if option.target]

    assert sorted(targets) == sorted(name for name, _ in leaves(Settings()))


@pytest.mark.parametrize("preset", list(Preset))
def test_the_help_shows_the_presets_values(preset):
    values = resolved(Plan(settings=settings(preset)))
    for name, option in OPTIONS.items():
        shown = option.published if preset is Preset.PUBLISHED and option.published else option.default
        if name in values and shown:
            kind = option.kind
            expected = (
                {"yes": True, "no": False}[shown]
                if shown in {"yes", "no"}
                else dict([kind.convert(shown, None, None)])
                if isinstance(kind, Pair)
                else kind.convert(shown, None, None)
            )
            value = values[name]
            read = NONE if value is None else tuple(value) if isinstance(value, list) else value
            assert expected == (read.replace(" bytes", "") if name == "budget" else read), name


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if isinstance(o.kind, OneOf) and o.target])
def test_choices_are_those_of_the_library(option):
    current = dict(leaves(Settings()))[option.target]

    assert isinstance(current, Choice)
    assert sorted(option.kind.known) == sorted(map(str, type(current)))


def test_the_presets_are_those_of_the_library():
    assert OPTIONS["preset"].kind.known == tuple(map(str, Preset))


def test_what_may_be_none_in_the_library_may_be_none_here():
    optional = {o.target for o in OPTIONS.values() if isinstance(o.kind, OrNone)}

    assert optional == {"budget", "rank_batches", "search.max_steps", "training.max_steps", "training.patience"}


def test_the_help_names_every_architecture_and_diversity_term():
    shown = OPTIONS["architecture"].help.replace("...", "resnet32, resnet44,")
    assert [name for name in networks.names() if name not in shown] == []
    assert [name for name in diversity.names() if name not in OPTIONS["diversity"].help] == []
