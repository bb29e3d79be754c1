from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.prediction.temperature import SPREAD, fit_temperature, temper


def drawn(seed: int, examples: int = 400, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, and labels that were drawn from them: calibrated as they are."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(examples, classes, generator=generator)).softmax(dim=1)
    return probabilities, probabilities.multinomial(1, generator=generator).flatten()


def surprise(probabilities: torch.Tensor, labels: torch.Tensor, temperature: float) -> float:
    """By the definition: the examples' NLL, and a Normal prior on the logarithm."""
    tempered = temper(probabilities, temperature).double()
    return -float(tempered.gather(1, labels[:, None]).log().sum()) + math.log(temperature) ** 2 / (2 * SPREAD**2)


@given(st.integers(0, 2**20), st.floats(0.2, 5), st.integers(1, 400))
def test_no_temperature_of_a_fine_grid_is_more_probable(seed, distortion, examples):
    probabilities, labels = drawn(seed, examples)
    probabilities = temper(probabilities.double(), distortion)

    found = surprise(probabilities, labels, fit_temperature(probabilities, labels))

    grid = torch.linspace(-2.9, 2.9, 200).exp().tolist()
    assert found <= min(surprise(probabilities, labels, t) for t in grid) + 1e-6


@pytest.mark.parametrize("distortion", [0.5, 1.0, 2.0])
def test_a_distortion_is_found_and_undone(distortion):
    probabilities, labels = drawn(0, examples=20_000)

    assert fit_temperature(temper(probabilities, distortion), labels) == pytest.approx(1 / distortion, rel=0.05)


@given(st.integers(0, 2**20), st.floats(0.1, 10))
def test_tempered_probabilities_sum_to_one_and_keep_their_order(seed, temperature):
    probabilities, _ = drawn(seed, examples=20)
    tempered = temper(probabilities.double(), temperature)

    assert torch.allclose(tempered.sum(dim=1), torch.ones(20, dtype=torch.float64))
    assert torch.equal(tempered.argsort(dim=1), probabilities.double().argsort(dim=1))


def test_one_changes_nothing_and_the_type_stays():
    probabilities, _ = drawn(1)
    assert temper(probabilities, 1) is probabilities
    assert temper(probabilities, 2).dtype is probabilities.dtype


def test_a_few_right_answers_do_not_make_it_sure():
    probabilities = torch.tensor([[0.9, 0.1]] * 50)
    labels = torch.zeros(50, dtype=torch.int64)

    few, many = fit_temperature(probabilities[:5], labels[:5]), fit_temperature(probabilities, labels)

    assert 0.3 < many < few < 1


def test_thousands_speak_louder_than_what_was_expected():
    probabilities, labels = drawn(3, examples=5000)
    assert fit_temperature(temper(probabilities, 0.2), labels) == pytest.approx(5, rel=0.05)


def test_a_certain_mistake_costs_a_finite_loss():
    probabilities = torch.eye(2)[[0, 0, 0, 1]]
    assert 1 < fit_temperature(probabilities, torch.tensor([0, 0, 1, 1])) <= 20


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(SettingsError, match="pass a positive number"):
        temper(torch.eye(2), temperature)


@pytest.mark.parametrize(("shape", "labels"), [((0, 3), 0), ((4, 3), 3), ((4,), 4)])
def test_what_cannot_be_fitted_to_is_refused(shape, labels):
    with pytest.raises(DataError, match="neither of them empty"):
        fit_temperature(torch.ones(shape), torch.zeros(labels, dtype=torch.int64))
