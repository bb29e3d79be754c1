"""StructuredEnsemble: the stages composed, from one untrained network to an ensemble of small ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from structured_ensembles import surgery, topology
from structured_ensembles.batches import loader
from structured_ensembles.errors import ArtefactError, SettingsError
from structured_ensembles.extraction import compose, extract
from structured_ensembles.files import write_whole
from structured_ensembles.fitting import Base, Built, Fittable, Fold, device
from structured_ensembles.pricing import Price
from structured_ensembles.ranking import rank
from structured_ensembles.search import search
from structured_ensembles.seeding import derived_seed
from structured_ensembles.selection import keep_share, keep_within, order
from structured_ensembles.sizes import Budget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structured_ensembles.presets import Settings
    from structured_ensembles.types import Channels, Importance, Topology

_SEARCH, _RANK = 2, 3


class StructuredEnsemble(Fittable):
    """M sub-networks of one untrained network, found by a search and trained on their own.

    Args:
        base: What makes the base network: a spec, a module class, another factory, or an untrained module.
        members: M, at least 1.
        budget: What the whole ensemble may cost: ``"1x"`` (the bytes of one base network), ``"2MB"``,
            ``"280k params"``, ``"50MFLOPs"``, or a Budget.
        keep: Instead of a budget, the share of channels that each member keeps, in (0, 1].
        settings: Everything else; None takes the default preset for the network's family.

    Example:
        >>> ensemble = StructuredEnsemble(MyNet, members=4, budget="1x").fit(train_loader)  # doctest: +SKIP
        >>> ensemble.predict(images).predictive_entropy  # doctest: +SKIP
    """

    method = "structured"

    def __init__(
        self,
        base: Base,
        members: int = 4,
        *,
        budget: str | Budget | None = None,
        keep: float | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(base, members, settings)
        self.notices: tuple[str, ...] = ()
        """Why some channels cannot be cut, one sentence each; known once fitted."""
        if budget is not None and keep is not None:
            raise SettingsError("give either a budget or keep, not both")
        if keep is not None:
            selection = replace(self.settings.selection, keep=keep)
            self.settings = replace(self.settings, selection=selection, budget=None)
        if budget is not None:
            parsed = budget if isinstance(budget, Budget) else Budget.parse(str(budget))
            self.settings = replace(self.settings, budget=parsed)
        if self.settings.re_init and isinstance(base, nn.Module):
            raise SettingsError(
                f"re_init draws each member afresh: give the class {type(base).__name__} or a function that makes the "
                "network, not one network"
            )
        if self.settings.search.batch_size < members:
            raise SettingsError(
                f"a search batch of {self.settings.search.batch_size} cannot be divided among {members} members: "
                f"set the search batch size to {members} or more"
            )

    def build(self, fold: Fold) -> Built:
        """Find the members' channels, cut them out, train them."""
        base = self.draw(fold.seed)
        found = topology.find(base, fold.example, scope=self.settings.scope, seconds=self.settings.graph_seconds)
        self.notices = found.notices
        identity = f"{self.count} {self.settings} {found.widths}"
        channels = _remembered(fold, identity, lambda: self._channels(base, found, fold))
        trained = []
        for member, kept in enumerate(channels):
            source = self.draw(fold.seed, member) if self.settings.re_init else base
            trained.append(self.train_member(extract(source, found.groups, kept), fold, member))
        return Built(trained, found.groups, tuple(channels))

    def _channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """Search, rank and select, after the rounds that narrow the base if there are any."""
        price = Price(base, found, self._recorded(fold, Built([])), self.count, self.settings.budget)
        price.check(self.settings.selection.round_to)
        selection = self.settings.selection
        whole = found.whole
        for part in range(self.settings.shrink_rounds):
            keys = order(self._importance(base, found, whole, 1, fold, part + 1), selection, price.savings)
            whole = compose(whole, keep_share(keys, self.settings.shrink_keep)[0])
        keys = order(self._importance(base, found, whole, self.count, fold, 0), selection, price.savings)
        if self.settings.budget is None:
            kept = keep_share(keys, selection.keep, selection.round_to)
        else:
            kept = keep_within(keys, price.of, price.limit, selection.round_to)
        return [compose(whole, member) for member in kept]

    def _importance(
        self, base: nn.Module, found: Topology, whole: Channels, members: int, fold: Fold, part: int
    ) -> Importance:
        """The importance of the channels of a base that has only the ``whole`` ones left."""
        settings = self.settings.search
        network = extract(base, found.groups, whole).to(device())
        narrow = replace(found, groups=surgery.narrowed(base, found.groups, whole))
        batches = loader(fold.train, settings.batch_size, derived_seed(fold.seed, _SEARCH, part))
        scores = search(network, narrow, batches, members, settings, derived_seed(fold.seed, _SEARCH, part, 1)).scores
        batches = loader(fold.train, settings.batch_size, derived_seed(fold.seed, _RANK, part))
        seed = derived_seed(fold.seed, _RANK, part, 1)
        limit = self.settings.rank_batches
        return rank(network, narrow, batches, scores, settings.placement, self.settings.reduce, seed, limit)


def _remembered(fold: Fold, identity: str, find: Callable[[], list[Channels]]) -> list[Channels]:
    """What ``find`` finds, or what it found before the fit was stopped, if the fold has a directory."""
    path = fold.folder("channels.json")
    if path is None:
        return find()
    digest = hashlib.sha256(f"{identity} {fold.seed} {fold.classes} {fold.fingerprint}".encode()).hexdigest()
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
