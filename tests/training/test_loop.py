from __future__ import annotations

import logging
import random
import signal
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from structured_ensembles.data.batches import set_epoch
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import DataError, NetworkError, SettingsError
from structured_ensembles.options.choices import Augmentation, Optimiser, Schedule
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.training.limits import best_row, finished, limited
from structured_ensembles.training.loop import train

from .conftest import HaltError, Halting, assert_equal, network, short


def plain_loop(model, train_set, settings, seed):
    """Training without dropout as one would write it down; the state after each epoch."""
    optimiser = torch.optim.SGD(
        model.parameters(),
        settings.learning_rate,
        settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    batches, states = train_set.batches(settings.batch_size, seed), []
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.epochs * len(batches), cycle_momentum=False
    )
    for epoch in range(settings.epochs):
        set_epoch(batches, epoch)
        model.train()
        for inputs, labels in batches:
            optimiser.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()
            schedule.step()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    return states


def test_it_is_the_plain_loop_with_the_best_epoch_restored(sets):
    settings = short(epochs=6)
    trained = train(network(dropout=0), *sets, settings, seed=3)
    states = plain_loop(network(dropout=0), sets[0], settings, 3)
    best = trained.network.state_dict()
    for name, value in states[trained.best_epoch - 1].items():
        torch.testing.assert_close(best[name], value, rtol=0, atol=0)


def test_the_best_weights_are_not_the_last(sets):
    snapshots, calls = [], []

    class Spy(nn.Module):
        """Clones the weights at the start of each measurement of the held-out set."""

        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, inputs):
            if not self.training and (not calls or calls[-1]):
                snapshots.append({name: value.clone() for name, value in self.inner.state_dict().items()})
            calls.append(self.training)
            return self.inner(inputs)

    settings = short(epochs=8, learning_rate=0.5, schedule=Schedule.CONSTANT, nesterov=False)
    trained = train(Spy(), *sets, settings, seed=2)
    assert len(snapshots) == trained.epochs_run == 8
    assert trained.best_epoch < 8, "choose settings whose last epoch is not the best"
    restored = trained.network.inner.state_dict()
    assert all(torch.equal(restored[name], value) for name, value in snapshots[trained.best_epoch - 1].items())
    assert not all(torch.equal(restored[name], value) for name, value in snapshots[-1].items())


def test_the_summary_is_what_the_network_does(sets):
    trained = train(network(), *sets, short(), seed=0)
    inputs, labels = next(iter(sets[1].batches(1000, 0, shuffle=False)))
    with torch.no_grad():
        logits = trained.network(inputs)
    assert not trained.network.training
    assert trained.held_out_accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert trained.held_out_loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
    keys = {"epoch", "train_loss", "held_out_loss", "held_out_accuracy", "learning_rate"}
    assert all(set(row) == keys for row in trained.history)
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert all(parameter.grad is None for parameter in trained.network.parameters())


def test_the_result_is_a_function_of_the_seed(sets):
    settings = short(epochs=2, augmentation=Augmentation.CROP)
    first = train(network(), *sets, settings, seed=3)
    torch.rand(7)
    assert_equal(first, train(network(), *sets, settings, seed=3))
    assert first.history != train(network(), *sets, settings, seed=4).history


def test_nothing_of_the_caller_changes(sets, capfd):
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    handler, filters = signal.getsignal(signal.SIGINT), list(warnings.filters)
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, *sets, short(epochs=1), seed=0)
        assert not torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002
    assert signal.getsignal(signal.SIGINT) == handler
    assert warnings.filters == filters
    assert logging.getLogger("lightning.pytorch").level == logging.INFO
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


def test_the_mode_it_comes_in_makes_no_difference(sets):
    settings = short(epochs=1)
    assert_equal(train(network().eval(), *sets, settings, seed=0), train(network().train(), *sets, settings, seed=0))


def test_without_a_directory_nothing_is_written(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(network(), *sets, short(epochs=1), seed=0)
    assert list(tmp_path.iterdir()) == []


def test_frozen_parameters_stay(sets):
    model = network()
    model[1].requires_grad_(False)
    trained = train(model, *sets, short(epochs=1), seed=0)
    assert torch.equal(trained.network[1].weight, model[1].weight)
    assert not torch.equal(trained.network[5].weight, model[5].weight)


# settings


@pytest.mark.parametrize("optimiser", list(Optimiser))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_optimiser_and_schedule_learns_and_resumes(sets, tmp_path, optimiser, schedule):
    rate = 0.05 if optimiser == Optimiser.SGD else 0.01
    settings = short(epochs=3, optimiser=optimiser, schedule=schedule, learning_rate=rate, milestones=(1, 2), gamma=0.5)
    whole = train(network(), *sets, settings, seed=0)
    assert whole.history[-1]["train_loss"] < whole.history[0]["train_loss"]
    with pytest.raises(HaltError):
        train(network(), *sets, settings, seed=0, directory=tmp_path, loss=Halting(calls=16))
    assert_equal(train(network(), *sets, settings, seed=0, directory=tmp_path), whole)


def test_the_rates_of_the_schedules(sets):
    def rates(**changes):
        return [
            row["learning_rate"] for row in train(network(), *sets, short(learning_rate=0.1, **changes), seed=0).history
        ]

    assert rates(schedule=Schedule.CONSTANT) == [0.1] * 4
    multistep = rates(schedule=Schedule.MULTISTEP, milestones=(1, 3), gamma=0.5)
    assert multistep == pytest.approx([0.1, 0.1 * 0.5, 0.1 * 0.5, 0.1 * 0.5 * 0.5])
    cosine = rates(schedule=Schedule.COSINE)
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] < 0.005
    cycle = rates(schedule=Schedule.ONE_CYCLE)
    assert cycle == sorted(cycle, reverse=True)  # the peak, 30 %, lies within epoch 2: after it they only fall
    assert cycle[-1] < 0.001


