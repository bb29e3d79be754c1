"""The networks that the method has to work on, each with its topology found once."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from structured_ensembles.channels import topology
from structured_ensembles.networks.architectures.lenet import lenet5
from structured_ensembles.networks.architectures.perceptron import mlp
from structured_ensembles.networks.architectures.resnet import resnet20, resnet32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure
    from playwright.sync_api import Browser
    from xdist.scheduler import WorkStealingScheduling

    from structured_ensembles.registry import Registry
    from structured_ensembles.types import Topology


# How long an example takes depends on what else runs: it is no reason to fail.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Small tensors gain nothing from threads, and tests that run side by side lose by them.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Architecture:
    """A network with random weights in evaluation mode, two inputs, and what of it can be cut in scope coupled."""

    name: str
    network: nn.Module
    example: Tensor
    topology: Topology


def _torchvision(name: str, **options: object) -> nn.Module:
    return pytest.importorskip("torchvision.models").get_model(name, weights=None, num_classes=10, **options)


def _drawn_later(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose weights `randomise` draws: its own start would take seconds."""
    with torch.device("meta"):
        return build().to_empty(device="cpu")


def _vgg(name: str) -> nn.Module:
    """With hidden layers of 64 units before the output, of the published 4096: nine weights in ten lie there."""

    def build() -> nn.Module:
        network = _torchvision(name)
        network.classifier[0], network.classifier[3] = nn.Linear(512 * 7 * 7, 64), nn.Linear(64, 64)
        network.classifier[6] = nn.Linear(64, 10)
        return network

    return _drawn_later(build)


def _narrow_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    sizes = {"image_size": 32, "patch_size": 16, "num_layers": 12, "num_heads": 12}
    return models.VisionTransformer(**sizes, hidden_dim=48, mlp_dim=192, num_classes=10)


def _narrow_convnext() -> nn.Module:
    convnext = pytest.importorskip("torchvision.models.convnext")
    widths = [12, 24, 48, 96]
    stages = zip(widths, [*widths[1:], None], (3, 3, 9, 3), strict=True)
    return convnext.ConvNeXt([convnext.CNBlockConfig(*stage) for stage in stages], num_classes=10)


def _narrow_densenet() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.DenseNet(growth_rate=8, block_config=(6, 4, 4, 3), num_init_features=16, num_classes=10)


def _timm(name: str, **options: object) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, num_classes=10, **options)


SMALL, LARGE = (3, 32, 32), (3, 64, 64)

ARCHITECTURES: dict[str, tuple[tuple[int, int, int], Callable[[], nn.Module]]] = {
    "mlp": ((1, 8, 8), lambda: mlp((1, 8, 8), 10)),
    "lenet5": ((1, 28, 28), lambda: lenet5((1, 28, 28), 10)),
    "resnet20": (SMALL, lambda: resnet20(SMALL, 10)),
    "resnet20_pad": (SMALL, lambda: resnet20(SMALL, 10, shortcut="pad")),
    "resnet32": (SMALL, lambda: resnet32(SMALL, 10)),
    "resnet32_pad": (SMALL, lambda: resnet32(SMALL, 10, shortcut="pad")),
    "vgg11": (SMALL, lambda: _vgg("vgg11")),
    "vgg11_bn": (SMALL, lambda: _vgg("vgg11_bn")),
    "vgg16": (SMALL, lambda: _vgg("vgg16")),
    "vgg16_bn": (SMALL, lambda: _vgg("vgg16_bn")),
    "resnet18": (LARGE, lambda: _torchvision("resnet18")),
    "resnet50": (LARGE, lambda: _torchvision("resnet50")),
    "mobilenet_v2": (LARGE, lambda: _torchvision("mobilenet_v2")),
    "mobilenet_v3_small": (LARGE, lambda: _torchvision("mobilenet_v3_small")),
    "efficientnet_b0": (LARGE, lambda: _torchvision("efficientnet_b0")),
    "narrow_convnext": (LARGE, _narrow_convnext),
    "narrow_densenet": (LARGE, _narrow_densenet),
    "regnet_y_400mf": (LARGE, lambda: _torchvision("regnet_y_400mf")),
    "squeezenet1_1": (LARGE, lambda: _torchvision("squeezenet1_1")),
    "narrow_vit": (SMALL, _narrow_vit),
    "resnet26d": (LARGE, lambda: _timm("resnet26d")),
    "vit_tiny_patch16_224": (SMALL, lambda: _timm("vit_tiny_patch16_224", img_size=32)),
}
"""Those of which there is none that is small have the layers of a published one, fewer or narrower."""

PUBLISHED: dict[str, tuple[tuple[int, int, int], Callable[[], nn.Module]]] = {
    "vgg16_bn": (SMALL, lambda: _drawn_later(lambda: _torchvision("vgg16_bn"))),
    "convnext_tiny": (LARGE, lambda: _drawn_later(lambda: _torchvision("convnext_tiny"))),
    "densenet121": (LARGE, lambda: _torchvision("densenet121")),
    "vit_b_16": (SMALL, lambda: _drawn_later(lambda: _torchvision("vit_b_16", image_size=32))),
}
"""The same as they were published: they take seconds each."""


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Draw every weight, bias, scale and statistic: nothing starts at zero, where it would hide a wrong cut."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter.shape[1:].numel()
            centre, deviation = (0.0, (2 / fan_in) ** 0.5) if parameter.dim() > 1 else (0.5, 0.3)
            parameter.normal_(centre, deviation, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.5, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
            elif name.endswith("num_batches_tracked"):
                buffer.zero_()
    return network


@pytest.fixture(scope="session", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    """Each architecture in turn; the session's scope makes pytest keep one of them in memory at a time."""
    return _made(request.param, *ARCHITECTURES[request.param])


@pytest.fixture(scope="session", params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> Architecture:
    """Each of the large ones in turn."""
    return _made(request.param, *PUBLISHED[request.param])


def _made(name: str, shape: tuple[int, int, int], build: Callable[[], nn.Module]) -> Architecture:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = randomise(build(), seed=1).eval()
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    return Architecture(name, network, example, topology.find(network, example))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> WorkStealingScheduling | None:
    """Neighbours run on one worker unless told otherwise: what a file makes once is made once."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of a process that computes to the bit what this one does, on as many threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[Registry[object]], None]:
    """Called with a table of names: what the test adds to it is forgotten afterwards."""

    def forgotten(table: Registry[object]) -> None:
        for name in ("_added", "_about"):
            monkeypatch.setattr(table, name, dict(getattr(table, name)))

    return forgotten


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))
    )
    return figures


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or the one that the variable CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test pages in a browser")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in the variable CHROMIUM")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
