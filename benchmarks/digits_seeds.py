"""Single network, structured ensemble and deep ensemble on digits over several seeds: README's table.

    python benchmarks/digits_seeds.py            # 5 seeds, some minutes on two cores

Every method of a seed sees the same split, first draw, epochs and schedule. Measured on the test images, which choose
nothing. Mean and sample standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

import torch

from structured_ensembles import NetworkSpec, data
from structured_ensembles.evaluation import Metrics, measure
from structured_ensembles.methods import METHODS, SingleNetwork
from structured_ensembles.progress import quiet


def outcome(name: str, spec: NetworkSpec, images: data.ImageData, members: int, seed: int) -> tuple[Metrics, int]:
    """What one method reaches with one seed, and the bytes of its file."""
    ensemble = SingleNetwork(spec) if name == SingleNetwork.method else METHODS[name](spec, members)
    with quiet():
        ensemble.fit(data.as_dataset(images.train), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.safetensors"
        ensemble.save(path)
        size = path.stat().st_size
    prediction = ensemble.predict(data.as_float(images.test.images))
    return measure(prediction.probabilities, images.test.labels), size


def line(name: str, outcomes: list[tuple[Metrics, int]]) -> str:
    """A row of the table."""
    columns = [[getattr(metrics, key) for metrics, _ in outcomes] for key in ("accuracy", "nll", "brier", "ece")]
    cells = [f"{100 * mean(columns[0]):.2f} ± {100 * stdev(columns[0]):.2f}"]
    cells += [f"{mean(values):.4f} ± {stdev(values):.4f}" for values in columns[1:]]
    return f"| {name} | {' | '.join(cells)} | {max(size for _, size in outcomes):,} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=4)
    options = parser.parse_args()
    images = data.load("digits")
    spec = NetworkSpec("small_cnn", images.input_shape, len(images.classes), {}, *data.mean_and_std(images.train))
    print(f"digits, small_cnn, {options.members} members, {options.seeds} seeds, torch {torch.__version__}")
    print("| method | accuracy % | NLL | Brier | ECE | bytes on disk |\n| --- | --- | --- | --- | --- | --- |")
    for name in METHODS:
        outcomes = [outcome(name, spec, images, options.members, seed) for seed in range(options.seeds)]
        print(line(name, outcomes), flush=True)


if __name__ == "__main__":
    main()