def test_the_published_choices_are_strings_too(sets):
    named = short(epochs=1, optimiser="adam", schedule="multistep", augmentation="flip")
    chosen = short(epochs=1, optimiser=Optimiser.ADAM, schedule=Schedule.MULTISTEP, augmentation=Augmentation.FLIP)
    assert_equal(train(network(), *sets, named, seed=0), train(network(), *sets, chosen, seed=0))


def test_every_impossible_setting_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(
            epochs=0, batch_size=0, optimiser="adm", learning_rate=float("nan"), momentum=1.0, weight_decay=-1.0,
            schedule="cosin", milestones=(5, 5), gamma=0.0, patience=0, augmentation="crops", num_workers=-1, log="cvs",
        )  # fmt: skip
    message = str(caught.value)
    for part in (
        "epochs 0", "batch_size 0", "'adm': did you mean 'adam'", "learning_rate nan", "momentum 1.0",
        "weight_decay -1", "did you mean 'cosine'", "milestones (5, 5)", "gamma 0.0", "patience 0",
        "did you mean 'crop'", "num_workers -1", "did you mean 'csv'",
    ):  # fmt: skip
        assert part in message
    with pytest.raises(SettingsError, match="nesterov needs momentum"):
        TrainingSettings(momentum=0.0)


# when it ends


def row(accuracy, loss=1.0):
    return {"held_out_accuracy": accuracy, "held_out_loss": loss}


def test_the_best_epoch_by_accuracy_then_loss_then_order():
    assert best_row([row(0.5), row(0.7), row(0.6)]) == 1
    assert best_row([row(0.7, 2.0), row(0.7, 1.0), row(0.7, 1.0)]) == 1


class Fixed(nn.Module):
    """Answers with what it is asked, and learns something that nobody sees."""

    def __init__(self):
        super().__init__()
        self.unseen = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return inputs + 0 * self.unseen


def test_as_many_hits_are_the_same_accuracy_in_whatever_batch_the_miss_is():
    """Of 135 held-out examples in batches of 64, 64 and 7: one answered wrongly, in the first batch or in the last."""
    labels = torch.zeros(135, dtype=torch.int64)
    accuracies = set()
    for missed in (0, 134):
        answers = torch.eye(2)[labels]
        answers[missed] = torch.tensor([0.0, 1.0])
        held_out = Examples.of(TensorDataset(answers, labels))
        accuracies.add(train(Fixed(), held_out, held_out, short(epochs=1, batch_size=64), seed=0).held_out_accuracy)
    assert accuracies == {134 / 135}


def test_patience_counts_from_the_first_highest_accuracy():
    settings = TrainingSettings(epochs=9, patience=2)
    assert not finished([], settings)
    assert not finished([row(0.5), row(0.4)], settings)
    assert finished([row(0.5), row(0.4), row(0.5, 0.1)], settings)
    assert not finished([row(0.5), row(0.4), row(0.6)], settings)
    assert not finished([row(0.5)] * 8, TrainingSettings(epochs=9))
    assert finished([row(0.5)] * 9, TrainingSettings(epochs=9))


def test_training_stops_early_and_stays_stopped(sets, tmp_path):
    settings = short(epochs=30, patience=1, schedule=Schedule.CONSTANT)
    trained = train(network(), *sets, settings, seed=0, directory=tmp_path)
    assert trained.epochs_run < 30
    assert finished(list(trained.history), settings)
    assert not finished(list(trained.history[:-1]), settings)
    again = train(network(), *sets, settings, seed=0, directory=tmp_path, loss=Halting(calls=0))
    assert_equal(again, trained)


# mistakes


def test_a_loss_that_explodes_is_stopped_at_once(sets, tmp_path):
    settings = short(learning_rate=1e30, schedule=Schedule.CONSTANT)
    with pytest.raises(SettingsError, match=r"loss of member 1 of 2 became (nan|inf) in epoch 1: .*1e\+30.*try 1e\+29"):
        train(network(), *sets, settings, seed=0, label="member 1 of 2", directory=tmp_path)


def test_impossible_arguments_are_refused_before_training(sets):
    flat = Examples.of(TensorDataset(torch.zeros(3, 64), torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(DataError, match=r"shape \(64,\)"):
        train(network(), flat, sets[1], short(augmentation=Augmentation.CROP), seed=0)
    with pytest.raises(NetworkError, match="no parameter"):
        train(network().requires_grad_(False), *sets, short(), seed=0)
    with pytest.raises(SettingsError, match="seed -1"):
        train(network(), *sets, short(), seed=-1)


def test_the_bar_names_network_epoch_and_accuracy(sets, capsys):
    from structured_ensembles import progress

    token = progress._silent.set(False)
    trained = train(network(), *sets, short(epochs=2), seed=0, label="member 2 of 4")
    progress._silent.reset(token)
    expected = f"member 2 of 4 · epoch 2/2 · held-out accuracy {trained.history[-1]['held_out_accuracy']:.3f} · "
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("max_steps", "epochs"), [(None, 30), (10**6, 30), (12 * 30, 30), (12 * 30 - 1, 29), (100, 8), (12, 1), (1, 1)]
)
def test_a_limit_of_steps_is_a_limit_of_epochs(max_steps: int | None, epochs: int) -> None:
    settings = TrainingSettings(epochs=30, batch_size=64, max_steps=max_steps)
    assert limited(settings, 750).epochs == epochs  # 750 / 64: 12 batches


def test_a_limit_of_steps_below_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="max_steps 0 must be at least 1"):
        TrainingSettings(max_steps=0)
