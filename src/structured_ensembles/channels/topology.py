"""Which channels of a network may be scaled and cut, and what is tied to what.

The only file that knows the dependency-graph library (torch-pruning). What the library says is a proposal: every group
is cut out of a copy of the network with random weights, run, and compared with the same channels zeroed. Groups that
fail are left out with a notice.
"""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from structured_ensembles.channels import _probe, kinds, surgery
from structured_ensembles.channels._verification import verified
from structured_ensembles.errors import NetworkError, first_line
from structured_ensembles.options.choices import Placement, Scope
from structured_ensembles.types import Cut, Group, Side, Topology


def find(network: nn.Module, example: Tensor, *, scope: Scope = Scope.COUPLED, seconds: float = 60.0) -> Topology:
    """The groups of channels that can be scaled and cut, each verified on the example input.

    Args:
        network: Any classifier; it is left as it is.
        example: Inputs (B, ...) that it takes; at most two of them are used.
        scope: Private channels only (published), or also coupled ones.
        seconds: How long the dependency graph may take. Under a profiler, which needs the same place in the
            interpreter, there is no limit.

    Raises:
        NetworkError: The network fails on the example, its output is not (B, K), it uses a module or a parameter twice,
            it has a reparametrised weight, its graph is not ready in time, or nothing in it can be cut.
    """
    scope = Scope.named(scope)
    with torch.random.fork_rng(devices=[]):
        probe = _probe.make(network, example)
        groups, notices = _candidates(probe, seconds)
        groups = [group for group in groups if scope is Scope.COUPLED or group.private]
        groups, failures = verified(probe, groups)
    if not groups:
        reasons = " ".join((*notices, *failures)) or "It has no convolution or Linear layer that another one reads."
        msg = f"nothing in this network can be scaled (scope {scope}). {reasons}"
        raise NetworkError(msg)
    left_out = (*notices, *failures) if scope is Scope.COUPLED else tuple(failures)
    return Topology(tuple(groups), probe.output.shape[1], left_out)


