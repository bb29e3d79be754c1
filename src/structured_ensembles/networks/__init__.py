"""Backbones by name: small ones of our own, CIFAR ResNets, VGGs for 32x32, and those of torchvision and timm."""

from structured_ensembles.networks.convolutional import small_cnn
from structured_ensembles.networks.half_vgg import half_vgg11
from structured_ensembles.networks.lenet import lenet5
from structured_ensembles.networks.normalised import Normalised
from structured_ensembles.networks.perceptron import mlp
from structured_ensembles.networks.registry import Factory, build, family, names, register
from structured_ensembles.networks.resnet import Shortcut, resnet20, resnet32, resnet44, resnet56
from structured_ensembles.networks.spec import NetworkSpec
from structured_ensembles.networks.vgg import small_vgg, vgg11, vgg13, vgg16
from structured_ensembles.options.choices import Family

__all__ = [
    "Factory",
    "Family",
    "NetworkSpec",
    "Normalised",
    "Shortcut",
    "build",
    "family",
    "half_vgg11",
    "lenet5",
    "mlp",
    "names",
    "register",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "small_cnn",
    "small_vgg",
    "vgg11",
    "vgg13",
    "vgg16",
]
