from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture(scope="session")
def scenes() -> np.ndarray:
    """40 smooth coloured images of 32x32, uint8, whose middle values leave room for change on both sides."""
    noise = np.random.default_rng(0).random((40, 3, 32, 32))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
    return np.rint(20 + 200 * (smooth - low) / (high - low)).astype(np.uint8)


@pytest.fixture
def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(40)]
