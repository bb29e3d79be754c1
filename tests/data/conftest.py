"""Small datasets for tests."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset, TensorDataset


def tensors(count=10, classes=3):
    return TensorDataset(torch.arange(count, dtype=torch.float32).unsqueeze(1), torch.arange(count) % classes)


class Plain(Dataset):
    """A map-style dataset that knows nothing but its items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index >= len(self.items):
            raise IndexError(index)
        return self.items[index]
