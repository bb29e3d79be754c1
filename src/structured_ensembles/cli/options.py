"""The options of `structens fit`, which are also the keys of its configuration file: one table.

The defaults are written out for the help, which must not wait for torch; a test holds them against the presets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from structured_ensembles.cli.kinds import Number, OneOf, OrNone, Pair, Scalar, Seeds, Several, Switch, Text, Whole
from structured_ensembles.cli.verb import Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from structured_ensembles.cli.kinds import Kind


@dataclass(frozen=True)
class Option:
    """One thing that a user can choose.

    Attributes:
        name: As the key of a configuration file; on the command line with dashes.
        kind: What its value may be.
        help: What it does.
        target: Where its value goes in `presets.Settings`; empty for what belongs to the run.
        default: As the help shows it.
        published: The value in the published preset, where that is another one.
    """

    name: str
    kind: Kind
    help: str
    target: str = ""
    default: str = ""
    published: str = ""


@dataclass(frozen=True)
class Section:
    """Options that belong together in the help."""

    title: str
    options: tuple[Option, ...]


TEXT, WHOLE, NUMBER, SWITCH = Text(), Whole(), Number(), Switch()

DATA = Option(
    "data",
    TEXT,
    "What to learn from: digits; an .npz file with x_train, y_train, x_test, y_test; a folder split/class/*.png; or "
    "CIFAR10, CIFAR100, SVHN, MNIST, FashionMNIST, which are downloaded.",
    default="digits",
)
IMAGE_SIZE = Option("image_size", WHOLE, "Resize all images to this height and width.")
MEMBERS = Option("members", WHOLE, "How many networks answer together.", default="4")
SEED = Option("seed", WHOLE, "Of everything random: the same seed gives the same files, to the byte.", default="0")

SECTIONS = (
    Section("Data", (DATA, IMAGE_SIZE)),
    Section(
        "Network",
        (
            Option(
                "architecture",
                TEXT,
                "The network to start from: half_vgg11, lenet5, mlp, resnet20 ... resnet56, small_cnn, small_vgg, "
                "vgg11, vgg13, vgg16, torchvision:NAME or timm:NAME.",
                default="small_cnn",
            ),
            Option(
                "network_argument",
                Pair(Scalar()),
                "An argument of the architecture, such as shortcut=pad for resnet20 or width=256 for mlp. Repeatable.",
            ),
        ),
    ),
    Section(
        "Ensemble",
        (
            MEMBERS,
            Option(
                "budget",
                OrNone(TEXT),
                "What all members together may cost: 1x (the bytes of one whole network), 0.5x params, 2MB, 280k "
                "params or 50MFLOPs.",
                "budget",
                default="1x",
                published="none",
            ),
            Option(
                "keep",
                NUMBER,
                "Instead of a budget: the share of channels that each member keeps, in (0, 1].",
                "selection.keep",
                published="0.5",
            ),
            Option(
                "preset",
                OneOf("default", "published"),
                "Where all settings start from: what we recommend, or what was published.",
                default="default",
            ),
            Option(
                "against",
                Several(TEXT),
                "Also fit these on the same images, and compare: single (one whole network), deep (as many whole "
                "networks as there are members), or another method of `structens compare`.",
            ),
            Option(
                "combine",
                OneOf("probabilities", "logits"),
                "What is averaged over the members to get one answer.",
                "combine",
                default="probabilities",
                published="logits",
            ),
            SEED,
        ),
    ),
    Section(
        "Search: which channels matter to which member",
        (
            Option(
                "scope",
                OneOf("private", "coupled"),
                "Which channels may be removed: those of single layers, or also those tied by additions.",
                "scope",
                default="coupled",
                published="private",
            ),
            Option(
                "placement",
                OneOf("after_norm", "before_norm"),
                "Where channels are scaled.",
                "search.placement",
                default="after_norm",
                published="before_norm",
            ),
            Option(
                "parametrisation",
                OneOf("free", "constant", "normal", "laplace", "beta", "gamma", "exponential"),
                "What is trained: scale factors, or distributions that they are drawn from.",
                "search.parametrisation",
                default="free",
            ),
            Option("samples", WHOLE, "Draws averaged in each pass, for distributions.", "search.samples", default="1"),
            Option(
                "diversity",
                Pair(NUMBER),
                "The weight of a term that makes members differ: overlap, mmd, mmd_global, "
                "mmd_textbook, mmd_median, kl, cosine, output. Repeatable; overlap=0 is none.",
                "search.diversity",
                default="overlap=0.01",
                published="mmd=0.01",
            ),
            Option("search_epochs", WHOLE, "How often every image is seen, at most.", "search.epochs", default="10"),
            Option(
                "search_steps",
                OrNone(WHOLE),
                "Stop after so many batches.",
                "search.max_steps",
                default="300",
                published="none",
            ),
            Option("search_batch_size", WHOLE, "Shared by the members.", "search.batch_size", default="128"),
            Option(
                "search_learning_rate", NUMBER, "Of Adam.", "search.learning_rate", default="0.01", published="0.001"
            ),
            Option(
                "graph_seconds",
                NUMBER,
                "How long to look for the channels that can be removed.",
                "graph_seconds",
                default="60",
            ),
        ),
    ),
    Section(
        "Selection: which channels each member keeps",
        (
            Option(
                "reduce",
                OneOf("mean", "median", "max"),
                "How the gradients of many batches become one importance.",
                "reduce",
                default="mean",
            ),
            Option(
                "rank_batches",
                OrNone(WHOLE),
                "Look at so many batches for it, at most.",
                "rank_batches",
                default="100",
                published="none",
            ),
            Option(
                "rule",
                OneOf("tapered", "per_cost", "global", "local"),
                "Keep by importance per byte (per_cost) or importance (global), or a share of each layer: the same "
                "(local), or more of it where a byte does more operations (tapered).",
                "selection.rule",
                default="per_cost",
                published="global",
            ),
            Option(
                "normalise",
                SWITCH,
                "Divide importances by their mean within the layer first.",
                "selection.normalise",
                default="no",
            ),
            Option("round_to", WHOLE, "Round widths up to a multiple.", "selection.round_to", default="1"),
            Option(
                "shrink_rounds",
                WHOLE,
                "First narrow the whole network so often, by a search of its own.",
                "shrink_rounds",
                default="0",
            ),
            Option("shrink_keep", NUMBER, "The share of channels kept in each round.", "shrink_keep", default="0.8"),
            Option("re_init", SWITCH, "Draw the weights of structured and shuffled afresh.", "re_init", default="no"),
        ),
    ),
    Section(
        "Training of each member",
        (
            Option("epochs", WHOLE, "At most.", "training.epochs", default="30", published="200"),
            Option(
                "steps",
                OrNone(WHOLE),
                "Batches, at most: large sets get fewer epochs. No limit if --epochs is given and this is not.",
                "training.max_steps",
                default="5000",
                published="none",
            ),
            Option("batch_size", WHOLE, "Images per step.", "training.batch_size", default="64", published="128"),
            Option(
                "optimiser", OneOf("sgd", "adam", "adamw"), "What takes the steps.", "training.optimiser", default="sgd"
            ),
            Option(
                "learning_rate",
                NUMBER,
                "The highest of the schedule. ResNets: 0.1 in both presets; published VGGs: 0.01.",
                "training.learning_rate",
                default="0.05",
                published="0.1",
            ),
            Option("momentum", NUMBER, "Of sgd.", "training.momentum", default="0.9"),
            Option("nesterov", SWITCH, "Look ahead with sgd.", "training.nesterov", default="yes", published="no"),
            Option(
                "weight_decay",
                NUMBER,
                "Pulls weights towards zero.",
                "training.weight_decay",
                default="0.0005",
                published="0",
            ),
            Option(
                "schedule",
                OneOf("constant", "multistep", "cosine", "one_cycle"),
                "How the learning rate changes.",
                "training.schedule",
                default="one_cycle",
                published="multistep",
            ),
            Option(
                "milestones",
                Several(WHOLE),
                "Epochs at which multistep lowers the rate.",
                "training.milestones",
                default="50,100,150",
            ),
            Option("gamma", NUMBER, "What multistep multiplies the rate by.", "training.gamma", default="0.8"),
            Option(
                "patience",
                OrNone(WHOLE),
                "Stop after so many epochs without progress. Published VGGs: 10.",
                "training.patience",
                default="none",
                published="20",
            ),
            Option(
                "augment",
                OneOf("none", "crop", "flip", "crop_flip"),
                "Vary the training images; never flip digits or letters.",
                "training.augmentation",
                default="none",
            ),
            Option(
                "held_out",
                NUMBER,
                "The share of the training images that chooses the best epoch and the threshold for abstaining.",
                "held_out",
                default="0.1",
            ),
            Option("num_workers", WHOLE, "Processes that read the images.", "training.num_workers", default="0"),
            Option(
                "log",
                OneOf("csv", "tensorboard", "none"),
                "How learning curves are logged.",
                "training.log",
                default="csv",
            ),
        ),
    ),
)
"""All options by section, in the order of the help."""

OPTIONS = {option.name: option for section in SECTIONS for option in section.options}
"""All options of `fit` by name."""

AXES = (
    Option("methods", Several(TEXT), "Which methods, or all.", default="all"),
    Option("members", Several(WHOLE), "How many networks answer together; each number.", default="4"),
    Option("budgets", Several(TEXT), "What they may cost, where a method can choose; each budget.", default="1x"),
    Option("seeds", Seeds(), "How many seeds, or which: 5, 5-9 or 3,7.", default="5"),
)
"""Of a comparison: each stands for what `fit` takes one of."""

_ONE_RUN = ("members", "seed", "against", "budget", "keep", "log")
"""Options of `fit` that a comparison has as axes, or not at all."""

COMPARISON = (
    Section("Comparison", AXES),
    *(
        Section(section.title, tuple(option for option in section.options if option.name not in _ONE_RUN))
        for section in SECTIONS
    ),
)
"""All options of `compare` by section."""

COMPARED = {option.name: option for section in COMPARISON for option in section.options}
"""All options of `compare` by name."""

Command = Any
"""A function that click decorates."""


def declared(*options: Option) -> Callable[[Command], Command]:
    """Decorate a verb with options; what the user does not give arrives as None, or as () if it is repeatable."""

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = _declaration(option)(function)
        return function

    return decorate


def _declaration(option: Option) -> Callable[[Command], Command]:
    name = "--" + option.name.replace("_", "-")
    text = f"{option.help} {_shown(option)}".strip()
    if option.kind is SWITCH:
        return click.option(f"{name}/--no-{name[2:]}", option.name, default=None, help=text)
    return click.option(
        name, option.name, type=option.kind, multiple=isinstance(option.kind, Pair), help=text, metavar=None
    )


def _shown(option: Option) -> str:
    default = f"default: {option.default}" if option.default else ""
    published = f"published: {option.published}" if option.published else ""
    return f"[{'; '.join(part for part in (default, published) if part)}]" if default or published else ""


class Sectioned(Verb):
    """A command whose help lists its options under titles.

    Args:
        sections: The titles, each with its options.
    """

    def __init__(self, *args: Any, sections: tuple[Section, ...], **kwargs: Any) -> None:  # noqa: ANN401 (click's own)
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those that are in no section last."""
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        parts = [(section.title, [option.name for option in section.options]) for section in self.sections]
        listed = {name for _, names in parts for name in names}
        parts.append(("Run", [str(name) for name in records if name not in listed]))
        for title, names in parts:
            with formatter.section(title):
                formatter.write_dl([record for name in names if (record := records.get(name))], col_max=28)
