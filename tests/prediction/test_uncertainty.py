from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.uncertainty import (
    disagreement,
    entropy,
    pairwise_kl,
    predict_from_logits,
    quartiles,
    rejection_report,
    threshold_above,
    variation_ratio,
)

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7))
SEEDS = st.integers(0, 10**6)
SPREADS = st.sampled_from([0.01, 1.0, 30.0])


def draw_logits(shape: tuple[int, int, int], seed: int, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


@given(SHAPES, SEEDS, SPREADS)
def test_mixture_against_a_slow_loop_in_double(shape, seed, spread):
    logits = draw_logits(shape, seed, spread)
    prediction = predict_from_logits(logits)
    members, batch, classes = shape
    for b in range(batch):
        own = [logits[m, b].double().softmax(0).tolist() for m in range(members)]
        mean = [sum(p[k] for p in own) / members for k in range(classes)]
        total, expected = slow_entropy(mean), sum(map(slow_entropy, own)) / members
        assert prediction.probabilities[b].tolist() == pytest.approx(mean, abs=1e-5)
        assert prediction.predictive_entropy[b].item() == pytest.approx(total, abs=1e-5)
        assert prediction.expected_entropy[b].item() == pytest.approx(expected, abs=1e-5)
        assert prediction.mutual_information[b].item() == pytest.approx(max(total - expected, 0), abs=1e-5)
        assert prediction.votes[:, b].tolist() == [p.index(max(p)) for p in own]


@given(SHAPES, SEEDS, SPREADS)
def test_properties_of_the_mixture(shape, seed, spread):
    prediction = predict_from_logits(draw_logits(shape, seed, spread))
    members, _, classes = shape
    torch.testing.assert_close(prediction.probabilities.sum(1), torch.ones(shape[1]))
    assert (prediction.mutual_information >= 0).all()
    assert (prediction.mutual_information <= math.log(members) + 1e-5).all()
    assert (prediction.predictive_entropy <= math.log(classes) + 1e-5).all()
    assert (prediction.expected_entropy >= -1e-6).all()


def test_mean_logits_is_the_published_combination_and_leaves_the_difference_signed():
    logits = torch.tensor([[[4.0, 0.0, 0.0]], [[0.0, 4.0, 3.0]]])
    prediction = predict_from_logits(logits, Combine.LOGITS)
    torch.testing.assert_close(prediction.probabilities, logits.mean(0).softmax(-1))
    torch.testing.assert_close(prediction.predictive_entropy, entropy(prediction.probabilities))
    difference = prediction.predictive_entropy - prediction.expected_entropy
    torch.testing.assert_close(prediction.mutual_information, difference)
    # both members leave two classes open, not the same two: their mean logits leave one
    logits = torch.tensor([[[9.0, 9.0, 0.0]], [[9.0, 0.0, 9.0]]])
    assert predict_from_logits(logits, Combine.LOGITS).mutual_information.item() < -0.5
    assert predict_from_logits(logits).mutual_information.item() > 0.3


def test_members_that_agree_and_members_that_are_sure_of_different_things():
    agreeing = draw_logits((1, 4, 3), 0).expand(5, 4, 3)
    torch.testing.assert_close(predict_from_logits(agreeing).mutual_information, torch.zeros(4), atol=1e-6, rtol=0)
    sure = 1e4 * torch.eye(3)[:, None]
    prediction = predict_from_logits(sure)
    assert prediction.mutual_information.item() == pytest.approx(math.log(3))
    assert prediction.expected_entropy.item() == 0
    assert prediction.probabilities[0].tolist() == pytest.approx([1 / 3] * 3)


def test_one_member_has_no_mutual_information():
    logits = draw_logits((1, 8, 5), 1)
    prediction = predict_from_logits(logits)
    assert prediction.mutual_information.tolist() == [0.0] * 8
    torch.testing.assert_close(prediction.probabilities, logits[0].softmax(-1))


@pytest.mark.parametrize("combine", list(Combine))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_computed_in_float32_and_double_stays_double(dtype, combine):
    logits = draw_logits((3, 4, 5), 2).to(dtype)
    prediction = predict_from_logits(logits, combine)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    reference = predict_from_logits(logits.to(wide), combine)
    for name in ("probabilities", "predictive_entropy", "expected_entropy", "mutual_information"):
        assert getattr(prediction, name).dtype == wide
        assert torch.equal(getattr(prediction, name), getattr(reference, name))
    assert prediction.votes.dtype == torch.int64


def test_impossible_classes_are_no_nan_and_nan_is_not_hidden():
    logits = torch.zeros(2, 2, 3)
    logits[:, :, 2] = -math.inf
    prediction = predict_from_logits(logits)
    assert prediction.predictive_entropy.tolist() == pytest.approx([math.log(2)] * 2)
    assert prediction.probabilities[:, 2].tolist() == [0, 0]
    logits[0, 1, 0] = math.nan
    prediction = predict_from_logits(logits)
    assert prediction.predictive_entropy.isnan().tolist() == [False, True]
    assert prediction.mutual_information.isnan().tolist() == [False, True]


def test_huge_logits_do_not_overflow():
    prediction = predict_from_logits(torch.tensor([[[6e4, 0.0, -6e4]]], dtype=torch.float16))
    assert prediction.probabilities.tolist() == [[1, 0, 0]]
    assert prediction.predictive_entropy.tolist() == [0]
    assert predict_from_logits(torch.full((2, 1, 4), 3e38)).predictive_entropy.item() == pytest.approx(math.log(4))


def test_an_empty_batch_is_an_empty_prediction():
    prediction = predict_from_logits(torch.zeros(2, 0, 3))
    assert prediction.probabilities.shape == (0, 3)
    assert prediction.classes.shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 3), (2, 3, 0), (1, 2, 3, 4)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match=r"logits of shape \(.*members, batch, classes"):
        predict_from_logits(torch.zeros(shape))


