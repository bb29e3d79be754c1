"""Ranking with one backward pass per batch, against a backward pass for each layer (as in the published code).

    python benchmarks/ranking_speed.py

Both are timed in turn on the same batches, and must find the same importances.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from structured_ensembles import networks
from structured_ensembles.channels import topology
from structured_ensembles.data.batches import loader
from structured_ensembles.options.choices import Placement
from structured_ensembles.progress import quiet
from structured_ensembles.scores.ranking import rank
from structured_ensembles.scores.scaling import frozen, scaled
from structured_ensembles.scores.search import forward_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from structured_ensembles.types import Importance, Scores, Topology

SHAPE, MEMBERS, BATCH, BATCHES, ROUNDS = (3, 32, 32), 3, 16, 2, 3


def per_layer(network: torch.nn.Module, found: Topology, data: TensorDataset, scores: Scores) -> Importance:
    """The same importances, each layer's by a walk of its own through the graph."""
    leaves = {name: value.clone().requires_grad_() for name, value in scores.items()}
    total = {name: torch.zeros_like(value) for name, value in scores.items()}
    with frozen(network), scaled(network, found, Placement.AFTER_NORM) as scaler:
        for inputs, labels in loader(data, BATCH, seed=0):
            loss = cross_entropy(forward_members(network, scaler, leaves, inputs).mean(dim=0), labels)
            for name, leaf in leaves.items():
                total[name] += torch.autograd.grad(loss, leaf, retain_graph=True)[0].abs() / BATCHES
    return total


def timed(work: Callable[[], Importance]) -> tuple[float, Importance]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the median of some rounds for each."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = TensorDataset(torch.randn(BATCH * BATCHES, *SHAPE), torch.randint(10, (BATCH * BATCHES,)))
    print(f"{'network':<10}{'layers':>8}{'one backward':>15}{'one per layer':>15}{'times':>8}")
    for name in ("small_cnn", "resnet20", "vgg11"):
        network = networks.build(networks.NetworkSpec(name, SHAPE, 10))
        found = topology.find(network, data[:2][0])
        scores = {group: torch.randn(MEMBERS, width) for group, width in found.widths.items()}
        ours, theirs = [], []
        for _ in range(ROUNDS):
            with quiet():
                batches = loader(data, BATCH, seed=0)
                seconds, fast = timed(lambda: rank(network, found, batches, scores, Placement.AFTER_NORM))  # noqa: B023
            ours.append(seconds)
            seconds, slow = timed(lambda: per_layer(network, found, data, scores))  # noqa: B023
            theirs.append(seconds)
            torch.testing.assert_close(fast, slow)
        one, many = statistics.median(ours), statistics.median(theirs)
        print(f"{name:<10}{len(scores):>8}{one:>13.2f} s{many:>13.2f} s{many / one:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
