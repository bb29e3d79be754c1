"""Peak memory of ranking with 10 and with 100 batches, each in a process of its own: it must not grow.

    python benchmarks/ranking_memory.py

The network is wide, so that the importances of 100 batches, if they were kept, would take 26 MB. The median does keep
those of up to 256 batches, and no more.
"""

from __future__ import annotations

import resource
import subprocess
import sys

from structured_ensembles.networks.architectures.perceptron import mlp

BATCHES = (10, 100)
REDUCES = ("mean", "max", "median")
SHAPE, WIDTH, IMAGES, MEMBERS = (1, 8, 8), 4096, 8, 8


def rank_batches(count: int, reduce: str) -> float:
    """Rank so many batches; the peak of this process in MB."""
    import torch
    from torch.utils.data import TensorDataset

    from structured_ensembles.channels import topology
    from structured_ensembles.data.batches import loader
    from structured_ensembles.options.choices import Placement, Reduce
    from structured_ensembles.progress import quiet
    from structured_ensembles.scores.ranking import rank

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = mlp(SHAPE, 10, width=WIDTH)
    found = topology.find(network, torch.randn(2, *SHAPE))
    scores = {name: torch.randn(MEMBERS, width) for name, width in found.widths.items()}
    # One batch of images, indexed again and again: the data take the same memory whatever the count.
    dataset = torch.utils.data.Subset(
        TensorDataset(torch.randn(IMAGES, *SHAPE), torch.randint(10, (IMAGES,))), list(range(IMAGES)) * count
    )
    with quiet():
        rank(network, found, loader(dataset, IMAGES, seed=0), scores, Placement.AFTER_NORM, Reduce(reduce))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def main() -> None:
    """Print one row for each way to reduce."""
    if len(sys.argv) == 3:
        print(rank_batches(int(sys.argv[1]), sys.argv[2]))
        return
    print(f"{'reduce':<8}" + "".join(f"{f'{count} batches':>14}" for count in BATCHES))
    for reduce in REDUCES:
        command = [sys.executable, __file__]
        peaks = [subprocess.check_output([*command, str(count), reduce], text=True) for count in BATCHES]  # noqa: S603
        print(f"{reduce:<8}" + "".join(f"{float(peak):>11.0f} MB" for peak in peaks), flush=True)


if __name__ == "__main__":
    main()
