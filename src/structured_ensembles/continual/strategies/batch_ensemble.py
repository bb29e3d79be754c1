"""BatchEnsemble on a stream of tasks: the first trains the weights, each other one two vectors per layer.

Wen, Tran and Ba 2020, https://arxiv.org/abs/2002.06715, section 3.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from structured_ensembles.channels import kinds
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies._masked import Masked, Partial, Reweighted, filled
from structured_ensembles.errors import NetworkError
from structured_ensembles.implicit.rank_one import Layer
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.types import Architecture


class BatchEnsemble(Masked):
    """The weight of a layer is W times the outer product of a task's output factors s and its input factors r.

    Factors start at 1, so that the first task begins with the network as it was drawn. It trains all weights, its
    factors and its head; after that weights are frozen, and a task trains factors and head. Weights of anything but
    convolutions and linear layers have no factors: all tasks share them. Biases and normalisation layers are private
    to each task and go on from those of the task before; a bias is added after the factors.

    Raises:
        NetworkError: No layer of the backbone can have factors.
    """

    name: ClassVar[str] = "batch_ensemble"
    factors: tuple[dict[str, Factors], ...] = ()

    def __init__(self, backbone: Architecture, settings: ContinualSettings, seed: int = 0) -> None:
        super().__init__(backbone, settings, seed)
        self.layers = {
            name: kinds.convolution_groups(module)
            for layer, module in self.shared.named_modules()
            if isinstance(module, Layer) and (name := f"{layer}.weight".lstrip(".")) in self.weights
        }
        if not self.layers:
            raise NetworkError(f"{self.name} multiplies convolutions and linear layers, and the backbone has none")

    def _learn(self, task: Task, directory: Path | None) -> None:
        first = torch.tensor(not self.tasks)
        makers: dict[str, nn.Module] = {
            name: Partial(self.weight(name), first, self.weight(name)) for name in self.weights
        }
        for name, groups in self.layers.items():
            makers[name] = RankOne(makers[name], self.weight(name), groups)
        trained = self.train(Factored(self.start(task), makers), task.train, task.held_out, directory)
        made_by = trained.made_by
        own = {name: module for name, module in made_by.items() if isinstance(module, RankOne)}
        weights = {name: own[name].weight() if name in own else made() for name, made in made_by.items()}
        self.shared = filled(trained.network.backbone, weights)
        self.factors = (*self.factors, {name: module.factors() for name, module in own.items()})
        self.remember(trained.network)

    def read_by(self, task: int) -> dict[str, Tensor]:
        """The weights as a task reads them: times its factors, if they have any."""
        factors = self.factors[task]
        weights = super().read_by(task)
        return weights | {
            name: multiplied(weights[name], factors[name], groups) for name, groups in self.layers.items()
        }

    def stored_weights(self) -> dict[str, Tensor]:
        """All weights once, and for each task its factors."""
        factors = {
            f"task_{number}.{name}.{kind}": vector
            for number, own in enumerate(self.factors)
            for name, pair in own.items()
            for kind, vector in pair._asdict().items()
        }
        return {**super().stored_weights(), **factors} if self.tasks else {}


class Factors(NamedTuple):
    """What a task multiplies a weight by.

    Attributes:
        r: (C_in,), the inputs.
        s: (C_out,), the outputs.
    """

    r: Tensor
    s: Tensor


def multiplied(weight: Tensor, factors: Factors, groups: int) -> Tensor:
    """A layer's weight (C_out, C_in / groups, ...) times its output and its input factors."""
    rows, columns = weight.shape[:2]
    reads = factors.r.view(groups, 1, columns).expand(groups, rows // groups, columns).reshape(rows, columns)
    return weight * (factors.s[:, None] * reads).view(rows, columns, *[1] * (weight.dim() - 2))


class RankOne(nn.Module):
    """A layer's weight times factors that are trained.

    Args:
        weight: Called without arguments, it gives the weight without them.
        like: A tensor of the weight's shape.
        groups: Of the layer.
    """

    def __init__(self, weight: nn.Module, like: Tensor, groups: int) -> None:
        super().__init__()
        self.weight, self.groups = weight, groups
        self.r = nn.Parameter(like.new_ones(like.shape[1] * groups))
        self.s = nn.Parameter(like.new_ones(len(like)))

    def forward(self) -> Tensor:
        """The weight with them."""
        return multiplied(self.weight(), Factors(self.r, self.s), self.groups)

    def factors(self) -> Factors:
        """The factors as they are now."""
        return Factors(self.r.detach().clone(), self.s.detach().clone())


class Factored(Reweighted):
    """A task network some of whose weights have factors."""

    def no_weight_decay(self) -> set[str]:
        """The factors: decay would pull them to zero, not to where they started."""
        names = [name for name, module in self.named_modules() if isinstance(module, RankOne)]
        return {f"{name}.{factor}" for name in names for factor in Factors._fields}
