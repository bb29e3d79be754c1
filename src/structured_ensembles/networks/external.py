"""Architectures of torchvision and timm, by the names of these libraries' own registries.

The name may come from a file that nobody vouches for, so it is looked up in the registry before it is used, only
arguments known to be harmless are passed on (others name files, addresses or weights), and no weights are loaded.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType
from typing import Any

from torch import nn

from structured_ensembles.errors import NetworkError, SettingsError, unknown
from structured_ensembles.networks._arguments import number
from structured_ensembles.networks.spec import NetworkSpec

SOURCES = {
    "torchvision": ("attention_dropout", "drop_rate", "dropout", "stochastic_depth_prob"),
    "timm": ("attn_drop_rate", "drop_path_rate", "drop_rate"),
}
"""The libraries, and the arguments that may be passed on: all of them rates."""


def build(spec: NetworkSpec) -> nn.Module:
    """Build the untrained network that ``spec.name``, ``torchvision:NAME`` or ``timm:NAME``, stands for.

    Raises:
        SettingsError: The library is not installed, or the name or an argument is not among those it may be asked for.
        NetworkError: The library cannot build it for such images, with such arguments.
    """
    source, _, name = spec.name.partition(":")
    rates = _rates(source, spec)
    library = _library(source)
    _check_name(name, source, library)
    try:
        network: nn.Module = _BUILDERS[source](library, name, spec, rates)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        channels, height, width = spec.input_shape
        raise NetworkError(
            f"{spec.name} cannot be built for {channels}x{height}x{width} images with the arguments "
            f"{rates or 'none'} ({' '.join(str(error).split())}). Use another size of image, other arguments or "
            "another architecture."
        ) from error
    return network


def _rates(source: str, spec: NetworkSpec) -> dict[str, float]:
    """The arguments, each a number in [0, 1]."""
    for argument in spec.arguments:
        if argument not in SOURCES[source]:
            raise unknown(f"argument of {source} architectures", argument, SOURCES[source])
    return {argument: number(argument, value, 0, 1) for argument, value in spec.arguments.items()}


def _library(source: str) -> ModuleType:
    try:
        return importlib.import_module({"torchvision": "torchvision.models", "timm": "timm"}[source])
    except (ImportError, RuntimeError) as error:  # a torchvision made for another torch raises the latter
        raise SettingsError(
            f"architectures of {source} need a working {source} ({error}): pip install 'structured-ensembles[vision]'."
        ) from error


def _check_name(name: str, source: str, library: ModuleType) -> None:
    """Refuse what the registry does not list: timm would look for other names on a hub or in a folder."""
    known = library.list_models(module=library if source == "torchvision" else "")
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=8, cutoff=0.3) or known[:8]
        raise unknown("architecture", f"{source}:{name}", [f"{source}:{model}" for model in near])


def _torchvision(library: ModuleType, name: str, spec: NetworkSpec, rates: dict[str, float]) -> Any:  # noqa: ANN401
    channels, height, width = spec.input_shape
    if channels != 3:
        raise NetworkError(
            f"{spec.name} takes images with 3 channels, and these have {channels}: convert them to RGB, or use an "
            "architecture of timm or of structured_ensembles, which take any number."
        )
    options: dict[str, object] = dict(rates)
    if name.startswith("vit_"):
        if height != width:
            raise NetworkError(f"{spec.name} takes square images, and these are {height}x{width}: crop them.")
        options["image_size"] = height
    if name.startswith("maxvit"):
        options["input_size"] = (height, width)
    if name in {"googlenet", "inception_v3"}:  # with auxiliary outputs they return tuples
        options |= {"aux_logits": False, "init_weights": True}
    return library.get_model(name, weights=None, num_classes=spec.classes, **options)


def _timm(library: ModuleType, name: str, spec: NetworkSpec, rates: dict[str, float]) -> Any:  # noqa: ANN401
    channels, *size = spec.input_shape
    options: dict[str, object] = dict(rates)
    if library.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = tuple(size)
    network = library.create_model(name, pretrained=False, num_classes=spec.classes, in_chans=channels, **options)
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    if any(side % step for side, step in zip(size, patch, strict=False)):  # timm would cut the rest of the image off
        raise NetworkError(
            f"{spec.name} takes images whose sides are multiples of {patch[0]} pixels, and these are "
            f"{size[0]}x{size[1]}: resize them."
        )
    return network


_BUILDERS = {"torchvision": _torchvision, "timm": _timm}
