"""The part of `training` that is written for Lightning: imported only when something is trained."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import pickle
import random
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from structured_ensembles import progress
from structured_ensembles.data.augmentation import augment
from structured_ensembles.data.batches import set_epoch
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.files.whole import whole
from structured_ensembles.networks import modules
from structured_ensembles.options.choices import Log, Optimiser, Schedule
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.seeding import derived_seed, deterministic
from structured_ensembles.training.limits import best_row, finished

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

_CHECKPOINT = "training.ckpt"
_LOG = "log"


@dataclass(frozen=True)
class Job:
    """What `training.loop.train` was asked for; the network is trained in place."""

    network: nn.Module
    train_set: Examples
    held_out: Examples
    settings: TrainingSettings
    seed: int
    label: str
    directory: Path | None
    loss: Callable[[Tensor, Tensor], Tensor]


@dataclass
class Standing:
    """What is known after some epochs, beside what Lightning keeps itself."""

    identity: dict[str, str]
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: Mapping[str, Any] = field(default_factory=dict)


def run(job: Job) -> Standing:
    """Train from where the directory's checkpoint stands, or from the start."""
    state = Standing(_identity(job))
    if job.directory is not None:
        job.directory.mkdir(parents=True, exist_ok=True)
        state = _resumed(job.directory / _CHECKPOINT, state)
    if finished(state.history, job.settings):
        return state
    with ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(isolate_rng())
        stack.enter_context(deterministic())
        stack.enter_context(torch.enable_grad())  # also restores the mode, which Lightning sets for good
        folder = job.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _fit(job, state, folder)
    return state


def _fit(job: Job, state: Standing, folder: Path) -> None:
    settings, done = job.settings, len(state.history)
    training = job.train_set.batches(settings.batch_size, job.seed, num_workers=settings.num_workers)
    held_out = job.held_out.batches(settings.batch_size, job.seed, shuffle=False, num_workers=settings.num_workers)
    set_epoch(training, done)  # workers read ahead before Lightning says which epoch it is
    total = settings.epochs * len(training)
    with progress.bar(job.label, total, done=done * len(training), count=False) as shown:
        module = Module(job, total)
        keeper = Keeper(state, job, module, shown)
        trainer = _trainer(job, folder, keeper)
        checkpoint = folder / _CHECKPOINT if done else None
        with _interruptible():
            trainer.fit(module, training, held_out, ckpt_path=checkpoint, weights_only=True)


def _trainer(job: Job, folder: Path, keeper: Keeper) -> Trainer:
    return Trainer(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision="32-true",
        max_epochs=job.settings.epochs,
        callbacks=[keeper],
        logger=_logger(job) or False,
        default_root_dir=folder,
        # Whatever cluster this runs on: one network is trained by one process.
        plugins=[LightningEnvironment()],
        inference_mode=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _logger(job: Job) -> Logger | None:
    if job.directory is None or job.settings.log == Log.NONE:
        return None
    # A resumed run writes its whole history again: of the last epoch, the old log may have too little or too much.
    shutil.rmtree(job.directory / _LOG, ignore_errors=True)
    kind = CSVLogger if job.settings.log == Log.CSV else TensorBoardLogger
    return kind(job.directory, name="", version=_LOG)


class Module(LightningModule):
    """One epoch of training and of measuring; the sums of the epoch are read by `Keeper`."""

    def __init__(self, job: Job, steps: int) -> None:
        super().__init__()
        self.network, self.loss, self.settings = job.network, job.loss, job.settings
        self.seed, self.label, self.steps = job.seed, job.label, steps
        self.shifts = torch.Generator()
        self.rate = 0.0
        self.train_loss, self.held_out_loss, self.hits = Mean(), Mean(), Mean()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = _optimiser(self.network, self.settings)
        schedule, interval = _schedule(optimiser, self.settings, self.steps)
        if schedule is None:
            return optimiser
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def on_train_epoch_start(self) -> None:
        _seed_everything(derived_seed(self.seed, self.current_epoch, 2))
        self.shifts.manual_seed(derived_seed(self.seed, self.current_epoch, 3))
        self.train_loss, self.held_out_loss, self.hits = Mean(), Mean(), Mean()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        inputs, labels = batch
        inputs = augment(inputs, self.settings.augmentation, self.shifts)
        logits = self.network(inputs)
        loss = self._loss(logits, labels.long())
        self.rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.train_loss.add(self._finite(loss) * len(labels), len(labels))
        return loss * logits.shape[0] if getattr(self.network, "summed_loss", False) else loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        inputs, labels = batch
        labels = labels.long()
        logits = together(self.network(inputs))
        self.held_out_loss.add(self._finite(self.loss(logits, labels)) * len(labels), len(labels))
        self.hits.add(int((logits.argmax(1) == labels).sum()), len(labels))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of one answer (B, K), or the mean of that of M answers (M, B, K)."""
        if logits.dim() == 2:
            return self.loss(logits, labels)
        return self.loss(logits.flatten(0, 1), labels.repeat(len(logits)))

    def _finite(self, loss: Tensor) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SettingsError(
                f"the loss of {self.label} became {value} in epoch {self.current_epoch + 1}: learning_rate "
                f"{self.settings.learning_rate:g} is too large, try {self.settings.learning_rate / 10:g}. "
                "If that does not help, the data hold infinite or NaN values."
            )
        return value


def together(logits: Tensor) -> Tensor:
    """(B, K), the logarithm of the mean of the probabilities of M answers (M, B, K); one answer as it is."""
    return logits if logits.dim() == 2 else logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


class Mean:
    """A mean over batches of different sizes."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, total: float, count: int) -> None:
        """One batch more; sums of whole numbers stay exact, so that equally many hits compare equal."""
        self.total, self.count = self.total + total, self.count + count

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count


def _seed_everything(seed: int) -> None:
    """Seed what a network or a user's own transform may draw from; `isolate_rng` restores it in the end."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - transforms of users draw from the global generator


def _optimiser(network: nn.Module, s: TrainingSettings) -> Optimizer:
    groups = _parameter_groups(network, s.weight_decay)
    if s.optimiser == Optimiser.SGD:
        return SGD(groups, s.learning_rate, s.momentum, nesterov=s.nesterov)
    kind = Adam if s.optimiser == Optimiser.ADAM else AdamW
    return kind(groups, s.learning_rate)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters by weight decay: none for those that the network's own ``no_weight_decay()`` names, as in timm."""
    named_by: Callable[[], set[str]] = getattr(network, "no_weight_decay", set)
    exempt = named_by()
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if name not in exempt]
    free = [parameter for name, parameter in named if name in exempt]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _schedule(optimiser: Optimizer, s: TrainingSettings, steps: int) -> tuple[LRScheduler | None, str]:
    """The schedule and whether it moves by ``step`` or by ``epoch``."""
    if s.schedule == Schedule.ONE_CYCLE:
        return OneCycleLR(optimiser, s.learning_rate, total_steps=steps, cycle_momentum=False), "step"
    if s.schedule == Schedule.COSINE:
        return CosineAnnealingLR(optimiser, steps), "step"
    if s.schedule == Schedule.MULTISTEP:
        return MultiStepLR(optimiser, list(s.milestones), s.gamma), "epoch"
    return None, "epoch"


