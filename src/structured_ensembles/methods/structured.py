"""StructuredEnsemble: the stages composed, from one untrained network to an ensemble of small ones."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from structured_ensembles.channels import surgery
from structured_ensembles.channels.extraction import compose, extract
from structured_ensembles.data.examples import Examples
from structured_ensembles.errors import SettingsError
from structured_ensembles.methods.fitting import Fold, device
from structured_ensembles.methods.subnetworks import SubNetworks
from structured_ensembles.networks import Given, sizes
from structured_ensembles.networks.given import check_drawable
from structured_ensembles.options.budget import Budget
from structured_ensembles.options.ensemble import Settings
from structured_ensembles.scores.diversity import needs_logits
from structured_ensembles.scores.ranking import rank
from structured_ensembles.scores.search import check_rows, search
from structured_ensembles.scores.selection import keep_share, order
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Channels, Importance, Topology

_SEARCH, _RANK = 2, 3


class StructuredEnsemble(SubNetworks):
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
        base: Given,
        members: int = 4,
        *,
        budget: str | Budget | None = None,
        keep: float | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(base, members, settings=settings)
        if budget is not None and keep is not None:
            raise SettingsError("give either a budget or keep, not both")
        if keep is not None:
            selection = replace(self.settings.selection, keep=keep)
            self.settings = replace(self.settings, selection=selection, budget=None)
        if budget is not None:
            parsed = budget if isinstance(budget, Budget) else Budget.parse(str(budget))
            self.settings = replace(self.settings, budget=parsed)
        if self.settings.re_init:
            check_drawable("re_init", base)
        if self.settings.search.batch_size < members:
            raise SettingsError(
                f"a search batch of {self.settings.search.batch_size} cannot be divided among {members} members: "
                f"set the search batch size to {members} or more"
            )

    def channels(self, base: nn.Module, found: Topology, fold: Fold) -> list[Channels]:
        """Search, rank and select, after the rounds that narrow the base if there are any."""
        check_rows(base, found, self.settings.search.placement, fold.train.example)
        price, selection, whole = self.price(base, found, fold), self.settings.selection, found.whole
        weights = price.weights(selection.rule)
        for part in range(self.settings.shrink_rounds):
            keys = order(self._importance(base, found, whole, 1, fold, part + 1), selection, weights)
            whole = compose(whole, keep_share(keys, self.settings.shrink_keep)[0])
        keys = order(self._importance(base, found, whole, self.count, fold, 0), selection, weights)
        return [compose(whole, member) for member in self.chosen(keys, price)]

    def start(self, base: nn.Module, found: Topology, kept: Channels, fold: Fold, member: int) -> nn.Module:
        """Cut out of the base that was searched, or out of a fresh one."""
        source = self.draw(fold.seed, 1 + member) if self.settings.re_init else base  # the base is draw 0
        return extract(source, found.groups, kept)

    def preparation_flops(self, fold: Fold) -> int:
        """Of search and ranking; the base is taken as whole in the rounds that narrow it."""
        base = self.draw(fold.seed)
        # Frozen weights spare one of the three passes of a training step; every member ranks every example.
        each = 2 / 3 * sizes.training_flops(base, fold.train.example)
        searched, ranked = self.examples_passed(fold.train)
        if needs_logits(self.settings.search.diversity):
            searched *= self.count
        rounds = self.settings.shrink_rounds
        return round(each * ((searched + ranked) * rounds + searched + ranked * self.count))

    def examples_passed(self, train: Examples) -> tuple[int, int]:
        """How many examples of a training set one search and one ranking pass, repetitions counted."""
        search, limit, known = self.settings.search, self.settings.rank_batches, len(train)
        each = len(train.batches(search.batch_size, 0))
        steps = each * search.epochs if search.max_steps is None else min(each * search.epochs, search.max_steps)
        epochs, rest = divmod(steps, each)
        ranked = known if limit is None or limit >= each else limit * search.batch_size
        return epochs * known + rest * search.batch_size, ranked

    def _importance(
        self, base: nn.Module, found: Topology, whole: Channels, members: int, fold: Fold, part: int
    ) -> Importance:
        """The importance of the channels of a base that has only the ``whole`` ones left."""
        settings = self.settings.search
        network = extract(base, found.groups, whole).to(device())
        narrow = replace(found, groups=surgery.narrowed(base, found.groups, whole))
        batches = fold.train.batches(settings.batch_size, derived_seed(fold.seed, _SEARCH, part))
        scores = search(network, narrow, batches, members, settings, derived_seed(fold.seed, _SEARCH, part, 1)).scores
        batches = fold.train.batches(settings.batch_size, derived_seed(fold.seed, _RANK, part))
        seed = derived_seed(fold.seed, _RANK, part, 1)
        limit = self.settings.rank_batches
        return rank(network, narrow, batches, scores, settings.placement, self.settings.reduce, seed, limit)
