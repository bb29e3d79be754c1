from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structured_ensembles.artefact.file import Record
from structured_ensembles.data.sources import as_float
from structured_ensembles.errors import DataError, SettingsError
from structured_ensembles.evaluation import attacks
from structured_ensembles.evaluation.attacks import fgsm, gradient, losses, pgd
from structured_ensembles.evaluation.metrics import nll
from structured_ensembles.networks import Normalised
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.ensemble import Ensemble
from structured_ensembles.prediction.uncertainty import predict_from_logits

SHAPE, CLASSES = (2, 4, 4), 3
ULP = 2**-23
COMBINES = pytest.mark.parametrize("combine", list(Combine))


def member(width: int) -> nn.Module:
    """All that could go wrong: batch statistics, dropout, a layer that works in place, a normalisation."""
    layers = (nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5))
    return Normalised(nn.Sequential(*layers, nn.Linear(4 * width, CLASSES)), (0.5, 0.4), (0.2, 0.3))


def record(members: int, combine: Combine = Combine.PROBABILITIES, shape=SHAPE, classes=CLASSES) -> Record:
    return Record("deep", members, tuple(map(str, range(classes))), shape, combine, None)


def make(*widths: int, combine: Combine = Combine.PROBABILITIES) -> Ensemble:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Ensemble([member(width) for width in widths], record(len(widths), combine)).eval()


def linear(*weights: list[list[float]], combine: Combine = Combine.PROBABILITIES) -> Ensemble:
    """Members of images with one row of pixels and no bias, by rows of weights of the classes."""
    members = []
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight.data = torch.tensor(weight)
        members.append(nn.Sequential(nn.Flatten(), layer))
    shape, classes = (1, 1, len(weights[0][0])), len(weights[0])
    return Ensemble(members, record(len(weights), combine, shape, classes))


def draw(count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator)
    return images, torch.randint(CLASSES, (count,), generator=generator)


ENSEMBLE = make(2, 5)
BOTH = pytest.mark.parametrize("attack", [fgsm, lambda *given: pgd(*given, seed=0)], ids=["fgsm", "pgd"])


@settings(max_examples=25)
@given(st.floats(0, 1), st.integers(0, 1000), st.booleans(), st.sampled_from([torch.uint8, torch.float32]))
def test_pixels_stay_in_range_and_within_epsilon(epsilon, seed, iterated, kind):
    images, labels = draw(5, seed)
    images[0] = 0
    images[1] = 1
    stored = (255 * images).byte() if kind == torch.uint8 else images
    pixels = as_float(stored).double()
    attack = partial(pgd, steps=3, seed=seed) if iterated else fgsm
    attacked = attack(ENSEMBLE, stored, labels, epsilon)
    assert attacked.dtype == torch.float32
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    assert float((attacked.double() - pixels).abs().max()) <= epsilon + ULP


@BOTH
def test_an_epsilon_of_zero_changes_nothing(attack):
    images, labels = draw(5)
    assert torch.equal(attack(ENSEMBLE, images, labels, 0.0), images)


@BOTH
def test_an_attack_raises_the_loss(attack):
    images, labels = draw(20)
    before, after = (
        nll(ENSEMBLE.predict(pixels).probabilities, labels)
        for pixels in (images, attack(ENSEMBLE, images, labels, 0.1))
    )
    assert after > before + 0.1


def test_more_steps_find_more():
    images, labels = draw(60)
    ensemble = make(6, 6, 6)
    once, often = fgsm(ensemble, images, labels, 0.3), pgd(ensemble, images, labels, 0.3, 30, seed=0)
    assert nll(ensemble.predict(often).probabilities, labels) > nll(ensemble.predict(once).probabilities, labels)


