"""Networks and examples that are refused, each with a reason that says what to do."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from structured_ensembles.channels import topology
from structured_ensembles.errors import NetworkError
from structured_ensembles.options.choices import Scope

from .hand_made import FEATURES, Network

pytestmark = pytest.mark.usefixtures("seeded")


def sequence(first):
    return nn.Sequential(first, nn.ReLU(), nn.Linear(6, 3))


def tied():
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    network[2].weight = network[0].weight
    return network


def registered_twice():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(8, 3))


def with_cached_result():
    network = sequence(nn.Linear(8, 6))
    network.cache = [network[0].weight * 2]
    return network


def head(function):
    return Network(lambda layers, x: function(layers[0](x)), nn.Linear(8, 3))


REPARAMETRISED = "layer '0' has a reparametrised weight .*: remove it first"
REFUSED = {
    "used twice": (
        lambda: Network(lambda layers, x: layers[1](layers[0](layers[0](x))), nn.Linear(8, 8), nn.Linear(8, 3)),
        "module 'layers.0' is used 2 times in one pass: give each use a module of its own",
    ),
    "registered twice": (registered_twice, "parameters '0.weight' and '2.weight' are one tensor"),
    "tied parameters": (tied, "parameters '0.weight' and '2.weight' are one tensor"),
    "old weight norm": (lambda: sequence(weight_norm(nn.Linear(8, 6))), REPARAMETRISED),
    "weight norm": (lambda: sequence(parametrizations.weight_norm(nn.Linear(8, 6))), REPARAMETRISED),
    "old spectral norm": (lambda: sequence(spectral_norm(nn.Linear(8, 6))), REPARAMETRISED),
    "spectral norm": (lambda: sequence(parametrizations.spectral_norm(nn.Linear(8, 6))), REPARAMETRISED),
    "lazy": (lambda: sequence(nn.LazyLinear(6)), "layer '0' is lazy and has no weights yet: say how many inputs"),
    "failing": (
        lambda: sequence(nn.Linear(7, 6)),
        r"the network fails on an example input of shape \(2, 8\): .*\(2x8 and 7x6\)",
    ),
    "tuple": (lambda: head(lambda out: (out, out)), r"logits of shape \(B, K\) = \(2, K\), but is tuple"),
    "four dimensions": (lambda: head(lambda out: out[:, :, None, None]), r"= \(2, K\), but is \(2, 3, 1, 1\)"),
    "wrong batch": (lambda: head(lambda out: out.repeat(2, 1)), r"= \(2, K\), but is \(4, 3\)"),
    "classes": (lambda: head(lambda out: out.argmax(1, keepdim=True)), r"but is \(2, 1\) of torch.int64"),
    "dropout": (lambda: head(functional.dropout), "output changes from one pass to the next in evaluation mode"),
    "cached result": (
        with_cached_result,
        "the network cannot be copied .*: a copy must be possible with copy.deepcopy",
    ),
    "one layer": (
        lambda: nn.Linear(8, 3),
        r"nothing in this network can be scaled \(scope coupled\). It has no convolution or Linear layer",
    ),
    "one channel": (lambda: nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 3)), "nothing in this network can be scaled"),
    "only mixed": (
        lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
        r"can be scaled \(scope coupled\). The output channels of '0' are left whole: '1' \(LayerNorm\) mixes them",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_cut_are_refused_with_a_reason(name):
    build, message = REFUSED[name]
    with pytest.raises(NetworkError, match=message):
        topology.find(build(), FEATURES)


@pytest.mark.parametrize("shape", [(), (0, 8)])
def test_an_example_without_inputs_is_refused(shape):
    with pytest.raises(NetworkError, match="the example must hold at least one input"):
        topology.find(sequence(nn.Linear(8, 6)), torch.zeros(shape))


def test_a_network_without_private_channels_is_refused_in_scope_private_only():
    """All channels are in a concatenation."""
    layers = [nn.Linear(8, 5), nn.Linear(8, 4), nn.Linear(9, 3)]
    network = Network(lambda layers, x: layers[2](torch.cat([layers[0](x), layers[1](x)], dim=1)), *layers)
    assert topology.find(network, FEATURES).widths == {"layers.0": 5, "layers.1": 4}
    with pytest.raises(NetworkError, match=r"nothing in this network can be scaled \(scope private\)"):
        topology.find(network, FEATURES, scope=Scope.PRIVATE)


def test_a_graph_that_cannot_be_built_names_the_layer_and_the_reason():
    models = pytest.importorskip("torchvision.models")
    message = r"graph of ShuffleNetV2 cannot be built: it fails near layer 'stage4\.\S+' \(ZeroDivisionError"
    with pytest.raises(NetworkError, match=message):
        topology.find(models.shufflenet_v2_x1_0(weights=None), torch.randn(1, 3, 64, 64))


def test_a_graph_that_is_not_ready_in_time_is_refused_at_once():
    with pytest.raises(NetworkError, match=r"graph of Sequential was not ready within 0 s .*: allow more time"):
        topology.find(sequence(nn.Linear(8, 6)), FEATURES, seconds=0.0)
    assert sys.getprofile() is None


@pytest.mark.parametrize("late", ["forward", "0", "2"])
def test_a_graph_that_is_not_ready_in_time_names_the_layer(monkeypatch, late):
    """A clock that jumps while the library runs the network, or while it looks at a layer."""
    now = [0.0]
    monkeypatch.setattr(topology, "time", SimpleNamespace(monotonic=lambda: now[0]))
    items = topology._library_items

    def slow(graph, name, *rest):
        now[0] += 99 * (name == late)
        return items(graph, name, *rest)

    def forward(layers, features):
        now[0] += 99 * (late == "forward" and torch.is_grad_enabled())
        return layers[0](features)

    monkeypatch.setattr(topology, "_library_items", slow)
    inner = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    where = "before the first layer" if late == "forward" else rf"at layer 'layers\.0\.{late}'"
    if late != "forward":
        late = f"layers.0.{late}"
    with pytest.raises(NetworkError, match=rf"not ready within 60 s \(it was {where}\)"):
        topology.find(Network(forward, inner), FEATURES)


def test_a_profiler_that_runs_goes_on():
    events = []
    sys.setprofile(lambda *event: events.append(event))
    try:
        topology.find(sequence(nn.Linear(8, 6)), FEATURES)
        before = len(events)
        len("any call")
        assert len(events) > before > 0
    finally:
        sys.setprofile(None)
