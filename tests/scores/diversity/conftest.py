from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

FLOATS = st.floats(-4, 4, allow_nan=False, width=32)


@st.composite
def _scores(draw, elements=FLOATS, least=2):
    """Two to four members on one to three groups of one to seven channels, some of equal width."""
    members = draw(st.integers(least, 4))
    widths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    values = draw(st.lists(elements, min_size=members * sum(widths), max_size=members * sum(widths)))
    parts = torch.tensor(values, dtype=torch.float64).reshape(members, -1).split(widths, dim=1)
    return {f"layer{index}": part for index, part in enumerate(parts)}


@pytest.fixture(scope="session")
def any_scores():
    """A strategy of scores by group, float64, with ties and zeros among them."""
    return _scores()


@pytest.fixture(scope="session")
def random_scores():
    """A function from widths, members and a seed to N(0, 1) scores by group, float64 leaves."""

    def draw(*widths: int, members: int = 3, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        return {
            f"layer{index}": torch.randn(members, width, generator=generator, dtype=torch.float64).requires_grad_()
            for index, width in enumerate(widths)
        }

    return draw