def test_entropy_of_known_distributions():
    rows = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    assert entropy(rows).tolist() == pytest.approx([0, math.log(4), math.log(2)])
    assert entropy(rows.half()).dtype == torch.float32
    assert entropy(rows.reshape(1, 3, 4)).shape == (1, 3)


@given(SHAPES, SEEDS)
def test_variation_ratio_and_disagreement_against_slow_loops(shape, seed):
    members, batch, classes = shape
    votes = torch.randint(classes, (members, batch), generator=torch.Generator().manual_seed(seed))
    columns = votes.T.tolist()
    ratios = [1 - max(column.count(k) for k in range(classes)) / members for column in columns]
    assert variation_ratio(votes, classes).tolist() == pytest.approx(ratios, abs=1e-6)
    pairs = [(i, j) for i in range(members) for j in range(i)]
    shares = [sum(column[i] != column[j] for i, j in pairs) / max(len(pairs), 1) for column in columns]
    assert disagreement(votes).tolist() == pytest.approx(shares, abs=1e-6)


@given(SHAPES, SEEDS, st.sampled_from([0.01, 1.0, 10.0]))
def test_pairwise_kl_against_torch_pair_by_pair(shape, seed, spread):
    members, batch, _ = shape
    logits = draw_logits(shape, seed, spread)
    logs = logits.double().log_softmax(2)
    pairs = [(i, j) for i in range(members) for j in range(members) if i != j]
    total = sum(
        (torch.nn.functional.kl_div(logs[j], logs[i], log_target=True, reduction="none").sum(1) for i, j in pairs),
        start=torch.zeros(batch).double(),
    )
    expected = (total / max(len(pairs), 1)).tolist()
    assert pairwise_kl(logits).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert pairwise_kl(logits.double()).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(SHAPES, SEEDS)
def test_pairwise_kl_bounds_what_the_members_disagree_about(shape, seed):
    logits = draw_logits(shape, seed).double()
    members = len(logits)
    divergence, information = pairwise_kl(logits), predict_from_logits(logits).mutual_information
    # KL is convex in the mixture, of which one part in M is the member itself, at a distance of 0
    assert (information <= divergence * (members - 1) / members + 1e-9).all()
    torch.testing.assert_close(pairwise_kl(logits.flip(0)), divergence)
    torch.testing.assert_close(pairwise_kl(logits + 5), divergence)


