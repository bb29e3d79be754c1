from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.blocks import ood
from structured_ensembles.evaluation.blocks.ood import SCORES, detection, out_of_distribution
from structured_ensembles.options.choices import Combine

SEEDS = st.integers(0, 10**6)
NUMBERS = st.tuples(st.integers(1, 60), st.integers(1, 60))


def answers(*shape, seed=0, scale=3.0, combine=Combine.PROBABILITIES):
    logits = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return Answers(logits, None, combine)


def scored(seed, numbers, *, levels=None):
    """Scores of two overlapping sets; of few ``levels`` many are tied."""
    generator = torch.Generator().manual_seed(seed)
    inside, outside = (torch.randn(number, generator=generator) for number in numbers)
    outside = outside + 1
    return (inside, outside) if levels is None else ((inside * levels).round(), (outside * levels).round())


def slow_detection(inside, outside):
    inside, outside = inside.tolist(), outside.tolist()
    pairs = [(b > a) + (b == a) / 2 for a in inside for b in outside]
    return {
        "auroc": sum(pairs) / len(pairs),
        "aupr_in": slow_precision([-score for score in inside], [-score for score in outside]),
        "aupr_out": slow_precision(outside, inside),
        "fpr95": slow_fpr95(inside, outside),
    }


def slow_precision(positives, negatives):
    """At every threshold, its precision times the recall that it adds."""
    area = recall = 0.0
    for threshold in sorted({*positives, *negatives}, reverse=True):
        right, wrong = (sum(score >= threshold for score in scores) for scores in (positives, negatives))
        area += right / (right + wrong) * (right / len(positives) - recall)
        recall = right / len(positives)
    return area


def slow_fpr95(inside, outside):
    """Below or at the threshold an image passes for inside."""
    for threshold in sorted({*inside, *outside}):
        if sum(score <= threshold for score in inside) / len(inside) >= 0.95:
            return sum(score <= threshold for score in outside) / len(outside)
    raise AssertionError("everything passes at the highest score")


@settings(max_examples=40)
@given(seed=SEEDS, numbers=NUMBERS, levels=st.sampled_from([None, 0, 1, 3]))
def test_detection_is_what_an_obvious_loop_counts(seed, numbers, levels):
    inside, outside = scored(seed, numbers, levels=levels)
    assert asdict(detection(inside, outside)) == pytest.approx(slow_detection(inside, outside))


@settings(max_examples=20)
@given(seed=SEEDS, numbers=NUMBERS, levels=st.sampled_from([None, 2]))
def test_detection_agrees_with_torch_uncertainty_and_torchmetrics(seed, numbers, levels):
    metrics = pytest.importorskip("torch_uncertainty.metrics.classification")
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    inside, outside = scored(seed, numbers, levels=levels)
    # between 0 and 1, or torchmetrics takes them for logits and its sigmoid makes ties
    unusual = torch.cat([inside, outside]).double() / 100 + 0.5
    is_outside = torch.arange(len(unusual)) >= len(inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all scores
        fpr95 = metrics.FPR95(pos_label=0)
    fpr95.update(-unusual, is_outside.long())
    expected = {
        "auroc": binary_auroc(unusual, is_outside.long()),
        "aupr_in": binary_average_precision(1 - unusual, (~is_outside).long()),
        "aupr_out": binary_average_precision(unusual, is_outside.long()),
        "fpr95": fpr95.compute(),
    }
    found = asdict(detection(inside, outside))
    assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [
        ([0.0, 1.0], [2.0, 3.0, 4.0], (1, 1, 1, 0)),
        ([2.0], [1.0], (0, 1 / 2, 1 / 2, 1)),
        ([1.0, 1.0], [1.0, 1.0, 1.0], (1 / 2, 2 / 5, 3 / 5, 1)),
    ],
    ids=["perfect", "upside down", "all tied"],
)
def test_detection_of_cases_that_are_known(inside, outside, expected):
    found = asdict(detection(torch.tensor(inside), torch.tensor(outside)))
    assert tuple(found.values()) == pytest.approx(expected)


def test_one_in_twenty_from_inside_may_be_refused():
    inside = torch.arange(20.0)
    assert detection(inside, torch.tensor([17.5, 18.5, 99.0, 99.0])).fpr95 == 1 / 4
    assert detection(inside[1:], torch.tensor([17.5, 18.5, 99.0, 99.0])).fpr95 == 2 / 4  # of 19 none may


def test_sets_of_the_same_scores_cannot_be_told_apart():
    scores = torch.arange(20.0)  # their curve is a straight line, on which 95 % is but one of the points
    assert detection(scores, scores).fpr95 == 19 / 20
    assert detection(scores, scores).auroc == pytest.approx(1 / 2)


def test_detection_ignores_the_order_and_any_rising_change_of_the_scores():
    inside, outside = scored(0, (50, 40))
    expected = detection(inside, outside)
    assert detection(inside.flip(0), outside.flip(0)) == expected
    assert detection(inside.exp(), outside.exp()) == expected


