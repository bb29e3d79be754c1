from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from PIL import Image

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.metrics import reliability
from structured_ensembles.evaluation.pictures.curves import learning_curves, reliability_diagram

if TYPE_CHECKING:
    from pathlib import Path


def history(epochs: int, start: float = 2.0) -> list[dict[str, float]]:
    return [{"epoch": e, "held_out_loss": start / e, "held_out_accuracy": 1 - 0.5 / e} for e in range(1, epochs + 1)]


def curve(seed: int, bins: int = 15):
    generator = torch.Generator().manual_seed(seed)
    return reliability(torch.randn(50, 4, generator=generator).softmax(1), torch.zeros(50, dtype=torch.int64), bins)


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=1)
        return image.convert("RGB").tobytes()


def test_pictures_are_readable_files_and_nothing_else_is_left(tmp_path):
    learning_curves({"member 1": history(5), "member 2": history(1)}, tmp_path / "curves.png")
    reliability_diagram({"single": curve(0), "deep": curve(1, bins=30)}, str(tmp_path / "reliability.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "reliability.png"}
    assert len(set(pixels(tmp_path / "curves.png"))) > 10
    assert len(set(pixels(tmp_path / "reliability.png"))) > 10


def test_what_is_drawn_depends_on_the_numbers_and_only_on_them(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        reliability_diagram({"ensemble": curve(seed)}, tmp_path / name)
        learning_curves({"member": history(4, start=1.0 + seed)}, tmp_path / f"curves-{name}")
    for prefix in ("", "curves-"):
        first, other, again = (pixels(tmp_path / f"{prefix}{name}") for name in "abc")
        assert first == again
        assert first != other


def test_more_members_than_colours_are_drawn(tmp_path):
    learning_curves({f"member {i}": history(3, start=i) for i in range(1, 40)}, tmp_path / "many.png")
    assert pixels(tmp_path / "many.png")


def test_an_old_picture_is_replaced_whole_or_kept(tmp_path, monkeypatch):
    goal = tmp_path / "curves.png"
    goal.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            learning_curves({"member": history(2)}, goal)
    assert goal.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [goal]
    learning_curves({"member": history(2)}, goal)
    assert pixels(goal)


def test_threads_can_draw_at_once(tmp_path):
    reliability_diagram({"ensemble": curve(0)}, tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(reliability_diagram, {"ensemble": curve(0)}, tmp_path / str(i)) for i in range(6)]
        assert [job.result() for job in jobs] == [None] * 6
    assert {pixels(tmp_path / str(i)) for i in range(6)} == {pixels(tmp_path / "alone")}


def test_nothing_global_is_touched(tmp_path):
    settings, figures = dict(mpl.rcParams), dict(Gcf.figs)
    learning_curves({"member": history(2)}, tmp_path / "curves.png")
    reliability_diagram({"ensemble": curve(0)}, tmp_path / "reliability.png")
    assert dict(mpl.rcParams) == settings
    assert dict(Gcf.figs) == figures


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(DataError, match="no epoch to draw for any member"):
        learning_curves({}, tmp_path / "x.png")
    with pytest.raises(DataError, match="no epoch to draw for second"):
        learning_curves({"first": history(1), "second": []}, tmp_path / "x.png")
    with pytest.raises(DataError, match="no reliability to draw"):
        reliability_diagram({}, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
