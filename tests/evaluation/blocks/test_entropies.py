from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.blocks.entropies import entropies, entropy_counts, entropy_edges
from structured_ensembles.options.choices import Combine

if TYPE_CHECKING:
    from types import ModuleType

CASES = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 7), st.integers(0, 10**6))
MEANS = ("predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio", "disagreement")


@pytest.fixture(scope="module")
def library() -> ModuleType:
    """An independent judge, where it is installed."""
    return pytest.importorskip("torch_uncertainty.metrics.classification", exc_type=ImportError)


def draw(case: tuple[int, int, int, int]) -> Answers:
    members, examples, classes, seed = case
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (examples,), generator=generator)
    return Answers(3 * torch.randn(members, examples, classes, generator=generator), labels, Combine.PROBABILITIES)


def slow_entropy(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@given(CASES)
def test_means_against_slow_loops(case):
    answers = draw(case)
    members, examples, classes, _ = case
    own = answers.logits.double().softmax(2).tolist()
    pairs = list(itertools.permutations(range(members), 2))
    mixed = [[mean([own[m][n][k] for m in range(members)]) for k in range(classes)] for n in range(examples)]
    predictive = [slow_entropy(row) for row in mixed]
    expected = [mean([slow_entropy(own[m][n]) for m in range(members)]) for n in range(examples)]
    votes = [[row.index(max(row)) for row in member] for member in own]
    different = [mean([votes[i][n] != votes[j][n] for i, j in pairs] or [0]) for n in range(examples)]
    popular = [max(column.count(k) for k in range(classes)) for column in map(list, zip(*votes, strict=True))]
    divergence = [
        mean([sum(p * math.log(p / q) for p, q in zip(own[i][n], own[j][n], strict=True)) for i, j in pairs] or [0])
        for n in range(examples)
    ]
    right = [row.index(max(row)) == label for row, label in zip(mixed, answers.labels.tolist(), strict=True)]
    found = entropies(answers)
    assert found.predictive_entropy == pytest.approx(mean(predictive), abs=1e-5)
    assert found.expected_entropy == pytest.approx(mean(expected), abs=1e-5)
    assert found.mutual_information == pytest.approx(mean(predictive) - mean(expected), abs=1e-5)
    assert found.variation_ratio == pytest.approx(mean([1 - top / members for top in popular]), abs=1e-6)
    assert found.disagreement == pytest.approx(mean(different), abs=1e-6)
    assert found.pairwise_kl == pytest.approx(mean(divergence), rel=1e-4, abs=1e-5)
    of_right = [value for value, good in zip(predictive, right, strict=True) if good]
    of_wrong = [value for value, good in zip(predictive, right, strict=True) if not good]
    assert found.entropy_right == pytest.approx(mean(of_right), nan_ok=True, abs=1e-5)
    assert found.entropy_wrong == pytest.approx(mean(of_wrong), nan_ok=True, abs=1e-5)


@given(CASES.filter(lambda case: case[0] > 1))
def test_means_against_torch_uncertainty(library, case):
    answers = draw(case)
    found = entropies(answers)
    examples_first = answers.logits.softmax(2).transpose(0, 1)
    assert found.predictive_entropy == pytest.approx(library.Entropy()(examples_first.mean(1)).item(), abs=1e-5)
    # of (example, member, class) its entropy is the members' mean, which is here the expected one
    assert found.expected_entropy == pytest.approx(library.Entropy()(examples_first).item(), abs=1e-5)
    assert found.mutual_information == pytest.approx(library.MutualInformation()(examples_first).item(), abs=1e-5)
    assert found.disagreement == pytest.approx(library.Disagreement()(examples_first).item(), abs=1e-5)


@given(CASES)
def test_the_histogram_against_numpy(case):
    answers = draw(case)
    _, examples, classes, _ = case
    histogram = entropies(answers).histogram
    assert len(histogram["edges"]) == 21
    assert (histogram["edges"][0], histogram["edges"][-1]) == pytest.approx((0, math.log(max(classes, 2))))
    assert sum(histogram["right"]) == int(answers.correct.sum())
    assert sum(histogram["wrong"]) == examples - int(answers.correct.sum())
    inside = answers.prediction.predictive_entropy.double().clamp(0, histogram["edges"][-1])
    for counts, those in ((histogram["right"], answers.correct), (histogram["wrong"], ~answers.correct)):
        assert list(counts) == np.histogram(inside[those], histogram["edges"])[0].tolist()


def test_rounding_outside_the_edges_is_counted():
    edges = entropy_edges(10)
    values = torch.tensor([-1e-7, 0.0, edges[1], edges[20], edges[20] + 1e-6], dtype=torch.float64)
    assert entropy_counts(values, edges) == (2, 1, *[0] * 17, 2)
    assert entropy_counts(values[:0], edges) == (0,) * 20
    assert sum(entropy_counts(torch.full((7,), 0.1).softmax(0).log().neg(), entropy_edges(7))) == 7


def test_one_class_has_no_doubt_and_its_histogram_some_width():
    found = entropies(draw((3, 4, 1, 0)))
    assert [getattr(found, name) for name in (*MEANS, "pairwise_kl", "entropy_right")] == pytest.approx([0] * 7)
    assert math.isnan(found.entropy_wrong)
    assert found.histogram["edges"][-1] == pytest.approx(math.log(2))
    assert found.histogram["right"] == (4, *[0] * 19)


def test_everything_is_a_plain_number():
    found = dataclasses.asdict(entropies(draw((3, 20, 5, 0))))
    assert set(found) == {*MEANS, "pairwise_kl", "entropy_right", "entropy_wrong", "histogram"}
    assert set(found["histogram"]) == {"edges", "right", "wrong"}
    numbers = itertools.chain([v for k, v in found.items() if k != "histogram"], *found["histogram"].values())
    assert all(type(number) in (float, int) for number in numbers)


def test_answers_that_cannot_be_measured_are_refused():
    answers = draw((2, 4, 3, 0))
    with pytest.raises(DataError, match="these images have no labels"):
        entropies(Answers(answers.logits, None, answers.combine))
    with pytest.raises(DataError, match=r"probabilities \(4, 3\) and labels \(3,\)"):
        entropies(Answers(answers.logits, answers.labels[:3], answers.combine))
    with pytest.raises(DataError, match="neither of them empty"):
        entropies(draw((2, 0, 3, 0)))
    broken: Tensor = answers.logits.clone()
    broken[0, 1, 2] = math.nan
    with pytest.raises(DataError, match="probabilities of 1 of 4 examples are NaN"):
        entropies(Answers(broken, answers.labels, answers.combine))
