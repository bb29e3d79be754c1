"""Every name that can be typed: where it lives, and half a sentence, which help, reports and errors read."""

from __future__ import annotations

from typing import Any

from structured_ensembles.registry import Registry

ARCHITECTURES: Registry[Any] = Registry(
    "architecture",
    {
        "half_vgg11": (
            "networks.architectures.half_vgg:half_vgg11",
            "half a VGG-11, of the published streams of tasks",
        ),
        "lenet5": ("networks.architectures.lenet:lenet5", "LeNet-5"),
        "mlp": ("networks.architectures.perceptron:mlp", "the multilayer perceptron"),
        "resnet20": ("networks.architectures.resnet:resnet20", "a residual network for small images"),
        "resnet32": ("networks.architectures.resnet:resnet32", "a residual network for small images"),
        "resnet44": ("networks.architectures.resnet:resnet44", "a residual network for small images"),
        "resnet56": ("networks.architectures.resnet:resnet56", "a residual network for small images"),
        "small_cnn": ("networks.architectures.convolutional:small_cnn", "three convolutions for small images"),
        "small_vgg": ("networks.architectures.vgg:small_vgg", "five convolutions for small images"),
        "vgg11": ("networks.architectures.vgg:vgg11", "a VGG made for 32x32 images"),
        "vgg13": ("networks.architectures.vgg:vgg13", "a VGG made for 32x32 images"),
        "vgg16": ("networks.architectures.vgg:vgg16", "a VGG made for 32x32 images"),
    },
)
"""Factories of networks, called with the shape of the inputs and the number of classes."""

LIBRARIES = ("torchvision", "timm")
"""Whose architectures are named LIBRARY:NAME."""

SOURCES: Registry[Any] = Registry(
    "data source or path",
    {
        "digits": ("data.sources.digits:load_digits", "scikit-learn's handwritten digits"),
        "CIFAR10": ("data.sources.named:cifar10", "small colour images of 10 kinds of things, downloaded"),
        "CIFAR100": ("data.sources.named:cifar100", "small colour images of 100 kinds of things, downloaded"),
        "SVHN": ("data.sources.named:svhn", "house numbers in colour, downloaded"),
        "MNIST": ("data.sources.named:mnist", "handwritten digits, downloaded"),
        "FashionMNIST": ("data.sources.named:fashionmnist", "clothes, downloaded"),
    },
)
"""Data by name, in any case of letters: called with the folder where downloads are kept, or None."""

FORMATS: Registry[Any] = Registry(
    "data format",
    {
        "folder": ("data.sources.folder:load_folder", "a folder split/class/*.png"),
        ".npz": ("data.sources.npz:load_npz", "an .npz file with x_train, y_train, x_test, y_test"),
    },
)
"""Data by the ending of their path: called with the path, and the side that images are asked for in, or None."""

TERMS: Registry[Any] = Registry(
    "diversity term",
    {
        "overlap": ("scores.diversity.overlap:overlap", "how far members keep the same channels"),
        "mmd": ("scores.diversity.mmd:mmd", "maximum mean discrepancy, as published"),
        "mmd_global": ("scores.diversity.mmd_global:mmd_global", "the same over all layers together"),
        "mmd_textbook": ("scores.diversity.mmd_textbook:mmd_textbook", "the textbook's, its width the layer's"),
        "mmd_median": ("scores.diversity.mmd_textbook:mmd_median", "the textbook's, its width the median distance"),
        "kl": ("scores.diversity.kl:kl", "between the distributions that scores are drawn from"),
        "cosine": ("scores.diversity.cosine:cosine", "the angle between members' scores"),
        "output": ("scores.diversity.output:output", "how far members predict the same"),
    },
)
"""What makes members differ in the search."""

