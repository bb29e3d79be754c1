from __future__ import annotations

import json
from dataclasses import replace

import torch

from structured_ensembles.evaluation import cost
from structured_ensembles.evaluation.answers import Answers
from structured_ensembles.evaluation.entry import evaluated, plain, row, unfitted
from structured_ensembles.evaluation.metrics import measure
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.sizes import Cost, buffers

COST = Cost(parameters=274_442, buffers=1_400, bytes=1_120_000, flops=82_000_000)


def test_a_cost_in_a_file_is_plain_and_unrounded():
    counted = {"parameters": 274_442, "buffers": 1_400, "bytes_on_disk": 1_120_000, "flops": 82_000_000}
    assert list(cost.as_json(COST, 65.5).items()) == [*counted.items(), ("seconds", 65.5)]
    assert cost.as_json(COST)["seconds"] is None
    assert cost.from_json(json.loads(json.dumps(cost.as_json(COST, 65.5)))) == COST


def test_an_entry_survives_json_and_becomes_a_row():
    ensemble = cost.untrained(NetworkSpec("mlp", (1, 8, 8), 3), ("a", "b", "c"), 2)
    logits = ensemble.logits(torch.rand(5, 1, 8, 8))
    prediction = Answers(logits, None, ensemble.record.combine).prediction
    right = prediction.classes
    answers = Answers(logits, right, ensemble.record.combine)
    entry = json.loads(json.dumps(evaluated(ensemble, answers, seconds=65.5), allow_nan=False))

    assert entry["metrics"] == plain(measure(prediction.probabilities, right))
    assert entry["metrics"]["entropy_wrong"] is None
    found = row(entry)
    assert (found.name, found.cost, found.seconds) == ("deep ensemble x 2", ensemble.size(), 65.5)
    assert found.cost.buffers == buffers(ensemble.members)
    assert repr(replace(found.metrics)) == repr(measure(prediction.probabilities, right))


def test_a_network_that_was_only_sized_has_no_metrics():
    assert unfitted(COST).metrics is unfitted(COST).seconds is None
