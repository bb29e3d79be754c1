"""Tasks that share one set of weights, each reading it through a mask of its own.

Weights are the parameters of two dimensions or more outside normalisation layers: matrices and kernels. What else can
be trained (biases, normalisation layers) is small, and private to each task.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from structured_ensembles.channels import kinds
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.memory import Served, packed
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.base import SharedBackbone, norm_names, served_heads
from structured_ensembles.errors import NetworkError, SettingsError
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.options.training import TrainingSettings
from structured_ensembles.types import Architecture


class Masked(SharedBackbone):
    """A strategy whose tasks share the weights of one backbone.

    Attributes:
        shared: The backbone. Tasks read its weights, and what is never trained in it, but nothing else.
        weights: The names of its weights.
        private_names: The names of what every task has for itself.
        private: By task, these tensors.

    Raises:
        NetworkError: The backbone has no weights.
    """

    forgets: ClassVar[bool] = False
    private: tuple[dict[str, Tensor], ...] = ()

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        super().__init__(backbone, settings, seed)
        self.weights = weight_names(self.shared)
        if not self.weights:
            raise NetworkError(f"{self.name} masks matrices and kernels that are trained, and the backbone has none")
        self.private_names = private_names(self.shared, self.weights)

    def masks(self, task: int) -> Mapping[str, Tensor]:  # noqa: ARG002 (alike for all tasks, unless a strategy masks)
        """By weight, the entries that a learned task reads, bool, all of them here; the others are zero to it."""
        return {name: torch.ones_like(self.weight(name), dtype=torch.bool) for name in self.weights}

    def weight(self, name: str) -> Tensor:
        """A shared weight, without its history."""
        return self.shared.get_parameter(name).detach()

    def fit(
        self,
        network: TaskNetwork,
        makers: Mapping[str, nn.Module],
        task: Task,
        directory: Path | None,
        settings: TrainingSettings | None = None,
    ) -> Reweighted:
        """Train a network, `Reweighted`, on a task."""
        return self.train(Reweighted(network, makers), task.train, task.held_out, directory, settings=settings)

    def remember(self, network: TaskNetwork) -> None:
        """Keep what a trained network has for its task alone."""
        tensors = _tensors(network.backbone)
        self.private = (*self.private, {name: tensors[name].detach().clone() for name in self.private_names})
        self.heads = (*self.heads, network.head)

    def read_by(self, task: int) -> dict[str, Tensor]:
        """The weights as a task reads them."""
        return {name: torch.where(mask, self.weight(name), 0.0) for name, mask in self.masks(task).items()}

    def _network(self, task: int) -> nn.Module:
        return TaskNetwork(filled(self.shared, {**self.read_by(task), **self.private[task]}), self.heads[task])

    def served(self) -> Served:
        """Weights and masks as they are stored, what never changes once, what is private for each task, and heads."""
        own = {name for name in self.private_names if not self._alike(name)}
        constant = {name: tensor for name, tensor in _tensors(self.shared).items() if name not in {*self.weights, *own}}
        parts = {"constant": constant}
        for number, private in enumerate(self.private):
            parts[f"task_{number}"] = {name: tensor for name, tensor in private.items() if name in own}
        return {
            "shared": {**self._flat(parts, of_norms=False), **self.stored_weights()},
            "normalisation": self._flat(parts, of_norms=True),
            "masks": self.stored_masks(),
            "heads": served_heads(self.heads),
        }

    def stored_weights(self) -> dict[str, Tensor]:
        """What is stored of the weights, by any names: here all of them."""
        return {name: self.weight(name) for name in self.weights}

    def stored_masks(self) -> dict[str, Tensor]:
        """What is stored to tell which entries tasks read, packed: here nothing."""
        return {}

    def _alike(self, name: str) -> bool:
        """Whether it is a buffer that no task has changed."""
        fixed = dict(self.shared.named_buffers()).get(name)
        if fixed is None or not self.private:
            return False
        return all(torch.equal(private[name], fixed) for private in self.private)

    def _flat(self, parts: Mapping[str, Mapping[str, Tensor]], *, of_norms: bool) -> dict[str, Tensor]:
        norms = norm_names(self.shared)
        return {
            f"{part}.{name}": tensor
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
            if (name in norms) is of_norms
        }


class Choosing(Masked):
    """A strategy in which each task chooses the same share of every weight tensor to read.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        keep: The share, in (0, 1].

    Attributes:
        chosen: By task and weight, the entries that it reads, bool.

    Raises:
        NetworkError: The backbone has no weights.
        SettingsError: ``keep`` is outside its limits.
    """

    chosen: tuple[Mapping[str, Tensor], ...] = ()

    def __init__(
        self, backbone: Architecture, settings: ContinualSettings, seed: int = 0, *, keep: float = 0.5
    ) -> None:
        super().__init__(backbone, settings, seed)
        if not 0 < keep <= 1:
            raise SettingsError(f"keep {keep} is outside (0, 1]: 0.5 lets a task read half of the weights")
        self.keep = keep

    def masks(self, task: int) -> Mapping[str, Tensor]:
        """By weight, the entries that the task has chosen."""
        return self.chosen[task]

    def stored_masks(self) -> dict[str, Tensor]:
        """One bit for each weight and task."""
        return packed_masks(self.chosen)


class Reweighted(nn.Module):
    """A task network that runs with other weights than its own: what modules make of what they train.

    Args:
        network: Its own weights stay, and are not read.
        makers: By name of a weight of the backbone, modules that are called without arguments and give its values.
    """

    def __init__(self, network: TaskNetwork, makers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.network, self.names, self.makers = network, tuple(makers), nn.ModuleList(makers.values())

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's logits."""
        weights = {f"backbone.{name}": maker() for name, maker in self.made_by.items()}
        logits: Tensor = functional_call(self.network, weights, (inputs,))
        return logits

    @property
    def made_by(self) -> dict[str, nn.Module]:
        """The modules by name of the weight."""
        return dict(zip(self.names, self.makers, strict=True))

    def made(self) -> dict[str, Tensor]:
        """The weights as they are now."""
        return {name: maker().detach() for name, maker in self.made_by.items()}

    def no_weight_decay(self) -> set[str]:
        """Scores are no weights: decay would choose for them."""
        return {f"{name}.scores" for name, module in self.named_modules() if isinstance(module, Mask)}


