"""Ensembles whose members are cut out of a wider, untrained network; each method says which channels they keep."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from structured_ensembles.channels import topology
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.files.whole import write_whole
from structured_ensembles.methods.fitting import Built, Fittable, Fold
from structured_ensembles.networks import Given, modules
from structured_ensembles.options.choices import Rule
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.options.selection import SelectionSettings
from structured_ensembles.planning.price import Price
from structured_ensembles.scores.selection import Keys, keep_share, keep_within, order
from structured_ensembles.types import Channels, Importance, Topology


class SubNetworks(Fittable):
    """Members that are cut out of the base and trained on their own.

    Args:
        base: What makes the base network.
        members: M, at least 1.
        settings: Everything else; None takes the default preset for the network's family.
    """

    budgeted = True

    def __init__(self, base: Given, members: int = 4, *, settings: Settings | None = None) -> None:
        super().__init__(base, members, settings)
        self.notices: tuple[str, ...] = ()
        """Why some channels cannot be cut, one sentence each; known once fitted."""

    @abstractmethod
    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """The channels that each member keeps."""

    def start(self, base: nn.Module, found: Topology, kept: Channels, fold: Fold, member: int) -> nn.Module:  # noqa: ARG002
        """A member before training: cut out of the base."""
        return extract(base, found.groups, kept)

    def build(self, fold: Fold) -> Built:
        """Find the members' channels, cut them out, train them."""
        base = self.draw(fold.seed)
        found = topology.find(base, fold.train.example, scope=self.settings.scope, seconds=self.settings.graph_seconds)
        self.notices = found.notices
        self.price(base, found, fold).check(self.settings.selection.round_to)
        identity = f"{self.method} {self.count} {self.settings} {found.widths} {modules.of_weights(base.state_dict())}"
        channels = _remembered(fold, identity, lambda: self.channels(base, found, fold))
        trained = [
            self.train_member(self.start(base, found, kept, fold, member), fold, member)
            for member, kept in enumerate(channels)
        ]
        return Built(trained, groups=found.groups, channels=tuple(channels))

    def price(self, base: nn.Module, found: Topology, fold: Fold) -> Price:
        """What members would cost, in the unit of the budget."""
        record, dtype = self._recorded(fold, Built([])), fold.train.example.dtype
        return Price(base, found, record, self.count, self.settings.budget, dtype)

    def chosen(self, keys: Keys, price: Price) -> list[Channels]:
        """The channels that come first: as many as the budget allows, or the share to keep."""
        selection = self.settings.selection
        if self.settings.budget is None:
            return keep_share(keys, selection.keep, selection.round_to)
        return keep_within(keys, price.of, price.limit, selection.round_to)

    def uniform(self, importance: Importance, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """The most important channels of each group, the same share of every one."""
        return self.chosen(order(importance, SelectionSettings(Rule.LOCAL), {}), self.price(base, found, fold))


def _remembered(fold: Fold, identity: str, find: Callable[[], list[Channels]]) -> list[Channels]:
    """What ``find`` finds, or what it found before the fit was stopped, if the fold has a directory."""
    path = fold.folder("channels.json")
    if path is None:
        return find()
    digest = hashlib.sha256(f"{identity} {fold.seed} {fold.train.classes} {fold.fingerprint}".encode()).hexdigest()
    if path.exists():
        return _recalled(path, digest)
    channels = find()
    lists = [{name: kept.tolist() for name, kept in member.items()} for member in channels]
    write_whole(path, json.dumps({"fit": digest, "channels": lists}))
    return channels


def _recalled(path: Path, digest: str) -> list[Channels]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        same = stored["fit"] == digest
        channels = [_tensors(member) for member in stored["channels"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{path} is damaged: delete it to search again") from error
    if not same:
        raise SettingsError(f"{path.parent} holds a fit with other settings, data or seed: take another directory")
    return channels


def _tensors(member: dict[str, list[int]]) -> Channels:
    return {name: torch.tensor(kept) for name, kept in member.items()}