def test_the_scores_are_what_they_are_called():
    said = answers(3, 7, 4)
    own = said.logits.double().softmax(dim=2)
    mean = own.mean(dim=0)
    entropy, expected = -(mean * mean.log()).sum(dim=1), -(own * own.log()).sum(dim=2).mean(dim=0)
    energy = sum(-logits.double().exp().sum(dim=1).log() for logits in said.logits) / 3
    slow = {
        "entropy": entropy,
        "mutual_information": entropy - expected,
        "max_probability": 1 - mean.amax(dim=1),
        "energy": energy,
    }
    assert list(SCORES) == list(slow)
    for name, score in SCORES.items():
        assert score(said).shape == (7,)
        assert torch.allclose(score(said).double(), slow[name], atol=1e-5), name


@pytest.mark.parametrize(("name", "score"), SCORES.items(), ids=SCORES)
def test_every_score_is_higher_where_the_members_are_unsure(name, score):
    right = 10 * torch.eye(5)[None].expand(3, -1, -1)
    disagreeing = torch.stack([8 * torch.eye(5).roll(shift, dims=0) for shift in range(3)])
    sure, unsure = (Answers(logits, None, Combine.PROBABILITIES) for logits in (right, disagreeing))
    assert score(unsure).min() > score(sure).max()


@pytest.mark.parametrize("combine", Combine)
def test_the_energy_sees_what_no_probability_shows(combine):
    inside = answers(2, 6, 3, combine=combine)
    outside = Answers(inside.logits - 5, None, combine)
    found = out_of_distribution(inside, outside, "shifted").scores
    assert found["energy"].auroc > 0.9
    assert found["max_probability"].auroc == pytest.approx(1 / 2, abs=0.1)  # rounding breaks some of the ties
    assert ood.energy(outside) == pytest.approx(ood.energy(inside) + 5)


def test_the_result_is_one_element_of_the_report():
    inside, outside = answers(3, 40, 4, scale=9), answers(3, 30, 4, seed=1, scale=0.5)
    found = out_of_distribution(inside, outside, "noise")
    stored = json.loads(json.dumps(asdict(found)))
    assert (stored["name"], stored["images"]) == ("noise", 30)
    assert set(stored) == {"name", "images", "scores", "histogram"}
    for name, score in SCORES.items():
        assert stored["scores"][name] == asdict(detection(score(inside), score(outside)))
    assert stored["scores"]["entropy"]["auroc"] > 0.9


def test_the_histogram_counts_every_image_once():
    inside, outside = answers(2, 200, 4), answers(2, 100, 4, seed=1)
    found = out_of_distribution(inside, outside, "noise").histogram
    edges = [i * math.log(4) / 20 for i in range(21)]
    assert found["edges"] == pytest.approx(edges)
    for counts, said in ((found["inside"], inside), (found["outside"], outside)):
        entropies = said.prediction.predictive_entropy.tolist()
        assert counts == tuple(sum(a <= one < b for one in entropies) for a, b in pairwise(edges))


def test_the_histogram_holds_the_surest_and_the_least_sure():
    sure, unsure = torch.tensor([[[500.0, 0, 0]]]), torch.zeros(1, 1, 3)
    both = Answers(torch.cat([sure, unsure], dim=1), None, Combine.PROBABILITIES)
    found = out_of_distribution(both, both, "the same")
    assert found.histogram["inside"] == found.histogram["outside"] == (1, *[0] * 18, 1)


def test_one_member_and_one_class_have_numbers_too():
    found = out_of_distribution(answers(1, 5, 3), answers(1, 4, 3, seed=1), "noise").scores
    assert found["mutual_information"] == detection(torch.zeros(5), torch.zeros(4))
    found = out_of_distribution(answers(2, 5, 1), answers(2, 4, 1, seed=1), "noise")
    assert found.scores["entropy"].auroc == pytest.approx(1 / 2)
    assert sum(found.histogram["inside"]) == 5


def with_nan(said):
    said.logits[1, 2, 0] = math.nan
    return said


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (answers(2, 0, 3), answers(2, 4, 3), "there are no images inside"),
        (answers(2, 5, 3), answers(2, 0, 3), r"there are no images outside \(noise\)"),
        (with_nan(answers(2, 5, 3)), answers(2, 4, 3), "the logits of 1 of 5 images inside are NaN"),
        (answers(2, 5, 3), with_nan(answers(2, 4, 3)), r"the logits of 1 of 4 images outside \(noise\) are NaN"),
        (answers(2, 5, 3), answers(2, 5, 4), r"noise: logits \(2, 5, 3\) inside, but \(2, 5, 4\) outside"),
        (answers(2, 5, 3), answers(3, 5, 3), "members and classes must agree"),
    ],
)
def test_bad_answers_are_refused(inside, outside, message):
    with pytest.raises(DataError, match=message):
        out_of_distribution(inside, outside, "noise")


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [
        (torch.zeros(0), torch.zeros(2), r"scores inside of shape \(0,\): pass \(images,\), with one image"),
        (torch.zeros(2), torch.zeros(2, 2), r"scores outside of shape \(2, 2\)"),
        (torch.zeros(2), torch.tensor([math.nan, 1, math.inf]), "2 of 3 scores outside are NaN or infinite"),
    ],
)
def test_bad_scores_are_refused(inside, outside, message):
    with pytest.raises(DataError, match=message):
        detection(inside, outside)
