from __future__ import annotations

import math

import pytest
import torch

from structured_ensembles.errors import SettingsError
from structured_ensembles.options.catalogue import TERMS
from structured_ensembles.options.search import check_weights
from structured_ensembles.scores.diversity import Observation, needs_logits, penalty, register

SCORES = {"layer": torch.tensor([[1.0, 2.0], [3.0, -1.0]])}
SEEN = Observation(SCORES)


@pytest.fixture(autouse=True)
def scratch(forget):
    """What a test registers is forgotten after it."""
    forget(TERMS)


def test_built_in_terms_are_there():
    assert sorted(TERMS) == ["cosine", "kl", "mmd", "mmd_global", "mmd_median", "mmd_textbook", "output", "overlap"]
    assert [name for name in TERMS if TERMS[name].needs_logits] == ["output"]


def test_a_user_adds_a_term_and_weighs_it():
    @register("first")
    def first(observation):
        return observation.scores["layer"][0, 0]

    @register("second")
    def second(observation):
        return observation.scores["layer"][0, 1]

    assert TERMS["first"] is first
    assert penalty({"first": 10, "second": 0.5}, SEEN) == 10 * 1 + 0.5 * 2


def test_a_name_is_given_once():
    with pytest.raises(SettingsError, match="'cosine' is registered already: choose another name"):
        register("cosine")(lambda _: torch.zeros(()))


def test_unknown_term_proposes_the_nearest():
    with pytest.raises(SettingsError, match="unknown diversity term 'cosin': did you mean 'cosine'"):
        penalty({"cosin": 0.0}, SEEN)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("use", [check_weights, needs_logits, lambda weights: penalty(weights, SEEN)])
def test_a_weight_that_is_no_finite_number_is_refused(weight, use):
    with pytest.raises(SettingsError, match=f"weight of diversity term 'overlap' is {weight}, expected a finite"):
        use({"cosine": 1.0, "overlap": weight})


def test_a_term_of_weight_zero_is_not_computed():
    @register("broken", needs_logits=True)
    def broken(observation):
        raise AssertionError("computed")

    assert penalty({"broken": 0.0, "cosine": 1.0}, SEEN) == TERMS["cosine"](SEEN)
    assert not needs_logits({"broken": 0.0, "cosine": 1.0})
    assert needs_logits({"broken": 0.1})


def test_no_weights_no_penalty():
    scores = {"layer": torch.ones(2, 3, requires_grad=True)}
    value = penalty({}, Observation(scores))
    value.backward()
    assert value == 0
    assert scores["layer"].grad.tolist() == torch.zeros(2, 3).tolist()


@pytest.mark.parametrize("name", [*TERMS, "all"])
def test_one_member_is_never_penalised(name):
    scores = {"a": torch.ones(1, 3, requires_grad=True), "b": torch.ones(1, 5, requires_grad=True)}
    weights = dict.fromkeys(TERMS if name == "all" else [name], 1.0)
    value = penalty(weights, Observation(scores))
    value.backward()
    assert value == 0
    assert all(not group.grad.any() for group in scores.values())


def test_logits_are_asked_for():
    with pytest.raises(SettingsError, match="'output' compares predictions: the observation has no logits"):
        penalty({"output": 1.0}, SEEN)


def test_a_term_returns_a_scalar():
    register("vector")(lambda observation: observation.scores["layer"][0])
    with pytest.raises(SettingsError, match=r"'vector' returned shape \(2,\), expected a scalar"):
        TERMS["vector"](SEEN)


@pytest.mark.parametrize(
    "scores",
    [
        {"a": torch.zeros(2, 3), "b": torch.zeros(3, 3)},
        {"a": torch.zeros(3)},
        {"a": torch.tensor(0.0)},
        {"a": torch.zeros(2, 0)},
    ],
)
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(SettingsError, match=r"expected \(M, C\) with the same M in every group"):
        Observation(scores)


def test_nothing_to_compare_is_refused():
    with pytest.raises(SettingsError, match="needs at least one"):
        Observation({})


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 5)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(SettingsError, match=r"expected \(2, B, K\)"):
        Observation(SCORES, logits=torch.zeros(shape))