class Keeper(Callback):
    """After each epoch: write its row, keep the best weights, save, and say when it is enough."""

    def __init__(self, state: Standing, job: Job, module: Module, shown: progress.Bar) -> None:
        self.state, self.job, self.module, self.shown = state, job, module, shown

    def state_dict(self) -> dict[str, Any]:
        return vars(self.state)

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        for row in self.state.history:
            _write(trainer, row)

    def on_train_batch_end(self, *_: object) -> None:
        self.shown.advance()

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        row = _row(self.module, len(self.state.history) + 1)
        self.state.history.append(row)
        if best_row(self.state.history) == len(self.state.history) - 1:
            self.state.best_weights = copy.deepcopy(self.job.network.state_dict())
        self._show(row)
        _write(trainer, row)
        trainer.should_stop = finished(self.state.history, self.job.settings)
        if self.job.directory is not None:
            _save(trainer, self.job.directory / _CHECKPOINT)

    def _show(self, row: Mapping[str, float]) -> None:
        epochs = f"epoch {row['epoch']:.0f}/{self.job.settings.epochs}"
        self.shown.note(f"{epochs} · held-out accuracy {row['held_out_accuracy']:.3f}")


def _row(module: Module, epoch: int) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": module.train_loss.value,
        "held_out_loss": module.held_out_loss.value,
        "held_out_accuracy": module.hits.value,
        "learning_rate": module.rate,
    }


def _write(trainer: Trainer, row: Mapping[str, float]) -> None:
    for log in trainer.loggers:
        log.log_metrics(dict(row), step=int(row["epoch"]))
        log.save()


def _save(trainer: Trainer, path: Path) -> None:
    # Lightning writes in the folder for temporary files and moves, which on another file system is a copy: not atomic.
    with whole(path) as partial:
        trainer.save_checkpoint(partial)


def _identity(job: Job) -> dict[str, str]:
    """What must be equal for one training to go on where another stopped, in words and digests."""
    settings = replace(job.settings, log=Log.NONE, milestones=tuple(job.settings.milestones))
    return {
        "settings": repr({name: str(value) for name, value in asdict(settings).items()}),
        "seed": str(job.seed),
        "examples": f"{len(job.train_set)} and {len(job.held_out)} held out",
        "initial weights": modules.of_weights(job.network.state_dict()),
        "layers": hashlib.sha256(repr(job.network).encode()).hexdigest(),
    }


def _resumed(path: Path, fresh: Standing) -> Standing:
    """The state kept in ``path``, or ``fresh`` if there is none."""
    if not path.exists():
        return fresh
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)["callbacks"][Keeper.__qualname__]
        state = Standing(**kept)
    except (RuntimeError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ArtefactError(f"{path} is no checkpoint, or is damaged: delete it to train from the start.") from error
    changed = [name for name, value in fresh.identity.items() if state.identity.get(name) != value]
    if changed:
        raise SettingsError(
            f"{path.parent} holds another training, of other {', '.join(changed)}: "
            "choose another directory, or delete it to train from the start."
        )
    return state


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt for the caller: Lightning exits instead, and leaves the signal ignored.

    SIGTERM, where nobody else handles it, exits with its own status: Lightning would end as if all had gone well.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        if isinstance(stop, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from stop
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep Lightning's advice to itself for the block; warnings of others come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
