"""Networks by name: small ones of our own, CIFAR ResNets, VGGs for 32x32, and those of torchvision and timm."""

from structured_ensembles.networks.given import Given
from structured_ensembles.networks.normalised import Normalised
from structured_ensembles.networks.registry import Factory, build, register
from structured_ensembles.networks.spec import NetworkSpec

__all__ = ["Factory", "Given", "NetworkSpec", "Normalised", "build", "register"]