METHODS: Registry[Any] = Registry(
    "method",
    {
        "single": ("methods.single:SingleNetwork", "one whole network"),
        "structured": ("methods.structured:StructuredEnsemble", "members cut out of one network, by learned scores"),
        "shuffled": ("methods.shuffled:ShuffledEnsemble", "control arm: structured's widths, random channels"),
        "random": ("methods.random_channels:RandomEnsemble", "control arm: random channels, uniform widths"),
        "magnitude": ("methods.magnitude:MagnitudeEnsemble", "control arm: channels by the norm of their weights"),
        "narrow": ("methods.narrow:NarrowEnsemble", "control arm: independent networks of uniform width"),
        "narrow_sliced": ("methods.narrow:SlicedNarrowEnsemble", "control arm: the same, sliced from a wide network"),
        "packed": ("methods.packed:PackedEnsemble", "Packed-Ensembles: narrow networks, computed at once"),
        "mc_dropout": ("methods.mc_dropout:MCDropout", "MC Dropout: one network, different activations dropped"),
        "snapshot": ("methods.snapshot:SnapshotEnsemble", "Snapshot ensembles: one training, a member from each cycle"),
        "batch_ensemble": (
            "methods.batch_ensemble:BatchEnsemble",
            "BatchEnsemble: one network, a pair of vectors each",
        ),
        "masksembles": ("methods.masksembles:Masksembles", "Masksembles: one network, fixed masks over its channels"),
        "mimo": ("methods.mimo:MIMO", "MIMO: one network with several inputs and outputs"),
        "deep": ("methods.deep:DeepEnsemble", "whole networks, each drawn and trained on its own"),
    },
)
"""What an ensemble can be made by, in the order of tables."""

FORMS: Registry[Any] = Registry(
    "form of a shared network",
    {
        "dropout": ("implicit.dropout:form", "activations dropped, others for each answer"),
        "rank_one": ("implicit.rank_one:form", "rows and columns scaled, otherwise for each answer"),
        "packed": ("implicit.torch_uncertainty:packed_form", "narrow networks side by side"),
        "masked": ("implicit.torch_uncertainty:masked_form", "fixed masks over channels"),
        "mimo": ("implicit.mimo:form", "several inputs and outputs"),
    },
)
"""How ONE network is made to answer M times: called with what makes a plain one, M, and arguments of the form."""

STRATEGIES: Registry[Any] = Registry(
    "strategy",
    {
        "structured": (
            "continual.strategies.structured:Structured",
            "each task takes some of the free channels, and reads those of the tasks before",
        ),
        "single_task": ("continual.strategies.single_task:SingleTask", "a network of its own for each task"),
        "joint": (
            "continual.strategies.joint:Joint",
            "all tasks learned at once, again with each new one; it keeps all images",
        ),
        "naive": (
            "continual.strategies.naive:Naive",
            "one network goes on learning, and nothing protects what it knew",
        ),
        "ewc": ("continual.strategies.ewc:EWC", "one network; weights that earlier tasks need are held back"),
        "replay": ("continual.strategies.replay:Replay", "one network; some images of earlier tasks are learned again"),
        "packnet": (
            "continual.strategies.packnet:PackNet",
            "each task takes some of the free weights, and reads those of the tasks before",
        ),
        "supsup": (
            "continual.strategies.supsup:SupSup",
            "random weights that never change; each task chooses which of them it reads",
        ),
        "piggyback": (
            "continual.strategies.piggyback:Piggyback",
            "the first task's weights; each later task chooses which of them it reads",
        ),
        "wsn": (
            "continual.strategies.wsn:WSN",
            "each task trains the weights that it chooses, except those that earlier tasks chose",
        ),
        "hat": (
            "continual.strategies.hat:HAT",
            "each task learns gates of the channels; what earlier tasks opened is held back",
        ),
        "batch_ensemble": (
            "continual.strategies.batch_ensemble:BatchEnsemble",
            "the first task's weights; each later task scales their rows and columns",
        ),
    },
)
"""How a stream of tasks can be learned, in the order of tables."""

BLOCKS: Registry[Any] = Registry(
    "measurement",
    {
        "calibration": ("evaluation.blocks.calibration:measured", "accuracy and calibration"),
        "uncertainty": ("evaluation.blocks.entropies:measured", "how much it doubts"),
        "selective": ("evaluation.blocks.selective:measured", "declining to answer"),
        "out_of_distribution": ("evaluation.blocks.ood:measured", "unfamiliar images"),
        "adversarial": ("evaluation.blocks.adversarial:measured", "images made to deceive it"),
        "corruptions": ("evaluation.corruptions.measure:measured", "damaged images"),
        "cost": ("evaluation.blocks.footprint:measured", "memory and cost"),
        "structure": ("evaluation.blocks.structure:measured", "what its members are made of"),
    },
)
"""What is measured about an ensemble, in the order of reports: called with an `evaluation.subject.Subject`."""