# --- the dependency graph -------------------------------------------------------------------------------------------


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block once ``seconds`` have passed.

    A profile function sees every Python call of this thread, so that a slow recursion inside a library can be stopped
    on any platform and from any thread, which signals cannot do. A profiler that runs already is left in peace.
    """
    if sys.getprofile() is not None:
        yield
        return
    end = time.monotonic() + seconds

    def check(*_: object) -> None:
        if time.monotonic() > end:
            raise TimeoutError

    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(None)


@dataclass(frozen=True)
class _Graph:
    """The library's graph of a network, and the names of the network's parts."""

    library: Any
    network: nn.Module
    names: Mapping[nn.Module, str]
    parameters: Mapping[int, str]


def _candidates(probe: _probe.Probe, seconds: float) -> tuple[list[Group], list[str]]:
    """The groups that the library proposes, in time, and why some channels belong to none."""
    # A copy that shares its tensors: what a network keeps of this pass has a history, and would make it uncopyable.
    network = surgery.cut(probe.network, (), {})
    kind = type(network).__name__
    try:
        with warnings.catch_warnings(), _deadline(seconds), torch.enable_grad():
            warnings.simplefilter("ignore")
            return _propose(_build(network, probe.example), probe.calls)
    except TimeoutError as error:
        msg = (
            f"the dependency graph of {kind} was not ready within {seconds:g} s "
            f"(it was {_blamed(error, network)}): allow more time, or take another network"
        )
        raise NetworkError(msg) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        msg = f"the dependency graph of {kind} cannot be built: it fails {_blamed(error, network)} ({reason})"
        raise NetworkError(msg) from error


def _build(network: nn.Module, example: Tensor) -> _Graph:
    import torch_pruning

    names = {module: name for name, module in network.named_modules()}
    parameters = {id(parameter): name for name, parameter in network.named_parameters()}
    library = torch_pruning.DependencyGraph().build_dependency(
        network,
        example,
        customized_pruners=_unknown_kinds(network),
        # Left to itself, the library swallows what the network raises, the deadline included, and tries another call.
        forward_fn=lambda network, example: network(example),
        verbose=False,
    )
    return _Graph(library, network, names, parameters)


def _unknown_kinds(network: nn.Module) -> dict[type[nn.Module], Any]:
    """What tells the library of kinds that it does not know by itself: in them channels come out as they go in."""
    from torch_pruning import function, ops

    class Tied(function.BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:  # noqa: ANN401
            raise NotImplementedError  # the library is only asked what is tied

        def get_out_channels(self, layer: nn.Module) -> int:
            return kinds.width(layer, Side.OUT)

        prune_in_channels, get_in_channels = prune_out_channels, get_out_channels

    unknown = (one for one in network.modules() if kinds.of(one) and ops.module2type(one) is ops.OPTYPE.ELEMENTWISE)
    return {type(one): Tied() for one in unknown}


def _blamed(error: BaseException, network: nn.Module) -> str:
    """The layer that the library or this file was at when it stopped, read from the innermost frame that knows one."""
    from torch_pruning.dependency import Node

    names = {module: key for key, module in network.named_modules()}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code is _propose.__code__ and "name" in frame.f_locals:
            return f"at layer {frame.f_locals['name']!r}"
        for value in frame.f_locals.values():
            if isinstance(value, Node) and (name := _nearest(value, names)):
                return f"near layer {name!r}"
    return "before the first layer"


def _nearest(node: Any, names: Mapping[nn.Module, str]) -> str | None:  # noqa: ANN401
    """The name of the first module found going back from a node of the graph."""
    pending, seen = [node], set()
    while pending:
        at = pending.pop(0)
        if at in seen:
            continue
        seen.add(at)
        if isinstance(at.module, nn.Module) and at.module in names:
            return names[at.module]
        pending += at.inputs
    return None


# --- from the library's groups to ours ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Refusal(Exception):  # noqa: N818 (it never leaves this file)
    reason: str


def _propose(graph: _Graph, calls: tuple[str, ...]) -> tuple[list[Group], list[str]]:
    """Every group but the output's, in the order of the network's run, and why others were left out."""
    groups: list[Group] = []
    notices: list[str] = []
    done: set[str] = set()
    for name in calls:
        module = graph.network.get_submodule(name)
        if name in done or module not in graph.library.module2node or not kinds.is_layer(module):
            continue
        done.add(name)
        try:
            group = _translate(graph, name)
        except _Refusal as refusal:
            notices.append(f"The output channels of {name!r} are left whole: {refusal.reason}.")
            continue
        done.update(cut.module for cut in group.cuts if cut.side is Side.OUT)
        # A group that no layer reads is what the network returns.
        if any(cut.side is Side.IN for cut in group.cuts) and group.channels > 1:
            groups.append(group)
    return groups, notices


def _translate(graph: _Graph, name: str) -> Group:
    """The group of the layer's output channels: cuts, ties and scaled sites."""
    cuts, channels = _closure(graph, name)
    modules = {cut.module: graph.network.get_submodule(cut.module) for cut in cuts}
    producers = [cut for cut in cuts if cut.side is Side.OUT and kinds.is_layer(modules[cut.module])]
    whole = all(kinds.width(modules[cut.module], cut.side) == channels * cut.repeat for cut in cuts)
    private = len(producers) == 1 and whole and not kinds.is_grouped(modules[producers[0].module])
    scaled = {Placement.BEFORE_NORM: tuple(producers), Placement.AFTER_NORM: _after_norm(graph, cuts)}
    return Group(name, channels, tuple(cuts), private, scaled)


def _closure(graph: _Graph, name: str) -> tuple[list[Cut], int]:
    """All cuts tied to a layer's outputs.

    A grouped convolution ties its inputs to its outputs, which the library keeps apart: both groups are joined, and one
    of our channels is then a whole group of the convolution.
    """
    pending, seen = [(name, Side.OUT)], set()
    parts: list[tuple[list[Cut], int]] = []
    while pending:
        site = pending.pop()
        if site in seen:
            continue
        cuts, channels = _library_group(graph, *site)
        seen.update([site, *((cut.module, cut.side) for cut in cuts)])
        parts.append((cuts, channels))
        for cut in cuts:
            if kinds.is_grouped(graph.network.get_submodule(cut.module)):
                pending += [(cut.module, side) for side in Side if (cut.module, side) not in seen]
    return _join(graph.network, parts)


