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
    """The temperature with the lowest NLL on held-out examples.

    The NLL is convex in 1 / temperature, so that the minimum found is the only one. Where every answer is right there
    is none (the surer the better), and nothing is known about how sure to be: the temperature is then 1.

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
    if bool((probabilities.argmax(dim=1) == labels).all()):
        return 1.0
    logs = _logs(probabilities)

    def nll(log_temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logs / math.exp(log_temperature), labels))

    found = minimize_scalar(nll, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return math.exp(float(found.x))


def _logs(probabilities: Tensor) -> Tensor:
    """In float64; what is impossible to one part in 10^38 counts as that."""
    return probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()
