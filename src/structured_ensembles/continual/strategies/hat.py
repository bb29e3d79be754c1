"""Hard attention to the task: each task learns which channels it uses, and the regulariser asks for few new ones.

Serra et al. 2018, https://proceedings.mlr.press/v80/serra18a.html.

Shapes: C channels of one group, N channels of all groups together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds, surgery
from structured_ensembles.continual.learner import ownership, units
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.memory import packed
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Masked, Partial, Reweighted, filled
from structured_ensembles.continual.strategies.base import penalised
from structured_ensembles.data.batches import loader
from structured_ensembles.errors import SettingsError
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Architecture, Cut, Group, Side

_EMBEDDINGS = 7
"""What a seed is for."""

LARGEST_EMBEDDING = 6.0
"""As published: beyond it a gate has no gradient left to come back by."""


class HAT(Masked):
    """Every channel has a gate, the sigmoid of s times an embedding; in each epoch s rises from 1/steepness to it.

    A weight is frozen once both of its ends are open to tasks that have been learned. The loss has the penalty
    strength * (sum over channels that no earlier task uses of their gates) / (how many such channels there are).

    Gates are rounded in the end: open where the embedding is positive, else shut, at least one of every group open. So
    they are from the middle of each epoch on, which is when normalisation layers measure, and on held-out examples: the
    best epoch is chosen by what will be served. A gate takes one bit, and earlier tasks are answered as before to the
    bit. As published, gates are floats near 0 and 1, never rounded, and answers drift a little.

    Channels that an addition or a depthwise convolution ties together have one gate. Biases and normalisation layers
    are private to each task and go on from those of the task before. Weights that no task reads go back to what was
    drawn at the start, so that they need not be stored.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        strength: Of the penalty, at least 0.
        steepness: The largest s, at least 1.
        pace: How much faster than weights embeddings move, above 0. Under SGD their gradients are large enough for 1,
            but Adam takes equal steps whatever the gradients, and the gates would hardly leave where they were drawn.

    Raises:
        SettingsError: A number is outside its limits.
        NetworkError: The backbone has no weights; while the first task is learned: some of them belong to no channel.
    """

    name: ClassVar[str] = "hat"
    groups: tuple[Group, ...] = ()
    open: tuple[Tensor, ...] = ()

    def __init__(
        self,
        backbone: Architecture,
        settings: ContinualSettings,
        seed: int = 0,
        *,
        strength: float = 0.75,
        steepness: float = 400.0,
        pace: float = 3.0,
    ) -> None:
        super().__init__(backbone, settings, seed)
        if problems := [message for wrong, message in _limits(strength, steepness, pace) if wrong]:
            raise SettingsError("; ".join(problems))
        self.strength, self.steepness, self.pace = strength, steepness, pace

    def _learn(self, task: Task, directory: Path | None) -> None:
        self.groups = self.groups or self._find(task)
        start, used = self.start(task), self._used()
        network = self._gated(start, used, len(loader(task.train, self.settings.training.batch_size, 0)))
        loss = penalised(network, lambda gated: self.strength * gated.gates.penalty())
        trained = self.train(network, task.train, task.held_out, directory, loss=loss)
        self.open = (*self.open, trained.opened())
        # The trained network has hooks; what is kept has none.
        self.remember(TaskNetwork(trained.network.backbone, filled(start.head, trained.network.head.state_dict())))
        self._blind(TaskNetwork(self.shared, self.heads[-1]))
        held, made = self._between(start, self._used()), trained.made()
        values = {name: torch.where(held[name], made[name], self.weight(name)) for name in self.weights}
        self.shared = filled(self.shared, {**values, **self.private[-1]})

    def _find(self, task: Task) -> tuple[Group, ...]:
        example = torch.zeros(2, *task.input_shape)
        return units.find(self.shared, self.settings.head, example, self.settings.graph_seconds)

    def _gated(self, start: TaskNetwork, used: Tensor, batches: int) -> Gated:
        held = self._between(start, used)
        makers = {name: Partial(self.weight(name), ~held[name], self.weight(name)) for name in self.weights}
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _EMBEDDINGS, len(self.tasks)))
        embeddings = torch.randn(len(used), generator=generator)
        gates = Gates(self.groups, embeddings, used, batches, self.steepness, self.pace)
        return Gated(start, makers, gates)

    def _used(self) -> Tensor:
        """(N,), the channels that some task uses, bool."""
        nothing = torch.zeros(sum(group.channels for group in self.groups), dtype=torch.bool)
        return torch.stack([nothing, *self.open]).any(dim=0)

    def _between(self, network: TaskNetwork, channels: Tensor) -> dict[str, Tensor]:
        """By weight, the entries both of whose ends are among these channels (N,), or are no channels: bool."""
        parts = _by_group(self.groups, channels)
        owners = {name: torch.where(part, 0, ownership.NOBODY) for name, part in parts.items()}
        ends = ownership.ends(network, self.groups, owners)
        read = {name: ownership.used(ends[units.BACKBONE + name], 0) for name in self.weights}
        return {name: mask.expand_as(self.weight(name)) for name, mask in read.items()}

    def _blind(self, network: TaskNetwork) -> None:
        """Zero the weights of a head that read channels which the last task does not use."""
        parts = _by_group(self.groups, self.open[-1])
        channels = {name: part.nonzero().flatten() for name, part in parts.items()}
        for name, read in ownership.read_by_head(network, self.groups, channels).items():
            network.get_submodule(name).get_parameter("weight").data[:, ~read] = 0.0

    def masks(self, task: int) -> dict[str, Tensor]:
        """By weight, the entries between channels that the task uses."""
        return self._between(TaskNetwork(self.shared, self.heads[task]), self.open[task])

    def capacity(self) -> dict[str, float]:
        """By group of channels, the share that no task uses."""
        parts = _by_group(self.groups, self._used())
        return {name.removeprefix(units.BACKBONE): 1 - float(part.double().mean()) for name, part in parts.items()}

    def stored_weights(self) -> dict[str, Tensor]:
        """The weights between channels in use."""
        if not self.tasks:
            return {}
        held = self._between(TaskNetwork(self.shared, self.heads[0]), self._used())
        return {name: self.weight(name)[mask] for name, mask in held.items()}

    def stored_masks(self) -> dict[str, Tensor]:
        """One bit for each channel and task."""
        return {f"task_{number}": packed(gates, 1) for number, gates in enumerate(self.open)}


def _limits(strength: float, steepness: float, pace: float) -> list[tuple[bool, str]]:
    return [
        (not 0 <= strength < math.inf, f"strength {strength} must be at least 0 and finite, 0.75 for example"),
        (not 1 <= steepness < math.inf, f"steepness {steepness} must be at least 1 and finite, 400 for example"),
        (not 0 < pace < math.inf, f"pace {pace} must be above 0 and finite, 3 for example"),
    ]


class Gates(nn.Module):
    """The gates of all channels, in training steeper with every batch of an epoch and rounded in the end, else rounded.

    Args:
        groups: Of the channels.
        embeddings: (N,), where they start.
        used: (N,), the channels of earlier tasks, bool.
        batches: Of an epoch.
        steepness: What s comes to with the last of them.
        pace: How many times what is trained the embeddings are.
    """

    def __init__(
        self, groups: Sequence[Group], embeddings: Tensor, used: Tensor, batches: int, steepness: float, pace: float
    ) -> None:
        super().__init__()
        self.groups, self.batches, self.steepness, self.pace = tuple(groups), batches, steepness, pace
        self.passes = 0
        self.raw = nn.Parameter(embeddings / pace)
        self.register_buffer("used", used)

    def advance(self) -> None:
        """Go on to the next batch of the training."""
        self.passes += 1
        # Through `data`, which autograd does not watch.
        self.raw.data.clamp_(-LARGEST_EMBEDDING / self.pace, LARGEST_EMBEDDING / self.pace)

    def forward(self) -> Tensor:
        """(N,), what channels are multiplied by."""
        embeddings = self.pace * self.raw
        rounded = not self.training or self.steep()
        gates = self.opened().to(embeddings) if rounded else (self.scale() * embeddings).sigmoid().detach()
        # The published compensation of an embedding's gradient makes it steepness * sigmoid'(embedding), whatever s is.
        compensated = self.steepness * embeddings.sigmoid()
        return gates + (compensated - compensated.detach())

    def steep(self) -> bool:
        """Whether s has come half the way."""
        return self.scale() >= self.steepness / 2

    def scale(self) -> float:
        """The s of the batch that is under way."""
        lowest, done = 1 / self.steepness, (self.passes - 1) % self.batches
        return lowest + (self.steepness - lowest) * (done / (self.batches - 1) if self.batches > 1 else 1.0)

    def opened(self) -> Tensor:
        """(N,), the rounded gates, bool."""
        return torch.cat([part >= part.max().clamp(max=0.0) for part in self.by_group(self.raw.detach()).values()])

    def by_group(self, values: Tensor) -> dict[str, Tensor]:
        """Values (N,) by name of the group: (C,)."""
        return _by_group(self.groups, values)

    def penalty(self) -> Tensor:
        """The mean gate of channels that no earlier task uses, a scalar; 0 where there are none."""
        free = ~self.get_buffer("used")
        total: Tensor = (self() * free).sum()
        return total / free.sum().clamp(min=1)


def _by_group(groups: Sequence[Group], values: Tensor) -> dict[str, Tensor]:
    parts = torch.split(values, [group.channels for group in groups])
    return {group.name: part for group, part in zip(groups, parts, strict=True)}


class Gated(Reweighted):
    """A task network in which every layer reads channels through their gates.

    Args:
        network: A copy of it is taken, for it gets hooks.
        makers: As for `Reweighted`.
        gates: Of its channels.
    """

    def __init__(self, network: TaskNetwork, makers: Mapping[str, nn.Module], gates: Gates) -> None:
        super().__init__(copy.deepcopy(network), makers)
        self.gates = gates
        self.norms = [(norm, norm.momentum) for norm in self.network.modules() if isinstance(norm, kinds.BatchNorm)]
        for name, cuts in _reads(gates.groups).items():
            # What is bound to this network is bound to the copy in a copy of it.
            self.network.get_submodule(name).register_forward_pre_hook(partial(self._gate, cuts))

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's logits; in training mode, of the next batch."""
        if self.training:
            self.gates.advance()
            # With gates half open layers have other inputs than the ones they will be served with.
            for norm, momentum in self.norms:
                norm.momentum = momentum if self.gates.steep() else 0.0
        return super().forward(inputs)

    def opened(self) -> Tensor:
        """(N,), the rounded gates, bool."""
        return self.gates.opened()

    def no_weight_decay(self) -> set[str]:
        """The embeddings: decay would pull gates to one half."""
        return {"gates.raw"}

    def _gate(self, cuts: Sequence[tuple[str, Cut]], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *rest = inputs
        values = self.gates.by_group(self.gates())
        factors = first.new_ones(kinds.width(layer, Side.IN))
        for group, cut in cuts:
            own = surgery.positions(cut, values[group])
            factors[cut.offset : cut.offset + len(own)] = own
        return (first * kinds.spread(layer, factors, first), *rest)


def _reads(groups: Sequence[Group]) -> dict[str, list[tuple[str, Cut]]]:
    """By layer, which groups it reads, and where."""
    reads: dict[str, list[tuple[str, Cut]]] = {}
    for group in groups:
        for cut in group.cuts:
            if cut.side is Side.IN:
                reads.setdefault(cut.module, []).append((group.name, cut))
    return reads