def _join(network: nn.Module, parts: list[tuple[list[Cut], int]]) -> tuple[list[Cut], int]:
    """One group out of several, with as many channels as its coarsest grouped convolution has groups."""
    cuts = [cut for part, _ in parts for cut in part]
    grouped = {cut.module: network.get_submodule(cut.module) for cut in cuts}
    units = [kinds.convolution_groups(module) for module in grouped.values() if kinds.is_grouped(module)]
    channels = min([*units, *(count for _, count in parts)])
    if any(count % channels for count in (*units, *(count for _, count in parts))):
        raise _Refusal("its grouped convolutions have numbers of groups that do not divide each other")
    coarse = [replace(cut, repeat=cut.repeat * (count // channels)) for part, count in parts for cut in part]
    # The inputs of a grouped convolution follow from its outputs.
    kept = [cut for cut in coarse if cut.side is Side.OUT or kinds.has_inputs(grouped[cut.module])]
    return list(dict.fromkeys(kept)), channels


def _library_group(graph: _Graph, name: str, side: Side) -> tuple[list[Cut], int]:
    """What the library ties to one dimension of a layer, as cuts of modules with channels of their own."""
    cuts = []
    channels = kinds.width(graph.network.get_submodule(name), side)
    for item in _library_items(graph, name, side, channels):
        target = item.dep.target.module
        if isinstance(target, nn.Parameter):
            raise _Refusal(f"they are tied to the bare parameter {graph.parameters.get(id(target), '?')!r}")
        if target not in graph.names or not _has_channels(target):
            continue
        if kinds.of(target) is None:
            raise _Refusal(f"{graph.names[target]!r} ({type(target).__name__}) mixes them and cannot be cut")
        out = graph.library.is_out_channel_pruning_fn(item.dep.handler)
        cut_side = Side.OUT if out or not kinds.is_layer(target) else Side.IN
        cuts += _layout(graph.names[target], cut_side, list(item.idxs), list(item.root_idxs), channels)
    return cuts, channels


def _has_channels(module: nn.Module) -> bool:
    """Whether a module holds something for each channel, as far as one can see."""
    kind = kinds.of(module)
    if kind is not None and kind.role is kinds.Role.ACTIVATION:
        return kinds.width(module, Side.OUT) > 1  # else one number serves all channels
    return kinds.is_norm(module) or any(True for _ in module.parameters())


def _library_items(graph: _Graph, name: str, side: Side, channels: int) -> list[Any]:
    module = graph.network.get_submodule(name)
    pruner = graph.library.get_pruner_of_module(module)
    prune = pruner.prune_out_channels if side is Side.OUT else pruner.prune_in_channels
    try:
        return list(graph.library.get_pruning_group(module, prune, list(range(channels))))
    except TimeoutError:
        raise
    except Exception as error:
        raise _Refusal(f"the library fails on it ({type(error).__name__}: {first_line(error)})") from error


def _layout(module: str, side: Side, index: list[int], roots: list[int], channels: int) -> list[Cut]:
    """The cuts that put channel ``roots[i]`` at position ``index[i]``: one for every stretch of positions."""
    at = sorted(set(zip(index, roots, strict=True)))
    stretches = [list(part) for _, part in groupby(enumerate(at), key=lambda pair: pair[1][0] - pair[0])]
    cuts = []
    for stretch in stretches:
        positions = [pair for _, pair in stretch]
        repeat, rest = divmod(len(positions), channels)
        start = positions[0][0]
        if rest or any(root != (position - start) // repeat for position, root in positions):
            raise _Refusal(f"their positions in {module!r} follow no regular layout")
        cuts.append(Cut(module, side, start, repeat))
    return cuts


def _after_norm(graph: _Graph, cuts: list[Cut]) -> tuple[Cut, ...]:
    """The last normalisations of the group before its readers, and producers that are read without one.

    A factor before an earlier normalisation would be cancelled by a later one, which would also shift a channel that
    was switched off.
    """
    sites = {cut.module for cut in cuts if cut.side is Side.OUT}
    reached: set[str] = set()
    for cut in cuts:
        if cut.side is Side.IN:
            reached |= _last_before(graph, graph.network.get_submodule(cut.module))
    return tuple(cut for cut in cuts if cut.side is Side.OUT and cut.module in sites & reached)


def _last_before(graph: _Graph, reader: nn.Module) -> set[str]:
    """The nearest normalisation or layer on each path back from a layer."""
    reached = set()
    pending, seen = list(graph.library.module2node[reader].inputs), set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        module = node.module
        if module in graph.names and (kinds.is_norm(module) or kinds.is_layer(module)):
            reached.add(graph.names[module])
        else:
            pending += node.inputs
    return reached
