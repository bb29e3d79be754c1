"""What an evaluation costs beside one pass over the test images: the answers are computed once, for all measurements.

    python benchmarks/evaluation.py                   # an untrained 4-member ResNet-20 on 10,000 random images
    python benchmarks/evaluation.py --artefact runs/mnist/structured.safetensors --data mnist.npz

Attacks and corruptions need passes of their own and are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from structured_ensembles import Ensemble
from structured_ensembles.data import sources
from structured_ensembles.data.sources import ImageData, Split
from structured_ensembles.evaluation.answers import ask
from structured_ensembles.evaluation.assessment import assess
from structured_ensembles.evaluation.subject import Extent
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.options.catalogue import METHODS
from structured_ensembles.options.presets import settings
from structured_ensembles.progress import quiet


def random_images(count: int, seed: int) -> Split:
    """Noise of MNIST's shape, with labels that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    return Split(torch.rand(count, 1, 28, 28, generator=generator), torch.arange(count) % 10)


def untrained(folder: Path) -> tuple[Path, ImageData]:
    """An ensemble as its first epoch on a few images leaves it: what it costs does not depend on what it learned."""
    images = ImageData("noise", random_images(200, 0), random_images(10_000, 1), tuple("0123456789"))
    base = NetworkSpec("resnet20", (1, 28, 28), 10)
    brief = replace(settings(), training=replace(settings().training, epochs=1))
    ensemble = METHODS["narrow"](base, 4, settings=brief)
    ensemble.fit(images.train, classes=images.classes)
    ensemble.save(folder / "narrow.safetensors")
    return folder / "narrow.safetensors", images


def main() -> None:
    """Time one pass, then the evaluation, and say how many passes it is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artefact", type=Path)
    parser.add_argument("--data")
    options = parser.parse_args()
    if (options.artefact is None) != (options.data is None):
        parser.error("--artefact and --data go together")
    with tempfile.TemporaryDirectory() as folder, quiet():
        if options.artefact:
            path, images = options.artefact, sources.load(options.data)
        else:
            path, images = untrained(Path(folder))
        ensemble = Ensemble.load(path)
        start = time.perf_counter()
        ask(ensemble, images.test.images)
        one = time.perf_counter() - start
        start = time.perf_counter()
        assess(ensemble, path, images, [], Extent(skipped=("adversarial", "corruptions")), "ensemble")
        whole = time.perf_counter() - start
    print(f"{len(images.test):,} images: one pass {one:.1f} s, evaluation {whole:.1f} s = {whole / one:.2f} passes")


if __name__ == "__main__":
    main()
