"""The command's options against the plans that they are made of."""

from __future__ import annotations

import dataclasses

import pytest

from structured_ensembles.cli.kinds import NONE, OneOf, OrNone, Pair
from structured_ensembles.cli.options import TITLES, axes, options_of
from structured_ensembles.options.catalogue import ARCHITECTURES, STRATEGIES, TERMS
from structured_ensembles.options.choices import Choice, Preset, Rule
from structured_ensembles.options.plans import Grid, Plan, StreamGrid

FITTED, COMPARED, STREAMED = map(options_of, (Plan, Grid, StreamGrid))
VERBS = [(Plan, FITTED), (Grid, COMPARED), (StreamGrid, STREAMED)]
NOT_HERE = {
    Plan: set(),
    Grid: {"members", "against", "seed", "budget", "keep", "log"},  # a grid has lists of them, or none at all
    StreamGrid: {"diversity", "log", "tasks"},  # one needs several members, the stream decides another
}


def leaves(value, path=()):
    """Every setting by its path."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner) and field.name != "budget":
            yield from leaves(inner, (*path, field.name))
        else:
            yield (*path, field.name), inner


@pytest.mark.parametrize(("plan", "options"), VERBS)
def test_every_setting_has_exactly_one_option(plan, options):
    paths = [option.setting.path for option in options.values()]
    missing = {path for path, _ in leaves(plan.of(Preset.DEFAULT))} - set(paths)

    assert len(paths) == len(set(paths))
    assert {path[-1] for path in missing} == NOT_HERE[plan]


@pytest.mark.parametrize(("plan", "options"), VERBS)
def test_every_option_has_words_and_a_title(plan, options):
    assert [name for name, option in options.items() if not option.setting.about.help.endswith(".")] == []
    assert {option.setting.section for option in options.values()} <= set(TITLES)


@pytest.mark.parametrize(("plan", "options"), VERBS)
@pytest.mark.parametrize("preset", list(Preset))
def test_the_help_shows_the_presets_values(plan, options, preset):
    made = plan.of(preset)
    for name, option in options.items():
        parts = dict(part.split(": ") for part in option.shown.strip("[]").split("; ") if part)
        shown = parts.get(str(preset), parts.get("default"))
        if name in axes(plan) or name == "preset" or shown is None:
            continue
        value = option.setting.of(made)
        if name == "budget":
            assert shown == (NONE if value is None else str(value).removesuffix(" bytes"))
        elif isinstance(option.kind, Pair):
            assert dict(option.kind.convert(one, None, None) for one in shown.split(",")) == value, name
        elif shown in {"yes", "no"}:
            assert {"yes": True, "no": False}[shown] == value, name
        else:
            assert option.kind.convert(shown, None, None) == (NONE if value is None else value), name


@pytest.mark.parametrize(("plan", "options"), VERBS)
def test_choices_are_those_of_the_library(plan, options):
    values = dict(leaves(plan.of(Preset.DEFAULT)))
    for option in options.values():
        if isinstance(option.kind, OneOf):
            kind = type(values[option.setting.path])
            left_out = {Rule.PER_COST, Rule.TAPERED} if plan is StreamGrid and kind is Rule else set()
            assert issubclass(kind, Choice)
            assert sorted(option.kind.known) == sorted(str(choice) for choice in kind if choice not in left_out)


def test_what_may_be_none_in_the_library_may_be_none_here():
    optional = {
        option.name for options in (FITTED, STREAMED) for option in options.values() if type(option.kind) is OrNone
    }

    assert optional == {"image_size", "budget", "rank_batches", "search_steps", "steps", "patience"}


def test_the_help_names_everything_that_can_be_typed():
    assert [name for name in ARCHITECTURES if name not in FITTED["architecture"].setting.about.help] == []
    assert [name for name in TERMS if name not in FITTED["diversity"].setting.about.help] == []
    assert [name for name in STRATEGIES if name not in STREAMED["strategies"].setting.about.help] == []
    assert (FITTED["seed"].shown, COMPARED["seeds"].shown, COMPARED["methods"].shown) == (
        "[default: 0]",
        "[default: 5]",
        "[default: all]",
    )
