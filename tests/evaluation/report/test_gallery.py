from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from structured_ensembles.errors import DataError
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.report import gallery
from structured_ensembles.evaluation.report.gallery import LARGEST, SAMPLE
from structured_ensembles.options.choices import Combine


def pixels(shown):
    head, _, text = shown.picture.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def few(count=3, classes=3, members=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, count, classes, generator=generator)
    return Answers(logits, torch.randint(classes, (count,), generator=generator), Combine.PROBABILITIES)


def test_the_images_are_those_that_a_slow_sort_finds(pictures, answers):
    prediction = answers.prediction
    entropies, sure = prediction.predictive_entropy.tolist(), prediction.probabilities.amax(dim=1).tolist()
    wrong = [i for i in range(len(sure)) if int(prediction.classes[i]) != int(answers.labels[i])]
    assert [one.index for one in pictures.uncertain] == sorted(range(1000), key=lambda i: -entropies[i])[:12]
    assert [one.index for one in pictures.confidently_wrong] == sorted(wrong, key=lambda i: -sure[i])[:12]


def test_every_member_says_what_it_thinks(pictures, answers):
    for shown in (*pictures.uncertain, *pictures.confidently_wrong):
        for member, vote in enumerate(shown.votes):
            own = answers.logits[member, shown.index].softmax(0)
            assert vote.answer == int(own.argmax())
            assert vote.confidence == pytest.approx(float(own.max()))
        assert shown.label == int(answers.labels[shown.index])
        assert shown.answer == int(answers.prediction.classes[shown.index])


def test_a_picture_is_the_image_itself(pictures, images):
    shown = pictures.uncertain[0]
    assert shown.pixelated
    assert np.array_equal(pixels(shown), images[shown.index, 0].numpy())


@pytest.mark.parametrize(("channels", "shape"), [(1, (9, 7)), (2, (9, 7)), (3, (9, 7, 3)), (4, (9, 7, 3))])
def test_any_number_of_channels_becomes_a_picture(channels, shape):
    images = torch.rand(3, channels, 9, 7, generator=torch.Generator().manual_seed(0))
    shown = gallery(images, few()).uncertain[0]
    rows = (images[shown.index] * 255).round().to(torch.uint8)
    expected = rows[:3].permute(1, 2, 0) if channels > 2 else rows[0]
    assert pixels(shown).shape == shape
    assert np.array_equal(pixels(shown), expected.numpy())


def test_large_images_are_made_smaller():
    shown = gallery(torch.zeros(3, 3, 200, 400, dtype=torch.uint8), few()).uncertain[0]
    assert pixels(shown).shape == (LARGEST // 2, LARGEST, 3)
    assert not shown.pixelated


def test_doubts_are_all_there_and_in_order(pictures, answers):
    entropies = answers.prediction.predictive_entropy
    assert pictures.images == len(pictures.entropies) == len(pictures.right) == 1000
    assert torch.tensor(pictures.entropies).diff().min() >= 0
    assert torch.allclose(torch.tensor(pictures.entropies), entropies.sort().values, rtol=1e-3)
    for position, index in enumerate(entropies.argsort(stable=True).tolist()):
        assert (pictures.right[position] == "1") == bool(answers.correct[index])


def test_of_too_many_images_some_are_taken_evenly():
    count = SAMPLE + 2345
    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8).expand(count, 1, 2, 2)
    some = few(count)
    found = gallery(images, some, shown=1)
    assert found.images == count
    assert len(found.entropies) == len(found.right) == SAMPLE
    assert found.right.count("1") / SAMPLE == pytest.approx(float(some.correct.double().mean()), abs=0.01)
    ends = some.prediction.predictive_entropy.aminmax()
    assert found.entropies[0] == pytest.approx(float(ends.min), rel=1e-3)
    assert found.entropies[-1] == pytest.approx(float(ends.max), rel=1e-3)


def test_a_perfect_ensemble_has_no_wrong_image():
    labels = torch.tensor([0, 1, 2])
    logits = 9.0 * torch.nn.functional.one_hot(labels, 3).expand(2, 3, 3)
    assert gallery(torch.zeros(3, 1, 4, 4), Answers(logits, labels, Combine.PROBABILITIES)).confidently_wrong == ()


def test_images_that_do_not_fit_the_answers_are_refused():
    with pytest.raises(DataError, match=r"images \(2, 1, 4, 4\) and 3 answers"):
        gallery(torch.zeros(2, 1, 4, 4), few())
    with pytest.raises(DataError, match=r"images \(3, 4, 4\)"):
        gallery(torch.zeros(3, 4, 4), few())
    with pytest.raises(DataError, match="no labels"):
        gallery(torch.zeros(3, 1, 4, 4), Answers(few().logits, None, Combine.PROBABILITIES))
