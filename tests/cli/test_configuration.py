from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from structured_ensembles.cli import configuration
from structured_ensembles.cli.kinds import Number, OneOf, OrNone, Switch, Whole
from structured_ensembles.cli.options import options_of
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.choices import Scope
from structured_ensembles.options.plans import Plan

SHARES = {"keep", "held_out", "shrink_keep", "momentum", "gamma"}


def some(option):
    """Values within the limits of an option."""
    if isinstance(option.kind, OneOf):
        return st.sampled_from(option.kind.known)
    if isinstance(option.kind, Whole):
        return st.integers(8, 99)
    if isinstance(option.kind, Switch):
        return st.booleans()
    if isinstance(option.kind, Number):
        return st.floats(1e-6, 0.99 if option.name in SHARES else 1e6)
    assert isinstance(option.kind, OrNone)
    return st.one_of(st.just("none"), st.integers(8, 99))


EXPLICIT = {
    "data": st.text("abc/.: ñ", min_size=1).filter(str.strip).map(str.strip),
    "architecture": st.sampled_from(["mlp", "resnet20", "timm:vit_tiny_patch16_224"]),
    "network_argument": st.dictionaries(st.sampled_from("ab"), st.one_of(st.integers(), st.booleans(), st.just("pad"))),
    "budget": st.sampled_from(["1x", "0.5x params", "2.01MB", "280k params", "50 MFLOPs", "1234567 bytes"]),
    "against": st.sampled_from([(), ("single",), ("deep", "single")]),
    "diversity": st.dictionaries(st.sampled_from(["mmd", "overlap"]), st.floats(0, 1)),
    "milestones": st.sampled_from([(1, 2), (30,)]),
    "log": st.just("csv"),
}
VALUES = {name: EXPLICIT[name] if name in EXPLICIT else some(option) for name, option in options_of(Plan).items()}
WRITTEN = st.fixed_dictionaries({}, optional=VALUES).map(
    lambda values: {name: value for name, value in values.items() if name != "keep" or "budget" not in values}
)


@given(WRITTEN)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_plan_is_read_back_from_its_file(tmp_path, values):
    if not values.get("nesterov", True):
        values.pop("momentum", None)
    plan = configuration.plan(values)
    path = tmp_path / "config.yaml"
    path.write_text(configuration.text(plan), encoding="utf-8")
    again = configuration.plan(configuration.read(path))

    assert again == plan
    assert repr(again) == repr(plan)


@given(WRITTEN)
@settings(max_examples=30)
def test_what_is_written_is_what_is_planned(values):
    found = configuration.resolved(configuration.plan(values))
    for name in ("members", "learning_rate", "scope", "search_batch_size", "re_init", "data"):
        if name in values:
            assert found[name] == values[name]


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_keys_may_have_dashes_and_numbers_may_be_text(file):
    path = file("search-epochs: 3\nlearning_rate: 1e-3\npatience: null\ndiversity:\n  mmd: 1\nagainst: [single]\n")

    assert configuration.read(path) == {
        "search_epochs": 3,
        "learning_rate": 0.001,
        "patience": "none",
        "diversity": {"mmd": 1.0},
        "against": ("single",),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("membres: 4", r"unknown key of .*my\.yaml 'membres': did you mean 'members'"),
        ("members: four", r"members: 'four' is not a whole number"),
        ("members: 2.5", r"members: 2\.5 is not a whole number"),
        ("members: true", r"members: True is not a whole number"),
        ("re_init: maybe", r"re_init: 'maybe' is neither true nor false"),
        ("scope: privat", r"unknown scope 'privat': did you mean 'private'"),
        ("diversity: mmd", r"diversity must be lines of the form `name: value`"),
        ("diversity:\n  mmd: much", r"diversity: 'much' is not a finite number"),
        ("data: 5", r"data: 5 is not a text"),
        ("search-epochs: 1\nsearch_epochs: 2", r"names search_epochs twice"),
        ("members: 2\nmembers: 3", r"'members' is there twice"),
        ("- a", r"must be lines of the form"),
        ("", r"must be lines of the form"),
        ("a: [", r"is not YAML"),
        ("!!python/object/apply:os.system [ls]", r"is not YAML"),
        ("keep: 0.5\nbudget: 1x", r"give either budget or keep"),
        ("keep: 1.5", r"keep 1\.5 is outside \(0, 1\]"),
        ("budget: lots", r"budget 'lots' is not understood"),
        ("against: rivals", r"unknown method to compare with 'rivals'"),
        ("diversity:\n  overlop: 1", r"did you mean 'overlap'"),
    ],
)
def test_a_wrong_file_is_refused(file, text, message):
    with pytest.raises(SettingsError, match=message):
        configuration.plan(configuration.read(file(text)))


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"data: \xff\xfe")
    for name, reason in (("missing.yaml", "No such file"), ("latin.yaml", "not UTF-8"), (".", "directory")):
        with pytest.raises(SettingsError, match=reason):
            configuration.read(tmp_path / name)


def test_the_command_line_wins():
    assert configuration.merged({"members": 2, "seed": 1}, {"members": 3}) == {"members": 3, "seed": 1}
    assert configuration.merged({"budget": "1x"}, {"keep": 0.5}) == {"keep": 0.5}
    assert configuration.merged({"keep": 0.5}, {"budget": "1x"}) == {"budget": "1x"}


def test_epochs_that_are_asked_for_are_run():
    assert configuration.plan({}).settings.training.max_steps == 5000
    assert configuration.plan({"epochs": 100}).settings.training.max_steps is None
    assert configuration.plan({"epochs": 100, "steps": 50}).settings.training.max_steps == 50
    assert configuration.merged({"epochs": 30, "steps": 5000}, {"epochs": 100}) == {"epochs": 100}


def test_settings_start_from_the_preset_of_the_architectures_family():
    assert configuration.plan({"architecture": "resnet20"}).settings.training.learning_rate == 0.1
    assert configuration.plan({"architecture": "vgg11", "preset": "published"}).settings.training.learning_rate == 0.01
    published = configuration.plan({"preset": "published"}).settings
    assert (published.scope, published.budget, published.selection.keep) == (Scope.PRIVATE, None, 0.5)


def test_several_limits_are_checked_together():
    values = configuration.resolved(configuration.plan({"momentum": 0.0, "nesterov": False}))

    assert (values["momentum"], values["nesterov"]) == (0.0, False)
