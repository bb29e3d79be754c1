"""Which channels of a network may be scaled and cut, and what is tied to what.

The only file that knows the dependency-graph library (torch-pruning). What the library says is a proposal: every group
is cut out of a copy of the network with random weights, run, and compared with the same channels zeroed. Groups that
fail are left out with a notice.
"""

from __future__ import annotations

import copy
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from structured_ensembles import surgery
from structured_ensembles.errors import NetworkError
from structured_ensembles.types import Cut, Group, Placement, Scope, Side, Topology

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest difference between a cut and a zeroed network, relative to what the zeroing changed, by precision."""


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
    with torch.random.fork_rng(devices=[]):
        probe = _probe.make(network, example)
        groups, notices = _candidates(probe, seconds)
        groups = [group for group in groups if scope is Scope.COUPLED or group.private]
        groups, failures = _verified(probe, groups)
    if not groups:
        reasons = " ".join((*notices, *failures)) or "It has no hidden convolution or Linear layer."
        msg = f"nothing in this network can be scaled (scope {scope}). {reasons}"
        raise NetworkError(msg)
    left_out = (*notices, *failures) if scope is Scope.COUPLED else tuple(failures)
    return Topology(tuple(groups), probe.output.shape[1], left_out)


# --- the dependency graph -------------------------------------------------------------------------------------------


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block once ``seconds`` have passed.

    A profile function sees every Python call of this thread, so that a slow recursion inside a library can be stopped
    on any platform and from any thread, which signals cannot do.
    """
    end = time.monotonic() + seconds

    def check(*_: object) -> None:
        if time.monotonic() > end:
            raise TimeoutError

    previous = sys.getprofile()
    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(previous)


def _candidates(
    probe: nn.Module, example: Tensor, order: Sequence[str], seconds: float
) -> tuple[list[Group], list[str]]:
    """The groups that the library proposes, in time, and why some channels belong to none."""
    import torch_pruning

    try:
        with warnings.catch_warnings(), _deadline(seconds), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(probe, (example,), verbose=False)
            return _propose(graph, probe, order)
    except TimeoutError as error:
        msg = (
            f"the dependency graph of {type(probe).__name__} was not ready within {seconds:g} s "
            f"(it was {_blamed(error, probe)}): allow more time, or take another network"
        )
        raise NetworkError(msg) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        kind = type(probe).__name__
        msg = f"the dependency graph of {kind} cannot be built: it fails {_blamed(error, probe)} ({reason})"
        raise NetworkError(msg) from error


def _blamed(error: BaseException, probe: nn.Module) -> str:
    """The layer that the library or this file was at when it stopped, read from the innermost frame that knows one."""
    from torch_pruning.dependency import Node

    names = {module: key for key, module in probe.named_modules()}
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


def _propose(graph: Any, probe: nn.Module, order: Sequence[str]) -> tuple[list[Group], list[str]]:  # noqa: ANN401
    """Every group but the output's, in the order of the network's run, and why others were left out."""
    groups: list[Group] = []
    notices: list[str] = []
    done: set[str] = set()
    for name in order:
        module = probe.get_submodule(name)
        if name in done or module not in graph.module2node or not surgery.is_layer(module):
            continue
        done.add(name)
        try:
            group = _translate(graph, probe, name)
        except _Refusal as refusal:
            notices.append(f"The output channels of {name!r} are left whole: {refusal.reason}.")
            continue
        done.update(cut.module for cut in group.cuts if cut.side is Side.OUT)
        # A group that no layer reads is what the network returns.
        if any(cut.side is Side.IN for cut in group.cuts) and group.channels > 1:
            groups.append(group)
    return groups, notices


def _translate(graph: Any, probe: nn.Module, name: str) -> Group:  # noqa: ANN401
    """The group of the layer's output channels: cuts, ties and scaled sites."""
    cuts, channels = _closure(graph, probe, name)
    producers = [cut for cut in cuts if cut.side is Side.OUT and surgery.is_layer(probe.get_submodule(cut.module))]
    whole = all(_covers(probe, cut, channels) for cut in cuts)
    private = len(producers) == 1 and whole and not surgery.is_grouped(probe.get_submodule(producers[0].module))
    scaled = {
        Placement.BEFORE_NORM: tuple(producers),
        Placement.AFTER_NORM: _after_norm(graph, probe, producers, cuts),
    }
    return Group(name, channels, tuple(cuts), private, scaled)


def _covers(probe: nn.Module, cut: Cut, channels: int) -> bool:
    return surgery.width(probe.get_submodule(cut.module), cut.side) == channels * cut.repeat


def _closure(graph: Any, probe: nn.Module, name: str) -> tuple[list[Cut], int]:  # noqa: ANN401
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
        cuts, channels = _library_group(graph, probe, *site)
        seen.update([site, *((cut.module, cut.side) for cut in cuts)])
        parts.append((cuts, channels))
        for cut in cuts:
            if surgery.is_grouped(probe.get_submodule(cut.module)):
                pending += [(cut.module, side) for side in Side if (cut.module, side) not in seen]
    return _join(probe, parts)