class Mask(nn.Module):
    """A weight that never changes, and scores that choose which of its entries are read: the others are zero.

    The gradient goes straight through the choice (Bengio et al. 2013, https://arxiv.org/abs/1308.3432): an entry's
    strength gets that of its mask, whether it is chosen or not.

    Args:
        weight: Any tensor.
        scores: Of its shape; they are trained.
        choose: From scores to their strength, which is differentiated, and to the entries chosen, bool.
    """

    def __init__(self, weight: Tensor, scores: Tensor, choose: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.scores, self.choose = nn.Parameter(scores), choose

    def forward(self) -> Tensor:
        """The weight where it is chosen, else 0."""
        strength, chosen = self.choose(self.scores)
        # In this order: a difference of equals is exactly 0, and the mask exactly 0 or 1.
        return self.get_buffer("weight") * (chosen.to(strength) + (strength - strength.detach()))

    def chosen(self) -> Tensor:
        """Which entries are read, bool."""
        return self.choose(self.scores.detach())[1]


class Partial(nn.Module):
    """A weight of which some entries are trained, and the others stay.

    Args:
        start: The value to begin with; a copy is trained.
        own: Which entries are trained, bool.
        others: What the other entries are.
    """

    def __init__(self, start: Tensor, own: Tensor, others: Tensor) -> None:
        super().__init__()
        self.start = nn.Parameter(start.clone())
        self.register_buffer("own", own)
        self.register_buffer("others", others)

    def forward(self) -> Tensor:
        """The weight; whatever an optimiser does to entries that are not its own, nobody sees."""
        return torch.where(self.get_buffer("own"), self.start, self.get_buffer("others"))


def chosen(trained: Reweighted) -> dict[str, Tensor]:
    """By weight, what the masks of a trained network choose."""
    return {name: mask.chosen() for name, mask in trained.made_by.items() if isinstance(mask, Mask)}


def largest(values: Tensor, count: int) -> Tensor:
    """So many entries, the largest ones, and no more even where some are equal: bool."""
    found = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    found[values.detach().flatten().topk(count).indices] = True
    return found.view_as(values)


def weight_names(backbone: nn.Module) -> tuple[str, ...]:
    """The parameters that are trained, have two dimensions or more, and are in no normalisation layer."""
    norms = norm_names(backbone)
    return tuple(
        name
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1 and name not in norms
    )


def private_names(backbone: nn.Module, weights: tuple[str, ...]) -> tuple[str, ...]:
    """The other parameters that are trained, and all buffers that are stored."""
    return tuple(name for name, tensor in _tensors(backbone).items() if name not in weights and _changes(tensor))


def filled(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy with these values in the parameters and buffers of these names."""
    result = copy.deepcopy(backbone)
    own = _tensors(result)
    with torch.no_grad():
        for name, values in tensors.items():
            own[name].copy_(values)
    return result


def packed_masks(masks: Sequence[Mapping[str, Tensor]], first: int = 0) -> dict[str, Tensor]:
    """One bit for each entry of each weight, as they are stored.

    Args:
        masks: By weight, of several tasks.
        first: The number of the first of them.
    """
    return {
        f"task_{task}.{name}": packed(mask, 1) for task, own in enumerate(masks, first) for name, mask in own.items()
    }


def _changes(tensor: Tensor) -> bool:
    return tensor.requires_grad or not isinstance(tensor, nn.Parameter)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are stored, each once; counters of batches predict nothing."""
    stored = {name for name in module.state_dict() if not name.endswith(kinds.COUNTER)}
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name in stored}
