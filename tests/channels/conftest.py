from __future__ import annotations

import pytest
import torch


@pytest.fixture
def seeded():
    """Networks of layers that draw their own weights are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