def _join(probe: nn.Module, parts: list[tuple[list[Cut], int]]) -> tuple[list[Cut], int]:
    """One group out of several, with as many channels as its coarsest grouped convolution has groups."""
    cuts = [cut for part, _ in parts for cut in part]
    grouped = {cut.module: probe.get_submodule(cut.module) for cut in cuts}
    units = [surgery.convolution_groups(module) for module in grouped.values() if surgery.is_grouped(module)]
    channels = min([*units, *(count for _, count in parts)])
    if any(count % channels for count in (*units, *(count for _, count in parts))):
        raise _Refusal("its grouped convolutions have numbers of groups that do not divide each other")
    coarse = [replace(cut, repeat=cut.repeat * (count // channels)) for part, count in parts for cut in part]
    # The inputs of a grouped convolution follow from its outputs.
    kept = [cut for cut in coarse if not (cut.side is Side.IN and surgery.is_grouped(grouped[cut.module]))]
    return list(dict.fromkeys(kept)), channels


def _library_group(graph: Any, probe: nn.Module, name: str, side: Side) -> tuple[list[Cut], int]:  # noqa: ANN401
    """What the library ties to one dimension of a layer, as cuts of modules with parameters."""
    module = probe.get_submodule(name)
    pruner = graph.get_pruner_of_module(module)
    channels = surgery.width(module, side)
    prune = pruner.prune_out_channels if side is Side.OUT else pruner.prune_in_channels
    try:
        items = list(graph.get_pruning_group(module, prune, list(range(channels))))
    except TimeoutError:
        raise
    except Exception as error:
        raise _Refusal(f"the library fails on it ({type(error).__name__}: {_first_line(error)})") from error
    names = {module: key for key, module in probe.named_modules()}
    parameters = {id(parameter): key for key, parameter in probe.named_parameters()}
    cuts = []
    for item in items:
        target = item.dep.target.module
        if isinstance(target, nn.Parameter):
            raise _Refusal(f"they are tied to the bare parameter {parameters.get(id(target), '?')!r}")
        if target not in names or not any(True for _ in target.parameters()):
            continue
        if not surgery.can_cut(target):
            raise _Refusal(f"{names[target]!r} ({type(target).__name__}) mixes them and cannot be cut")
        out = graph.is_out_channel_pruning_fn(item.dep.handler)
        cut_side = Side.OUT if out or surgery.is_norm(target) else Side.IN
        cuts += _layout(names[target], cut_side, list(item.idxs), list(item.root_idxs), channels)
    return cuts, channels


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


def _after_norm(graph: Any, probe: nn.Module, producers: list[Cut], cuts: list[Cut]) -> tuple[Cut, ...]:  # noqa: ANN401
    """The group's normalisations that its producers reach first, and the producers that reach a reader without one."""
    names = {module: key for key, module in probe.named_modules()}
    norms: dict[str, list[Cut]] = {}
    for cut in cuts:
        if surgery.is_norm(probe.get_submodule(cut.module)):
            norms.setdefault(cut.module, []).append(cut)
    sites: dict[Cut, None] = {}
    for producer in producers:
        reached, bare = _first_norms(graph.module2node[probe.get_submodule(producer.module)], names, set(norms))
        for name in sorted(reached):
            sites.update(dict.fromkeys(norms[name]))
        if bare:
            sites[producer] = None
    return tuple(sites)


def _first_norms(node: Any, names: Mapping[nn.Module, str], norms: set[str]) -> tuple[set[str], bool]:  # noqa: ANN401
    """Follow a node's outputs up to the first normalisation or layer on each path."""
    reached: set[str] = set()
    bare = False
    pending, seen = list(node.outputs), set()
    while pending:
        following = pending.pop()
        if following in seen:
            continue
        seen.add(following)
        module = following.module
        name = names.get(module) if isinstance(module, nn.Module) else None
        if name in norms:
            reached.add(str(name))
        elif name is not None and surgery.is_layer(module):
            bare = True
        else:
            pending += following.outputs
    return reached, bare


# --- verification ---------------------------------------------------------------------------------------------------


def _verified(probe: nn.Module, example: Tensor, groups: list[Group]) -> tuple[list[Group], list[str]]:
    """The groups for which cutting equals zeroing, and why the others are left out."""
    notices: list[str] = []

    def hold(part: list[Group]) -> list[Group]:
        problem = _problem(probe, example, part)
        if problem is None:
            return part
        if len(part) == 1:
            notices.append(f"The output channels of {part[0].name!r} are left whole: {problem}.")
            return []
        half = len(part) // 2
        return hold(part[:half]) + hold(part[half:])

    good = hold(groups) if groups else []
    if len(good) < len(groups) and good and (problem := _problem(probe, example, good)):
        msg = f"groups that can be cut alone cannot be cut together, {good[0].name!r} to {good[-1].name!r}: {problem}"
        raise NetworkError(msg)
    return good, notices


def _problem(probe: nn.Module, example: Tensor, groups: list[Group]) -> str | None:
    """What goes wrong when half of every group's channels are cut; None if nothing does."""
    generator = torch.Generator().manual_seed(0)
    channels = {
        group.name: torch.randperm(group.channels, generator=generator)[: group.channels // 2].sort().values
        for group in groups
    }
    try:
        with torch.no_grad():
            smaller = surgery.cut(probe, groups, channels)(example)
            with surgery.zeroed(probe, groups, channels):
                expected = probe(example)
    except Exception as error:  # noqa: BLE001 (whatever a cut network raises is the finding)
        return f"the network fails without some of them ({_first_line(error)})"
    if smaller.shape != expected.shape:
        return f"the output's shape depends on them ({tuple(smaller.shape)} instead of {tuple(expected.shape)})"
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    difference = float((smaller - expected).abs().max())
    return None if difference <= limit else f"cutting them is not the same as zeroing them (off by {difference:.2g})"