@BOTH
def test_nothing_of_the_ensemble_or_of_the_generators_changes(attack):
    ensemble = make(2, 3)
    ensemble.members[0].train()
    ensemble.members[1].requires_grad_(requires_grad=False)
    first = next(ensemble.parameters())
    first.grad = torch.full_like(first, 7.0)
    before = copy.deepcopy(ensemble)
    images, labels = draw(5)
    kept, state = images.clone(), torch.get_rng_state()
    attack(ensemble, images, labels, 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert not images.requires_grad
    for name, value in before.state_dict().items():
        assert torch.equal(ensemble.state_dict()[name], value), name
    for now, then in zip(ensemble.parameters(), before.parameters(), strict=True):
        assert now.requires_grad == then.requires_grad
    assert torch.equal(first.grad, torch.full_like(first, 7.0))
    assert all(now.grad is None for now in ensemble.parameters() if now is not first)
    assert [part.training for part in ensemble.modules()] == [part.training for part in before.modules()]


@BOTH
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_network_and_caller_do_not_matter(attack, mode):
    images, labels = draw(5)
    expected = attack(make(2, 3), images, labels, 0.1)
    ensemble = make(2, 3).train()
    with mode():
        inside, _ = draw(5)
        assert torch.equal(attack(ensemble, inside, labels, 0.1), expected)
    assert not expected.requires_grad


@COMBINES
def test_gradients_against_finite_differences(combine):
    ensemble = make(2, 5, combine=combine).double()
    images, labels = draw(2)
    images = images.double()
    found = gradient(ensemble, images, labels)
    step = 1e-6
    for index in range(0, found.numel(), 3):
        ends = []
        for sign in (1, -1):
            moved = images.clone()
            moved.view(-1)[index] += sign * step
            probabilities = predict_from_logits(ensemble.logits(moved), combine).probabilities
            ends.append(float(-probabilities.gather(1, labels[:, None]).log().sum()))
        assert found.reshape(-1)[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-8)


@COMBINES
@given(
    st.tuples(
        st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([1.0, 9.0])
    )
)
def test_losses_against_the_prediction(combine, case):
    members, examples, classes, seed, spread = case
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(members, examples, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (examples,), generator=generator)
    probabilities = predict_from_logits(logits, combine).probabilities
    expected = torch.stack([-row[label].log() for row, label in zip(probabilities, labels, strict=True)])
    torch.testing.assert_close(losses(logits, labels, combine), expected)


@COMBINES
def test_losses_are_as_precise_for_networks_of_half_precision(combine):
    logits = (5 * torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))).bfloat16()
    labels = torch.tensor([0, 1, 2, 3])
    assert torch.equal(losses(logits, labels, combine), losses(logits.double(), labels, combine))


@BOTH
def test_a_network_of_half_precision_is_attacked_with_whole_pixels(attack):
    images, labels = draw(20)
    ensemble = make(2, 3).bfloat16()
    attacked = attack(ensemble, images, labels, 0.1)
    assert attacked.dtype == torch.float32
    assert nll(ensemble.predict(attacked).probabilities, labels) > nll(ensemble.predict(images).probabilities, labels)


@COMBINES
@pytest.mark.parametrize("margin", [1.0, 20.0, 60.0])
def test_the_direction_is_right_however_sure_the_ensemble_is(combine, margin):
    # The pixel raises the label's logit by 3 and the other one's by 2: its weight is 3 - 2 > 0, it has to be lowered.
    ensemble = linear([[3.0, margin], [2.0, 0.0]], [[3.0, margin], [2.0, 0.0]], combine=combine)
    images = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    attacked = fgsm(ensemble, images, torch.tensor([0]), 0.1)
    torch.testing.assert_close(attacked.flatten(), torch.tensor([0.5 - 0.1, 1.0 - 0.1]))


@COMBINES
def test_the_direction_is_right_where_the_label_is_impossible(combine):
    ensemble = linear([[0.0, 200.0], [0.0, 0.0]], combine=combine)
    attacked = fgsm(ensemble, torch.tensor([0.5, 1.0]).view(1, 1, 1, 2), torch.tensor([1]), 0.1)
    torch.testing.assert_close(attacked.flatten(), torch.tensor([0.5, 1.0]))  # at its limit already
    back = fgsm(ensemble, torch.tensor([0.5, 0.8]).view(1, 1, 1, 2), torch.tensor([1]), 0.1)
    torch.testing.assert_close(back.flatten(), torch.tensor([0.5, 0.9]))


def test_the_two_ways_to_combine_are_attacked_in_their_own_direction():
    # At zero one member is sure and one unsure. The mixture listens to the sure one less: it has to be convinced
    # through the other; the mean of the logits listens to the larger weight.
    weights = [[2.0, 8.0], [0.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]]
    images = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    ways = {way: fgsm(linear(*weights, combine=way), images, torch.tensor([0]), 0.1).flatten()[0] for way in Combine}
    assert ways[Combine.LOGITS] == pytest.approx(0.5 - 0.1)  # (2 - 1) / 2 > 0 is the weight of its logit
    assert ways[Combine.PROBABILITIES] == pytest.approx(0.5 + 0.1)  # 2 p(1 - p) of the sure one is below 1 q(1 - q)


