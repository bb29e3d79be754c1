"""Every method at equal bytes on three data sets: docs/results.md is what this writes.

    python benchmarks/results.py --mnist mnist.npz --cifar cifar10_subset     # hours on two cores; goes on if stopped

Digits are embedded. MNIST and CIFAR are cut down, so that many seeds are affordable: 2,000 and 4,000 training images,
drawn once, the same share of each class. Of the training images that are left, 3,000 of CIFAR's join its test images.
Others are put aside as validation sets (``*-validation.npz``), on which ideas may be tried without a look at the test
images. Without a source its study is left out, and what an earlier call has measured is kept: runs lie beside the page
(``docs/results/*.json``, one entry each), and a section of which no run is known stays as it is.
"""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split

import blocks
import keeping
import streams
from structured_ensembles.data import sources
from structured_ensembles.experiments.comparison.grid import cells, work
from structured_ensembles.experiments.comparison.pictures import cost_front
from structured_ensembles.experiments.comparison.records import Result, from_json, to_json
from structured_ensembles.experiments.comparison.tables import markdown
from structured_ensembles.options.choices import Augmentation, Family
from structured_ensembles.options.plans import ARMS, Grid, Plan
from structured_ensembles.options.presets import settings

INTRODUCTION = """# Results

Written by `python benchmarks/results.py --mnist mnist.npz --cifar cifar10_subset`, which says how the data sets are
made; the same call goes on with what is missing. All methods of a seed see the same images, held-out split, 30 epochs,
optimiser and schedule (one-cycle SGD) and initialisation scheme; bytes are those of the file on disk. Test images chose
nothing. What is missing here, methods, budgets and data sets, has not been run yet. A seed brings its row back on the
same kind of processor; on another one it is another draw ([lab notes](lab.md), 13). Where a section says on which
machine, its runs are kept beside this page with that; the others were measured before machines were recorded.

Measured with torch {torch} and Python {python} on a CPU, one thread a run, two or three runs at once: times compare
with each other only, on one machine; bytes and FLOPs always do."""

KNOWN = """Every block of `structens evaluate --all` ([how](evaluation.md)); attacks and corruptions on up to 1,000 test
images. A temperature is one number a method, fitted on held-out training images. AUROC and FPR95 by entropy; an AUROC
of 0 is no slip: noise brighter than any training image can make a network surer than they do."""

EVALUATED = "### What they know: "
"""Before a study's title."""

CLAIM = ("single", "structured", "published", "random", "narrow", "narrow_sliced")
"""The arms that the claim rests on: these run first, and on more seeds where a seed costs an hour."""
BASELINES = ("single", "narrow", "narrow_sliced", "random", "shuffled", "published", "deep")
"""What every arm is compared with, seed by seed."""


@dataclass(frozen=True)
class Study:
    """One section of the page.

    Attributes:
        name: Of its folder and pictures.
        title: Its heading.
        text: What it is, in a paragraph.
        data: Name of the file in the work folder; ``digits`` for the embedded ones.
        architecture: Of `networks`.
        budgets: Of the grid.
        stages: Methods and how many seeds, in the order in which they are run.
        augmentation: Of the training images.
        evaluated: How many seeds are measured in every block of `structens evaluate --all`.
    """

    name: str
    title: str
    text: str
    data: str
    architecture: str
    budgets: tuple[str, ...]
    stages: tuple[tuple[tuple[str, ...], int], ...]
    augmentation: Augmentation = Augmentation.NONE
    evaluated: int = 0

    def grid(self, folder: Path, stage: int) -> Grid:
        """What a stage runs."""
        methods, seeds = self.stages[stage]
        source = self.data if self.data == "digits" else str(folder / self.data)
        chosen = settings(family=Family.of(self.architecture))
        training = replace(chosen.training, augmentation=self.augmentation)
        plan = Plan(source, architecture=self.architecture, settings=replace(chosen, training=training))
        return Grid(plan, methods, (4,), self.budgets, tuple(range(seeds)))


STUDIES = (
    Study(
        "digits",
        "Digits: 1,347 images, small_cnn",
        "scikit-learn's digits, 8x8 pixels, 450 test images: one error is 0.22 points.",
        "digits",
        "small_cnn",
        ("1x",),
        ((ARMS, 5),),
        evaluated=3,
    ),
    Study(
        "mnist",
        "MNIST with 2,000 training images, small_cnn",
        "28x28 pixels, the 10,000 official test images.",
        "mnist.npz",
        "small_cnn",
        ("1x", "2x"),
        ((ARMS, 5),),
        evaluated=1,
    ),
    Study(
        "cifar",
        "CIFAR-10 with 4,000 training images, small_vgg",
        "32x32 pixels, cropped and flipped in training, 5,000 test images.",
        "cifar.npz",
        "small_vgg",
        ("1x",),
        ((CLAIM, 5), (ARMS, 3)),
        Augmentation.CROP_FLIP,
    ),
    Study(
        "cifar-resnet20",
        "The same images, resnet20",
        "One seed: an impression, not a result.",
        "cifar.npz",
        "resnet20",
        ("1x",),
        ((("single", "structured", "random", "narrow", "deep"), 1),),
        Augmentation.CROP_FLIP,
    ),
)


