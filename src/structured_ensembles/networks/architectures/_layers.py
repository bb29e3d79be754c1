"""What several families of networks are made of."""

from __future__ import annotations

from torch import nn


def conv_norm_relu(channels_in: int, channels_out: int) -> list[nn.Module]:
    """A 3x3 convolution that keeps the image's size, BatchNorm and ReLU; the norm's shift makes a bias pointless."""
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]


def halve(size: tuple[int, int], smallest: int) -> tuple[nn.Module, tuple[int, int]]:
    """Max-pooling that halves an image, or nothing where a side would become shorter than ``smallest``.

    Odd sides are rounded up, so that no pixel is dropped. With ``smallest`` at least 2 the normalisations that follow
    see several values per channel even in a batch of one example, without which they cannot train.

    Returns:
        The layer, and the image's size after it.
    """
    height, width = (size[0] + 1) // 2, (size[1] + 1) // 2
    if min(height, width) < smallest:
        return nn.Identity(), size
    return nn.MaxPool2d(2, ceil_mode=True), (height, width)


def head(channels: int, classes: int) -> list[nn.Module]:
    """Global average pooling and one linear layer: (B, C, H, W) to logits (B, K)."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def he_initialise(network: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan_in) and set biases to 0, in place, from torch's global generator.

    He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
