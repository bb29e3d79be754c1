"""Every name that can be typed: where it lives, and half a sentence, which help, reports and errors read."""

from __future__ import annotations

from typing import Any

from structured_ensembles.registry import Registry

ARCHITECTURES: Registry[Any] = Registry(
    "architecture",
    "networks.architectures",
    {
        "half_vgg11": ("half_vgg:half_vgg11", "half a VGG-11, of the published streams of tasks"),
        "lenet5": ("lenet:lenet5", "LeNet-5"),
        "mlp": ("perceptron:mlp", "the multilayer perceptron"),
        "resnet20": ("resnet:resnet20", "a residual network for small images"),
        "resnet32": ("resnet:resnet32", "a residual network for small images"),
        "resnet44": ("resnet:resnet44", "a residual network for small images"),
        "resnet56": ("resnet:resnet56", "a residual network for small images"),
        "small_cnn": ("convolutional:small_cnn", "three convolutions for small images"),
        "small_vgg": ("vgg:small_vgg", "five convolutions for small images"),
        "vgg11": ("vgg:vgg11", "a VGG made for 32x32 images"),
        "vgg13": ("vgg:vgg13", "a VGG made for 32x32 images"),
        "vgg16": ("vgg:vgg16", "a VGG made for 32x32 images"),
    },
)
"""Factories of networks, called with the shape of the inputs and the number of classes."""

LIBRARIES = ("torchvision", "timm")
"""Whose architectures are named LIBRARY:NAME."""

SOURCES: Registry[Any] = Registry(
    "data source or path",
    "data.sources",
    {
        "digits": ("digits:load_digits", "scikit-learn's handwritten digits"),
        "CIFAR10": ("named:cifar10", "small colour images of 10 kinds of things, downloaded"),
        "CIFAR100": ("named:cifar100", "small colour images of 100 kinds of things, downloaded"),
        "SVHN": ("named:svhn", "house numbers in colour, downloaded"),
        "MNIST": ("named:mnist", "handwritten digits, downloaded"),
        "FashionMNIST": ("named:fashionmnist", "clothes, downloaded"),
    },
)
"""Data by name, in any case of letters: called with the folder where downloads are kept, or None."""

FORMATS: Registry[Any] = Registry(
    "data format",
    "data.sources",
    {
        "folder": ("folder:load_folder", "a folder split/class/*.png"),
        ".npz": ("npz:load_npz", "an .npz file with x_train, y_train, x_test, y_test"),
    },
)
"""Data by the ending of their path: called with the path, and the side that images are asked for in, or None."""

TERMS: Registry[Any] = Registry(
    "diversity term",
    "scores.diversity",
    {
        "overlap": ("overlap:overlap", "how far members keep the same channels"),
        "mmd": ("mmd:mmd", "maximum mean discrepancy, as published"),
        "mmd_global": ("mmd_global:mmd_global", "the same over all layers together"),
        "mmd_textbook": ("mmd_textbook:mmd_textbook", "the textbook's, its width the layer's"),
        "mmd_median": ("mmd_textbook:mmd_median", "the textbook's, its width the median distance"),
        "kl": ("kl:kl", "between the distributions that scores are drawn from"),
        "cosine": ("cosine:cosine", "the angle between members' scores"),
        "output": ("output:output", "how far members predict the same"),
    },
)
"""What makes members differ in the search."""

METHODS: Registry[Any] = Registry(
    "method",
    "methods",
    {
        "single": ("single:SingleNetwork", "one whole network"),
        "structured": ("structured:StructuredEnsemble", "members cut out of one network, by learned scores"),
        "shuffled": ("shuffled:ShuffledEnsemble", "control arm: structured's widths, random channels"),
        "random": ("random_channels:RandomEnsemble", "control arm: random channels, uniform widths"),
        "magnitude": ("magnitude:MagnitudeEnsemble", "control arm: channels by the norm of their weights"),
        "narrow": ("narrow:NarrowEnsemble", "control arm: independent networks of uniform width"),
        "narrow_sliced": ("narrow:SlicedNarrowEnsemble", "control arm: the same, sliced from a wide network"),
        "packed": ("packed:PackedEnsemble", "Packed-Ensembles: narrow networks, computed at once"),
        "mc_dropout": ("mc_dropout:MCDropout", "MC Dropout: one network, different activations dropped"),
        "snapshot": ("snapshot:SnapshotEnsemble", "Snapshot ensembles: one training, a member from each cycle"),
        "batch_ensemble": ("batch_ensemble:BatchEnsemble", "BatchEnsemble: one network, a pair of vectors each"),
        "masksembles": ("masksembles:Masksembles", "Masksembles: one network, fixed masks over its channels"),
        "mimo": ("mimo:MIMO", "MIMO: one network with several inputs and outputs"),
        "deep": ("deep:DeepEnsemble", "whole networks, each drawn and trained on its own"),
    },
)
"""What an ensemble can be made by, in the order of tables."""

