"""Small changes of pixels that raise an ensemble's loss: FGSM and PGD, white box, within a largest change of any pixel.

Pixels are in [0, 1], for the normalisation is inside the network; the attacked ones are not rounded to 256 grey levels.
The gradient is that of the combined prediction, taken in evaluation mode through all members at once; nothing of the
ensemble changes, neither parameters nor their gradients, buffers, flags and modes.

Shapes: M members, N images, B of them in a batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from structured_ensembles.data.sources import as_float
from structured_ensembles.data.sources.checks import check_known
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.metrics import check_integers
from structured_ensembles.networks.modules import in_mode
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.progress import track
from structured_ensembles.seeding import derived_seed

EPSILONS = (0.001, 0.01, 0.02, 0.1, 0.5)
"""The published step sizes."""
STEPS = 10
"""Of `pgd`, unless told otherwise."""
_BATCH = 256


def fgsm(ensemble: Ensemble, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """One step along the gradient's sign: x + epsilon sign(dNLL/dx), cut to [0, 1].

    The fast gradient sign method: Goodfellow et al. 2015, equation of section 4, https://arxiv.org/abs/1412.6572.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float32 or float64 in [0, 1].
        labels: (N,), integers: what the images show, and the attack makes unlikely.
        epsilon: The largest change of a pixel, 0 to 1.

    Returns:
        (N, C, H, W), on the CPU, floating, in [0, 1] and within epsilon of the images.

    Raises:
        SettingsError: ``epsilon`` is outside 0 to 1.
        DataError: The images are none, of another shape or type, or outside [0, 1]; the labels do not fit them or the
            ensemble; or a gradient is NaN.
    """
    check_epsilon(epsilon)
    pixels, truth = checked(ensemble, images, labels)
    parts = track(_batches(pixels, truth), f"FGSM, epsilon {epsilon:g}")
    return torch.cat([_step(ensemble, part, part, its, epsilon, epsilon) for part, its in parts])


def pgd(
    ensemble: Ensemble,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = STEPS,
    step_size: float | None = None,
    *,
    seed: int,
) -> Tensor:
    """Several such steps from a random start, each brought back within epsilon and [0, 1]; the last point counts.

    Projected gradient descent: Madry et al. 2018, section 2.1, https://arxiv.org/abs/1706.06083.

    Args:
        ensemble: Takes pixels in [0, 1].
        images: (N, C, H, W), uint8, or float32 or float64 in [0, 1].
        labels: (N,), integers.
        epsilon: The largest change of a pixel, 0 to 1.
        steps: How many, at least 1.
        step_size: Of each step, above 0; None takes 2.5 epsilon / steps, which reaches every corner from any start.
        seed: Of the start, drawn uniformly within epsilon of the images: a whole number from 0 on.

    Returns:
        (N, C, H, W), on the CPU, floating, in [0, 1] and within epsilon of the images.

    Raises:
        SettingsError: ``epsilon`` is outside 0 to 1, ``steps`` below 1, ``step_size`` not above 0, ``seed`` below 0.
        DataError: As in `fgsm`.
    """
    check_epsilon(epsilon)
    size = _step_size(epsilon, steps, step_size)
    generator = torch.Generator().manual_seed(derived_seed(seed))
    pixels, truth = checked(ensemble, images, labels)
    # drawn at once, so that the start does not depend on the batches
    noise = torch.empty_like(pixels).uniform_(-epsilon, epsilon, generator=generator)
    starts = _project(pixels + noise, pixels, epsilon)
    parts: list[Tensor] = []
    for part, its, now in track(_batches(pixels, truth, starts), f"PGD, epsilon {epsilon:g}"):
        for _ in range(steps):
            now = _step(ensemble, now, part, its, size, epsilon)  # noqa: PLW2901 (the point that walks)
        parts.append(now)
    return torch.cat(parts)


def losses(logits: Tensor, labels: Tensor, combine: Combine) -> Tensor:
    """(B,), float64: the NLL of the combined prediction, from logits (M, B, K) and labels (B,).

    -ln mean_m p_m(label), or -ln softmax(mean_m logits)(label), where each p(label) = sigmoid(its logit - logsumexp of
    the others'). Where the ensemble is sure the gradient is as small as 1 - p(label), which 1 minus a softmax rounds to
    nothing: the attack would then follow the wrong direction or none, and the ensemble look robust.
    """
    wide = logits.double()
    if combine is Combine.LOGITS:
        wide = wide.mean(dim=0, keepdim=True)
    index = labels.expand(len(wide), -1).unsqueeze(-1)
    others = wide.scatter(2, index, -math.inf).logsumexp(dim=2)
    logs = logsigmoid(wide.gather(2, index).squeeze(2) - others)
    return math.log(len(logs)) - logs.logsumexp(dim=0)


def gradient(ensemble: Ensemble, pixels: Tensor, labels: Tensor) -> Tensor:
    """(B, C, H, W): of each image's `losses` with respect to its own pixels, also where gradients are switched off.

    Raises:
        DataError: It holds NaN.
    """
    first, combine = next(ensemble.parameters()), Combine.named(ensemble.record.combine)
    with torch.inference_mode(mode=False), torch.enable_grad(), in_mode(ensemble, training=False):
        leaf = pixels.detach().clone().requires_grad_()
        logits = ensemble(leaf.to(first.device, first.dtype)).cpu()  # not every GPU has float64
        # a sum, not a mean: an image's gradient must not depend on how many are in its batch
        (found,) = torch.autograd.grad(losses(logits, labels, combine).sum(), leaf)
    broken = int(found.flatten(1).isnan().any(dim=1).sum())
    if broken:
        raise DataError(f"the gradients of {broken} of {len(found)} images are NaN: train the ensemble again")
    return found


def check_epsilon(epsilon: float) -> None:
    """Raise a SettingsError unless it is from 0 to 1."""
    if not 0 <= epsilon <= 1:
        raise SettingsError(f"epsilon {epsilon}: it is the largest change of a pixel, pass 0 to 1, such as 0.02")


def checked(ensemble: Ensemble, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels as floats and labels as int64, both on the CPU and fit for an attack; see `fgsm` for the errors."""
    _check_images(images, ensemble.record.input_shape)
    if labels.shape != images.shape[:1]:
        raise DataError(f"{len(images)} images and labels of shape {tuple(labels.shape)}: pass one label per image")
    check_integers(labels)
    truth = labels.cpu().long()
    check_known("the list of labels", truth, len(ensemble.record.classes))
    return as_float(images).detach().cpu(), truth


def _check_images(images: Tensor, shape: Sequence[int]) -> None:
    if images.dtype not in {torch.uint8, torch.float32, torch.float64}:
        raise DataError(f"images are {images.dtype}: pass uint8, or float32 or float64 in [0, 1]")
    if images.shape[1:] != tuple(shape) or len(images) == 0:
        found, wanted = tuple(images.shape), ", ".join(map(str, shape))
        raise DataError(f"images of shape {found}: pass (N, {wanted}), which the ensemble takes, one image at least")
    low, high = float(images.min()), float(images.max())
    if images.is_floating_point() and not (low >= 0 and high <= 1):
        raise DataError(f"pixels from {low:g} to {high:g}: pass them in [0, 1], the ensemble normalises by itself")


def _step_size(epsilon: float, steps: int, step_size: float | None) -> float:
    if steps < 1:
        raise SettingsError(f"steps {steps}: pass 1 or more; {STEPS} is usual")
    if step_size is None:
        return 2.5 * epsilon / steps
    if not 0 < step_size < math.inf:
        raise SettingsError(f"step_size {step_size}: pass a number above 0, or None for 2.5 epsilon / steps")
    return step_size


def _batches(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(torch.split(tensor, _BATCH) for tensor in tensors), strict=True))


def _step(ensemble: Ensemble, now: Tensor, origin: Tensor, labels: Tensor, size: float, epsilon: float) -> Tensor:
    return _project(now + size * gradient(ensemble, now, labels).sign(), origin, epsilon)


def _project(pixels: Tensor, origin: Tensor, epsilon: float) -> Tensor:
    """The nearest point in [0, 1] and within epsilon of the origin."""
    return pixels.clamp(origin - epsilon, origin + epsilon).clamp(0, 1)
