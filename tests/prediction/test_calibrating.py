from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structured_ensembles.errors import DataError
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.calibrating import GAMMAS, calibrate, choose_abstention
from structured_ensembles.prediction.uncertainty import (
    predict_from_logits,
    quartiles,
    rejection_report,
    threshold_above,
)


def entropies_and_answers(seed: int, wrong: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(60, generator=generator) >= wrong
    return torch.rand(60, generator=generator) + (~correct), correct


@given(st.integers(0, 2**20), st.sampled_from([0.0, 0.02, 0.3, 0.8]))
def test_no_gamma_of_the_grid_separates_better(seed, wrong):
    entropies, correct = entropies_and_answers(seed, wrong)
    chosen = choose_abstention(entropies, correct)
    if chosen is None:
        assert not correct.any()
        return

    def gain(threshold: float) -> float:
        caught = [e > threshold for e, right in zip(entropies.tolist(), correct.tolist(), strict=True) if not right]
        lost = [e > threshold for e, right in zip(entropies.tolist(), correct.tolist(), strict=True) if right]
        return sum(caught) / max(len(caught), 1) - sum(lost) / len(lost)

    thresholds = {gamma: threshold_above(quartiles(entropies[correct]), gamma) for gamma in GAMMAS}
    assert chosen.threshold == pytest.approx(thresholds[chosen.gamma])
    best = max(gain(threshold) for threshold in thresholds.values())
    assert gain(chosen.threshold) == pytest.approx(best)
    assert all(gain(thresholds[gamma]) < best + 1e-9 for gamma in GAMMAS if gamma > chosen.gamma)


def test_where_all_is_right_it_abstains_least():
    entropies, correct = entropies_and_answers(0, 0.0)
    assert choose_abstention(entropies, correct).gamma == max(GAMMAS)


def test_doubtful_mistakes_are_caught():
    entropies = torch.cat([torch.linspace(0, 1, 40), torch.full((10,), 1.3)])
    chosen = choose_abstention(entropies, torch.arange(50) < 40)
    assert rejection_report(entropies, torch.arange(50) < 40, chosen.threshold).accuracy_of_kept == 1


def test_nan_is_refused():
    with pytest.raises(DataError, match="NaN"):
        choose_abstention(torch.tensor([0.1, float("nan")]), torch.tensor([True, False]))


def test_a_very_sure_ensemble_keeps_what_it_is_sure_of():
    labels = torch.arange(60) % 3
    logits = 25 * torch.eye(3)[labels] + torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0))
    remembered = calibrate(logits, labels, Combine.PROBABILITIES)
    entropies = predict_from_logits(logits).predictive_entropy
    assert entropies.max() < 1e-6  # six digits would leave nothing of them
    assert (entropies > remembered["rejection_threshold"]).float().mean() < 0.25


def test_what_a_file_remembers_is_what_was_chosen():
    logits = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 4

    remembered = calibrate(logits, labels, Combine.PROBABILITIES)

    prediction = predict_from_logits(logits)
    right = prediction.predictive_entropy[prediction.classes == labels]
    threshold = threshold_above(quartiles(right), remembered["rejection_gamma"])
    assert remembered["rejection_threshold"] == pytest.approx(threshold, abs=1e-5)
    assert remembered["correct_entropy_quartiles"] == pytest.approx(
        [float(right.quantile(0.25)), float(right.quantile(0.75))], abs=1e-5
    )
    assert remembered["temperature"] > 1  # labels that have nothing to do with the logits


def test_nothing_right_leaves_nothing_to_choose():
    logits = torch.tensor([[[5.0, 0.0]]])
    remembered = calibrate(logits, torch.tensor([1]), Combine.LOGITS)
    assert remembered["rejection_threshold"] is remembered["correct_entropy_quartiles"] is None
