from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.blocks.structure import Layer, Structure
from structured_ensembles.evaluation.pictures.structure import widths_picture

if TYPE_CHECKING:
    from pathlib import Path


def widths(layers: int, members: int, shift: int = 0) -> Structure:
    rows = tuple(tuple(1.0 for _ in range(members)) for _ in range(members))
    kept = [tuple(2 + (place + member + shift) % 7 for member in range(members)) for place in range(layers)]
    return Structure(rows, tuple(Layer(f"stage.{i}.conv", 12, kept[i], rows) for i in range(layers)))


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB").tobytes()


def test_what_is_drawn_depends_on_the_widths_and_only_on_them(tmp_path):
    for name, shift in (("a", 0), ("b", 1), ("c", 0)):
        widths_picture(widths(5, 3, shift), str(tmp_path / name))
    first, other, again = (pixels(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}


@pytest.mark.parametrize(("layers", "members"), [(1, 1), (120, 4), (3, 20)])
def test_any_number_of_layers_and_members(tmp_path, layers, members):
    widths_picture(widths(layers, members), tmp_path / "widths.png")
    with Image.open(tmp_path / "widths.png") as image:
        assert image.width <= 16 * 150


def test_members_that_were_not_cut_have_no_picture(tmp_path):
    for structure in (Structure(((1.0,),), None), Structure(((1.0,),), ())):
        with pytest.raises(DataError, match="not cut out of a wider network"):
            widths_picture(structure, tmp_path / "widths.png")
    assert list(tmp_path.iterdir()) == []
