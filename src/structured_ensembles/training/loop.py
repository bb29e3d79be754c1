"""Train one network: a member, or any other, the same way.

The epoch with the best held-out accuracy is what comes out, weights and buffers, whatever was trained after it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from structured_ensembles.data.augmentation import check_images
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.networks import modules
from structured_ensembles.options.choices import Log
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.training.limits import best_row, limited


@dataclass(frozen=True)
class Trained:
    """A trained network and how it came about.

    Attributes:
        network: In evaluation mode, on the device of the one it was made from, with the weights of the best epoch.
        best_epoch: Counted from 1: of the highest held-out accuracy; among equals the lowest held-out loss, the first.
        epochs_run: At least ``best_epoch``, fewer than asked for if patience ran out.
        held_out_accuracy: Of the best epoch, in [0, 1].
        held_out_loss: Of the best epoch.
        history: One row an epoch: epoch (from 1), train_loss (mean over the epoch, while it is learned),
            held_out_loss, held_out_accuracy, learning_rate (of the last step).
    """

    network: nn.Module
    best_epoch: int
    epochs_run: int
    held_out_accuracy: float
    held_out_loss: float
    history: tuple[Mapping[str, float], ...]


def train(
    network: nn.Module,
    train_set: Examples,
    held_out: Examples,
    settings: TrainingSettings,
    *,
    seed: int,
    label: str = "network",
    directory: Path | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> Trained:
    """Train a copy of a network, on a GPU if there is one, and give back the best of it.

    The result is a function of the arguments: dropout, shuffling and augmentation are seeded by epoch, and the global
    random generators are left as they were. ``network`` itself is never changed, and no backward pass reaches
    parameters that do not require gradients. All modules of the copy are trained in training mode.

    With a directory, the state after each epoch is kept in ``training.ckpt`` there. Called again with the same
    arguments after any kind of stop, the training goes on from there and ends bit-identical; called again after its
    end, it returns at once.

    Args:
        network: Maps inputs (B, ...) to logits (B, K), or (M, B, K) if it answers M times (`implicit`). Of its
            parameters those that its ``no_weight_decay()`` names, if it has that, keep their size.
        train_set: What to learn from.
        held_out: What to choose the best epoch by.
        settings: How to train.
        seed: Of everything random, at least 0.
        label: What the progress bar and the errors call the network, for example ``"member 2 of 4"``.
        directory: Where to keep the checkpoint and the log; made if missing. None writes nothing.
        loss: Of logits (B, K) and labels (B,), the mean over the batch.

    Raises:
        SettingsError: If the loss becomes infinite or NaN (the learning rate is too large), if the directory holds
            another training, or if the log or the seed is impossible.
        DataError: If images are to be varied and are none.
        NetworkError: If nothing in the network can be trained.
        ArtefactError: If the checkpoint in the directory is damaged.
        KeyboardInterrupt: If the user interrupts; the checkpoint of the last whole epoch stays.
    """
    _check(network, train_set, settings, seed)
    # Lightning takes seconds to import: only those who train wait for it.
    from structured_ensembles.training import _lightning

    settings = limited(settings, len(train_set))
    copied = modules.copied(network, {})
    copied.train()
    job = _lightning.Job(copied, train_set, held_out, settings, seed, label, directory, loss)
    state = _lightning.run(job)
    job.network.load_state_dict(state.best_weights)
    job.network.zero_grad()
    job.network.to(_device(network)).eval()
    best = state.history[best_row(state.history)]
    return Trained(
        network=job.network,
        best_epoch=int(best["epoch"]),
        epochs_run=len(state.history),
        held_out_accuracy=best["held_out_accuracy"],
        held_out_loss=best["held_out_loss"],
        history=tuple(state.history),
    )


def _check(network: nn.Module, train_set: Examples, settings: TrainingSettings, seed: int) -> None:
    derived_seed(seed)
    check_images(train_set.example.shape[1:], settings.augmentation)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError("the network has no parameter that requires a gradient: nothing in it can be trained.")
    if settings.log == Log.TENSORBOARD and importlib.util.find_spec("tensorboard") is None:
        raise SettingsError("log tensorboard needs a package: pip install 'structured-ensembles[tensorboard]'.")


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
