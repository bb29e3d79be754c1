"""Networks of layers and any function of them."""

from __future__ import annotations

import torch
from torch import nn

IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
FEATURES = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Layers, and any function of them and the input."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = forward

    def forward(self, inputs):
        return self.function(self.layers, inputs)


def groups_of(found):
    return {group.name: group for group in found.groups}
