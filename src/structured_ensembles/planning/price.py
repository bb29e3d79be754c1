"""What members would cost that keep certain channels: measured on real cut networks with no memory behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import nn

from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.channels import surgery
from structured_ensembles.errors import NetworkError, SettingsError, first_line
from structured_ensembles.networks import sizes
from structured_ensembles.networks.modules import skeleton
from structured_ensembles.options.budget import Budget, Unit
from structured_ensembles.options.choices import Rule
from structured_ensembles.scores.selection import fewest, impossible, savings
from structured_ensembles.types import Channels, Topology


class Price:
    """The cost of members, in the unit of a budget; bytes without one.

    Args:
        base: The uncut network.
        topology: Its groups.
        record: What will be stored beside the members; its channels are filled in here.
        members: M.
        budget: What the whole ensemble may cost.
        kind: Of the inputs' numbers.
    """

    def __init__(
        self,
        base: nn.Module,
        topology: Topology,
        record: Record,
        members: int,
        budget: Budget | None,
        kind: torch.dtype = torch.float32,
    ) -> None:
        self.base, self.topology, self.members, self.budget = skeleton(base), topology, members, budget
        self.unit = budget.unit if budget else Unit.BYTES
        # A mask's stored length depends on the width of the base only, so any channels will do.
        self.record = replace(record, members=members, groups=topology.groups, channels=(topology.whole,) * members)
        self.example = torch.zeros(1, *record.input_shape, dtype=kind, device="meta")
        self._costs: dict[tuple[tuple[int, ...], ...], int] = {}

    @cached_property
    def limit(self) -> int:
        """The budget, as a whole number of its unit."""
        if self.budget is None:
            raise SettingsError("there is no budget to keep within")
        return self.budget.limit(self.dense)

    @cached_property
    def dense(self) -> int:
        """What the base costs on its own, whole."""
        return self._sum([self.base], replace(self.record, method="single", members=1, groups=(), channels=()))

    @cached_property
    def savings(self) -> dict[str, float]:
        """By group, what one member saves by losing one channel."""
        return savings(self.topology, lambda channels: self._alone(self._cut(channels), self.unit))

    @cached_property
    def shares(self) -> dict[str, float]:
        """By group, the share of channels to keep beside that of other groups, for `Rule.TAPERED`; the largest is 1.

        Of the unit of the budget there is little, of operations there is enough: a unit buys more where it does more
        operations, as a byte does in the early layers of a convolutional network, which are applied to more positions.
        The share grows with the root of the operations by unit, halfway between the same share for all and operations
        alone; where operations cannot be counted, it is the same for all.
        """
        try:
            operations = savings(self.topology, lambda channels: self._alone(self._cut(channels), Unit.FLOPS))
        except NetworkError:
            return dict.fromkeys(self.savings, 1.0)
        worth = {name: (operations[name] / saved) ** 0.5 for name, saved in self.savings.items()}
        return {name: value / max(worth.values()) for name, value in worth.items()}

    def weights(self, rule: Rule) -> Mapping[str, float]:
        """What `selection.order` weighs groups by."""
        return self.shares if rule is Rule.TAPERED else self.savings

    def check(self, round_to: int = 1) -> None:
        """Refuse an impossible budget, before any long work.

        Args:
            round_to: Widths will be rounded up to multiples of this.

        Raises:
            BudgetError: Naming the smallest possible one.
            NetworkError: What the network costs cannot be counted in the budget's unit.
        """
        if self.budget is None:
            return
        smallest = self.of([fewest(self.topology.widths, round_to)] * self.members)
        if smallest > self.limit:
            raise impossible(self.limit, smallest, self.members, self.unit)

    def of(self, members: Sequence[Channels]) -> int:
        """The cost of members that keep these channels: it depends on how many of each group, not on which."""
        widths = tuple(tuple(len(member[name]) for name in self.topology.widths) for member in members)
        if widths not in self._costs:
            self._costs[widths] = self._sum([self._cut(member) for member in members], self.record)
        return self._costs[widths]

    def _cut(self, channels: Channels) -> nn.Module:
        return surgery.cut(self.base, self.topology.groups, channels)

    def _sum(self, networks: Sequence[nn.Module], record: Record) -> int:
        if self.unit is Unit.BYTES:
            return artefact.file_bytes([artefact.specs(network.state_dict()) for network in networks], record)
        return sum(self._alone(network, self.unit) for network in networks)

    def _alone(self, network: nn.Module, unit: Unit) -> int:
        """One network, apart from the file: its bytes are those of its tensors."""
        try:
            return sizes.COUNTED[unit](network, self.example)
        except Exception as error:
            raise NetworkError(
                f"the operations of {type(network).__name__} cannot be counted without running it "
                f"({first_line(error)}): give the budget in bytes or parameters"
            ) from error