def prepare(source: str, goal: Path, training: int, validation: int, moved: int) -> None:
    """Write a smaller data set and its validation twin.

    Args:
        source: What `sources.load` reads.
        goal: The file; its twin has ``-validation`` in its name.
        training: Images to learn from.
        validation: Other training images, put aside.
        moved: Other training images that join the test images.
    """
    images = sources.load(source)
    x, y = images.train.images.numpy(), images.train.labels.numpy()
    learned, rest = train_test_split(np.arange(len(y)), train_size=training, stratify=y, random_state=0)
    aside, rest = train_test_split(rest, train_size=validation, stratify=y[rest], random_state=0)
    joined = rest[:moved]
    test_x = np.concatenate([images.test.images.numpy(), x[joined]])
    test_y = np.concatenate([images.test.labels.numpy(), y[joined]])
    goal.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(goal, x_train=x[learned], y_train=y[learned], x_test=test_x, y_test=test_y)
    twin = goal.with_stem(f"{goal.stem}-validation")
    np.savez_compressed(twin, x_train=x[learned], y_train=y[learned], x_test=x[aside], y_test=y[aside])


def measure(study: Study, folder: Path, jobs: int) -> None:
    """Run what a study has not run yet."""
    for stage in range(len(study.stages)):
        grid = study.grid(folder, stage)
        work(grid).carry_out(sources.load(grid.plan.data), folder / study.name, jobs)


def evaluate(study: Study, folder: Path) -> None:
    """Measure what has not been measured yet of what `structens evaluate --all` measures."""
    plan = study.grid(folder, 0).plan
    shape = sources.load(plan.data).input_shape
    strange = [folder / "cifar.npz"] if (folder / "cifar.npz").exists() and study.name == "mnist" else []
    outside = [sources.load_unlabelled(str(path), shape, limit=2000) for path in strange]
    for seed in range(study.evaluated):
        blocks.measure(replace(plan, seed=seed), folder / "evaluated" / f"{study.name}-{seed}", outside)


def page(folder: Path, docs: Path) -> str:
    """The page: what the runs say, and the section that stands where no run is known."""
    standing = keeping.sections(docs / "results.md")
    parts = [INTRODUCTION.format(torch=torch.__version__, python=platform.python_version())]
    for study in STUDIES:
        parts.append(section(study, folder, docs) or standing.get(f"## {study.title}", ""))
        parts.append(evaluated(study, folder) or standing.get(f"{EVALUATED}{study.title}", ""))
    parts += [streams.section(one, folder, docs) or standing.get(f"## {one.title}", "") for one in streams.STREAMS]
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def section(study: Study, folder: Path, docs: Path) -> str:
    """A study's part of the page, its picture drawn beside it; empty if no run is known."""
    found = runs(study, folder, docs)
    if not found:
        return ""
    cost_front(found, docs / "results" / f"{study.name}.png")
    picture = f"![Accuracy, NLL and ECE against bytes](results/{study.name}.png)"
    every = f"[Every run](results/{study.name}.json), with its seed."
    known = {result.cell.method for result in found}
    table = markdown(found, [name for name in BASELINES if name in known])
    return f"## {study.title}\n\n{study.text} {every}\n\n{picture}\n\n{table}"


def runs(study: Study, folder: Path, docs: Path) -> list[Result]:
    """All that is known of a study."""
    grids = [study.grid(Path(), stage) for stage in reversed(range(len(study.stages)))]  # all arms first: rows' order
    every = list(dict.fromkeys(cell for grid in grids for cell in cells(grid)))
    found = [run for grid in grids for run in work(grid).results(folder / study.name)]
    return keeping.merged(docs / "results" / f"{study.name}.json", grids[0].plan, every, found, from_json, to_json)


def evaluated(study: Study, folder: Path) -> str:
    """What `structens evaluate --all` measures, on the seeds for which it was run; empty if there is none."""
    known = blocks.section([folder / "evaluated" / f"{study.name}-{seed}" for seed in range(study.evaluated)])
    return f"{EVALUATED}{study.title}\n\n{KNOWN}\n\n{known}" if known else ""


def main() -> None:
    """Prepare, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="mnist.npz, or whatever else `structens fit --data` reads")
    parser.add_argument("--cifar", help="a folder split/class/*.png with 10,000 training images or more")
    parser.add_argument("--work", type=Path, default=Path("runs/results"), help="where runs are kept [runs/results]")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where results.md goes [docs]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once [one a core]")
    parser.add_argument("--only", nargs="*", help="names of studies; none writes the page only")
    options = parser.parse_args()
    if options.mnist and not (options.work / "mnist.npz").exists():
        prepare(options.mnist, options.work / "mnist.npz", training=2000, validation=10_000, moved=0)
    if options.cifar and not (options.work / "cifar.npz").exists():
        prepare(options.cifar, options.work / "cifar.npz", training=4000, validation=3000, moved=3000)
    for study in STUDIES:
        present = study.data == "digits" or (options.work / study.data).exists()
        if present and (options.only is None or study.name in options.only):
            measure(study, options.work, options.jobs)
            evaluate(study, options.work)
    for stream in streams.STREAMS:
        source = {"mnist": options.mnist, "cifar": options.cifar}[stream.source]
        if source and (options.only is None or stream.name in options.only):
            streams.measure(stream, source, options.work, options.jobs)
    (options.docs / "results.md").write_text(page(options.work, options.docs), encoding="utf-8")


if __name__ == "__main__":
    main()
