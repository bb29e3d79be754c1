from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.blocks.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    reject_by_gamma,
    risk_at_coverage,
    risk_coverage,
    selective,
)
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.calibrating import GAMMAS
from structured_ensembles.prediction.uncertainty import quartiles, rejection_report, threshold_above

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60)
FEW = st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6)
CASES = st.tuples(st.integers(2, 80), st.integers(2, 7), st.integers(0, 10**6))
SHARES = st.integers(1, 100).map(lambda percent: percent / 100)


@pytest.fixture(scope="module")
def library() -> ModuleType:
    """An independent judge, where it is installed."""
    return pytest.importorskip("torch_uncertainty.metrics.classification", exc_type=ImportError)


def tensors(examples: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([float(doubt) for doubt, _ in examples]), torch.tensor([right for _, right in examples])


def draw(case: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Probabilities in float64, so that the other library computes in it, and labels that they often hit."""
    examples, classes, seed = case
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(examples, classes, generator=generator).double()).softmax(1)
    return probabilities, probabilities.multinomial(1, generator=generator)[:, 0]


def draw_answers(examples: int, members: int = 3, classes: int = 5, seed: int = 0) -> Answers:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, examples, classes, generator=generator)
    labels = torch.where(torch.rand(examples, generator=generator) < 0.8, logits.mean(0).argmax(1), 0)
    return Answers(logits, labels, Combine.PROBABILITIES)


def slow_risks(right: list[bool]) -> list[float]:
    """Risk when the first k are answered."""
    return [sum(not good for good in right[:k]) / k for k in range(1, len(right) + 1)]


@given(FEW)
def test_at_ties_every_number_is_the_mean_over_all_orders(examples):
    uncertainty, correct = tensors(examples)
    orders = [p for p in itertools.permutations(examples) if [d for d, _ in p] == sorted(d for d, _ in p)]
    risks = np.mean([slow_risks([right for _, right in order]) for order in orders], axis=0)
    wrong = [0, *(risks * np.arange(1, len(risks) + 1) / len(risks))]
    assert aurc(uncertainty, correct) == pytest.approx(risks.mean())
    assert augrc(uncertainty, correct) == pytest.approx(np.trapezoid(wrong, dx=1 / len(risks)))
    assert risk_coverage(uncertainty, correct).risk == pytest.approx(risks)
    for k, risk in enumerate(risks, start=1):
        assert risk_at_coverage(uncertainty, correct, k / len(risks)) == pytest.approx(risk)


@given(CASES, SHARES)
def test_without_ties_against_torch_uncertainty(library, case, share):
    probabilities, labels = draw(case)
    uncertainty, correct = -probabilities.amax(1), probabilities.argmax(1) == labels
    assume(len(uncertainty.unique()) == len(labels))
    examples = len(labels)
    if math.ceil(share * examples) == math.ceil(share * examples - 1e-9):  # 0.14 * 50 is for it above 7, and so 8
        oracle = library.RiskAtxCov(share)(probabilities, labels)
        assert risk_at_coverage(uncertainty, correct, share) == pytest.approx(oracle.item())
    oracle = library.CovAtxRisk(share)(probabilities, labels)
    # where no coverage is good enough it says NaN
    assert coverage_at_risk(uncertainty, correct, share) == pytest.approx(oracle.nan_to_num(0.0).item())
    # its areas start at coverage 1/N, and are stretched by the share of the axis that this leaves
    risks = slow_risks(correct[uncertainty.argsort()].tolist())
    ours = (aurc(uncertainty, correct) * examples - (risks[0] + risks[-1]) / 2) / (examples - 1)
    assert ours == pytest.approx(library.AURC()(probabilities, labels).item())
    first = risks[0] / examples**2 / 2
    ours = (augrc(uncertainty, correct) - first) / (1 - 1 / examples)
    assert ours == pytest.approx(library.AUGRC()(probabilities, labels).item())


@given(EXAMPLES)
def test_generalised_area_is_the_published_function_of_scikit_learns_auroc(examples):
    uncertainty, correct = tensors(examples)
    accuracy = correct.double().mean().item()
    auroc = roc_auc_score(~correct, uncertainty) if 0 < accuracy < 1 else 0.5
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert augrc(uncertainty, correct) == pytest.approx(expected, abs=1e-12)


@given(EXAMPLES, SHARES, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_and_the_scale_change_nothing(examples, share, random):
    uncertainty, correct = tensors(examples)
    order = random.sample(range(len(examples)), len(examples))
    other, its = 7 * uncertainty[order].double() - 3, correct[order]
    assert aurc(uncertainty, correct) == aurc(other, its)
    assert augrc(uncertainty, correct) == augrc(other, its)
    assert coverage_at_risk(uncertainty, correct, share) == coverage_at_risk(other, its, share)
    assert risk_at_coverage(uncertainty, correct, share) == risk_at_coverage(other, its, share)


@given(EXAMPLES, SHARES)
def test_coverage_and_risk_are_each_others_inverse(examples, share):
    uncertainty, correct = tensors(examples)
    coverage = coverage_at_risk(uncertainty, correct, share)
    if coverage:
        assert risk_at_coverage(uncertainty, correct, coverage) <= share
    for answered in range(round(coverage * len(examples)) + 1, len(examples) + 1):
        assert risk_at_coverage(uncertainty, correct, answered / len(examples)) > share
    assert coverage_at_risk(uncertainty, correct, 1.0) == 1


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_perfect_ranking_is_the_best_and_its_reverse_the_worst(right, wrong):
    correct = torch.tensor([True] * right + [False] * wrong)
    places = torch.arange(right + wrong).double()
    generator = torch.Generator().manual_seed(right * 100 + wrong)
    random = torch.rand(right + wrong, generator=generator)
    for area in (aurc, augrc):
        assert area(places, correct) <= area(random, correct) + 1e-12
        assert area(random, correct) <= area(-places, correct) + 1e-12
    share = wrong / (right + wrong)
    assert augrc(places, correct) == pytest.approx(share**2 / 2)
    assert aurc(torch.zeros(right + wrong), correct) == pytest.approx(share)  # nothing is known: the risk is flat
    assert coverage_at_risk(places, correct, 0.0) == right / (right + wrong)


def test_curves_of_four_examples_by_hand():
    uncertainty = torch.tensor([0.4, 0.1, 0.3, 0.2])
    correct = torch.tensor([False, True, True, False])  # in order: right, wrong, right, wrong
    assert aurc(uncertainty, correct) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert augrc(uncertainty, correct) == pytest.approx((0 / 2 + 0 + 1 + 1 + 2 / 2) / 4**2)
    assert coverage_at_risk(uncertainty, correct, 0.4) == 3 / 4
    assert coverage_at_risk(uncertainty, correct, 1 / 3) == 3 / 4  # just reached is reached
    assert coverage_at_risk(uncertainty, correct, 0.05) == 1 / 4
    assert risk_at_coverage(uncertainty, correct, 0.8) == 2 / 4
    assert risk_at_coverage(uncertainty, correct, 0.75) == 1 / 3
    assert risk_at_coverage(uncertainty, correct, 1e-12) == 0


def test_an_unreachable_risk_is_no_coverage():
    assert coverage_at_risk(torch.arange(3.0), torch.tensor([False, False, True]), 0.05) == 0


def test_a_product_just_above_a_whole_number_takes_no_further_example():
    assert 0.07 * 100 > 7
    correct = torch.ones(100, dtype=torch.bool)
    correct[7:] = False
    assert risk_at_coverage(torch.arange(100.0), correct, 0.07) == 0


@pytest.mark.parametrize("examples", [1, 7, 99, 100, 101, 250, 10_000])
def test_the_curve_has_both_ends_and_101_points_at_the_most(examples):
    generator = torch.Generator().manual_seed(examples)
    uncertainty, correct = torch.rand(examples, generator=generator), torch.rand(examples, generator=generator) < 0.7
    curve = risk_coverage(uncertainty, correct)
    assert len(curve.coverage) == len(curve.risk) == min(examples, 100 if examples <= 100 else 101)
    assert (curve.coverage[0], curve.coverage[-1]) == (1 / examples, 1)
    assert list(curve.coverage) == sorted(set(curve.coverage))
    right = correct[uncertainty.argsort()]
    expected = [1 - right[: round(coverage * examples)].double().mean().item() for coverage in curve.coverage]
    assert curve.risk == pytest.approx(expected, abs=1e-12)


def test_rejection_by_the_published_gammas():
    assert pytest.approx(np.linspace(0, 3, 10)) == GAMMAS
    answers = draw_answers(300)
    entropies, correct = answers.prediction.predictive_entropy, answers.correct
    q1, q3 = np.quantile(entropies[correct].double(), [0.25, 0.75])
    rows = reject_by_gamma(entropies, correct, (q1, q3))
    assert [row.gamma for row in rows] == list(GAMMAS)
    for row in rows:
        threshold = threshold_above(quartiles(entropies[correct]), row.gamma)
        assert row.threshold == pytest.approx(threshold)
        rejection = dataclasses.asdict(rejection_report(entropies, correct, row.threshold))
        assert dataclasses.asdict(row) == pytest.approx(
            {"gamma": row.gamma, "threshold": threshold, **rejection}, nan_ok=True
        )
    shares = [row.rejected_share for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.2


def test_selective_gathers_the_single_functions():
    answers = draw_answers(300)
    entropies, correct = answers.prediction.predictive_entropy, answers.correct
    found = selective(answers, threshold=0.9, gamma=1.5, quartiles=(0.2, 0.6))
    assert found.aurc == aurc(entropies, correct)
    assert found.augrc == augrc(entropies, correct)
    assert found.coverage_at_5_risk == coverage_at_risk(entropies, correct, 0.05)
    assert found.risk_at_80_coverage == risk_at_coverage(entropies, correct, 0.8)
    assert found.curve == risk_coverage(entropies, correct)
    assert (found.threshold, found.gamma) == (0.9, 1.5)
    assert found.at_threshold == rejection_report(entropies, correct, 0.9)
    assert str(found.by_gamma) == str(reject_by_gamma(entropies, correct, (0.2, 0.6)))  # no NaN equals another
    assert set(dataclasses.asdict(found)["by_gamma"][0]) == {
        *("gamma", "threshold", "rejected_share"),
        *("right_share_of_rejected", "wrong_share_of_rejected", "accuracy_of_kept"),
    }


def test_an_ensemble_without_a_threshold_has_its_curve():
    found = selective(draw_answers(30))
    assert (found.threshold, found.gamma, found.at_threshold, found.by_gamma) == (None, None, None, None)
    endless = selective(draw_answers(30), threshold=math.inf)
    assert endless.at_threshold is not None
    assert endless.at_threshold.rejected_share == 0


def test_one_class_and_one_example_are_measured():
    one = Answers(torch.zeros(2, 3, 1), torch.zeros(3, dtype=torch.int64), Combine.PROBABILITIES)
    found = selective(one)
    assert (found.aurc, found.augrc, found.coverage_at_5_risk, found.risk_at_80_coverage) == (0, 0, 1, 0)
    assert selective(draw_answers(1)).curve.coverage == (1,)


FUNCTIONS = {
    "aurc": aurc,
    "augrc": augrc,
    "coverage_at_risk": lambda uncertainty, correct: coverage_at_risk(uncertainty, correct, 0.05),
    "risk_at_coverage": lambda uncertainty, correct: risk_at_coverage(uncertainty, correct, 0.8),
    "risk_coverage": risk_coverage,
}
RIGHT = torch.tensor([True, False])


@pytest.mark.parametrize(
    ("uncertainty", "correct", "message"),
    [
        (torch.zeros(3), RIGHT, r"\(3,\) uncertainties and \(2,\) answers"),
        (torch.zeros(0), RIGHT[:0], "for one example at least"),
        (torch.zeros(1, 2), RIGHT[None], r"\(1, 2\) uncertainties"),
        (torch.zeros(2), RIGHT.long(), "correct is torch.int64: pass booleans"),
        (torch.tensor([0.1, math.nan]), RIGHT, "1 of 2 uncertainties are NaN"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_cannot_be_ranked_is_refused(function, uncertainty, correct, message):
    with pytest.raises(DataError, match=message):
        function(uncertainty, correct)


def test_shares_outside_their_limits_are_refused():
    for risk in (-0.01, 1.01, math.nan):
        with pytest.raises(SettingsError, match=rf"risk {risk}: .* from 0 to 1"):
            coverage_at_risk(torch.zeros(2), RIGHT, risk)
    for coverage in (0, 1.01, math.nan):
        with pytest.raises(SettingsError, match=rf"coverage {coverage}: .*\(0, 1\]"):
            risk_at_coverage(torch.zeros(2), RIGHT, coverage)


@pytest.mark.parametrize("quartiles", [(0.6, 0.2), (-0.1, 0.2), (0.1, math.inf), (math.nan, 0.2), (0.1, math.nan)])
def test_quartiles_that_make_no_sense_are_refused(quartiles):
    with pytest.raises(SettingsError, match=r"quartiles .*: pass the lower and the upper quartile"):
        selective(draw_answers(4), quartiles=quartiles)


def test_answers_that_cannot_be_measured_are_refused():
    answers = draw_answers(4)
    with pytest.raises(DataError, match="these images have no labels"):
        selective(Answers(answers.logits, None, answers.combine))
    with pytest.raises(SettingsError, match="threshold nan"):
        selective(answers, threshold=math.nan)
    with pytest.raises(DataError, match="neither of them empty"):
        selective(draw_answers(0))
    broken = answers.logits.clone()
    broken[1, 2] = math.nan
    with pytest.raises(DataError, match="probabilities of 1 of 4 examples are NaN"):
        selective(Answers(broken, answers.labels, answers.combine))
