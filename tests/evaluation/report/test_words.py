from __future__ import annotations

import pytest

from structured_ensembles.evaluation.report import words


@pytest.mark.parametrize(
    ("risk", "expected"),
    [
        (0.012, "12 are"),
        (0.001, "1 is"),
        (0.0014, "1 is"),
        (0.0004, "fewer than 1 is"),
        (0.0, "none is"),
        (1.0, "1000 are"),
    ],
)
def test_wrong_answers_are_counted_with_their_verb(risk, expected):
    assert words.wrong(risk) == expected


@pytest.mark.parametrize(
    ("ours", "other", "expected"),
    [(100, 100.2, "as much as"), (26, 100, "74 %"), (105, 100, "5 %"), (320, 100, "3.2 times as much as")],
)
def test_sizes_are_compared_in_words(ours, other, expected):
    assert words.times(ours, other).replace("\N{NO-BREAK SPACE}", " ").startswith(expected)


def test_the_first_sentence_says_how_many_of_1000_answers_are_wrong(evaluation):
    one = evaluation["predictors"][0]
    one["calibration"]["uncalibrated"]["accuracy"] = 0.988
    one["selective"]["curve"] = {"coverage": [0.5, 0.94, 0.95, 1.0], "risk": [0.0, 0.002, 0.004, 0.012]}
    assert plain(words.summary(one)[0]) == (
        "Of 1,000 answers it gives, 12 are wrong; if it may decline the 5 % that it doubts most, 4 are."
    )


def test_no_risk_is_made_up_where_the_curve_has_no_point_near(evaluation):
    one = evaluation["predictors"][0]
    one["selective"]["curve"] = {"coverage": [0.5, 1.0], "risk": [0.0, 0.1]}
    assert words.risk_after(one) is None
    assert "decline" not in words.summary(one)[0]


@pytest.mark.parametrize(
    ("ece", "accuracy", "expected"),
    [
        (0.01, 0.9, "Its confidence can be taken at its word: on average it claims 91.0 %, and is right in 90.0 %"),
        (0.04, 0.87, "Its confidence is a little too high: "),
        (0.2, 0.7, "Its confidence is too high to be taken at its word: "),
        (0.06, 0.97, "Its confidence is too low to be taken at its word: "),
    ],
)
def test_a_sentence_says_whether_confidence_can_be_trusted(evaluation, ece, accuracy, expected):
    one = evaluation["predictors"][0]
    one["calibration"]["uncalibrated"] |= {"ece": ece, "accuracy": accuracy}
    one["calibration"]["reliability"] = {"confidence": [None, 0.91], "accuracy": [None, accuracy], "count": [0, 10]}
    assert plain(words.summary(one)[1]).startswith(expected)


def test_confidence_is_the_mean_over_answers_not_over_bins():
    curve = {"confidence": [None, 0.5, 1.0], "accuracy": [None, 0.5, 1.0], "count": [0, 1, 3]}
    assert words.confidence(curve) == pytest.approx((1 * 0.5 + 3 * 1.0) / 4)


def test_unfamiliar_images_are_told_from_the_worst_set_to_the_best(evaluation):
    one = evaluation["predictors"][0]
    one["out_of_distribution"][0]["scores"]["entropy"]["auroc"] = 0.99
    one["out_of_distribution"][1]["scores"]["entropy"]["auroc"] = 0.91
    assert "in 91 (SVHN) to 99 (uniform noise) of 100 comparisons" in words.summary(one)[2]


def test_size_is_said_beside_one_network_and_a_deep_ensemble(evaluation):
    sentence = plain(words.summary(evaluation["predictors"][0])[3])
    assert sentence == (
        "It takes 1.13 MB on disk: 5 % more than one dense network (1.08 MB), and 74 % less than a deep ensemble of 4 "
        "(4.32 MB)."
    )


def test_one_member_is_compared_with_no_ensemble_and_no_other_member(evaluation):
    one = evaluation["predictors"][0] | {"members": 1}
    assert "deep ensemble" not in words.summary(one)[3]
    assert words.costs(one)["deep"] is None
    assert "structure" not in words.present(one)


def test_the_interval_is_wilsons():
    # of 10 of 10: from n / (n + z^2) to 1; half of 100: 0.5 +- z / (2 sqrt(n + z^2))
    assert words.interval(1.0, 10).startswith(f"{100 * 10 / (10 + 1.96**2):.1f} to 100.0")
    spread = 1.96 / (2 * (100 + 1.96**2) ** 0.5)
    assert plain(words.interval(0.5, 100)) == f"{100 * (0.5 - spread):.1f} to {100 * (0.5 + spread):.1f} %"


def test_what_is_absent_is_left_out_of_the_summary(evaluation):
    one = evaluation["predictors"][0] | dict.fromkeys(words.BLOCKS)
    assert [plain(sentence) for sentence in words.summary(one)] == ["Its file takes 1.13 MB."]


def test_absent_is_not_failed(evaluation):
    one = evaluation["predictors"][0]
    one |= {"corruptions": None, "adversarial": None, "out_of_distribution": []}
    one["failures"] = {"adversarial": "epsilon -1", "out_of_distribution: x.npz": "corrupt"}
    assert words.not_measured(one) == ["damaged images"]
    assert words.failures(one) == [
        ("images made to deceive it", "epsilon -1"),
        ("unfamiliar images (x.npz)", "corrupt"),
    ]


def test_overlaps_are_averaged_over_layers_and_over_pairs():
    layers = [{"overlap": [[1.0, 0.2], [0.2, 1.0]]}, {"overlap": [[1.0, 0.6], [0.6, 1.0]]}]
    assert words.mean_overlap(layers) == [[1.0, pytest.approx(0.4)], [pytest.approx(0.4), 1.0]]
    assert words.of_pairs([[1.0, 0.2, 0.3], [0.2, 1.0, 0.7], [0.3, 0.7, 1.0]]) == pytest.approx((0.2 + 0.3 + 0.7) / 3)
    assert words.of_pairs([[1.0]]) is None


def test_every_form_says_where_there_is_no_number():
    forms = (words.percent, words.points, words.number, words.whole, words.size, words.short, words.milliseconds)
    assert {form(None) for form in forms} == {words.MISSING}


def plain(sentence):
    return sentence.replace("\N{NO-BREAK SPACE}", " ")
