"""What an ensemble that is ready says about inputs that are not those of its training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from structured_ensembles.artefact.file import Record
from structured_ensembles.errors import DataError
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.prediction.uncertainty import predict_from_logits

RECORD = Record("deep", 1, ("a", "b"), (1, 4, 4), Combine.PROBABILITIES, None)


def ensemble() -> Ensemble:
    return Ensemble([nn.Sequential(nn.Flatten(), nn.Linear(16, 2))], RECORD)


def test_an_array_will_do() -> None:
    inputs, ours = torch.rand(3, 1, 4, 4), ensemble()
    assert torch.equal(ours.logits(inputs.double().numpy()), ours.logits(inputs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (object(), r"inputs are a object: pass one tensor or array of shape \(B, 1, 4, 4\)"),
        (torch.rand(1, 4, 4), r"of shape \(1, 4, 4\): pass a batch of shape \(B, 1, 4, 4\)"),
        (torch.rand(2, 1, 2, 4), r"fails on inputs of shape \(2, 1, 2, 4\) .*trained on inputs of shape \(B, 1"),
        (np.zeros((2, 1, 4, 4), np.uint8), "fails on inputs of type torch.uint8"),
        (torch.full((2, 1, 4, 4), float("nan")), "2 of 2 inputs hold NaN"),
    ],
)
def test_other_inputs_are_refused(inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ensemble().logits(inputs)


def test_a_network_that_takes_any_size_still_does() -> None:
    anything = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2))
    assert Ensemble([anything], RECORD).logits(torch.rand(3, 1, 9, 7)).shape == (1, 3, 2)


def test_failures_of_another_cause_are_told_as_they_are() -> None:
    class Broken(nn.Linear):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a cause of its own")

    with pytest.raises(RuntimeError, match="a cause of its own"):
        Ensemble([Broken(16, 2)], RECORD).logits(torch.rand(3, 1, 4, 4))


@pytest.mark.parametrize("temperature", [0.3, 20.0])
def test_a_temperature_turns_no_near_tie(temperature: float) -> None:
    ours = Ensemble([nn.Linear(16, 2)], replace(RECORD, summary={"temperature": temperature}))
    generator = torch.Generator().manual_seed(0)
    first = 5 * torch.rand(2000, generator=generator)
    near = torch.stack([first, first + 1e-6 * torch.randn(2000, generator=generator)], dim=1)
    prediction = predict_from_logits(near.unsqueeze(0))
    apart = prediction.probabilities[:, 0] != prediction.probabilities[:, 1]
    tempered = ours.calibrated(prediction).probabilities.argmax(dim=1)
    assert torch.equal(tempered[apart], prediction.classes[apart])
