"""The test images that are worth looking at, and what the threshold's slider needs to know of all of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.answers import Answers, evenly

SHOWN = 12
"""Images of each kind."""
LARGEST = 160
"""Pixels of a picture's longer side; larger images are made smaller, so that the page stays light."""
SMALL = 64
"""Pixels up to which a picture is enlarged without smoothing."""
SAMPLE = 10_000
"""Images that the slider knows at most."""


@dataclass(frozen=True)
class Vote:
    """What one member says: a class and the probability that it gives to it."""

    answer: int
    confidence: float


@dataclass(frozen=True)
class Shown:
    """One test image.

    Attributes:
        index: Its place among the test images, from 0.
        picture: A PNG file as a data URI.
        pixelated: Whether it is so small that it should be enlarged without smoothing.
        label: What it shows.
        answer: What the ensemble says.
        confidence: The probability that it gives to its answer.
        entropy: Its predictive entropy, in nats.
        votes: By member.
    """

    index: int
    picture: str
    pixelated: bool
    label: int
    answer: int
    confidence: float
    entropy: float
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Gallery:
    """Images worth looking at, and the doubts about all.

    Attributes:
        uncertain: The most uncertain images, the most uncertain first.
        confidently_wrong: The wrong answers of the highest confidence, the highest first.
        images: How many test images there are.
        entropies: Predictive entropies in ascending order, four significant digits; at most `SAMPLE` of them, taken
            evenly from all.
        right: "1" for each of them whose answer is right, otherwise "0".
    """

    uncertain: tuple[Shown, ...]
    confidently_wrong: tuple[Shown, ...]
    images: int
    entropies: tuple[float, ...]
    right: str


NOTHING = Gallery((), (), 0, (), "")
"""The gallery of a predictor that could not answer."""


def gallery(images: Tensor, answers: Answers, shown: int = SHOWN) -> Gallery:
    """Choose the images worth looking at.

    Args:
        images: (N, C, H, W), uint8, or floats in [0, 1]; of two channels the first is shown, of more than three the
            first three.
        answers: What the ensemble said about them, with labels.
        shown: How many images of each kind there are at most.

    Raises:
        DataError: There are no labels, no images, or not as many as answers.
    """
    right = answers.correct
    if answers.labels is None or images.dim() != 4 or len(images) != len(right) or len(images) == 0:
        shape = f"images {tuple(images.shape)} and {len(right)} answers"
        raise DataError(f"{shape}: pass (N, C, H, W) and one answer for each, for one image at least")
    entropies = answers.prediction.predictive_entropy
    confidence = answers.prediction.probabilities.amax(dim=1)
    uncertain = entropies.argsort(descending=True, stable=True)[:shown].tolist()
    sure = confidence.masked_fill(right, -1).argsort(descending=True, stable=True)
    wrong = sure[: min(shown, int((~right).sum()))].tolist()
    order = _sample(entropies)
    return Gallery(
        uncertain=tuple(_shown(images[i], int(answers.labels[i]), answers, i) for i in uncertain),
        confidently_wrong=tuple(_shown(images[i], int(answers.labels[i]), answers, i) for i in wrong),
        images=len(images),
        entropies=tuple(float(f"{value:.4g}") for value in entropies[order].tolist()),
        right="".join("1" if one else "0" for one in right[order].tolist()),
    )


def _sample(entropies: Tensor) -> Tensor:
    """Indices from the least to the most uncertain; of too many images, evenly spaced ones in that order."""
    return entropies.argsort(stable=True)[evenly(len(entropies), SAMPLE)]


def _shown(image: Tensor, label: int, answers: Answers, index: int) -> Shown:
    prediction = answers.prediction
    probabilities = prediction.probabilities[index]
    own = answers.logits[:, index].softmax(dim=-1).max(dim=-1)
    return Shown(
        index=index,
        picture=_data_uri(image),
        pixelated=max(image.shape[1:]) <= SMALL,
        label=label,
        answer=int(probabilities.argmax()),
        confidence=float(probabilities.max()),
        entropy=float(prediction.predictive_entropy[index]),
        votes=tuple(Vote(int(answer), float(sure)) for sure, answer in zip(own.values, own.indices, strict=True)),
    )


def _data_uri(image: Tensor) -> str:
    """(C, H, W) as a PNG file inside an address."""
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    rows = pixels[:3].permute(1, 2, 0) if len(pixels) >= 3 else pixels[0]
    picture = Image.fromarray(rows.cpu().numpy())
    picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
