"""One temperature that calibrates an ensemble (Guo et al. 2017), fitted to its combined probabilities.

Pool, then calibrate: the average of calibrated members is underconfident, so that the temperature belongs to the
mixture (Rahaman and Thiery 2021). Raising all probabilities to one power leaves their order, and so every answer.

Shapes: N examples, K classes.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are looked for between these."""
SPREAD = 0.3
"""Standard deviation of the logarithm of a temperature before any example is seen: about a third more or less."""


def temper(probabilities: Tensor, temperature: float) -> Tensor:
    """The probabilities to the power of 1 / temperature, made to sum to one again.

    Args:
        probabilities: (..., K).
        temperature: Above 1 makes them less sure, below 1 surer; 1 returns them as they are.

    Raises:
        SettingsError: The temperature is not a positive finite number.
    """
    if not 0 < temperature < math.inf:
        raise SettingsError(f"temperature {temperature}: pass a positive number, 1 changes nothing")
    if temperature == 1:
        return probabilities
    return torch.softmax(_logs(probabilities) / temperature, dim=-1).to(probabilities.dtype)


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The most probable temperature after some held-out examples.

    Its logarithm is taken to be near 0, Normal(0, `SPREAD`^2), unless examples speak against it: the lowest NLL alone
    makes answers far too sure where a handful of a few hundred is wrong, and without end where none is. What a
    thousand examples say is hardly changed.

    Args:
        probabilities: (N, K), the ensemble's, on examples that it was not trained on.
        labels: (N,), integers.

    Returns:
        A number in [0.05, 20].

    Raises:
        DataError: There is no example, or as many labels as there are not examples.
    """
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or probabilities.numel() == 0:
        shapes = f"probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)}"
        raise DataError(f"{shapes}: pass (examples, classes) and (examples,), neither of them empty")
    labels = labels.to(probabilities.device, torch.int64)
    logs = _logs(probabilities)

    def surprise(log_temperature: float) -> float:
        nll = torch.nn.functional.cross_entropy(logs / math.exp(log_temperature), labels, reduction="sum")
        return float(nll) + (log_temperature / SPREAD) ** 2 / 2

    found = minimize_scalar(surprise, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return math.exp(float(found.x))


def _logs(probabilities: Tensor) -> Tensor:
    """In float64; what is impossible to one part in 10^38 counts as that."""
    return probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()
