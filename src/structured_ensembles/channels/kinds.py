"""The kinds of modules that channels can be cut out of: one entry each, from which everything else follows.

Only what is done to the statistics of whole batches, as `BatchNorm` keeps them, stands where it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from structured_ensembles.options.choices import Choice
from structured_ensembles.types import Side

BatchNorm = _BatchNorm
"""Normalises by the statistics of a whole batch while it is trained, and by a moving average of them afterwards."""


class Role(Choice):
    """What a module does with channels."""

    LAYER = "layer"
    """Makes new ones out of others."""
    NORM = "norm"
    """Normalises each on its own."""
    ACTIVATION = "activation"
    """Bends each on its own."""


@dataclass(frozen=True)
class Kind:
    """A kind of module that channels can be cut out of.

    Attributes:
        classes: What is of this kind, subclasses included.
        role: What it does with channels.
        widths: By side, the attribute that holds how wide it is. Without an input side, channels come in as they go
            out.
        tensors: By side, the tensors that are cut with it, if there are any: with the outputs in their first dimension,
            with the inputs in their second one.
        dimension: Of its input and output, the one that holds the channels.
        statistics: Buffers that it estimates in training, and between what values a guess at one may lie.
        excepted: Subclasses of ``classes`` that are of another kind or none.
    """

    classes: tuple[type[nn.Module], ...]
    role: Role
    widths: Mapping[Side, str]
    tensors: Mapping[Side, tuple[str, ...]]
    dimension: int = 1
    statistics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    excepted: tuple[type[nn.Module], ...] = ()


KINDS = (
    Kind(
        (_ConvNd,),
        Role.LAYER,
        {Side.OUT: "out_channels", Side.IN: "in_channels"},
        {Side.OUT: ("weight", "bias"), Side.IN: ("weight",)},
        excepted=(_ConvTransposeNd,),
    ),
    Kind(
        (nn.Linear,),
        Role.LAYER,
        {Side.OUT: "out_features", Side.IN: "in_features"},
        {Side.OUT: ("weight", "bias"), Side.IN: ("weight",)},
        dimension=-1,
    ),
    Kind(
        (_NormBase,),
        Role.NORM,
        {Side.OUT: "num_features"},
        {Side.OUT: ("weight", "bias", "running_mean", "running_var")},
        statistics={"running_mean": (-0.5, 0.5), "running_var": (0.5, 1.5)},
    ),
    Kind((nn.PReLU,), Role.ACTIVATION, {Side.OUT: "num_parameters"}, {Side.OUT: ("weight",)}),
)
"""Every kind."""

_ACROSS = (nn.GroupNorm, nn.LayerNorm)
"""Normalise channels by each other: none can be cut without changing the others."""


COUNTER = "num_batches_tracked"
"""How the names of buffers end that predict nothing."""


def of(module: nn.Module) -> Kind | None:
    """The kind of a module; None if no channels can be cut out of it."""
    found = (kind for kind in KINDS if isinstance(module, kind.classes) and not isinstance(module, kind.excepted))
    return next(found, None)


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` makes new channels out of others: a convolution (transposed ones apart) or a Linear layer."""
    return _has(module, Role.LAYER)


def is_norm(module: nn.Module) -> bool:
    """Whether ``module`` normalises each channel on its own, so that channels can be cut out of it."""
    return _has(module, Role.NORM)


def normalises(module: nn.Module) -> bool:
    """Whether ``module`` normalises its input with parameters or statistics of its own, channels apart or together."""
    return is_norm(module) or isinstance(module, _ACROSS)


def _has(module: nn.Module, role: Role) -> bool:
    kind = of(module)
    return kind is not None and kind.role is role


def convolution_groups(module: nn.Module) -> int:
    """Into how many groups a convolution divides its channels; 1 for anything else."""
    return module.groups if isinstance(module, _ConvNd) else 1


def is_grouped(module: nn.Module) -> bool:
    """Whether ``module`` is a grouped (or depthwise) convolution: its inputs and outputs live or die together."""
    return convolution_groups(module) > 1


def has_inputs(module: nn.Module) -> bool:
    """Whether the inputs of ``module`` are cut apart from its outputs."""
    return is_layer(module) and not is_grouped(module)


def width(module: nn.Module, side: Side) -> int:
    """Positions in one dimension of a module of some kind.

    Raises:
        TypeError: It is of none.
    """
    widths = _known(module).widths
    found: int = getattr(module, widths.get(side, widths[Side.OUT]))
    return found


def resize(module: nn.Module, side: Side, width: int) -> None:
    """Tell a module how wide it is now; its tensors are left as they are."""
    if side is Side.OUT and isinstance(module, _ConvNd) and module.groups > 1:
        made, read = module.out_channels // module.groups, module.in_channels // module.groups
        module.groups = width // made
        module.in_channels = module.groups * read
    setattr(module, _known(module).widths[side], width)


def tensors(module: nn.Module, side: Side) -> tuple[str, ...]:
    """The names of what is cut on one side of a module; of what is of no kind, nothing is."""
    kind = of(module)
    return () if kind is None else kind.tensors.get(side, ())


def channel_dimension(module: nn.Module) -> int:
    """The dimension of the module's input and output that holds its channels."""
    return _known(module).dimension


def spread(module: nn.Module, values: Tensor, like: Tensor) -> Tensor:
    """Values of a module's channels, (C,) or (B, C), in a shape that goes with its input or output (B, ...)."""
    shape = [*values.shape[:-1], *[1] * like.dim()][: like.dim()]
    shape[channel_dimension(module)] = values.shape[-1]
    return values.view(shape)


def _known(module: nn.Module) -> Kind:
    kind = of(module)
    if kind is None:
        msg = f"{type(module).__name__} has no channels to cut"
        raise TypeError(msg)
    return kind
