"""What the tests of every method share: an easy problem, a quick fit, and networks of a user's own."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import TensorDataset

from structured_ensembles import Ensemble, NetworkSpec, methods, settings
from structured_ensembles.options.catalogue import METHODS

SPEC = NetworkSpec("small_cnn", (1, 8, 8), 3)
FAST = replace(settings(), search=replace(settings().search, epochs=1), training=replace(settings().training, epochs=2))
NEEDS_LIBRARY = ("packed", "masksembles")
SHARED = ("mc_dropout", "batch_ensemble", "packed", "masksembles", "mimo")
LIBRARY = importlib.util.find_spec("torch_uncertainty") is not None
NAMES = [name for name in METHODS if LIBRARY or name not in NEEDS_LIBRARY]


def images(examples: int = 60, classes: int = 3, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % classes
    pixels = torch.rand(examples, 1, 8, 8, generator=generator) / 2
    pixels[torch.arange(examples), 0, labels * 2] += 0.5  # a bright row per class
    return TensorDataset(pixels, labels)


def make(name: str, base: object = SPEC) -> Ensemble:
    return methods.make(name, base, 2, FAST)


class MyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 32)
        self.out = nn.Linear(32, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(inputs.flatten(1)).relu())