def test_pgd_of_a_linear_network_ends_in_the_best_corner():
    ensemble = linear([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    images = torch.tensor([0.5, 0.5, 0.05, 0.5]).view(1, 1, 1, 4)
    attacked = pgd(ensemble, images, torch.tensor([0]), 0.1, seed=3).flatten()
    torch.testing.assert_close(attacked[:3], torch.tensor([0.5 - 0.1, 0.5 + 0.1, 0.0]))
    assert 0.4 < float(attacked[3]) < 0.6  # no gradient: it stays where it started
    assert attacked[3] != 0.5


def test_one_class_leaves_nothing_to_attack():
    images = torch.full((2, 1, 1, 2), 0.5)
    assert torch.equal(fgsm(linear([[1.0, 2.0]]), images, torch.zeros(2).long(), 0.1), images)


@BOTH
def test_batches_do_not_matter(attack, monkeypatch):
    images, labels = draw(7)
    whole = attack(ENSEMBLE, images, labels, 0.1)
    monkeypatch.setattr(attacks, "_BATCH", 3)
    torch.testing.assert_close(attack(ENSEMBLE, images, labels, 0.1), whole, rtol=0, atol=1e-6)


def test_the_seed_decides_the_start():
    images, labels = draw(5)
    first, again, other = (pgd(ENSEMBLE, images, labels, 0.1, 1, 0.01, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_step_is_as_long_as_asked():
    images, labels = draw(5)
    start = pgd(ENSEMBLE, images, labels, 0.3, 1, 1e-9, seed=0)
    for size in (0.01, 0.05):
        moved = (pgd(ENSEMBLE, images, labels, 0.3, 1, size, seed=0) - start).abs()
        assert float(moved.max()) == pytest.approx(size, abs=1e-6)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan, math.inf])
@BOTH
def test_an_impossible_epsilon_is_refused(attack, epsilon):
    with pytest.raises(SettingsError, match=rf"epsilon {epsilon}: .* pass 0 to 1, such as 0.02"):
        attack(ENSEMBLE, *draw(2), epsilon)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps 0: pass 1 or more; 10 is usual"),
        ({"step_size": 0.0}, "step_size 0.0: pass a number above 0, or None for 2.5 epsilon / steps"),
        ({"step_size": math.nan}, "step_size nan: pass a number above 0"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        pgd(ENSEMBLE, *draw(2), 0.1, **{"seed": 0, **arguments})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, *SHAPE).long(), r"images are torch.int64: pass uint8, or float32 or float64 in \[0, 1\]"),
        (torch.zeros(2, *SHAPE).half(), "images are torch.float16: pass"),
        (torch.zeros(2, *SHAPE) - 0.5, r"pixels from -0.5 to -0.5: pass them in \[0, 1\]"),
        (torch.full((2, *SHAPE), 255.0), "pixels from 255 to 255: .* normalises by itself"),
        (torch.full((2, *SHAPE), math.nan), "pixels from nan to nan"),
        (torch.zeros(2, 3, 4, 4), r"images of shape \(2, 3, 4, 4\): pass \(N, 2, 4, 4\), which the ensemble takes"),
        (torch.zeros(0, *SHAPE), r"images of shape \(0, 2, 4, 4\): .* one image at least"),
    ],
)
@BOTH
def test_images_that_cannot_be_attacked(attack, images, message):
    with pytest.raises(DataError, match=message):
        attack(ENSEMBLE, images, torch.zeros(len(images)).long(), 0.1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), "the list of labels holds the label 3 at index 1: the 3 training classes are 0 to 2"),
        (torch.tensor([-1, 0]), "holds the label -1 at index 0"),
        (torch.tensor([0.0, 1.0]), "labels are torch.float32: pass class indices of an integer type"),
        (torch.tensor([0]), r"2 images and labels of shape \(1,\): pass one label per image"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(DataError, match=message):
        fgsm(ENSEMBLE, draw(2)[0], labels, 0.1)


def test_a_broken_ensemble_is_named():
    ensemble = make(2, 3)
    next(ensemble.parameters()).data[:] = math.nan
    with pytest.raises(DataError, match="the gradients of 2 of 2 images are NaN: train the ensemble again"):
        fgsm(ensemble, *draw(2), 0.1)
