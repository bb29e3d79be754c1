"""Capacity: which of the channels that nobody owns a task takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from structured_ensembles.channels.extraction import compose
from structured_ensembles.continual.learner import ownership
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.ownership import Owners
from structured_ensembles.continual.learner.state import State
from structured_ensembles.continual.learner.tasks import Stage
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.fitting import device
from structured_ensembles.options.choices import Capacity, Exhausted, Rule, ThresholdOver
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.scores.ranking import rank
from structured_ensembles.scores.search import search
from structured_ensembles.scores.selection import keep_share, order
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Channels, Importance, Topology

TRIALS = (0.1, 0.25, 0.5, 0.75)
"""The shares that AUTO tries, before it takes everything that is free."""


def share(settings: ContinualSettings, task: int) -> float:
    """The share of the channels that a task gets, unless it is a number of channels or found by trial."""
    if settings.capacity is Capacity.EQUAL:
        return 1 / max(1, settings.tasks - task)
    return settings.keep


def needed(before: State, head: nn.Module, train: Examples, settings: ContinualSettings, seed: int) -> Importance:
    """How much a task needs each channel, all of them on; empty if there is none to take.

    Args:
        before: The state that the task comes to.
        head: Of the task, as it was drawn.
        train: What it is learned from.
        settings: How scores are trained and ranked.
        seed: Of the stream.
    """
    if exhausted(before.owners):
        return {}
    chosen, task = settings.search, len(before.tasks)
    network = TaskNetwork(copy.deepcopy(before.backbone), copy.deepcopy(head)).to(device())
    found = Topology(before.groups, len(train.classes))
    batches = train.batches(chosen.batch_size, derived_seed(seed, Stage.SEARCH, task))
    scores = search(network, found, batches, 1, chosen, derived_seed(seed, Stage.SEARCH, task, 1)).scores
    batches = train.batches(chosen.batch_size, derived_seed(seed, Stage.RANK, task))
    ranked = derived_seed(seed, Stage.RANK, task, 1)
    return rank(network, found, batches, scores, chosen.placement, settings.reduce, ranked, settings.rank_batches)


def take(importance: Importance, owners: Owners, settings: ContinualSettings, keep: float) -> Channels:
    """The free channels that a task takes: the most important ones.

    With threshold FREE a task gets at least one channel of every group that has a free one. With ALL it gets those free
    channels that are as important as the kept share of all channels, which may be none; the first task gets at least
    one of every group.

    Args:
        importance: By group, (1, C), of all channels; not read if no channel is free.
        owners: Of the channels.
        settings: The rule, the threshold, and the number of channels if that is fixed.
        keep: The share of the channels, in (0, 1].

    Returns:
        By group, sorted indices; empty for a group without free channels.
    """
    free = ownership.free(owners)
    if exhausted(owners):
        return free  # all of them empty
    if settings.capacity is not Capacity.FIXED and settings.threshold_over is ThresholdOver.ALL:
        kept = keep_share(order(importance, _selection(settings.rule), {}), keep)[0]
        return {name: chosen[torch.isin(chosen, free[name])] for name, chosen in kept.items()}
    nothing = {name: channels for name, channels in free.items() if len(channels) == 0}
    candidates = {name: importance[name].cpu()[:, channels] for name, channels in free.items() if len(channels)}
    if settings.capacity is Capacity.FIXED:
        return nothing | compose(free, _first(candidates, settings.channels))
    return nothing | compose(free, keep_share(order(candidates, _selection(settings.rule), {}), keep)[0])


def _first(importance: Importance, channels: int) -> Channels:
    """The same number of channels of each group, or all that it has."""
    keys = order(importance, _selection(Rule.LOCAL), {})
    shares = {name: min(1.0, (channels - 1) / max(1, key.shape[1] - 1)) for name, key in keys.items()}
    return {name: keep_share({name: key}, shares[name])[0][name] for name, key in keys.items()}


def _selection(rule: Rule) -> SelectionSettings:
    return SelectionSettings(rule=rule)


def exhausted(owners: Owners) -> bool:
    """Whether no group has a free channel."""
    return not any(bool((owner == ownership.NOBODY).any()) for owner in owners.values())


def refuse_exhausted(settings: ContinualSettings, task: str, learned: int) -> None:
    """Refuse a task for which nothing is free, unless it may reuse what there is, or the network may grow.

    Raises:
        SettingsError: The settings say so.
    """
    if settings.exhausted is Exhausted.ERROR:
        raise SettingsError(
            f"no channel is left for task {task!r} after {learned} tasks: take a smaller keep (now {settings.keep:g}) "
            "or capacity equal from the start, let it reuse the older tasks' channels with exhausted reuse, or the "
            "network grow with exhausted expand"
        )


def notice(taken: Channels, owners: Owners, task: str) -> str | None:
    """What a user should know of a task that got no channel in some groups.

    Args:
        taken: What it got.
        owners: Of the channels, before it came.
        task: Its name.
    """
    without = [name for name, channels in taken.items() if len(channels) == 0]
    if not without:
        return None
    if len(without) == len(taken):
        reason = "none is free" if exhausted(owners) else "no free one is important enough"
        return f"Task {task!r} gets no channels of its own ({reason}): it learns a head on those of the tasks before."
    return f"Task {task!r} gets no channels of its own in {len(without)} of {len(taken)} groups: it reads older ones."


def left(owners: Owners) -> dict[str, float]:
    """By group, the share of its channels that nobody owns."""
    return {name: float((owner == ownership.NOBODY).double().mean()) for name, owner in owners.items()}


def by_trial(learned: Callable[[float, Path | None], State], delta: float, folder: Path | None) -> State:
    """The state of the smallest share whose held-out accuracy is close to that of everything that is free.

    Args:
        learned: The state after learning a task with a share of the free channels, its training kept in a folder.
        delta: How much lower the accuracy may be.
        folder: Of all trainings.
    """

    def tried(keep: float) -> State:
        return learned(keep, None if folder is None else folder / f"share-{keep:g}")

    most = tried(1.0)
    for keep in TRIALS:
        after = tried(keep)
        if _accuracy(after) >= _accuracy(most) - delta:
            return after
    return most


def _accuracy(after: State) -> float:
    return after.tasks[-1].held_out_accuracy or 0.0
