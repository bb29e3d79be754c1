"""Scores: what the search trains, and how they multiply the channels of a network that otherwise stays as it is.

Shapes: M members, B batch, C channels of one group, N channels of all groups together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Beta, Distribution, Exponential, Gamma, Laplace, Normal
from torch.nn.functional import softplus

from structured_ensembles.channels import kinds, surgery
from structured_ensembles.errors import NetworkError
from structured_ensembles.networks.modules import in_mode
from structured_ensembles.options.choices import Parametrisation, Placement
from structured_ensembles.types import Cut, Group, Scores, Side, Topology

Start: TypeAlias = Callable[[tuple[int, int], torch.Generator], Tensor]
"""Draws the start values of one parameter of all scores: of shape (M, N)."""


@dataclass(frozen=True)
class _Family:
    """Start values, which of them are positive, and the distribution that they make; None for a plain factor."""

    starts: tuple[Start, ...]
    positive: tuple[bool, ...]
    distribution: Callable[..., Distribution] | None = None


def _constant(value: float) -> Start:
    return lambda shape, _: torch.full(shape, value)


def _one_to_two(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return 1 + torch.rand(shape, generator=generator)


def _standard_normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


_FAMILIES: Mapping[Parametrisation, _Family] = {
    Parametrisation.FREE: _Family((_standard_normal,), (False,)),
    Parametrisation.CONSTANT: _Family((_constant(1.0),), (False,)),
    Parametrisation.NORMAL: _Family((_constant(0.0), _constant(1.0)), (False, True), Normal),
    Parametrisation.LAPLACE: _Family((_constant(0.0), _constant(1.0)), (False, True), Laplace),
    Parametrisation.BETA: _Family((_one_to_two, _one_to_two), (True, True), Beta),
    Parametrisation.GAMMA: _Family((_constant(1.0), _constant(2.0)), (True, True), Gamma),
    Parametrisation.EXPONENTIAL: _Family((_constant(1.0),), (True,), Exponential),
}


class ScaleFactors(nn.Module):
    """M trainable score vectors over all groups.

    Positive parameters are the softplus of what is trained, so that no gradient dies at zero.

    Args:
        widths: C by group name.
        members: M.
        parametrisation: What is trained.
        samples: How many draws a sampled parametrisation averages in each pass.
        generator: Draws the start values.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        members: int,
        parametrisation: Parametrisation,
        samples: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.widths, self.samples, self.family = dict(widths), samples, _FAMILIES[parametrisation]
        shape = (members, sum(self.widths.values()))
        self.raw = nn.ParameterList()
        for start, positive in zip(self.family.starts, self.family.positive, strict=True):
            value = start(shape, generator)
            self.raw.append(nn.Parameter(value.expm1().log() if positive else value))

    def sample(self) -> Scores:
        """Scale factors for one pass, differentiable; sampled ones draw from the global generator."""
        if self.family.distribution is None:
            return self._split(self._values()[0])
        draws = self.family.distribution(*self._values()).rsample(torch.Size([self.samples]))
        return self._split(draws.mean(dim=0))

    def mean(self) -> Scores:
        """The expected scale factors, detached."""
        values = self._values()
        mean = values[0] if self.family.distribution is None else self.family.distribution(*values).mean
        return self._split(mean.detach())

    def distributions(self) -> Mapping[str, Distribution] | None:
        """By group, the distributions that are sampled, of batch shape (M, C); None for plain factors."""
        kind = self.family.distribution
        if kind is None:
            return None
        parts = [self._split(value) for value in self._values()]
        return {name: kind(*(part[name] for part in parts)) for name in self.widths}

    def _values(self) -> list[Tensor]:
        pairs = zip(self.raw, self.family.positive, strict=True)
        return [softplus(raw) if positive else raw for raw, positive in pairs]

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        parts = torch.split(flat, list(self.widths.values()), dim=1)
        return dict(zip(self.widths, parts, strict=True))


class Scaler:
    """Holds what multiplies the channels in the next forward passes; made by `scaled`."""

    def __init__(self) -> None:
        self.scores: Scores = {}
        self.member = torch.empty(0, dtype=torch.int64)

    def use(self, scores: Scores, member: Tensor) -> None:
        """Scale the next passes; scores and members are on the network's device.

        Args:
            scores: By group, the scale factors (M, C).
            member: (B,), which member each example of the batch belongs to, int64.
        """
        self.scores, self.member = scores, member


@contextmanager
def scaled(network: nn.Module, topology: Topology, placement: Placement) -> Iterator[Scaler]:
    """Within the block, every channel of the topology is multiplied by what `Scaler.use` was last given.

    The module's class is not changed; afterwards nothing of the scaling is left.
    """
    scaler = Scaler()
    with ExitStack() as hooks:
        for name, sites in _sites(topology, placement).items():
            module = network.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(_multiply(scaler, name, module, sites)))
        yield scaler


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the block, the network is in training mode and no gradient of its weights is computed.

    Afterwards its buffers, training flags and requires_grad are what they were: batch statistics leave no trace.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    network.requires_grad_(requires_grad=False)
    try:
        with in_mode(network, training=True):
            yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                # A module may have written into the buffer, or have put another tensor in its place.
                setattr(module, name, buffer.copy_(before))


def _sites(topology: Topology, placement: Placement) -> dict[str, list[tuple[Group, Cut]]]:
    """By module, the stretches of its output that are scaled, in their order."""
    sites: dict[str, list[tuple[Group, Cut]]] = {}
    for group in topology.groups:
        for cut in group.scaled[placement]:
            sites.setdefault(cut.module, []).append((group, cut))
    return {name: sorted(stretches, key=lambda pair: pair[1].offset) for name, stretches in sites.items()}


def _multiply(scaler: Scaler, name: str, module: nn.Module, sites: list[tuple[Group, Cut]]) -> Callable[..., Tensor]:
    width = kinds.width(module, Side.OUT)

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:  # noqa: ANN401 (torch's own signature)
        factors = _row_factors(scaler, sites, width)[_member_of_rows(scaler.member, output, name)]
        # A half-precision network goes on in half precision.
        return output * kinds.spread(module, factors.to(output.dtype), output)

    return hook


def _row_factors(scaler: Scaler, sites: list[tuple[Group, Cut]], width: int) -> Tensor:
    """(M, width): the groups' scale factors at their positions, 1 between them."""
    pieces: list[Tensor] = []
    at = 0
    for group, cut in sites:
        scores = scaler.scores[group.name]
        pieces += [scores.new_ones(len(scores), cut.offset - at), surgery.positions(cut, scores)]
        at = cut.offset + group.channels * cut.repeat
    pieces.append(pieces[-1].new_ones(len(pieces[-1]), width - at))
    return torch.cat(pieces, dim=1)


def _member_of_rows(member: Tensor, output: Tensor, name: str) -> Tensor:
    """(rows of the output,): a module that folds patches into the batch has several rows per example, side by side."""
    rows, rest = divmod(len(output), len(member))
    if rest or not rows:
        raise NetworkError(
            f"layer {name!r} turns a batch of {len(member)} into {len(output)} rows: its examples cannot be told "
            "apart. Keep the batch in the first dimension, for example with batch_first=True"
        )
    return member if rows == 1 else member.repeat_interleave(rows)
