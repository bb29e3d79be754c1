"""What must be known of a network before it can be packed: what each layer reads, and that nothing mixes members.

In a packed network the channels of a tensor are M blocks, one a member, in the members' order. The walk below follows
the network's graph, without running it, and lets through only what keeps the blocks apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.nn import functional

from structured_ensembles.channels import kinds
from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.options.choices import Choice
from structured_ensembles.types import Side

Layer: TypeAlias = nn.Conv2d | nn.Linear
Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d

POOLING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
ACTIVATIONS = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6),
    *(nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh),
)
MODULES = (*POOLING, *ACTIVATIONS, nn.Dropout, nn.Dropout2d, nn.Identity)
"""Without parameters; they treat each channel on its own and leave the channels in their order, as do all below."""

FUNCTIONS: frozenset[Callable[..., Any]] = frozenset(
    (
        *(operator.add, operator.iadd, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul),
        *(functional.relu, functional.relu6, functional.gelu, functional.silu, functional.leaky_relu, functional.elu),
        *(functional.hardswish, functional.hardsigmoid, functional.dropout, functional.dropout2d),
        *(functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
        *(torch.relu, torch.tanh, torch.sigmoid),
    )
)
METHODS = frozenset(("add", "add_", "contiguous", "mul", "relu", "relu_", "sigmoid", "tanh"))


@dataclass(frozen=True)
class Reads:
    """What a layer or a normalisation of the plain network reads, and where it stands.

    Attributes:
        channels: Given out by the layer that made what it reads (a flatten may have spread them); 0 for the input.
        first: Whether it reads the network's input, which all members share.
        last: Whether it gives the logits.
    """

    channels: int
    first: bool
    last: bool


class _Stage(Choice):
    """What a tensor of the graph holds."""

    CONSTANT = "constant"
    INPUT = "input"
    HIDDEN = "hidden"
    LOGITS = "logits"


@dataclass(frozen=True)
class _Value:
    """A tensor of the graph: its channels in the plain network, and whether they have pixels."""

    stage: _Stage
    channels: int = 0
    spatial: bool = False


_CONSTANT, _INPUT = _Value(_Stage.CONSTANT), _Value(_Stage.INPUT)


def readings(network: nn.Module) -> dict[str, Reads]:
    """By dotted name, what every layer and every normalisation reads that is to be packed.

    Raises:
        NetworkError: Something in the network cannot be packed; the message names it.
    """
    graph = _traced(network)
    modules = dict(network.named_modules())
    parameters = {name for name, _ in network.named_parameters()}
    last = set(_last_layers(graph, modules))
    values: dict[fx.Node, _Value] = {}
    found: dict[str, Reads] = {}
    for node in graph.nodes:
        sources = [values[source] for source in node.all_input_nodes]
        module = modules[node.target] if node.op == "call_module" else None
        if node.op == "get_attr" and node.target in parameters:
            raise _refusal(node, None, "is a parameter outside a layer, which members would share")
        if not isinstance(module, Layer | Norm):
            values[node] = _after_operation(node, module, sources)
            continue
        if node.target in found:
            raise _refusal(node, module, "is used twice in one pass")
        values[node], found[node.target] = _after_layer(node, module, sources, last=node in last)
    return found


def _traced(network: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(network)
    except Exception as error:
        raise NetworkError(
            f"{type(network).__name__} cannot be packed: its operations cannot be traced ({first_line(error)}). "
            "Packed-Ensembles takes plain and residual convolutional networks and perceptrons: use another method"
        ) from error


def _last_layers(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """The layers from which the output is reached without passing another one."""
    pending = [node for node in graph.nodes if node.op == "output"]
    seen: set[fx.Node] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and isinstance(modules[str(node.target)], Layer):
            yield node
        else:
            pending += node.all_input_nodes


def _after_layer(node: fx.Node, module: Layer | Norm, sources: Sequence[_Value], *, last: bool) -> tuple[_Value, Reads]:
    """What a layer or a normalisation gives, and what it reads."""
    source = _common(node, module, sources)
    if type(module) not in (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d):
        raise _refusal(node, module, "is of a kind of its own")
    if source.stage in (_Stage.LOGITS, _Stage.CONSTANT):
        raise _refusal(node, module, f"reads {source.stage}")
    reading = Reads(source.channels, source.stage is _Stage.INPUT, last)
    if isinstance(module, Norm):
        if reading.first:
            raise _refusal(node, module, "normalises the input, which members would share")
        return source, reading
    if kinds.is_grouped(module):
        raise _refusal(node, module, f"is a convolution in {kinds.convolution_groups(module)} groups")
    convolution = isinstance(module, nn.Conv2d)
    if source.stage is _Stage.HIDDEN and source.spatial is not convolution:
        raise _refusal(node, module, "reads channels in a dimension that they are not in")
    stage = _Stage.LOGITS if last else _Stage.HIDDEN
    return _Value(stage, kinds.width(module, Side.OUT), spatial=convolution), reading


def _after_operation(node: fx.Node, module: nn.Module | None, sources: Sequence[_Value]) -> _Value:
    """What anything but a layer gives."""
    if node.op == "placeholder":
        return _INPUT if node.prev.op == "root" else _CONSTANT
    if all(source in (_INPUT, _CONSTANT) for source in sources) and node.op != "output":
        if module is not None and any(True for _ in module.parameters()):
            raise _refusal(node, module, "has weights that members would share")
        return _INPUT if _INPUT in sources else _CONSTANT
    source = _common(node, module, sources)
    if node.op == "output":
        if source.stage is not _Stage.LOGITS:
            raise _refusal(node, module, "does not come from a layer")
        return source
    if _flattens(node, module) and source.spatial:
        return replace(source, spatial=False)
    if _averages_pixels(node) and source.spatial:
        kept = node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False)
        return replace(source, spatial=bool(kept))
    if type(module) in MODULES or node.target in FUNCTIONS or (node.op == "call_method" and node.target in METHODS):
        return source
    raise _refusal(node, module, "may mix the channels of the members")


def _common(node: fx.Node, module: nn.Module | None, sources: Sequence[_Value]) -> _Value:
    """The one kind of tensor that an operation reads: two kinds do not have their members at the same places."""
    if len(set(sources)) != 1:
        raise _refusal(node, module, "combines tensors whose members are not at the same places")
    return sources[0]


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether all but the batch becomes one dimension, channel after channel."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    if node.target is not torch.flatten and (node.op, node.target) != ("call_method", "flatten"):
        return False
    named: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return (named.get("start_dim", 0), named.get("end_dim", -1)) == (1, -1)


def _averages_pixels(node: fx.Node) -> bool:
    """Whether the mean is taken over height and width."""
    if node.target is not torch.mean and (node.op, node.target) != ("call_method", "mean"):
        return False
    dimensions = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(dimensions, list | tuple) and sorted(str(each) for each in dimensions) in (
        ["2", "3"],
        ["-1", "-2"],
    )


def _refusal(node: fx.Node, module: nn.Module | None, reason: str) -> NetworkError:
    """The error that names a layer, or an operation and the layer that it is in."""
    where = f"layer {str(node.target)!r} ({type(module).__name__})"
    if module is None:
        inside = list(node.meta.get("nn_module_stack", {"": None}))[-1]
        what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
        where = f"operation {what!r} in {f'layer {inside!r}' if inside else 'the network'}"
    return NetworkError(
        f"{where} cannot be packed: it {reason}. Packed-Ensembles takes plain and residual convolutional networks and "
        "perceptrons: change the layer or use another method"
    )
