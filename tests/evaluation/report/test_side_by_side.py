from __future__ import annotations

import copy

from structured_ensembles.evaluation.report import side_by_side, words


def found(predictors):
    return {line.name: line.cells for line in side_by_side.lines(predictors)}


def test_the_best_is_marked_whichever_way_is_better(evaluation):
    ours = evaluation["predictors"][0]
    other = copy.deepcopy(ours)
    other["calibration"]["uncalibrated"] |= {"accuracy": 0.5, "nll": 0.01}
    lines = found([ours, other])
    assert [best for _, best in lines["accuracy"]] == [True, False]
    assert [best for _, best in lines["NLL"]] == [False, True]


def test_nothing_is_best_where_all_look_alike(evaluation):
    ours = evaluation["predictors"][0]
    assert not any(best for cells in found([ours, copy.deepcopy(ours)]).values() for _, best in cells)


def test_what_nobody_has_is_left_out_and_what_one_lacks_is_missing(evaluation):
    ours = evaluation["predictors"][0]
    bare = copy.deepcopy(ours) | dict.fromkeys(words.BLOCKS)
    lines = found([ours, bare])
    assert {cells[1][0] for name, cells in lines.items() if name != "bytes on disk"} == {words.MISSING}
    assert lines["bytes on disk"][1][0] == words.size(bare["bytes"])
    assert list(found([bare, bare])) == ["bytes on disk"]


def test_every_unfamiliar_set_has_a_line_of_its_own(evaluation):
    ours = evaluation["predictors"][0]
    other = copy.deepcopy(ours)
    other["out_of_distribution"] = [other["out_of_distribution"][0] | {"name": "constant"}]
    lines = found([ours, other])
    assert [name for name in lines if name.startswith("AUROC")] == [
        "AUROC, uniform noise",
        "AUROC, SVHN",
        "AUROC, constant",
    ]
    assert lines["AUROC, constant"][0][0] == words.MISSING


def test_attacks_are_compared_at_the_same_strength(evaluation):
    ours = evaluation["predictors"][0]
    other = copy.deepcopy(ours)
    other["adversarial"]["fgsm"] = [row for row in other["adversarial"]["fgsm"] if row["epsilon"] != 0.02]
    assert found([ours, other])["accuracy, FGSM 0.02"][1][0] == words.MISSING
