"""Online elastic weight consolidation: weights that mattered to earlier tasks are held where they are by springs.

Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, with one running sum of Fisher information for all tasks as
in Schwarz et al. 2018, https://arxiv.org/abs/1805.06370.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.memory import Served
from structured_ensembles.continual.learner.tasks import Task
from structured_ensembles.continual.strategies.base import SharedBackbone, penalised
from structured_ensembles.data.sources.records import as_float
from structured_ensembles.errors import SettingsError
from structured_ensembles.networks import modules
from structured_ensembles.options.streams import ContinualSettings
from structured_ensembles.seeding import derived_seed
from structured_ensembles.types import Architecture

_SAMPLE, _LABELS = 4, 5
"""What seeds are for."""


class EWC(SharedBackbone):
    """Fine-tuning with the penalty strength / 2 * sum of F (theta - theta*)^2 added to the loss.

    theta are the parameters of the backbone, theta* what they were after the last task, and F the sum over earlier
    tasks of the diagonal of their Fisher information, weighed down by ``decay`` with every task that came after.
    Scale and shift of normalisation layers are parameters like others; their running statistics are not: nothing holds
    them, and earlier tasks are answered with those of the last one. Heads stay as they were when their task ended.

    Args:
        backbone: As for every `Strategy`.
        settings: As for every `Strategy`.
        seed: As for every `Strategy`.
        strength: Of the penalty, at least 0; 0 is naive fine-tuning.
        decay: In (0, 1]: 1 never lets go of a task.
        examples: From how many training images at most the information is estimated.

    Raises:
        SettingsError: A number is outside its limits.
    """

    name: ClassVar[str] = "ewc"
    forgets: ClassVar[bool] = True
    information: tuple[Tensor, ...] = ()

    def __init__(
        self,
        backbone: Architecture,
        settings: ContinualSettings,
        seed: int = 0,
        *,
        strength: float = 100.0,
        decay: float = 1.0,
        examples: int = 1000,
    ) -> None:
        super().__init__(backbone, settings, seed)
        if problems := [message for wrong, message in _limits(strength, decay, examples) if wrong]:
            raise SettingsError("; ".join(problems))
        self.strength, self.decay, self.examples = strength, decay, examples

    def _learn(self, task: Task, directory: Path | None) -> None:
        network = self.start(task)
        if self.information:
            anchored = Anchored(network, self.information)
            loss = penalised(anchored, lambda one: self.strength / 2 * one.distance())
            network = self.train(anchored, task.train, task.held_out, directory, loss=loss).network
        else:
            network = self.train(network, task.train, task.held_out, directory)
        found = self._information(network, task)
        old = self.information or [torch.zeros_like(one) for one in found]
        self.information = tuple(self.decay * a + b for a, b in zip(old, found, strict=True))
        self.shared, self.heads = network.backbone, (*self.heads, network.head)

    def _information(self, network: TaskNetwork, task: Task) -> list[Tensor]:
        number = len(self.tasks)
        draw = torch.Generator().manual_seed(derived_seed(self.seed, _SAMPLE, number))
        chosen = torch.randperm(len(task.train), generator=draw)[: self.examples]
        return fisher(network, task.train.images[chosen], derived_seed(self.seed, _LABELS, number))

    def served(self) -> Served:
        """The backbone, the heads, and the information, without which the next task cannot be learned.

        What the parameters were after the last task is what they are.
        """
        kept = {f"information.{number}": value for number, value in enumerate(self.information)}
        return {**super().served(), "data": kept}


def _limits(strength: float, decay: float, examples: int) -> list[tuple[bool, str]]:
    return [
        (not 0 <= strength < float("inf"), f"strength {strength} must be at least 0 and finite, 100 for example"),
        (not 0 < decay <= 1, f"decay {decay} is outside (0, 1]: 1 never lets go of a task"),
        (not examples >= 1, f"examples {examples} must be at least 1"),
    ]


class Anchored(nn.Module):
    """A network that knows where its backbone's parameters were, and how far they are from there.

    Args:
        network: Answers as before.
        information: Of each parameter of the backbone that is trained.
    """

    def __init__(self, network: TaskNetwork, information: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        for number, (parameter, weight) in enumerate(zip(_trained(network), information, strict=True)):
            self.register_buffer(f"anchor_{number}", parameter.detach().clone(), persistent=False)
            self.register_buffer(f"information_{number}", weight, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self.network(inputs)
        return logits

    def distance(self) -> Tensor:
        """Sum of F (theta - theta*)^2, a scalar."""
        terms = [
            (self.get_buffer(f"information_{n}") * (parameter - self.get_buffer(f"anchor_{n}")).square()).sum()
            for n, parameter in enumerate(_trained(self.network))
        ]
        return torch.stack(terms).sum()


def fisher(network: TaskNetwork, images: Tensor, seed: int) -> list[Tensor]:
    """The diagonal Fisher information of the backbone's trained parameters, E (d ln p(y | x) / d theta)^2.

    The square is taken for each image by itself, at one label drawn from what the network predicts for it, in
    evaluation mode: the true information, not the empirical one at the images' own labels.

    Args:
        network: Maps images to logits; it is left as it was.
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        seed: Of the labels.
    """
    parameters = _trained(network)
    generator = torch.Generator().manual_seed(seed)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    with torch.enable_grad(), modules.in_mode(network, training=False):
        for image in images:
            log_likelihood = network(as_float(image[None]).to(parameters[0].device))[0].log_softmax(0)
            label = int(torch.multinomial(log_likelihood.detach().exp().cpu(), 1, generator=generator))
            gradients = torch.autograd.grad(
                log_likelihood[label], parameters, allow_unused=True, materialize_grads=True
            )
            total = [a + gradient.square() for a, gradient in zip(total, gradients, strict=True)]
    return [one / len(images) for one in total]


def _trained(network: TaskNetwork) -> list[nn.Parameter]:
    return [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