def test_pairwise_kl_of_equal_members_and_of_one_is_zero():
    logits = draw_logits((1, 4, 6), 3, 20.0)
    assert pairwise_kl(logits).tolist() == [0] * 4
    assert pairwise_kl(logits.expand(3, -1, -1)).tolist() == pytest.approx([0] * 4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_pairwise_kl_of_impossible_classes_is_finite(dtype):
    logits = torch.tensor([[[0.0, -math.inf, -math.inf]], [[-math.inf, 0.0, -math.inf]]], dtype=dtype)
    assert pairwise_kl(logits).tolist() == pytest.approx([-math.log(torch.finfo(torch.float32).tiny)])
    logits[1] = logits[0]
    assert pairwise_kl(logits).tolist() == [0]
    logits[0, 0, 0] = math.nan
    assert pairwise_kl(logits).isnan().tolist() == [True]


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 3), (2, 3, 0)])
def test_pairwise_kl_refuses_logits_of_another_shape(shape):
    with pytest.raises(DataError, match=r"logits of shape \(.*members, batch, classes"):
        pairwise_kl(torch.zeros(shape))


def test_votes_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="votes from 0 to 3: with 3 classes they go from 0 to 2"):
        variation_ratio(torch.tensor([[0, 3]]), 3)
    with pytest.raises(DataError, match=r"votes of shape \(3,\)"):
        disagreement(torch.zeros(3, dtype=torch.int64))


def test_threshold_is_the_quartiles_rule():
    entropies = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    assert threshold_above(quartiles(entropies), 1.5) == pytest.approx(3 + 1.5 * (3 - 1))
    assert threshold_above(quartiles(entropies), 0) == pytest.approx(3)


def test_infinity_rejects_nothing():
    report = rejection_report(torch.tensor([1.0, 2.0]), torch.tensor([False, False]), math.inf)
    assert (report.rejected_share, report.accuracy_of_kept) == (0, 0)
    assert math.isnan(report.wrong_share_of_rejected)


def test_broken_entropies_are_refused():
    with pytest.raises(DataError, match="1 of 2 entropies are NaN or infinite"):
        quartiles(torch.tensor([0.1, math.nan]))
    with pytest.raises(DataError, match="1 of 2 entropies are NaN or infinite"):
        rejection_report(torch.tensor([0.1, math.inf]), torch.tensor([True, True]), 0.5)


def test_report_names_the_price_and_the_gain():
    entropies = torch.tensor([0.1, 0.2, 0.5, 0.7, 0.8, 0.9])
    correct = torch.tensor([True, True, False, True, False, False])
    report = rejection_report(entropies, correct, threshold=0.5)  # an entropy ON the threshold is kept
    assert report.rejected_share == pytest.approx(3 / 6)
    assert report.right_share_of_rejected == pytest.approx(1 / 3)
    assert report.wrong_share_of_rejected == pytest.approx(2 / 3)
    assert report.accuracy_of_kept == pytest.approx(2 / 3)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1), st.floats(-1, 4))
def test_report_adds_up_to_the_accuracy_of_all(examples, threshold):
    entropies = torch.tensor([e for e, _ in examples], dtype=torch.float64)
    correct = torch.tensor([right for _, right in examples])
    report = rejection_report(entropies, correct, threshold)
    share = report.rejected_share
    right = (share and share * report.right_share_of_rejected) + (share < 1 and (1 - share) * report.accuracy_of_kept)
    assert right == pytest.approx(correct.double().mean().item())
    if share:
        assert report.right_share_of_rejected + report.wrong_share_of_rejected == pytest.approx(1)


def test_report_refuses_what_does_not_belong_together():
    with pytest.raises(DataError, match=r"\(2,\) entropies and \(3,\) answers"):
        rejection_report(torch.zeros(2), torch.ones(3, dtype=torch.bool), 1.0)
    with pytest.raises(DataError, match="for one example at least"):
        rejection_report(torch.zeros(0), torch.ones(0, dtype=torch.bool), 1.0)
    with pytest.raises(DataError, match=r"correct is torch.int64: pass booleans"):
        rejection_report(torch.zeros(2), torch.tensor([1, 0]), 1.0)
    with pytest.raises(SettingsError, match="threshold nan"):
        rejection_report(torch.zeros(2), torch.ones(2, dtype=torch.bool), math.nan)


def test_how_to_combine_may_be_given_by_its_name():
    logits = torch.tensor([[[4.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    named, chosen = predict_from_logits(logits, "logits"), predict_from_logits(logits, Combine.LOGITS)
    assert torch.equal(named.probabilities, chosen.probabilities)
    with pytest.raises(SettingsError, match="unknown combine 'logit': did you mean 'logits'"):
        predict_from_logits(logits, "logit")
