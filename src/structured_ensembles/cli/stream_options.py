"""The options of `structens continual`, which are also the keys of its configuration file.

What `structens fit` has as well is taken from there, with the defaults of a stream.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from structured_ensembles.cli.kinds import OneOf, Seeds, Several
from structured_ensembles.cli.options import IMAGE_SIZE, NUMBER, OPTIONS, SECTIONS, TEXT, WHOLE, Option, Section

STREAM_AXES = (
    Option(
        "strategies",
        Several(TEXT),
        "Which, or all: structured, single_task, joint, naive, ewc, replay, packnet, supsup, piggyback, wsn, hat, "
        "batch_ensemble.",
        default="all",
    ),
    Option("seeds", Seeds(), "How many seeds, or which: 5, 5-9 or 3,7.", default="1"),
)
"""Of a comparison: each stands for several runs."""


def _like(name: str, default: str = "", published: str = "", **changes: Any) -> Option:  # noqa: ANN401 (fields)
    """An option of `fit` with other defaults."""
    option = OPTIONS[name]
    return replace(option, default=default or option.default, published=published, **changes)


_TRAINING = {
    "epochs": _like("epochs", "20", "30", help="Of each task, at most."),
    "steps": _like("steps", "2000", "none"),
    "batch_size": _like("batch_size", "64", "128"),
    "optimiser": _like("optimiser", "adam"),
    "learning_rate": _like("learning_rate", "0.002", "0.001", help="The highest of the schedule."),
    "momentum": _like("momentum"),
    "nesterov": _like("nesterov", "no"),
    "weight_decay": _like("weight_decay", "0"),
    "schedule": _like("schedule", "one_cycle", "constant"),
    "patience": _like("patience", help="Stop a task after so many epochs without progress."),
    "held_out": _like("held_out", help="The share of each class's training images that chooses the best epoch."),
}

STREAM_SECTIONS = (
    Section(
        "Stream",
        (
            replace(OPTIONS["data"], help=OPTIONS["data"].help.replace("learn from", "make tasks of")),
            Option(
                "stream",
                OneOf("split", "permuted", "rotated"),
                "What tells the tasks apart: their classes, the order of the pixels, or how far images are turned.",
                default="split",
            ),
            Option("tasks", WHOLE, "How many tasks there are.", default="5"),
            Option("sources", Several(TEXT), "Instead of --data: two or more sources, which are a task each."),
            IMAGE_SIZE,
        ),
    ),
    Section("Comparison", STREAM_AXES),
    Section(
        "Network",
        (
            replace(OPTIONS["architecture"], help=OPTIONS["architecture"].help.replace("start from", "share")),
            OPTIONS["network_argument"],
            Option(
                "head",
                OneOf("linear", "published"),
                "What each task has of its own: one linear layer, or three with dropout on all features.",
                "head",
                default="linear",
                published="published",
            ),
        ),
    ),
    Section(
        "Structured: which channels a task takes",
        (
            OPTIONS["preset"],
            Option(
                "capacity",
                OneOf("geometric", "equal", "fixed", "auto"),
                "How many free channels: a share (geometric), as many for each task (equal), a number (fixed), or as "
                "few as cost little accuracy (auto). --keep, --channels and --delta, each for itself, mean theirs.",
                "capacity",
                default="equal",
                published="geometric",
            ),
            Option("keep", NUMBER, "Of geometric: the share of the free channels, in (0, 1].", "keep", default="0.5"),
            Option("channels", WHOLE, "Of fixed: how many channels of each layer.", "channels", default="8"),
            Option("delta", NUMBER, "Of auto: the held-out accuracy that may be lost.", "delta", default="0.01"),
            Option(
                "rule",
                OneOf("local", "global"),
                "Whether the share is of each layer or of all together.",
                "rule",
                default="local",
            ),
            Option(
                "threshold_over",
                OneOf("free", "all"),
                "Which channels the share is of: the free ones, or all, of which only free ones can be taken.",
                "threshold_over",
                default="free",
            ),
            Option(
                "cross_block",
                OneOf("zero", "frozen", "trainable"),
                "The weights by which an older task's channels read a newer task's.",
                "cross_block",
                default="zero",
                published="frozen",
            ),
            Option(
                "norms",
                OneOf("owner", "task"),
                "Whose normalisation layers are: of the task that owns the channel, or of every task.",
                "norms",
                default="owner",
            ),
            Option(
                "exhausted",
                OneOf("reuse", "error", "expand"),
                "When no channel is free: learn a head on the older tasks' channels, fail, or widen the network.",
                "exhausted",
                default="reuse",
            ),
        ),
    ),
    Section(
        "Structured: how they are found",
        (
            _like("placement", "after_norm", "before_norm"),
            _like("parametrisation"),
            _like("samples"),
            _like("search_epochs"),
            _like("search_steps", "200", "none"),
            _like("search_batch_size", "128", "64", help="Images per step of the search."),
            _like("search_learning_rate", "0.01", "0.001"),
            _like("reduce"),
            _like("rank_batches", "100", "none"),
            _like("graph_seconds"),
        ),
    ),
    Section(
        "Training of each task, the same for all strategies",
        tuple(_TRAINING.get(option.name, option) for option in SECTIONS[-1].options if option.name != "log"),
    ),
)
"""All options by section, in the order of the help."""

STREAM_OPTIONS = {option.name: option for section in STREAM_SECTIONS for option in section.options}
"""All options of `continual` by name."""
