"""The handwritten digits that come with scikit-learn: real data without a download."""

from __future__ import annotations

import torch

from structured_ensembles.data.sources.records import ImageData, Split, divide

_INK = 16.0
_TEST_SHARE = 0.25
_SEED = 0


def load_digits(_: object = None) -> ImageData:
    """1,797 grey images of 8x8 pixels, a fixed quarter of each class for testing (Alpaydin and Kaynak, 1998)."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images / _INK).float().unsqueeze(1)
    everything = Split(images, torch.from_numpy(digits.target).long())
    train, test = divide(everything, _TEST_SHARE, _SEED)
    return ImageData("digits", train, test, tuple(str(label) for label in range(10)))