FORMS: Registry[Any] = Registry(
    "form of a shared network",
    "implicit",
    {
        "dropout": ("dropout:form", "activations dropped, others for each answer"),
        "rank_one": ("rank_one:form", "rows and columns scaled, otherwise for each answer"),
        "packed": ("torch_uncertainty:packed_form", "narrow networks side by side"),
        "masked": ("torch_uncertainty:masked_form", "fixed masks over channels"),
        "mimo": ("mimo:form", "several inputs and outputs"),
    },
)
"""How ONE network is made to answer M times: called with what makes a plain one, M, and arguments of the form."""

STRATEGIES: Registry[Any] = Registry(
    "strategy",
    "continual.strategies",
    {
        "structured": (
            "structured:Structured",
            "each task takes some of the free channels, and reads those of the tasks before",
        ),
        "single_task": ("single_task:SingleTask", "a network of its own for each task"),
        "joint": ("joint:Joint", "all tasks learned at once, again with each new one; it keeps all images"),
        "naive": ("naive:Naive", "one network goes on learning, and nothing protects what it knew"),
        "ewc": ("ewc:EWC", "one network; weights that earlier tasks need are held back"),
        "replay": ("replay:Replay", "one network; some images of earlier tasks are learned again"),
        "packnet": ("packnet:PackNet", "each task takes some of the free weights, and reads those of the tasks before"),
        "supsup": ("supsup:SupSup", "random weights that never change; each task chooses which of them it reads"),
        "piggyback": (
            "piggyback:Piggyback",
            "the first task's weights; each later task chooses which of them it reads",
        ),
        "wsn": ("wsn:WSN", "each task trains the weights that it chooses, except those that earlier tasks chose"),
        "hat": ("hat:HAT", "each task learns gates of the channels; what earlier tasks opened is held back"),
        "batch_ensemble": (
            "batch_ensemble:BatchEnsemble",
            "the first task's weights; each later task scales their rows and columns",
        ),
    },
)
"""How a stream of tasks can be learned, in the order of tables."""

BLOCKS: Registry[Any] = Registry(
    "measurement",
    "evaluation",
    {
        "calibration": ("blocks.calibration:measured", "accuracy and calibration"),
        "uncertainty": ("blocks.entropies:measured", "how much it doubts"),
        "selective": ("blocks.selective:measured", "declining to answer"),
        "out_of_distribution": ("blocks.ood:measured", "unfamiliar images"),
        "adversarial": ("blocks.adversarial:measured", "images made to deceive it"),
        "corruptions": ("corruptions.measure:measured", "damaged images"),
        "cost": ("blocks.footprint:measured", "memory and cost"),
        "structure": ("blocks.structure:measured", "what its members are made of"),
    },
)
"""What is measured about an ensemble, in the order of reports: called with an `evaluation.subject.Subject`."""

VERBS: Registry[Any] = Registry(
    "command",
    "cli.verbs",
    {
        "demo": ("demo:demo", "Watch the whole method on handwritten digits, in a minute or two."),
        "fit": ("fit:fit", "Train, measure and save a structured ensemble."),
        "predict": ("predict:predict", "Say what IMAGES show, and how sure that is."),
        "evaluate": ("evaluate:evaluate", "Measure an ARTEFACT on the test images of DATA."),
        "inspect": ("inspect:inspect", "Show what is in an ARTEFACT: its members, what they share and what they cost."),
        "compare": ("compare:compare", "Set a structured ensemble beside its rivals, at equal bytes."),
        "continual": ("continual:continual", "Learn one task after the other in one network, and measure forgetting."),
    },
)
"""The verbs of `structens`, each with what its help begins with."""
