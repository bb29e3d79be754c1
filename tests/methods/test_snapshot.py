"""Snapshot ensembles: the cyclic learning rate against its formula, and where each cycle starts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from structured_ensembles import NetworkSpec, settings
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.snapshot import SnapshotEnsemble
from structured_ensembles.options.choices import Schedule

from .conftest import fold, images, untouched

if TYPE_CHECKING:
    from torch import nn

    from structured_ensembles.methods.fitting import Fold
    from structured_ensembles.options.training import TrainingSettings
    from structured_ensembles.training.loop import Trained

SPEC = NetworkSpec("mlp", (1, 8, 8), 3, {"width": 8})


def trained_for(epochs: int, *, batch_size: int = 8, **changes: object):
    training = replace(settings().training, epochs=epochs, batch_size=batch_size, **changes)
    return replace(settings(), training=training)


class Watched(SnapshotEnsemble):
    """Trains nothing, but moves every weight, and remembers what it was asked for."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[TrainingSettings] = []
        self.starts: list[dict[str, torch.Tensor]] = []

    def train_member(self, network: nn.Module, _: Fold, member: int, training: TrainingSettings) -> Trained:
        assert member == len(self.asked)
        self.asked.append(training)
        self.starts.append({name: value.clone() for name, value in network.state_dict().items()})
        trained = untouched(network)
        for parameter in trained.network.parameters():
            parameter.data += 1
        return trained


@pytest.mark.parametrize(("epochs", "members"), [(6, 3), (4, 1), (3, 3), (7, 3)])
def test_the_learning_rate_follows_the_published_formula(epochs: int, members: int) -> None:
    chosen = trained_for(epochs, schedule=Schedule.CONSTANT, patience=1, learning_rate=0.03)
    ensemble = SnapshotEnsemble(SPEC, members, settings=chosen).fit(images(), held_out=images())
    steps = math.ceil(40 / 8)
    lengths = [trained.epochs_run for trained in ensemble.trained]
    assert sum(lengths) == epochs
    for trained, length in zip(ensemble.trained, lengths, strict=True):
        for row in trained.history:
            t = row["epoch"] * steps  # from 1 on; the cycles before it take whole periods off
            period = length * steps  # T / M
            rate = 0.03 / 2 * (math.cos(math.pi * ((t - 1) % period) / period) + 1)
            assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)
        assert trained.history[-1]["learning_rate"] < 0.03 / 2 * (math.pi / period) ** 2


def test_equal_cycles_are_those_of_the_whole_training() -> None:
    ensemble = SnapshotEnsemble(SPEC, 3, settings=trained_for(6)).fit(images(), held_out=images())
    total, highest, t = 6 * 5, settings().training.learning_rate, 0
    period = math.ceil(total / 3)
    for row in (row for trained in ensemble.trained for row in trained.history):
        t += 5
        rate = highest / 2 * (math.cos(math.pi * ((t - 1) % period) / period) + 1)
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)
    assert t == total


@hypothesis_settings(max_examples=50)
@given(members=st.integers(1, 9), more=st.integers(0, 40))
def test_the_epochs_are_divided_among_the_cycles(members: int, more: int) -> None:
    ensemble = Watched(SPEC, members, settings=trained_for(members + more))
    assert len(ensemble.build(fold()).trained) == members
    lengths = [training.epochs for training in ensemble.asked]
    assert sum(lengths) == members + more
    assert max(lengths) - min(lengths) <= 1
    assert {(one.schedule, one.patience, one.max_steps) for one in ensemble.asked} == {(Schedule.COSINE, None, None)}


def test_steps_that_end_the_training_earlier_are_divided_too() -> None:
    ensemble = Watched(SPEC, 2, settings=trained_for(30, max_steps=20))
    ensemble.build(fold())
    assert [training.epochs for training in ensemble.asked] == [2, 2]  # 20 steps of 5 an epoch


def test_each_cycle_starts_from_the_member_before() -> None:
    ensemble = Watched(SPEC, 3, settings=trained_for(3))
    built = ensemble.build(fold(seed=4))
    before = ensemble.draw(4)
    for start, trained in zip(ensemble.starts, built.trained, strict=True):
        for name, value in before.state_dict().items():
            assert torch.equal(start[name], value)
        before = trained.network
    first, last = built.trained[0].network, built.trained[-1].network
    assert torch.equal(next(last.parameters()), next(first.parameters()) + 2)  # members are not one network


@pytest.mark.parametrize("changes", [{}, {"epochs": 30, "max_steps": 12}])
def test_too_few_epochs_are_refused_before_training(changes: dict[str, int]) -> None:
    ensemble = Watched(SPEC, 3, settings=trained_for(**{"epochs": 2, **changes}))
    with pytest.raises(SettingsError, match="2 epochs cannot be divided into 3 cycles: train for 3 or more"):
        ensemble.build(fold())
    assert not ensemble.asked


def test_the_length_of_a_cycle_can_be_given() -> None:
    ensemble = Watched(SPEC, 3, cycle_epochs=50, settings=trained_for(2, max_steps=1))
    ensemble.build(fold())
    assert [training.epochs for training in ensemble.asked] == [50, 50, 50]
    assert {training.max_steps for training in ensemble.asked} == {None}


@pytest.mark.parametrize("epochs", [0, -1, 2.5])
def test_a_cycle_has_an_epoch(epochs: float) -> None:
    with pytest.raises(SettingsError, match=rf"cycle_epochs {epochs} must be a whole number of at least 1, or none"):
        SnapshotEnsemble(SPEC, 2, cycle_epochs=epochs)
